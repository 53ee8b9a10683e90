"""Splits into training and validation cases."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volseg.config import TrainingConfig
from volseg.errors import ConfigError, DataError
from volseg.io.json_files import read_json, write_json


@dataclass(frozen=True)
class Split:
    """One fold.

    Attributes:
        train: Ids of the training cases.
        val: Ids of the validation cases.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]

    def among(self, case_ids: Collection[str]) -> Split:
        """Return the split without any other cases."""
        train, val = (tuple(case_id for case_id in ids if case_id in case_ids) for ids in (self.train, self.val))
        return Split(train, val)


def make_splits(case_ids: Sequence[str], folds: int, holdout: float, seed: int) -> tuple[Split, ...]:
    """Split cases into folds, each case in validation exactly once; or hold out one share of them.

    The result depends only on the set of ids and the seed, not on their order.

    Args:
        case_ids: All ids.
        folds: Number of folds; no more than there are cases.
        holdout: If above 0, make a single split that holds out this share (at least one case) instead.
        seed: Of the shuffle.

    Returns:
        The splits.

    Raises:
        DataError: If there are fewer than two cases.
    """
    if len(case_ids) < 2:
        raise DataError(
            f"{len(case_ids)} usable case: at least two are needed, one for training and one for validation",
            hint="label more cases",
        )
    shuffled = np.random.default_rng(seed).permutation(sorted(case_ids)).tolist()
    if holdout > 0:
        count = min(max(1, round(holdout * len(shuffled))), len(shuffled) - 1)
        parts = [shuffled[:count]]
    else:
        parts = [shuffled[fold :: min(folds, len(shuffled))] for fold in range(min(folds, len(shuffled)))]
    return tuple(Split(tuple(sorted(set(shuffled) - set(part))), tuple(sorted(part))) for part in parts)


def choose_splits(case_ids: Sequence[str], stated: Sequence[Split], settings: TrainingConfig) -> tuple[Split, ...]:
    """Return the splits of a run: those stated by the data set, unless the settings request others.

    Args:
        case_ids: All ids.
        stated: Splits stated by the data set.
        settings: Of the run.

    Raises:
        DataError: If there are fewer than two cases.
    """
    if stated and settings.split == "stated" and not settings.holdout:
        return tuple(stated)
    return make_splits(case_ids, settings.folds, settings.holdout, settings.seed)


def usable_splits(splits: Sequence[Split], case_ids: Collection[str], fold: int | str) -> dict[int, Split]:
    """Return fold -> its split, restricted to usable cases, for each fold to train.

    Args:
        splits: Of a run.
        case_ids: Of the usable cases.
        fold: The fold to train, or "all".

    Raises:
        ConfigError: If there is no such fold, or it has no training or no validation case left.
    """
    folds = range(len(splits)) if isinstance(fold, str) else [fold]
    if max(folds) >= len(splits):
        raise ConfigError(
            f"there is no fold {max(folds)}: {len(case_ids)} cases make {len(splits)} folds",
            hint=f"training.fold counts from 0 to {len(splits) - 1}",
        )
    return {number: _usable(splits[number], case_ids, number) for number in folds}


def _usable(split: Split, case_ids: Collection[str], fold: int) -> Split:
    found = split.among(case_ids)
    if not found.train or not found.val:
        raise ConfigError(
            f"fold {fold} has {len(found.train)} training cases and {len(found.val)} validation cases",
            hint="`volseg inspect` shows why others cannot be used; add cases, or choose another training.fold",
        )
    return found


def write_splits(splits: Sequence[Split], path: Path) -> None:
    """Write splits as JSON: a list with a "train" and a "val" list per fold.

    Raises:
        OutputError: If it cannot be written.
    """
    write_json(path, [asdict(split) for split in splits])


def read_splits(path: Path) -> tuple[Split, ...]:
    """Read what `write_splits` wrote.

    Raises:
        DataError: If it has another form.
    """
    hint = 'write it as [{"train": ["p1", "p2"], "val": ["p3"]}], a split per fold, or train into a new --output'
    return read_json(path, lambda entries: tuple(_split(entry) for entry in entries), "is not a list of splits", hint)


def _split(entry: Mapping[str, Any]) -> Split:
    return Split(tuple(entry["train"]), tuple(entry["val"]))
