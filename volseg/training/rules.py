"""Which post-processing pays: tried on held-out cases, and taken label by label where it raises their Dice."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from volseg.config import LabelRule
from volseg.training.validation import Validation

#: What is tried on every label, by name.
CANDIDATES: Mapping[str, LabelRule] = MappingProxyType(
    {
        "keep_largest": LabelRule(keep_largest=True),
        "fill_holes": LabelRule(fill_holes=True),
        "keep_largest_fill_holes": LabelRule(keep_largest=True, fill_holes=True),
    }
)


#: Fewer held-out cases say too little to change what the network answered.
_FEWEST_CASES = 5


def choose_rules(validation: Validation) -> tuple[LabelRule, ...]:
    """Choose for each label the rule that raises the mean Dice of the held-out cases most, if one does.

    A rule for one label never changes a voxel of another, so none is lowered.

    Args:
        validation: Of every held-out case, with what the candidates make of it.

    Returns:
        At most one rule per label; none where few cases are held out.
    """
    if len(validation.case_ids) < _FEWEST_CASES:
        return ()
    # A label that neither the reference nor the prediction has is as right as it can be.
    before = np.nan_to_num(validation.dice, nan=1.0).mean(axis=0)
    gains = {name: np.nan_to_num(dice, nan=1.0).mean(axis=0) - before for name, dice in validation.dice_by_rule.items()}
    rules = []
    for place, label in enumerate(validation.labels):
        best = max(gains, key=lambda name: gains[name][place], default=None)
        if best is not None and gains[best][place] > 0:
            rules.append(CANDIDATES[best].model_copy(update={"label": label}))
    return tuple(rules)
