"""Evaluation of pairs of masks, with tables of the scores."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from volseg.cases.case import place_reference
from volseg.config import Others
from volseg.errors import ConfigError, DataError, GeometryError, VolsegError, WorkerLostError
from volseg.evaluation.columns import Column, columns_of
from volseg.evaluation.metrics_csv import failed_row, metrics_table, score_row
from volseg.evaluation.summary import statistics, summarise
from volseg.image.geometry import Geometry, Unit
from volseg.image.volume import Label, Mask
from volseg.io import FileSource, MasksSource, SegmentsSource, Source, read_mask, read_probabilities, resample_mask
from volseg.io.files import make_folder, without_root
from volseg.io.mask_per_label import label_of_file
from volseg.io.tables import write_table
from volseg.metrics import Conventions, score_masks
from volseg.parallel import side_by_side
from volseg.progress import Progress, ignore_progress

if TYPE_CHECKING:
    import pandas as pd

METRICS_FILE, SUMMARY_FILE, STATISTICS_FILE = "metrics.csv", "summary.csv", "statistics.csv"


@dataclass(frozen=True)
class CasePair:
    """A case to evaluate.

    Attributes:
        case_id: The case id, unique among the pairs.
        prediction: The predicted mask; None if there is none.
        reference: The reference mask.
        within: A region of interest; voxels outside of it are not scored.
        probabilities: A four-dimensional file with the probability of each label.
    """

    case_id: str
    prediction: Source | None
    reference: Source
    within: Source | None = None
    probabilities: Path | None = None


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation.

    Attributes:
        labels: Labels to score; they must cover all values of the masks.
        conventions: How metrics are computed.
        calibrated: Whether the cases have probabilities.
        within: Whether the cases have a region of interest.
        ignored: Value of reference voxels that are not annotated and not scored.
        resample: Whether to resample a mask on another grid to that of its reference, instead of refusing it.
        lacking: Number of labels at the end that the predictions lack: their probability is 0 everywhere.
        others: Whether to refuse reference values that belong to no label, or take them as background.
        unit: Unit of the grids; a case with a grid in another unit fails.
    """

    labels: tuple[Label, ...]
    conventions: Conventions = field(default_factory=Conventions)
    calibrated: bool = False
    within: bool = False
    ignored: int | None = None
    resample: bool = False
    lacking: int = 0
    others: Others = "refuse"
    unit: Unit = "mm"

    def __post_init__(self) -> None:
        if not self.labels:
            raise ConfigError(
                "there are no labels to evaluate", hint="list them in a labels.json in the folder of the references"
            )
        twice = [value for value, times in Counter(label.value for label in self.labels).items() if times > 1]
        if twice:
            raise ConfigError(
                f"two of the labels to evaluate have the value {twice[0]}", hint="give each a different value"
            )
        if self.ignored in {0, *(label.value for label in self.labels)}:
            raise ConfigError(
                f"the value {self.ignored} cannot be ignored: it is background or a label to evaluate",
                hint="ignore another value",
            )

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of metrics.csv."""
        return columns_of(self.conventions, calibrated=self.calibrated, within=self.within, unit=self.unit)


@dataclass(frozen=True)
class Failure:
    """A case that could not be scored, with the reason."""

    case_id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The results of an evaluation.

    Attributes:
        metrics: A row per case and label.
        summary: A row per label and a last row with the mean over labels; docs/evaluate.md describes the columns.
        statistics: A row per label and metric: mean with interval, quartiles, extremes, definition, worst cases.
        failures: The cases that could not be scored, in the order of the pairs.
        folder: Holds metrics.csv, summary.csv and statistics.csv; None if nothing was written.
        remarks: Remarks on masks and references without a partner, and on labels.
        report: The HTML report, if one was requested.
    """

    metrics: pd.DataFrame
    summary: pd.DataFrame
    statistics: pd.DataFrame
    failures: tuple[Failure, ...] = ()
    folder: Path | None = None
    remarks: tuple[str, ...] = ()
    report: Path | None = None

    def __repr__(self) -> str:
        cases, mean = self.metrics["case_id"].nunique(), self.summary["dice_mean"].iloc[-1]
        failed = f", {len(self.failures)} failed" if self.failures else ""
        return f"<Evaluation of {cases} case{'s' * (cases != 1)}{failed}: mean Dice {mean:.4f}>"


def evaluate(
    pairs: Sequence[CasePair],
    settings: EvaluationSettings,
    output: Path | None = None,
    progress: Progress = ignore_progress,
    executor: Executor | None = None,
) -> Evaluation:
    """Score all pairs and write `metrics.csv`, `summary.csv` and `statistics.csv`.

    A pair that cannot be read, has different grids or holds a value outside the labels does not stop the others: its
    rows have the status `failed` with the reason, and are scored like those of a case without a prediction. Only a few
    cases are processed at a time, so that memory does not grow with their number.

    Args:
        pairs: The cases, each with its own case id.
        settings: Settings of the evaluation.
        output: Folder for the tables, created if missing; if None, nothing is written.
        progress: Called after each case.
        executor: Scores the cases; by default threads of this process.

    Returns:
        The tables and the failures.

    Raises:
        DataError: If there are no pairs, or two for one case.
        OutputError: If the tables cannot be written.
    """
    _check(pairs)
    if output is not None:
        make_folder(output)
    rows: list[dict[str, object]] = []
    failures: list[Failure] = []
    progress("evaluate", 0, len(pairs))
    results = side_by_side(partial(_evaluate_case, settings=settings), pairs, executor, partial(_lost, settings))
    for done, (pair, (case_rows, failure)) in enumerate(zip(pairs, results, strict=True), 1):
        rows += case_rows
        failures += [failure] if failure else []
        progress("evaluate", done, len(pairs), f"{pair.case_id}: failed" if failure else pair.case_id)
    evaluation = _summed_up(rows, failures, settings)
    return evaluation if output is None else _written(evaluation, output)


def evaluate_masks(
    prediction: Mask, reference: Mask, settings: EvaluationSettings, case_id: str = "case"
) -> Evaluation:
    """Score one pair of masks in memory, without writing anything.

    Raises:
        GeometryError: If their grids differ.
        DataError: If one holds a value that belongs to no label.
    """
    settings = replace(settings, unit=reference.geometry.unit)
    scores = score_masks(prediction, reference, settings.labels, settings.conventions)
    rows = [score_row(case_id, score, settings.columns, reference.geometry) for score in scores]
    return _summed_up(rows, [], settings)


def _summed_up(
    rows: Sequence[dict[str, object]], failures: Sequence[Failure], settings: EvaluationSettings
) -> Evaluation:
    metrics = metrics_table(rows, settings.columns)
    return Evaluation(metrics, summarise(metrics), statistics(metrics, settings.columns), tuple(failures))


def _written(evaluation: Evaluation, folder: Path) -> Evaluation:
    write_table(evaluation.metrics, folder / METRICS_FILE)
    write_table(evaluation.summary, folder / SUMMARY_FILE)
    write_table(evaluation.statistics, folder / STATISTICS_FILE)
    return replace(evaluation, folder=folder)


def _check(pairs: Sequence[CasePair]) -> None:
    if not pairs:
        raise DataError("there is nothing to evaluate", hint="give at least one reference")
    twice = [case_id for case_id, times in Counter(pair.case_id for pair in pairs).items() if times > 1]
    if twice:
        raise DataError(f"case {twice[0]} occurs more than once", hint="give each case its own id")


def _evaluate_case(pair: CasePair, settings: EvaluationSettings) -> tuple[list[dict[str, object]], Failure | None]:
    """Return the rows of one case, and the failure if it failed."""
    grid, columns = None, settings.columns
    try:
        reference = _reference(pair, settings)
        grid = reference.geometry  # known even if the prediction cannot be read
        _check_unit(grid, settings)
        reference, prediction = _on_one_grid(reference, pair, settings)
        grid = reference.geometry
        within = _counted(pair, settings, reference)
        stated = _probabilities(pair, settings, grid) if prediction is not None and settings.calibrated else None
        scores = score_masks(
            prediction, reference, settings.labels, settings.conventions, within=within, probabilities=stated
        )
    except DataError as error:
        return _failed(pair, error, settings, grid)
    known = _looked_for(pair.reference, settings.labels)
    return [score_row(pair.case_id, score, columns, grid) for score in scores if score.label in known], None


def _lost(
    settings: EvaluationSettings, pair: CasePair, error: WorkerLostError
) -> tuple[list[dict[str, object]], Failure | None]:
    return _failed(pair, error, settings, None)


def _failed(
    pair: CasePair, error: VolsegError, settings: EvaluationSettings, grid: Geometry | None
) -> tuple[list[dict[str, object]], Failure | None]:
    """Return the rows of a case that cannot be scored, and its failure."""
    reason = _without_folders(error.explanation, pair)
    rows = [failed_row(pair.case_id, label, reason, settings.columns, grid) for label in settings.labels]
    return rows, Failure(pair.case_id, reason)


def _check_unit(grid: Geometry, settings: EvaluationSettings) -> None:
    if grid.unit != settings.unit:
        raise DataError(
            f"its reference is measured in {grid.unit}, those of other cases in {settings.unit}",
            hint="evaluate the two kinds separately, or state the pixel size (data.pixel_mm)",
        )


def _looked_for(reference: Source, labels: Sequence[Label]) -> list[Label]:
    """Return the labels that a reference annotates: masks per structure annotate only labels with a file."""
    if not isinstance(reference, MasksSource):
        return list(labels)
    return [label for name in reference.names if (label := label_of_file(name, labels)) is not None]


def _without_folders(reason: str, pair: CasePair) -> str:
    """Return a reason without the names of folders, which may hold names of patients."""
    places = [source.place for source in (pair.prediction, pair.reference, pair.within) if source is not None]
    for place in [*places, *([pair.probabilities] if pair.probabilities else [])]:
        reason = without_root(reason, place.parent)
    return reason


def read_pair(pair: CasePair, settings: EvaluationSettings) -> tuple[Mask, Mask | None]:
    """Read the masks of a case as they are compared, with background in voxels that are not scored.

    Returns:
        The reference, and the prediction if there is one.

    Raises:
        DataError: If one of them cannot be read.
    """
    reference, prediction = _on_one_grid(_reference(pair, settings), pair, settings)
    region = _counted(pair, settings, reference)
    if region is None:
        return reference, prediction
    return reference.within(region), None if prediction is None else prediction.within(region)


def _reference(pair: CasePair, settings: EvaluationSettings) -> Mask:
    mask = read_mask(pair.reference, settings.labels, on=_grid_for(pair))
    if settings.others == "refuse":
        return mask
    known = {value for label in settings.labels for value in (label.parts or (label.value,))}
    return mask.only(known | {settings.ignored or 0})


def _on_one_grid(reference: Mask, pair: CasePair, settings: EvaluationSettings) -> tuple[Mask, Mask | None]:
    """Return reference and prediction, on one grid if their voxels allow it; a crop is put back into its image."""
    if pair.prediction is None:
        return reference, None
    prediction = read_mask(pair.prediction, settings.labels, on=reference.geometry)
    with contextlib.suppress(GeometryError):  # the caller reports a mismatch
        return reference, prediction.on(reference.geometry)
    if settings.resample:
        return reference, resample_mask(prediction, reference.geometry)
    if reference.geometry.is_part_of(prediction.geometry):
        return place_reference(reference, prediction.geometry, pair.case_id), prediction
    return reference, prediction


def _counted(pair: CasePair, settings: EvaluationSettings, reference: Mask) -> NDArray[np.bool_] | None:
    """Return the voxels that are scored; None for all."""
    region = _region(pair, reference.geometry) if settings.within else None
    if settings.ignored is None:
        return region
    known: NDArray[np.bool_] = reference.array != settings.ignored
    return known if region is None else known & region


def _region(pair: CasePair, grid: Geometry) -> NDArray[np.bool_]:
    """Read the region of interest of a case."""
    if pair.within is None:
        raise DataError(
            "there is no region of interest for this case",
            hint="add one with its name to the folder of --within, or leave the reference out",
        )
    region = read_mask(pair.within, on=grid)
    try:
        region = region.placed_on(grid)
    except GeometryError as error:
        raise GeometryError(
            region.geometry.mismatch(grid, "the region of interest", "the reference"),
            hint="draw it on the image of the reference",
        ) from error
    if not region.array.any():
        raise DataError(
            "the region of interest is empty, so nothing can be scored",
            hint="draw it, or leave the reference out",
        )
    return region.array > 0


def _probabilities(pair: CasePair, settings: EvaluationSettings, grid: Geometry) -> NDArray[np.floating]:
    """Read the probability of each label at each voxel of the reference."""
    if pair.probabilities is None:
        raise DataError("there are no probabilities for this case", hint="`volseg predict --probabilities` writes them")
    choice = pair.prediction.rules.geometry if isinstance(pair.prediction, FileSource) else None
    shares, geometry = read_probabilities(pair.probabilities, choice)
    known = len(settings.labels) - settings.lacking
    if not geometry.matches(grid) or shares.shape[-1] != known:
        raise GeometryError(
            f"the probabilities ({shares.shape[-1]} labels on {geometry}) do not belong to the reference "
            f"({known} labels on {grid})",
            hint="give masks and probabilities that one model predicted for these images",
        )
    return np.pad(shares, ((0, 0), (0, 0), (0, 0), (0, settings.lacking))) if settings.lacking else shares


def _grid_for(pair: CasePair) -> Geometry | None:
    """Return the grid for a reference without one: that of the mask it is compared with."""
    prediction = pair.prediction
    if not _is_gridless(pair.reference) or prediction is None or _is_gridless(prediction):
        return None
    return read_mask(prediction).geometry


def _is_gridless(source: Source) -> bool:
    return isinstance(source, SegmentsSource) and not source.has_grid
