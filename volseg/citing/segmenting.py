"""Sentences about segmentation and post-processing."""

from __future__ import annotations

from volseg.citing.words import axes_words, count, named, percent, sizes
from volseg.config import Config, LabelRule
from volseg.reporting.record import RunRecord
from volseg.text import listed

_WEIGHTS = {
    "gaussian": "with Gaussian weighting",
    "cut_gaussian": "with Gaussian weighting",
    "constant": "with uniform weighting",
}
_BACK = {
    "logits": "The logits were resampled to the original image grid",
    "probabilities": "The probabilities were resampled to the original image grid",
    "labels": "The labels were resampled to the original image grid by nearest-neighbour interpolation",
}


def segmenting_words(record: RunRecord) -> str:
    """Return sentences on windows, mirroring, averaging, resampling to the original grid, and post-processing."""
    config = record.config
    inference, picture = config.inference, config.data.unit == "px"
    window = config.window[1:] if config.window[0] == 1 else config.window
    windows = (
        f"Images were segmented with a sliding window of {sizes(window)} {'pixels' if picture else 'voxels'} "
        f"and an overlap of {percent(inference.overlap)}, {_WEIGHTS[inference.weights]}."
    )
    mirrored = [axis for axis in inference.mirror_axes if not (picture and axis == "i")]
    turns = inference.mirroring == "turns"
    views = f"mirror images ({axes_words(mirrored, flat=picture)})" if mirrored else ""
    networks = f"the {count(len(record.files), 'network')}" if len(record.files) > 1 else ""
    over = [words for words in ("overlapping windows" if turns and views else views, networks) if words]
    mirrorings = f"Each window was segmented in one of its {views} in turn." if turns and views else ""
    averages = " ".join(filter(None, (mirrorings, f"Logits were averaged over {listed(over)}." if over else "")))
    back = "" if picture else f"{_BACK[config.preprocessing.answers]}."
    return " ".join(filter(None, (windows, averages, back, postprocessing_words(record))))


def postprocessing_words(record: RunRecord) -> str:
    """Return sentences on post-processing, and on its choice."""
    config = record.config
    done = [*_rules(config), *_thresholds(config)]
    if not done:
        return "Masks were not post-processed."
    chosen = " Post-processing was selected by the Dice of the validation cases." if record.chose_postprocessing else ""
    return f"{' '.join(done)}{chosen}"


def _rules(config: Config) -> list[str]:
    return [
        f"For {'each label' if rule.label == '*' else named(rule.label)}, {listed(steps)}."
        for rule in config.rules
        if (steps := _steps(rule))
    ]


def _steps(rule: LabelRule) -> list[str]:
    """Return the steps of a rule, in their order."""
    smallest = [
        *((f"{rule.min_volume_ml:g} ml",) if rule.min_volume_ml else ()),
        *((f"{rule.min_voxels} voxels",) if rule.min_voxels else ()),
    ]
    return [
        *(
            (f"morphological {rule.morphology} with a ball of radius {rule.radius_mm:g} mm was applied",)
            if rule.morphology != "none"
            else ()
        ),
        *((f"connected components smaller than {' or '.join(smallest)} were removed",) if smallest else ()),
        *(("only the largest connected component was kept",) if rule.keep_largest else ()),
        *(("holes were filled",) if rule.fill_holes else ()),
    ]


def _thresholds(config: Config) -> list[str]:
    stated = [
        f"{named(region.name)} where its probability exceeded {region.threshold:g}"
        for region in config.data.regions
        if region.threshold is not None
    ]
    return [f"Voxels were assigned to {listed(stated)}."] if stated else []
