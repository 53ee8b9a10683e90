"""Readiness: how training, or prediction with a model, would use each case, as checked by their own code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from volseg.cases import (
    Case,
    Dataset,
    annotated_labels,
    check_others,
    check_sides,
    choose_splits,
    find_dataset,
    find_inputs,
    read_images,
    usable_splits,
)
from volseg.config import Config, DataConfig, PartialConfig, validate
from volseg.errors import ConfigError, DataError, VolsegError, WorkerLostError
from volseg.io.files import without_root
from volseg.parallel import side_by_side
from volseg.planning import CasePrint, check_patch
from volseg.planning.fingerprint import Look, labels_of, look_at_cases, usable_prints
from volseg.planning.folder import plan_dataset, with_inherited
from volseg.progress import Progress


@dataclass(frozen=True, eq=False)
class CaseReadiness:
    """The usability of one case for a verb.

    Attributes:
        case: Its files.
        refusal: Why the verb would not use it; empty if it would.
        labels_ml: Label name -> volume in its reference.
    """

    case: Case
    refusal: str = ""
    labels_ml: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Readiness:
    """The usability of a folder for a verb.

    Attributes:
        verb: "train" or "predict".
        dataset: Layout, channels, labels, and what is not used; None if no cases are found.
        cases: Each case of the data set.
        refusal: Why the folder as a whole would be refused, even if it holds cases; empty if it would not.
    """

    verb: str
    dataset: Dataset | None = None
    cases: tuple[CaseReadiness, ...] = ()
    refusal: str = ""

    @property
    def usable(self) -> int:
        """Count the cases that the verb would use."""
        return 0 if self.refusal else sum(not one.refusal for one in self.cases)

    @property
    def labels(self) -> dict[str, int]:
        """Count, for each label name, the references with a voxel of it."""
        return dict(Counter(name for one in self.cases for name, ml in one.labels_ml.items() if ml > 0))


def training_readiness(
    path: Path, given: PartialConfig, progress: Progress, executor: Executor | None = None
) -> Readiness:
    """Check every labelled case as `train` would.

    Args:
        path: A data set in any layout, or a manifest.
        given: DICOM reading options, and labels if already decided.
        progress: Called per case.
        executor: Reads the cases; by default threads of this process.
    """
    try:
        given = with_inherited(given)
        dataset = find_dataset(path, given.data)
    except VolsegError as error:
        return Readiness("train", refusal=error.explanation)
    looks = list(look_at_cases(dataset, given.data, progress, executor))
    names = {value: name for name, value in labels_of(dataset, given.data).items()}
    cases = tuple(_ready(case, look, names, path) for case, look in looks)
    return Readiness("train", dataset, cases, without_root(_refusal(dataset, looks, given), path))


def _ready(case: Case, look: CasePrint | VolsegError, names: Mapping[int, str], root: Path) -> CaseReadiness:
    if isinstance(look, VolsegError):
        return CaseReadiness(case, without_root(look.explanation, root))
    found = look.label_ml.items()
    return CaseReadiness(case, labels_ml={names.get(value, f"label_{value}"): ml for value, ml in found})


def _refusal(dataset: Dataset, looks: Sequence[Look], given: PartialConfig) -> str:
    """Return why `train` would refuse all cases, from its own checks before training; empty if it would not."""
    usable = {case.case_id: (case, look) for case, look in looks if isinstance(look, CasePrint)}
    try:
        config = _configuration(dataset, looks, given)
        check_patch(config)
        check_others(dataset, config.data.labels, config.data.others)
        for case, look in usable.values():
            annotated = annotated_labels(case, config.data.reference_labels, look.label_ml)
            check_sides(case.case_id, annotated, config.augmentation.swap_labels)
        splits = choose_splits(list(usable), dataset.splits, config.training)
        usable_splits(splits, usable, config.training.fold)
    except VolsegError as error:
        return error.explanation
    return ""


def _configuration(dataset: Dataset, looks: Sequence[Look], given: PartialConfig) -> Config:
    """Return the configuration of the run: as given if complete, else planned."""
    if not given.is_complete:
        return plan_dataset(dataset, looks, given).config
    usable_prints(looks)
    return validate(given.tree, "the configuration")


def prediction_readiness(
    path: Path, data: DataConfig, progress: Progress, executor: Executor | None = None
) -> Readiness:
    """Check every case as `predict` would before running the networks.

    Args:
        path: A data set, a file, a DICOM folder, or a tree of these.
        data: Of the model.
        progress: Called per case.
        executor: Reads the cases; by default threads of this process.
    """
    try:
        dataset = find_inputs(path, data.channels, data)
    except DataError as error:
        return Readiness("predict", refusal=error.explanation)
    attempt = partial(_attempt, channels=data.channels, root=path)
    cases = []
    for done, one in enumerate(side_by_side(attempt, dataset.cases, executor, _lost), start=1):
        cases.append(one)
        progress("look", done, len(dataset.cases), one.case.case_id)
    return Readiness("predict", dataset, tuple(cases))


def _attempt(case: Case, channels: Sequence[str], root: Path) -> CaseReadiness:
    """Read a case, as prediction would."""
    try:
        read_images(case, channels)
    except (DataError, ConfigError) as error:
        return CaseReadiness(case, without_root(error.explanation, root))
    return CaseReadiness(case)


def _lost(case: Case, error: WorkerLostError) -> CaseReadiness:
    return CaseReadiness(case, error.explanation)
