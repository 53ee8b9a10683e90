"""The verb `evaluate`: predictions and references in, a table of metrics and its summary out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from volseg.errors import ConfigError, DataError
from volseg.geometry import Geometry
from volseg.io import SegmentsSource, Source, read_mask
from volseg.io.files import atomic_path, make_folder
from volseg.metrics import LabelScore, Status, score_masks, worst_distance_mm
from volseg.progress import Progress, silent
from volseg.volume import Label

#: The columns of metrics.csv; an empty cell is a number that does not exist.
METRICS_COLUMNS = (
    "case_id",
    "label",
    "value",
    "status",
    "dice",
    "iou",
    "sensitivity",
    "specificity",
    "precision",
    "hd_mm",
    "hd95_mm",
    "assd_mm",
    "nsd",
    "reference_ml",
    "predicted_ml",
    "volume_difference_ml",
    "tp",
    "fp",
    "fn",
    "tn",
    "reason",
)
#: What the summary's numbers are made of; stated in the file, because a mean cannot be read without it.
POLICY = (
    "missed, false_alarm, not_predicted and failed count as 0 in dice, iou, precision and nsd, and as the image "
    "diagonal in hd95 and assd; absent (in neither mask) is not scored"
)

_WHOLE_NUMBERS = ["value", "tp", "fp", "fn", "tn"]
#: The name of the summary's row over all labels.
MEAN_ROW = "mean"
_COUNTS = ["cases", "scored", "ok", "missed", "false_alarm", "absent", "not_predicted", "failed"]


@dataclass(frozen=True)
class CasePair:
    """A case to evaluate.

    Attributes:
        case_id: Its name, unique among the pairs.
        prediction: The mask a model made, None when it made none.
        reference: The mask that is held to be right.
    """

    case_id: str
    prediction: Source | None
    reference: Source


@dataclass(frozen=True)
class Failure:
    """A case that could not be scored, and why."""

    case_id: str
    reason: str


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured, and where it was written.

    Attributes:
        metrics: A row per case and label, columns `METRICS_COLUMNS`.
        summary: A row per label and one over all, see `summarise`.
        failures: The cases that could not be scored, in the order of the pairs.
        metrics_file: The metrics as CSV.
        summary_file: The summary as CSV.
    """

    metrics: pd.DataFrame
    summary: pd.DataFrame
    failures: tuple[Failure, ...]
    metrics_file: Path
    summary_file: Path


def evaluate(
    pairs: Sequence[CasePair],
    labels: Sequence[Label],
    output: Path,
    *,
    tolerance_mm: float = 2.0,
    progress: Progress = silent,
) -> Evaluation:
    """Score all pairs and write `metrics.csv` and `summary.csv`.

    A pair that cannot be read, whose grids differ or that holds a value outside `labels` does not stop the others: its
    rows have the status `failed` and the reason, and count like those of a case without a prediction.

    Args:
        pairs: The cases, each with its own case id.
        labels: What to score; they must cover all values of the masks.
        output: The folder of the two tables, made when it is missing.
        tolerance_mm: What the normalised surface Dice takes for agreement.
        progress: Told after each case.

    Returns:
        The tables and the failures.

    Raises:
        DataError: If there are no pairs, or two of one case.
        ConfigError: If there are no labels, or the tolerance is negative.
        OutputError: If the tables cannot be written.
    """
    _check_request(pairs, labels)
    make_folder(output)
    rows: list[dict[str, object]] = []
    failures: list[Failure] = []
    progress("evaluate", 0, len(pairs))
    for done, pair in enumerate(pairs, 1):
        case_rows, failure = _evaluate_case(pair, labels, tolerance_mm)
        rows += case_rows
        if failure:
            failures.append(failure)
        progress("evaluate", done, len(pairs), f"{pair.case_id}: failed" if failure else pair.case_id)
    metrics = metrics_table(rows)
    summary = summarise(metrics)
    metrics_file, summary_file = output / "metrics.csv", output / "summary.csv"
    _write_table(metrics, metrics_file)
    _write_table(summary, summary_file)
    return Evaluation(metrics, summary, tuple(failures), metrics_file, summary_file)


def score_row(case_id: str, score: LabelScore) -> dict[str, object]:
    """A score as a row of metrics.csv."""
    numbers = asdict(score)
    del numbers["label"]
    return {"case_id": case_id, "label": score.label.name, "value": score.label.value, **numbers, "reason": ""}


def failed_row(case_id: str, label: Label, reason: str, grid: Geometry | None) -> dict[str, object]:
    """The row of a label that could not be scored: the worst values, and nothing where there is nothing to know.

    Args:
        case_id: The case.
        label: The label.
        reason: Why.
        grid: The grid of the reference, whose diagonal stands for the distances; None when it cannot be read.

    Returns:
        Some of `METRICS_COLUMNS`; `metrics_table` leaves the others empty.
    """
    row: dict[str, object] = {"case_id": case_id, "label": label.name, "value": label.value, "status": Status.FAILED}
    row |= dict.fromkeys(("dice", "iou", "sensitivity", "precision", "nsd"), 0.0)
    if grid is not None:
        row |= dict.fromkeys(("hd_mm", "hd95_mm", "assd_mm"), worst_distance_mm(grid))
    return row | {"reason": reason}


def metrics_table(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Put rows in order.

    Args:
        rows: From `score_row` and `failed_row`.

    Returns:
        One row each with `METRICS_COLUMNS`, sorted by case id and label value.
    """
    table = pd.DataFrame(rows, columns=list(METRICS_COLUMNS)).sort_values(["case_id", "value"], ignore_index=True)
    table["status"] = table["status"].map(str)
    return table.astype(dict.fromkeys(_WHOLE_NUMBERS, "Int64"))


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Average over the cases, label by label, and then over the labels.

    Args:
        metrics: As `metrics_table` returns it.

    Returns:
        A row per label, in the order of their values: how many cases there are of each status, then statistics over
        the `scored` cases, which are all but the `absent` ones (status both_empty). Standard deviations are those of a
        sample (n - 1). Distances of a failed case whose reference cannot be read do not exist, so they are in no mean;
        `failed` tells. The last row, "mean", holds the sums of the counts and the unweighted means over the labels of
        all else.
    """
    by_label = metrics.groupby(["value", "label"], sort=True)
    table = pd.DataFrame([_summarise_label(str(label), rows) for (_, label), rows in by_label])
    statistics = [column for column in table.columns if column not in {"label", *_COUNTS}]
    overall = {"label": MEAN_ROW, **table[_COUNTS].sum().to_dict(), **table[statistics].mean().to_dict()}
    table = pd.concat([table, pd.DataFrame([overall])], ignore_index=True)
    return table.assign(policy=POLICY)


def _summarise_label(label: str, rows: pd.DataFrame) -> dict[str, object]:
    status = rows["status"].value_counts()
    absent = int(status.get(Status.BOTH_EMPTY, 0))
    return {
        "label": label,
        "cases": len(rows),
        "scored": len(rows) - absent,
        "ok": int(status.get(Status.OK, 0)),
        "missed": int(status.get(Status.MISSED, 0)),
        "false_alarm": int(status.get(Status.FALSE_ALARM, 0)),
        "absent": absent,
        "not_predicted": int(status.get(Status.NOT_PREDICTED, 0)),
        "failed": int(status.get(Status.FAILED, 0)),
        "dice_mean": rows["dice"].mean(),
        "dice_sd": rows["dice"].std(),
        "dice_median": rows["dice"].median(),
        "dice_min": rows["dice"].min(),
        "iou_mean": rows["iou"].mean(),
        "hd95_mm_mean": rows["hd95_mm"].mean(),
        "hd95_mm_median": rows["hd95_mm"].median(),
        "assd_mm_mean": rows["assd_mm"].mean(),
        "nsd_mean": rows["nsd"].mean(),
        "sensitivity_mean": rows["sensitivity"].mean(),
        "precision_mean": rows["precision"].mean(),
        "volume_difference_ml_mean": rows["volume_difference_ml"].mean(),
    }


def _check_request(pairs: Sequence[CasePair], labels: Sequence[Label]) -> None:
    if not pairs:
        raise DataError("there is nothing to evaluate", hint="give at least one reference")
    if not labels:
        raise ConfigError("there are no labels to evaluate")
    twice = [case_id for case_id, times in Counter(pair.case_id for pair in pairs).items() if times > 1]
    if twice:
        raise DataError(f"case {twice[0]} is to be evaluated more than once", hint="give each case its own id")


def _evaluate_case(
    pair: CasePair, labels: Sequence[Label], tolerance_mm: float
) -> tuple[list[dict[str, object]], Failure | None]:
    """The rows of one case, and the failure if it is one."""
    grid = None
    try:
        reference = read_mask(pair.reference, labels, on=_grid_for(pair))
        grid = reference.geometry
        prediction = None if pair.prediction is None else read_mask(pair.prediction, labels, on=grid)
        scores = score_masks(prediction, reference, labels, tolerance_mm)
    except DataError as error:
        reason = str(error)
        return [failed_row(pair.case_id, label, reason, grid) for label in labels], Failure(pair.case_id, reason)
    return [score_row(pair.case_id, score) for score in scores], None


def _grid_for(pair: CasePair) -> Geometry | None:
    """The grid for a reference that has none of its own: that of the mask it is compared with."""
    drawn, prediction = isinstance(pair.reference, SegmentsSource), pair.prediction
    return (
        read_mask(prediction).geometry if drawn and prediction and not isinstance(prediction, SegmentsSource) else None
    )


def _write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a CSV with six digits, an empty cell for what does not exist."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
