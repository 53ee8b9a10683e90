"""What training, or prediction with a model, would make of each case of a folder: asked of the code that they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from volseg.cases import Case, Dataset, find_dataset, find_inputs, read_images
from volseg.config import DataConfig, PartialConfig
from volseg.errors import ConfigError, DataError
from volseg.image.volume import Label
from volseg.io.files import without_root
from volseg.parallel import side_by_side
from volseg.planning.fingerprint import look_at_case
from volseg.progress import Progress


@dataclass(frozen=True, eq=False)
class CaseReadiness:
    """What a verb would make of one case.

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
    """What a verb would make of a folder.

    Attributes:
        verb: "train" or "predict".
        dataset: Layout, channels, labels, and what is not used; None if the verb would refuse the folder as a whole.
        cases: Each case of the data set.
        refusal: Why the folder as a whole would be refused; empty if it would not.
    """

    verb: str
    dataset: Dataset | None = None
    cases: tuple[CaseReadiness, ...] = ()
    refusal: str = ""

    @property
    def usable(self) -> int:
        """How many cases the verb would use."""
        return sum(not one.refusal for one in self.cases)

    @property
    def labels(self) -> dict[str, int]:
        """Label name -> how many references hold a voxel of it."""
        return dict(Counter(name for one in self.cases for name, ml in one.labels_ml.items() if ml > 0))


def training_readiness(path: Path, given: PartialConfig, progress: Progress) -> Readiness:
    """Look at every labelled case as `train` would.

    Args:
        path: A data set in any layout, or a manifest.
        given: How DICOM is read, and labels where they are decided.
        progress: Told per case.
    """
    try:
        dataset = find_dataset(path, given.data)
    except DataError as error:
        return Readiness("train", refusal=error.explanation)
    names = {value: name for name, value in (given.data.labels or dataset.labels).items()}
    known = tuple(Label(value, name) for value, name in names.items())

    def look(case: Case) -> CaseReadiness:
        print_of_case = look_at_case(case, dataset.channels, known, given.data.others)
        found = print_of_case.label_ml.items()
        return CaseReadiness(case, labels_ml={names.get(value, f"label_{value}"): ml for value, ml in found})

    return Readiness("train", dataset, _each(dataset, path, look, progress))


def prediction_readiness(path: Path, data: DataConfig, progress: Progress) -> Readiness:
    """Look at every case as `predict` would before the networks see it.

    Args:
        path: A data set, a file, a DICOM folder, or a tree of these.
        data: Of the model.
        progress: Told per case.
    """
    try:
        dataset = find_inputs(path, data.channels, data)
    except DataError as error:
        return Readiness("predict", refusal=error.explanation)

    def look(case: Case) -> CaseReadiness:
        read_images(case, data.channels)
        return CaseReadiness(case)

    return Readiness("predict", dataset, _each(dataset, path, look, progress))


def _each(
    dataset: Dataset, root: Path, look: Callable[[Case], CaseReadiness], progress: Progress
) -> tuple[CaseReadiness, ...]:
    def attempt(case: Case) -> CaseReadiness:
        try:
            return look(case)
        except (DataError, ConfigError) as error:
            return CaseReadiness(case, without_root(error.explanation, root))

    cases = []
    for done, one in enumerate(side_by_side(attempt, dataset.cases), start=1):
        cases.append(one)
        progress("look", done, len(dataset.cases), one.case.case_id)
    return tuple(cases)
