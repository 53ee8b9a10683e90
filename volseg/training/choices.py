"""What follows the network: tried on held-out cases, and taken label by label where it raises their Dice."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from volseg.config import Config, LabelRule
from volseg.training.validation import NOTHING, Trials, Validation

#: Post-processing that is tried on every label, by name.
RULES: Mapping[str, LabelRule] = MappingProxyType(
    {
        "keep_largest": LabelRule(keep_largest=True),
        "fill_holes": LabelRule(fill_holes=True),
        "keep_largest_fill_holes": LabelRule(keep_largest=True, fill_holes=True),
    }
)

#: Thresholds that are tried on every region besides one half, by name.
THRESHOLDS: Mapping[str, float] = MappingProxyType({f"threshold_{p}": p for p in (0.3, 0.4, 0.6, 0.7)})

#: Fewer held-out cases say too little to change what the network answered.
_FEWEST_CASES = 5


def trials_for(config: Config) -> Trials:
    """What a configuration leaves to be chosen.

    Regions overlap: what a rule does to the painted mask says little about each of them.
    """
    if config.data.regions:
        open_ = all(region.threshold is None for region in config.data.regions)
        return Trials(thresholds=THRESHOLDS) if open_ else NOTHING
    return Trials(rules=RULES) if config.postprocess is None else NOTHING


def choose_postprocessing(config: Config, validation: Validation) -> Config:
    """Decide what a configuration left open, for each label or region as the held-out cases want it.

    A rule or a threshold for one never changes a voxel of another, so no Dice falls.

    Args:
        config: With `postprocess` or thresholds of regions left out.
        validation: Of every held-out case, with what was tried.

    Returns:
        The configuration with both. Nothing is changed by fewer than five held-out cases.
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
    """Label or region -> what raises the mean Dice of the held-out cases most, where something does."""
    if len(validation.case_ids) < _FEWEST_CASES:
        return {}
    # A label that neither the reference nor the prediction has is as right as it can be.
    before, *after = (
        np.nan_to_num(dice, nan=1.0).mean(axis=0) for dice in (validation.dice, *validation.dice_by_trial.values())
    )
    names = list(validation.dice_by_trial)
    gains = np.array([dice - before for dice in after]).reshape(len(names), len(validation.labels))
    return {
        label: names[gain.argmax()] for label, gain in zip(validation.labels, gains.T, strict=True) if np.any(gain > 0)
    }
