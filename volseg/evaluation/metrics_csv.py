"""Rows of metrics.csv."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from volseg.evaluation.columns import Column
from volseg.image.geometry import Geometry
from volseg.image.volume import Label
from volseg.metrics import LabelScore, LabelStatus, worst_distance_mm

if TYPE_CHECKING:
    import pandas as pd

_FIRST, _LAST = ("case_id", "label", "value", "status"), ("reason",)
_WHOLE_NUMBERS = ("value", "tp", "fp", "fn", "tn", "lesions_found", "lesions_false", "lesions_missed")


def score_row(case_id: str, score: LabelScore, columns: Sequence[Column], grid: Geometry) -> dict[str, object]:
    """Return a score as a row of metrics.csv.

    Args:
        case_id: The case.
        score: The score of one label.
        columns: Columns of the table. A metric that could not be measured has its worst value.
        grid: Grid of the reference.
    """
    row: dict[str, object] = {column.name: _value(score, column, grid) for column in columns}
    return _named(case_id, score.label, score.status) | row | {"reason": ""}


def failed_row(
    case_id: str, label: Label, reason: str, columns: Sequence[Column], grid: Geometry | None
) -> dict[str, object]:
    """Return the row of a label that could not be scored, with the worst value of each metric.

    Args:
        case_id: The case.
        label: The label.
        reason: The reason.
        columns: Columns of the table.
        grid: Grid of the reference, whose diagonal is the worst distance; None if it cannot be read.
    """
    diagonal_mm = worst_distance_mm(grid) if grid else None
    row: dict[str, object] = {column.name: column.worst(diagonal_mm) for column in columns}
    return _named(case_id, label, LabelStatus.FAILED) | row | {"reason": reason}


def metrics_table(rows: Sequence[dict[str, object]], columns: Sequence[Column]) -> pd.DataFrame:
    """Return the table of all rows, in order.

    Args:
        rows: Rows from `score_row` and `failed_row`.
        columns: Columns of the table.

    Returns:
        Case id, label, value, status, the columns and a reason; sorted by case id and label value.
    """
    import pandas as pd

    names = [*_FIRST, *(column.name for column in columns), *_LAST]
    table = pd.DataFrame(rows, columns=names).sort_values(["case_id", "value"], ignore_index=True)
    table["status"] = table["status"].map(str)
    return table.astype({name: "Int64" for name in _WHOLE_NUMBERS if name in names})


def _named(case_id: str, label: Label, status: LabelStatus) -> dict[str, object]:
    return {"case_id": case_id, "label": label.name, "value": label.value, "status": status}


def _value(score: LabelScore, column: Column, grid: Geometry) -> float | int | None:
    value = column.value(score)
    unknown = value is None or (score.status is LabelStatus.NOT_PREDICTED and math.isnan(value))
    return column.worst(worst_distance_mm(grid)) if unknown else value
