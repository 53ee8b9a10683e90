"""Choice of post-processing and thresholds for each label, by the Dice of the validation cases."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from volseg.config import Config, LabelRule
from volseg.training.validation import NO_TRIALS, Trials, Validation

#: Name -> post-processing to try on every label.
RULES: Mapping[str, LabelRule] = MappingProxyType(
    {
        "keep_largest": LabelRule(keep_largest=True),
        "fill_holes": LabelRule(fill_holes=True),
        "keep_largest_fill_holes": LabelRule(keep_largest=True, fill_holes=True),
    }
)

#: Name -> threshold to try on every region in addition to one half.
THRESHOLDS: Mapping[str, float] = MappingProxyType({f"threshold_{p}": p for p in (0.3, 0.4, 0.6, 0.7)})

#: With fewer validation cases, the predictions of the network are left unchanged.
_FEWEST_CASES = 5


def trials_for(config: Config) -> Trials:
    """Return the trials for the settings that a configuration leaves open.

    Regions get thresholds but no rules: they overlap, so a rule's effect on the painted mask says little about each.
    """
    if config.data.regions:
        undecided = all(region.threshold is None for region in config.data.regions)
        return Trials(thresholds=THRESHOLDS) if undecided else NO_TRIALS
    return Trials(rules=RULES) if config.postprocess is None else NO_TRIALS


def can_choose(validation: Validation) -> bool:
    """Return whether there are enough validation cases to choose post-processing by them."""
    return len(validation.case_ids) >= _FEWEST_CASES


def choose_postprocessing(config: Config, validation: Validation) -> Config:
    """Decide the settings that a configuration leaves open, for each label or region by its validation Dice.

    A rule or threshold for one label never changes a voxel of another, so no Dice falls.

    Args:
        config: The configuration, with `postprocess` or thresholds of regions left out.
        validation: The scores of all validation cases, with the trials.

    Returns:
        The configuration with both. With fewer than five validation cases, nothing is changed.
    """
    best = _best_trials(validation)
    if config.postprocess is None:
        rules = tuple(RULES[name].model_copy(update={"label": label}) for label, name in best.items() if name in RULES)
        config = config.model_copy(update={"postprocess": rules})
    regions = tuple(
        region.model_copy(update={"threshold": THRESHOLDS[best[region.name]]}) if region.name in best else region
        for region in config.data.regions
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"regions": regions})})


def _best_trials(validation: Validation) -> dict[str, str]:
    """Map each label or region to the trial that raises its mean Dice most, if any does."""
    if not can_choose(validation):
        return {}
    # A label that is in neither the reference nor the prediction counts as a perfect score.
    baseline, *tried = (
        np.nan_to_num(dice, nan=1.0).mean(axis=0) for dice in (validation.dice, *validation.dice_by_trial.values())
    )
    names = list(validation.dice_by_trial)
    gains = np.array([dice - baseline for dice in tried]).reshape(len(names), len(validation.labels))
    return {
        label: names[gain.argmax()] for label, gain in zip(validation.labels, gains.T, strict=True) if np.any(gain > 0)
    }
