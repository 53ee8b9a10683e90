"""The verb: pairs of masks in, tables out."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from volseg.errors import ConfigError, DataError, GeometryError
from volseg.evaluation.columns import Column, columns_of
from volseg.evaluation.summary import statistics, summarise
from volseg.evaluation.tables import failed_row, metrics_table, score_row, write_table
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.io import SegmentsSource, Source, read_mask, read_probabilities, resample_mask
from volseg.io.files import make_folder, without_root
from volseg.metrics import Conventions, score_masks
from volseg.metrics.score import same_grid
from volseg.parallel import side_by_side
from volseg.progress import Progress, ignore_progress

METRICS_FILE, SUMMARY_FILE, STATISTICS_FILE = "metrics.csv", "summary.csv", "statistics.csv"


@dataclass(frozen=True)
class CasePair:
    """A case to evaluate.

    Attributes:
        case_id: Its name, unique among the pairs.
        prediction: The mask a model made, None when it made none.
        reference: The mask that is held to be right.
        within: A mask outside of which nothing counts.
        probabilities: A file of four axes: how likely each label is.
    """

    case_id: str
    prediction: Source | None
    reference: Source
    within: Source | None = None
    probabilities: Path | None = None


@dataclass(frozen=True)
class Protocol:
    """How to evaluate.

    Attributes:
        labels: What to score; they must cover all values of the masks.
        conventions: How to measure.
        calibrated: Whether the cases come with probabilities.
        within: Whether they come with a region of interest.
        ignored: The value of references where nothing is known and nothing counts.
        resample: Whether a mask on another grid is brought onto that of its reference, instead of refused.
    """

    labels: tuple[Label, ...]
    conventions: Conventions = field(default_factory=Conventions)
    calibrated: bool = False
    within: bool = False
    ignored: int | None = None
    resample: bool = False

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError("there are no labels to evaluate")
        twice = [value for value, times in Counter(label.value for label in self.labels).items() if times > 1]
        if twice:
            raise ConfigError(f"two of the labels to evaluate have the value {twice[0]}")
        if self.ignored in {0, *(label.value for label in self.labels)}:
            raise ConfigError(f"the value {self.ignored} cannot be ignored: it is background or a label to evaluate")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of metrics.csv."""
        return columns_of(self.conventions, calibrated=self.calibrated, within=self.within)


@dataclass(frozen=True)
class Failure:
    """A case that could not be scored, and why."""

    case_id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured, and where it was written.

    Attributes:
        metrics: A row per case and label.
        summary: A row per label and one over all, see `summarise`.
        failures: The cases that could not be scored, in the order of the pairs.
        folder: Holds metrics.csv, summary.csv and statistics.csv.
    """

    metrics: pd.DataFrame
    summary: pd.DataFrame
    failures: tuple[Failure, ...]
    folder: Path


def evaluate(
    pairs: Sequence[CasePair], protocol: Protocol, output: Path, progress: Progress = ignore_progress
) -> Evaluation:
    """Score all pairs and write `metrics.csv`, `summary.csv` and `statistics.csv`.

    A pair that cannot be read, whose grids differ or that holds a value outside the labels does not stop the others:
    its rows have the status `failed` and the reason, and count like those of a case without a prediction. A few cases
    are measured at a time, so that memory does not grow with their number.

    Args:
        pairs: The cases, each with its own case id.
        protocol: How to evaluate them.
        output: The folder of the tables, made when it is missing.
        progress: Told after each case.

    Returns:
        The tables and the failures.

    Raises:
        DataError: If there are no pairs, or two of one case.
        OutputError: If the tables cannot be written.
    """
    _check(pairs)
    make_folder(output)
    rows: list[dict[str, object]] = []
    failures: list[Failure] = []
    progress("evaluate", 0, len(pairs))
    results = side_by_side(lambda pair: _evaluate_case(pair, protocol), pairs)
    for done, (pair, (case_rows, failure)) in enumerate(zip(pairs, results, strict=True), 1):
        rows += case_rows
        failures += [failure] if failure else []
        progress("evaluate", done, len(pairs), f"{pair.case_id}: failed" if failure else pair.case_id)
    metrics = metrics_table(rows, protocol.columns)
    summary = summarise(metrics)
    write_table(metrics, output / METRICS_FILE)
    write_table(summary, output / SUMMARY_FILE)
    write_table(statistics(metrics, protocol.columns), output / STATISTICS_FILE)
    return Evaluation(metrics, summary, tuple(failures), output)


def _check(pairs: Sequence[CasePair]) -> None:
    if not pairs:
        raise DataError("there is nothing to evaluate", hint="give at least one reference")
    twice = [case_id for case_id, times in Counter(pair.case_id for pair in pairs).items() if times > 1]
    if twice:
        raise DataError(f"case {twice[0]} is to be evaluated more than once", hint="give each case its own id")


def _evaluate_case(pair: CasePair, protocol: Protocol) -> tuple[list[dict[str, object]], Failure | None]:
    """The rows of one case, and the failure if it is one."""
    grid, columns = None, protocol.columns
    try:
        reference = _reference(pair, protocol)
        grid = reference.geometry
        prediction = _prediction(pair, protocol, grid)
        within = _counted(pair, protocol, reference)
        stated = _probabilities(pair, protocol, grid) if prediction is not None and protocol.calibrated else None
        scores = score_masks(
            prediction, reference, protocol.labels, protocol.conventions, within=within, probabilities=stated
        )
    except DataError as error:
        reason = _without_folders(str(error), pair)
        rows = [failed_row(pair.case_id, label, reason, columns, grid) for label in protocol.labels]
        return rows, Failure(pair.case_id, reason)
    return [score_row(pair.case_id, score, columns, grid) for score in scores], None


def _without_folders(reason: str, pair: CasePair) -> str:
    """A reason that names files, but not the folders they lie in: those may be called by patients."""
    places = [source.place for source in (pair.prediction, pair.reference, pair.within) if source is not None]
    for place in [*places, *([pair.probabilities] if pair.probabilities else [])]:
        reason = without_root(reason, place.parent)
    return reason


def read_pair(pair: CasePair, protocol: Protocol) -> tuple[Mask, Mask | None]:
    """The masks of a case as they are compared, empty where nothing counts.

    Returns:
        The reference, and the prediction if there is one.

    Raises:
        DataError: If one of them cannot be read.
    """
    reference = _reference(pair, protocol)
    prediction = _prediction(pair, protocol, reference.geometry)
    region = _counted(pair, protocol, reference)
    if region is None:
        return reference, prediction
    return _inside(reference, region), None if prediction is None else _inside(prediction, region)


def _inside(mask: Mask, region: NDArray[np.bool_]) -> Mask:
    return Mask(np.where(region, mask.array, mask.array.dtype.type(0)), mask.geometry, mask.labels)


def _reference(pair: CasePair, protocol: Protocol) -> Mask:
    return read_mask(pair.reference, protocol.labels, on=_grid_for(pair))


def _prediction(pair: CasePair, protocol: Protocol, grid: Geometry) -> Mask | None:
    if pair.prediction is None:
        return None
    mask = _stored_alike(read_mask(pair.prediction, protocol.labels, on=grid), grid)
    elsewhere = not same_grid(mask.geometry, grid)
    return resample_mask(mask, grid) if protocol.resample and elsewhere else mask


def _stored_alike(mask: Mask, grid: Geometry) -> Mask:
    """A mask of the same places in the storage order of a grid; any other one as it is, for whoever asked to judge."""
    with contextlib.suppress(GeometryError):
        return mask.on(grid)
    return mask


def _counted(pair: CasePair, protocol: Protocol, reference: Mask) -> NDArray[np.bool_] | None:
    """Where anything counts; None if that is everywhere."""
    region = _region(pair, reference.geometry) if protocol.within else None
    if protocol.ignored is None:
        return region
    known: NDArray[np.bool_] = reference.array != protocol.ignored
    return known if region is None else known & region


def _region(pair: CasePair, grid: Geometry) -> NDArray[np.bool_]:
    """The region of interest of a case."""
    if pair.within is None:
        raise DataError("there is no region of interest of this case")
    region = _stored_alike(read_mask(pair.within, on=grid), grid)
    if not same_grid(region.geometry, grid):
        raise GeometryError(f"the region of interest ({region.geometry}) is not on the grid of the reference ({grid})")
    if not region.array.any():
        raise DataError("the region of interest is empty: nothing in it could be right or wrong")
    return region.array > 0


def _probabilities(pair: CasePair, protocol: Protocol, grid: Geometry) -> NDArray[np.floating]:
    """How likely each label is at each voxel of the reference."""
    if pair.probabilities is None:
        raise DataError("there are no probabilities of this case", hint="`volseg predict --probabilities` writes them")
    shares, geometry = read_probabilities(pair.probabilities)
    if not same_grid(geometry, grid) or shares.shape[-1] != len(protocol.labels):
        raise GeometryError(
            f"the probabilities ({shares.shape[-1]} labels on {geometry}) do not belong to the reference "
            f"({len(protocol.labels)} labels on {grid})"
        )
    return shares


def _grid_for(pair: CasePair) -> Geometry | None:
    """The grid for a reference that has none of its own: that of the mask it is compared with."""
    drawn, prediction = isinstance(pair.reference, SegmentsSource), pair.prediction
    return (
        read_mask(prediction).geometry if drawn and prediction and not isinstance(prediction, SegmentsSource) else None
    )
