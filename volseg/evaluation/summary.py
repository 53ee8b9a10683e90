"""Summaries over cases, with the number of cases behind each value: summary.csv and statistics.csv."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from volseg.evaluation.columns import Better, Column
from volseg.image.units import Units
from volseg.metrics import LabelStatus
from volseg.metrics.bootstrap import NO_INTERVAL, bootstrap_means, interval

if TYPE_CHECKING:
    import pandas as pd

#: How missing values are counted; stated in the file, since means cannot be interpreted without it.
POLICY = (
    "a label that is missed, a false alarm, not predicted or failed counts as 0 in overlap, precision and shares of "
    "surfaces, lesions and centre lines, and as the image diagonal in distances; one in neither mask is not scored"
)
#: Name of the row over all labels.
MEAN_ROW = "mean"

_COUNTS = ["cases", "scored", "ok", "missed", "false_alarm", "absent", "not_predicted", "failed"]
#: Columns of the difference in size, in either unit.
_DIFFERENCES = ("volume_difference_ml", "area_difference_px2")
_WORST_CASES = 3


def summarise(metrics: pd.DataFrame) -> pd.DataFrame:
    """Average over the cases of each label, and then over the labels.

    Args:
        metrics: As `metrics_table` returns it.

    Returns:
        A row per label, in the order of their values: the number of cases of each status, then means over the `scored`
        cases, which are all but the `absent` ones (status both_empty), with more statistics of Dice. Standard
        deviations are those of a sample (n - 1). If the reference of a failed case cannot be read, it has no distances
        and does not contribute to their means; it is counted in `failed`. The last row, "mean", holds the sums of the
        counts and unweighted means over the labels; its confidence interval is that of the mean Dice over labels.
    """
    import pandas as pd

    table = pd.DataFrame([_summarise_label(label, rows) for label, rows in _by_label(metrics)])
    statistics = [column for column in table.columns if column not in {"label", *_COUNTS}]
    overall = {"label": MEAN_ROW, **table[_COUNTS].sum().to_dict(), **table[statistics].mean().to_dict()}
    low, high, whole = _intervals(metrics, ["dice"])["dice"]
    table = pd.concat([table, pd.DataFrame([overall])], ignore_index=True)
    return table.assign(dice_ci95_low=[*low, whole[0]], dice_ci95_high=[*high, whole[1]], policy=POLICY)


def statistics(metrics: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Compute all statistics of all metrics.

    Args:
        metrics: As `metrics_table` returns it.
        columns: Columns of that table.

    Returns:
        A row per label and column: the number of cases of each status, the number of cases with a value (`n`), its
        mean with a 95 % confidence interval (percentiles of 2,000 resamples of the cases; Efron 1979), standard
        deviation (n - 1), quartiles, extremes, and the worst cases, starting with the worst.
    """
    import pandas as pd

    rows = []
    labels = [(label, part, _counts(part)) for label, part in _by_label(metrics)]
    intervals = _intervals(metrics, [column.name for column in columns])
    for column in columns:
        low, high, _ = intervals[column.name]
        for number, (label, part, counts) in enumerate(labels):
            values = part[column.name].astype(float)
            rows.append(
                {"label": label, "metric": column.name, "better": column.better.value}
                | {"definition": column.definition}
                | counts
                | {"n": int(values.count()), "mean": values.mean(), "ci95_low": low[number], "ci95_high": high[number]}
                | {"sd": values.std(), "min": values.min(), "q1": values.quantile(0.25), "median": values.median()}
                | {"q3": values.quantile(0.75), "max": values.max(), "worst_cases": _worst_cases(part, column)}
            )
    return pd.DataFrame(rows)


def _by_label(metrics: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Group rows by label value, since two labels may share a name."""
    return [(str(label), rows) for (_, label), rows in metrics.groupby(["value", "label"], sort=True)]


def _intervals(
    metrics: pd.DataFrame, names: Sequence[str]
) -> dict[str, tuple[list[float], list[float], tuple[float, float]]]:
    """Return, for each metric, the confidence limits of the mean of each label, and of the mean over the labels."""
    tables = metrics.astype(dict.fromkeys(names, float)).pivot_table(list(names), "case_id", "value", dropna=False)
    labels = len(tables.columns) // len(names)
    means = np.hsplit(bootstrap_means(tables.to_numpy()), len(names))
    found = tables.columns.get_level_values(0)[::labels]
    return {str(name): _limits(tables[name], drawn) for name, drawn in zip(found, means, strict=True)}


def _limits(table: pd.DataFrame, means: NDArray[np.float64]) -> tuple[list[float], list[float], tuple[float, float]]:
    limits = [interval(means[:, n]) if table.iloc[:, n].count() > 1 else NO_INTERVAL for n in range(table.shape[1])]
    known = np.isfinite(means)
    with np.errstate(invalid="ignore"):
        overall = np.where(known, means, 0.0).sum(axis=1) / known.sum(axis=1)
    whole = interval(overall) if table.notna().any(axis=1).sum() > 1 else NO_INTERVAL
    return [low for low, _ in limits], [high for _, high in limits], whole


def _counts(rows: pd.DataFrame) -> dict[str, int]:
    status = rows["status"].value_counts()
    absent = int(status.get(LabelStatus.BOTH_EMPTY, 0))
    return {
        "cases": len(rows),
        "scored": len(rows) - absent,
        "ok": int(status.get(LabelStatus.OK, 0)),
        "missed": int(status.get(LabelStatus.MISSED, 0)),
        "false_alarm": int(status.get(LabelStatus.FALSE_ALARM, 0)),
        "absent": absent,
        "not_predicted": int(status.get(LabelStatus.NOT_PREDICTED, 0)),
        "failed": int(status.get(LabelStatus.FAILED, 0)),
    }


def _summarise_label(label: str, rows: pd.DataFrame) -> dict[str, object]:
    units = Units.of_columns(rows.columns)
    hd95, assd = f"hd95_{units.length}", f"assd_{units.length}"
    difference = next(name for name in rows.columns if name in _DIFFERENCES)
    return {
        "label": label,
        **_counts(rows),
        "dice_mean": rows["dice"].mean(),
        "dice_sd": rows["dice"].std(),
        "dice_median": rows["dice"].median(),
        "dice_min": rows["dice"].min(),
        "iou_mean": rows["iou"].mean(),
        f"{hd95}_mean": rows[hd95].mean(),
        f"{hd95}_median": rows[hd95].median(),
        f"{assd}_mean": rows[assd].mean(),
        "nsd_mean": rows["nsd"].mean(),
        "sensitivity_mean": rows["sensitivity"].mean(),
        "precision_mean": rows["precision"].mean(),
        f"{difference}_mean": rows[difference].mean(),
    }


def _worst_cases(rows: pd.DataFrame, column: Column) -> str:
    """Return the ids of the worst cases; empty for a metric without a direction."""
    values = rows[column.name].astype(float).to_numpy()
    match column.better:
        case Better.HIGHER:
            badness = -values
        case Better.LOWER:
            badness = values
        case Better.ZERO:
            badness = np.abs(values)
        case Better.NEITHER:
            return ""
    order = [n for n in np.argsort(-badness, kind="stable") if np.isfinite(badness[n])]
    return "; ".join(str(rows["case_id"].iloc[n]) for n in order[:_WORST_CASES])
