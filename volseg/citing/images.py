"""Sentences about preprocessing and augmentation."""

from __future__ import annotations

from volseg.citing.words import axes_words, named, percent, sizes
from volseg.config import (
    STORED,
    AugmentationConfig,
    Config,
    CtNormalization,
    MinMax,
    Normalization,
    Percentiles,
    PreprocessingConfig,
    Standardized,
    Successive,
    Unchanged,
    Window,
    ZScore,
    axis_number,
)
from volseg.text import listed


def preparation_words(config: Config) -> str:
    """Return sentences on the preprocessing of images."""
    rules = config.preprocessing
    cropped = ["Images were cropped to the bounding box of their nonzero voxels."] if rules.crop == "nonzero" else []
    grid = [] if config.data.unit == "px" else [_grid(rules)]
    intensities = [_intensities(config.data.channels, rules)]
    steps = [*grid, *intensities] if rules.normalize == "after_resampling" else [*intensities, *grid]
    return " ".join([*cropped, *steps])


def _grid(rules: PreprocessingConfig) -> str:
    if rules.spacing_mm == (None, None, None):
        return "Volumes were not resampled."
    stored = " (axes as stored)" if rules.axes == STORED else f" ({' x '.join(rules.axes)})"
    spacing = " x ".join("native" if size is None else f"{size:g}" for size in rules.spacing_mm)
    how = "linear interpolation" if rules.interpolation == "linear" else "cubic spline interpolation"
    coarse = (
        ", with nearest-neighbour interpolation along axes of coarse resolution"
        if rules.coarse_axis == "nearest"
        else ""
    )
    return f"Volumes were resampled to {spacing} mm{stored} by {how}{coarse}."


def _intensities(channels: tuple[str, ...], rules: PreprocessingConfig) -> str:
    ways = [normalization_words(each) for each in rules.normalization]
    if len(set(ways)) == 1:
        return f"Intensities were {ways[0]}."
    return (
        "Intensities were processed per channel: "
        f"{'; '.join(f'{named(name)} was {way}' for name, way in zip(channels, ways, strict=True))}."
    )


def normalization_words(normalization: Normalization) -> str:  # noqa: PLR0911  one for each
    """Return a participle phrase on the normalisation of intensities."""
    match normalization:
        case ZScore(nonzero=nonzero):
            over = "its nonzero voxels" if nonzero else "all its voxels"
            return f"normalised to zero mean and unit variance in each image, computed over {over}"
        case CtNormalization(low=low, high=high, mean=mean, std=std):
            return f"clipped to {low:g} to {high:g} and standardised with mean {mean:g} and standard deviation {std:g}"
        case Window(low=low, high=high):
            return f"clipped to {low:g} to {high:g} and rescaled to 0 to 1"
        case Percentiles(low=low, high=high):
            return f"clipped to percentiles {low:g} and {high:g} of each image and rescaled to 0 to 1"
        case MinMax(low=low, high=high):
            return f"rescaled to {low:g} to {high:g} in each image"
        case Standardized(mean=mean, std=std):
            return f"standardised with mean {mean:g} and standard deviation {std:g}"
        case Unchanged():
            return "left unchanged"
        case Successive(steps=steps):
            return ", then ".join(normalization_words(step) for step in steps)


def augmentation_words(config: Config) -> str:
    """Return a sentence on the random changes of patches, with their probabilities and ranges."""
    changes = config.augmentation
    flat = config.patches.planes or config.patches.size[0] == 1
    mirrored = _mirrored(config, flat=flat)
    found = [
        ("affine transforms", changes.affine_probability, _moves(changes, flat=flat)),
        ("elastic deformation", changes.elastic_probability, ""),
        ("mirroring", changes.flip_probability if mirrored else 0.0, mirrored),
        ("Gaussian noise", changes.noise_probability, ""),
        ("Gaussian blur", changes.blur_probability, ""),
        ("brightness changes", changes.brightness_probability, f"by up to {percent(changes.brightness)}"),
        ("contrast changes", changes.contrast_probability, f"by up to {percent(changes.contrast)}"),
        ("gamma correction", changes.gamma_probability, f"exponent {changes.gamma[0]:g} to {changes.gamma[1]:g}"),
        ("simulated bias fields", changes.bias_field_probability, ""),
        ("simulated low resolution", changes.low_resolution_probability, ""),
    ]
    done = [
        f"{name} ({probability:g}{f'; {limits}' if limits else ''})"
        for name, probability, limits in found
        if probability
    ]
    if not done:
        return "Patches were not augmented."
    return f"Patches were randomly augmented (probabilities in parentheses) with {listed(done)}."


def _moves(changes: AugmentationConfig, *, flat: bool) -> str:
    turns = changes.rotation_degrees[:1] if flat else changes.rotation_degrees
    angle = f"{turns[0]:g}" if len(set(turns)) == 1 else sizes(turns)
    parts = [
        *((f"rotation by up to {angle}°",) if any(turns) else ()),
        *((f"scaling by up to {percent(changes.scaling)}",) if changes.scaling else ()),
        *((f"shear by up to {changes.shear:g}",) if changes.shear else ()),
        *(
            (f"translation by up to {percent(changes.translation_fraction)} of the patch size",)
            if changes.translation_fraction
            else ()
        ),
    ]
    return ", ".join(parts)


def _mirrored(config: Config, *, flat: bool) -> str:
    axes = [axis for axis in config.augmentation.flip_axes if axis_number(axis, config.preprocessing.axes) >= flat]
    if not axes:
        return ""
    swapped = ", with left and right labels swapped" if config.augmentation.swap_labels else ""
    return f"{axes_words(axes, flat=flat)}{swapped}"
