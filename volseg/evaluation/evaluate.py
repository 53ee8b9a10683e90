"""The verb: pairs of masks in, tables out."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from volseg.cases.case import place_reference
from volseg.config import Others
from volseg.errors import ConfigError, DataError, GeometryError
from volseg.evaluation.columns import Column, columns_of
from volseg.evaluation.metrics_csv import failed_row, metrics_table, score_row
from volseg.evaluation.summary import statistics, summarise
from volseg.image.geometry import Geometry, Unit
from volseg.image.volume import Label, Mask, mask_of
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
class EvaluationSettings:
    """How to evaluate.

    Attributes:
        labels: What to score; they must cover all values of the masks.
        conventions: How to measure.
        calibrated: Whether the cases come with probabilities.
        within: Whether they come with a region of interest.
        ignored: The value of references where nothing is known and nothing counts.
        resample: Whether a mask on another grid is brought onto that of its reference, instead of refused.
        lacking: How many of the last labels the predictions do not have: their probability is 0 everywhere.
        others: Whether a value of a reference that no label has is refused, or is background.
        unit: Of the grids; a case whose grid is of another fails.
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
                "there are no labels to evaluate", hint="list them in a labels.json beside the references"
            )
        twice = [value for value, times in Counter(label.value for label in self.labels).items() if times > 1]
        if twice:
            raise ConfigError(
                f"two of the labels to evaluate have the value {twice[0]}", hint="give each a value of its own"
            )
        if self.ignored in {0, *(label.value for label in self.labels)}:
            raise ConfigError(
                f"the value {self.ignored} cannot be ignored: it is background or a label to evaluate",
                hint="ignore another value",
            )

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of metrics.csv."""
        return columns_of(self.conventions, calibrated=self.calibrated, within=self.within, unit=self.unit)


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
        statistics: A row per label and number, see `statistics`.
        failures: The cases that could not be scored, in the order of the pairs.
        folder: Holds metrics.csv, summary.csv and statistics.csv; None where nothing was written.
        remarks: What a person should know about masks and references that have no partner.
        report: The page that shows it, if one was asked for.
    """

    metrics: pd.DataFrame
    summary: pd.DataFrame
    statistics: pd.DataFrame
    failures: tuple[Failure, ...] = ()
    folder: Path | None = None
    remarks: tuple[str, ...] = ()
    report: Path | None = None


def evaluate(
    pairs: Sequence[CasePair],
    settings: EvaluationSettings,
    output: Path | None = None,
    progress: Progress = ignore_progress,
) -> Evaluation:
    """Score all pairs, and write `metrics.csv`, `summary.csv` and `statistics.csv`.

    A pair that cannot be read, whose grids differ or that holds a value outside the labels does not stop the others:
    its rows have the status `failed` and the reason, and count like those of a case without a prediction. A few cases
    are measured at a time, so that memory does not grow with their number.

    Args:
        pairs: The cases, each with its own case id.
        settings: How to evaluate them.
        output: The folder of the tables, made when it is missing; without one nothing is written.
        progress: Told after each case.

    Returns:
        The tables and the failures.

    Raises:
        DataError: If there are no pairs, or two of one case.
        OutputError: If the tables cannot be written.
    """
    _check(pairs)
    if output is not None:
        make_folder(output)
    rows: list[dict[str, object]] = []
    failures: list[Failure] = []
    progress("evaluate", 0, len(pairs))
    results = side_by_side(lambda pair: _evaluate_case(pair, settings), pairs)
    for done, (pair, (case_rows, failure)) in enumerate(zip(pairs, results, strict=True), 1):
        rows += case_rows
        failures += [failure] if failure else []
        progress("evaluate", done, len(pairs), f"{pair.case_id}: failed" if failure else pair.case_id)
    evaluation = _summed_up(rows, failures, settings)
    return evaluation if output is None else _written(evaluation, output)


def evaluate_masks(
    prediction: Mask, reference: Mask, settings: EvaluationSettings, case_id: str = "case"
) -> Evaluation:
    """Score one pair of masks that are in memory; nothing is written.

    Raises:
        GeometryError: If they lie on different grids.
        DataError: If one holds a value that is no label.
    """
    settings = replace(settings, unit=reference.geometry.unit)
    scores = score_masks(prediction, reference, settings.labels, settings.conventions)
    rows = [score_row(case_id, score, settings.columns, reference.geometry) for score in scores]
    return _summed_up(rows, [], settings)


def evaluate_arrays(
    prediction: Any,
    reference: Any,
    spacing_mm: tuple[float, float, float] | None,
    conventions: Conventions,
    threshold: float | None = None,
) -> Evaluation:
    """Score two arrays of label values on one grid; nothing is written.

    Args:
        prediction: (I, J, K) whole numbers, 0 is background; or, with a threshold, how likely label 1 is.
        reference: The same shape.
        spacing_mm: Along i, j, k.
        conventions: How to measure.
        threshold: Above which the prediction has label 1.

    Raises:
        ConfigError: If the spacing is missing, or no voxel has a label.
        DataError: If an array is no label map.
        GeometryError: If the shapes differ.
    """
    if spacing_mm is None:
        raise ConfigError("two arrays need their voxel sizes", hint="give spacing_mm along i, j and k")
    decided = prediction if threshold is None else np.asarray(prediction) > threshold
    made, wanted = (mask_of(array, spacing_mm) for array in (decided, reference))
    labels = {label.value: label for mask in (made, wanted) for label in mask.labels}
    return evaluate_masks(
        made, wanted, EvaluationSettings(tuple(labels[value] for value in sorted(labels)), conventions)
    )


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
        raise DataError(f"case {twice[0]} is to be evaluated more than once", hint="give each case its own id")


def _evaluate_case(pair: CasePair, settings: EvaluationSettings) -> tuple[list[dict[str, object]], Failure | None]:
    """The rows of one case, and the failure if it is one."""
    grid, columns = None, settings.columns
    try:
        reference = _reference(pair, settings)
        grid = reference.geometry  # known even where the prediction cannot be read
        _check_unit(grid, settings)
        reference, prediction = _on_one_grid(reference, pair, settings)
        grid = reference.geometry
        within = _counted(pair, settings, reference)
        stated = _probabilities(pair, settings, grid) if prediction is not None and settings.calibrated else None
        scores = score_masks(
            prediction, reference, settings.labels, settings.conventions, within=within, probabilities=stated
        )
    except DataError as error:
        reason = _without_folders(error.explanation, pair)
        rows = [failed_row(pair.case_id, label, reason, columns, grid) for label in settings.labels]
        return rows, Failure(pair.case_id, reason)
    known = _looked_for(pair.reference, settings.labels)
    return [score_row(pair.case_id, score, columns, grid) for score in scores if score.label in known], None


def _check_unit(grid: Geometry, settings: EvaluationSettings) -> None:
    if grid.unit != settings.unit:
        raise DataError(
            f"its reference is measured in {grid.unit}, those of other cases in {settings.unit}",
            hint="evaluate the two kinds apart, or say what a pixel is (data.pixel_mm)",
        )


def _looked_for(reference: Source, labels: Sequence[Label]) -> list[Label]:
    """The labels that a reference says anything of: masks per structure say nothing of one without a file."""
    if not isinstance(reference, MasksSource):
        return list(labels)
    return [label for name in reference.names if (label := label_of_file(name, labels)) is not None]


def _without_folders(reason: str, pair: CasePair) -> str:
    """A reason that names files, but not the folders they lie in: those may be called by patients."""
    places = [source.place for source in (pair.prediction, pair.reference, pair.within) if source is not None]
    for place in [*places, *([pair.probabilities] if pair.probabilities else [])]:
        reason = without_root(reason, place.parent)
    return reason


def read_pair(pair: CasePair, settings: EvaluationSettings) -> tuple[Mask, Mask | None]:
    """The masks of a case as they are compared, empty where nothing counts.

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
    """Reference and prediction, on one grid if their voxels allow it; what was cropped is put back into its image."""
    if pair.prediction is None:
        return reference, None
    prediction = read_mask(pair.prediction, settings.labels, on=reference.geometry)
    with contextlib.suppress(GeometryError):  # whoever asked for the number will judge
        return reference, prediction.on(reference.geometry)
    if settings.resample:
        return reference, resample_mask(prediction, reference.geometry)
    if reference.geometry.is_part_of(prediction.geometry):
        return place_reference(reference, prediction.geometry, pair.case_id), prediction
    return reference, prediction


def _counted(pair: CasePair, settings: EvaluationSettings, reference: Mask) -> NDArray[np.bool_] | None:
    """Where anything counts; None if that is everywhere."""
    region = _region(pair, reference.geometry) if settings.within else None
    if settings.ignored is None:
        return region
    known: NDArray[np.bool_] = reference.array != settings.ignored
    return known if region is None else known & region


def _region(pair: CasePair, grid: Geometry) -> NDArray[np.bool_]:
    """The region of interest of a case."""
    if pair.within is None:
        raise DataError(
            "there is no region of interest of this case",
            hint="put one of its name into the folder of --within, or leave the reference out",
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
            "the region of interest is empty: nothing in it could be right or wrong",
            hint="draw it, or leave the reference out",
        )
    return region.array > 0


def _probabilities(pair: CasePair, settings: EvaluationSettings, grid: Geometry) -> NDArray[np.floating]:
    """How likely each label is at each voxel of the reference."""
    if pair.probabilities is None:
        raise DataError("there are no probabilities of this case", hint="`volseg predict --probabilities` writes them")
    choice = pair.prediction.rules.geometry if isinstance(pair.prediction, FileSource) else None
    shares, geometry = read_probabilities(pair.probabilities, choice)
    known = len(settings.labels) - settings.lacking
    if not geometry.matches(grid) or shares.shape[-1] != known:
        raise GeometryError(
            f"the probabilities ({shares.shape[-1]} labels on {geometry}) do not belong to the reference "
            f"({known} labels on {grid})",
            hint="give the masks and probabilities that one model made of these images",
        )
    return np.pad(shares, ((0, 0), (0, 0), (0, 0), (0, settings.lacking))) if settings.lacking else shares


def _grid_for(pair: CasePair) -> Geometry | None:
    """The grid for a reference that has none of its own: that of the mask it is compared with."""
    prediction = pair.prediction
    if not _is_gridless(pair.reference) or prediction is None or _is_gridless(prediction):
        return None
    return read_mask(prediction).geometry


def _is_gridless(source: Source) -> bool:
    return isinstance(source, SegmentsSource) and not source.has_grid
