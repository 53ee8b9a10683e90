"""Domain check: compare an image with the data a model was trained on, by modality, values and voxel size.

Only clear deviations count. MR values have no unit, so their scale is not compared; CT values are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from volseg.config import MIXED, UNKNOWN, Config, IntensityRange
from volseg.config.section import AXES
from volseg.image.geometry import Unit
from volseg.image.intensities import DARK_HU, Intensities
from volseg.image.volume import Volume

#: Images coarser than the coarsest training case by this factor hide what the network looks for; finer images are
#: resampled to what it knows, until they show something else altogether (or state the wrong unit).
_COARSER, _FINER = 6.0, 20.0
#: Values of CT differ by less than this from one scanner and contrast phase to the next.
_CALIBRATION_HU = 200.0


@dataclass(frozen=True)
class ImageTraits:
    """The traits of an image that are compared.

    Attributes:
        modalities: Per channel the stated modality, in DICOM's terms; empty if not stated.
        intensities: Per channel.
        spacing_mm: Voxel size along R, A, S.
        unit: Unit of lengths.
    """

    modalities: tuple[str, ...]
    intensities: tuple[Intensities, ...]
    spacing_mm: tuple[float, float, float]
    unit: Unit = "mm"

    @classmethod
    def of(cls, volume: Volume, modalities: Sequence[str] = ()) -> ImageTraits:
        """Measure a volume as read.

        Args:
            volume: Each channel with a finite voxel.
            modalities: Stated by its files, as from `volseg.io.stated_modality`.
        """
        order = volume.geometry.to_canonical
        return cls(
            tuple(modalities) or ("",) * len(volume.array),
            tuple(Intensities.of(order.apply(channel)) for channel in volume.array),
            volume.geometry.reordered(order).spacing_mm,
            volume.geometry.unit,
        )


def mismatches(traits: ImageTraits, config: Config) -> list[str]:
    """Describe how an image clearly lies outside the data a model was trained on.

    Args:
        traits: Of the image, with the channels of the model in their order.
        config: Of the model; one without a domain, as version 0.1.0 wrote it, accepts everything.

    Returns:
        A sentence per difference; empty if there are none.
    """
    known = config.domain.intensities or (None,) * len(config.data.channels)
    found = []
    for name, modality, trained, stated, seen in zip(
        config.data.channels, config.data.modalities, known, traits.modalities, traits.intensities, strict=True
    ):
        difference = _other_modality(stated, modality) or _other_values(seen, stated, modality, trained)
        if difference:
            found.append(difference if len(config.data.channels) == 1 else f"{name}: {difference}")
    if traits.unit != config.data.unit:
        return [*found, f"it is measured in {traits.unit}, the training cases were in {config.data.unit}"]
    return found + _other_spacing(traits.spacing_mm, config)


def _other_modality(stated: str, modality: str) -> str:
    if not stated or modality in (stated, UNKNOWN, MIXED):
        return ""
    return f"it is {stated}, the training cases were {modality}"


def _other_values(seen: Intensities, stated: str, modality: str, trained: IntensityRange | None) -> str:
    if trained is None or modality == MIXED:
        return ""
    return _no_hounsfield_units(seen, trained) if modality == "CT" else _hounsfield_units(seen, stated, trained)


def _no_hounsfield_units(seen: Intensities, trained: IntensityRange) -> str:
    """Describe what contradicts CT, if the training cases themselves are in Hounsfield units."""
    if trained.low[1] <= DARK_HU and seen.cannot_be_hounsfield:
        return (
            f"its values ({_span(seen)}) are not Hounsfield units: the training cases were CT and go down to "
            f"{trained.low[1]:.4g} or below; it is of another modality, or lacks its rescale intercept"
        )
    if trained.labelled is None:
        return ""
    low, high = trained.labelled
    if seen.high < low - _CALIBRATION_HU or seen.low > high + _CALIBRATION_HU:
        return f"its values ({_span(seen)}) are not those of anything labelled in training ({low:.4g} to {high:.4g})"
    return ""


def _hounsfield_units(seen: Intensities, stated: str, trained: IntensityRange) -> str:
    """Describe what suggests CT, if no training case had a value that far below 0."""
    is_ct = seen.looks_like_ct or (stated == "CT" and seen.low <= DARK_HU)
    if trained.low[0] > DARK_HU and is_ct:
        return f"its values ({_span(seen)}) are those of CT, which those of the training cases were not"
    return ""


def _other_spacing(spacing_mm: Sequence[float], config: Config) -> list[str]:
    if config.domain.spacings_mm is None:
        return []
    return [
        f"its voxels are {size:.3g} mm {axis}, those of the training cases were {_between(smallest, largest)} mm"
        for size, axis, (smallest, largest) in zip(spacing_mm, AXES, config.domain.spacings_mm, strict=True)
        if not smallest / _FINER <= size <= largest * _COARSER
    ]


def _span(seen: Intensities) -> str:
    return f"{seen.low:.4g} to {seen.high:.4g}"


def _between(smallest: float, largest: float) -> str:
    one, other = f"{smallest:.3g}", f"{largest:.3g}"
    return one if one == other else f"{one} to {other}"
