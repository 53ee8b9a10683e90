"""Two evaluations of the same cases, case by case: which model is better, and how sure is that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from volseg.errors import DataError
from volseg.evaluation.columns import Better
from volseg.evaluation.evaluate import METRICS_FILE, STATISTICS_FILE
from volseg.evaluation.summary import bootstrap_means, interval
from volseg.evaluation.tables import write_table
from volseg.io.files import make_folder

COMPARISON_FILE, DIFFERENCES_FILE = "comparison.csv", "differences.csv"

_KEY = ["case_id", "label", "value"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What was found, and where it was written.

    Attributes:
        table: A row per label and metric, see `compare_tables`.
        differences: A row per case, label and metric: `first`, `second` and second minus first.
        folder: Holds comparison.csv and differences.csv.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    folder: Path


def compare(first: Path, second: Path, output: Path) -> Comparison:
    """Compare two evaluations and write `comparison.csv` and `differences.csv`.

    Args:
        first: A folder that `evaluate` wrote.
        second: Another, of the same references.
        output: The folder of the tables, made when it is missing.

    Returns:
        The tables.

    Raises:
        DataError: If a folder holds no evaluation, or they are not of the same cases, labels and metrics.
        OutputError: If the tables cannot be written.
    """
    tables = [_read(folder / METRICS_FILE) for folder in (first, second)]
    directions = _directions(*(_read(folder / STATISTICS_FILE) for folder in (first, second)))
    differences = _differences(tables[0], tables[1], list(directions))
    table = compare_tables(differences, directions)
    make_folder(output)
    write_table(table, output / COMPARISON_FILE)
    write_table(differences, output / DIFFERENCES_FILE)
    return Comparison(table, differences, output)


def compare_tables(differences: pd.DataFrame, directions: dict[str, Better]) -> pd.DataFrame:
    """Sum up paired differences.

    Args:
        differences: With the columns label, value, metric, first, second and difference.
        directions: Metric -> in which direction it gets better.

    Returns:
        A row per label and metric: in how many cases both have the number (`n`), the means of both, the mean of their
        differences with its 95 % confidence interval (percentiles of 2,000 resamples of the cases), their median, in
        how many cases the second is `better`, `worse` or `equal`, and `p_value` of Wilcoxon's signed-rank test
        (zeros take part in the ranking, Pratt 1959); NaN where all are equal. Nothing is corrected
        for the number of tests.
    """
    rows = []
    for (_, label, metric), part in differences.groupby(["value", "label", "metric"], sort=False):
        known = part.dropna(subset="difference")
        change = known["difference"].to_numpy(float)
        gain = _gain(known, directions[str(metric)])
        low, high = interval(bootstrap_means(change[:, None])[:, 0]) if len(known) > 1 else (np.nan, np.nan)
        rows.append(
            {"label": label, "metric": metric, "n": len(known), "missing": len(part) - len(known)}
            | {"first_mean": known["first"].mean(), "second_mean": known["second"].mean()}
            | {"difference_mean": known["difference"].mean(), "ci95_low": low, "ci95_high": high}
            | {"difference_median": known["difference"].median()}
            | {"better": int((gain > 0).sum()), "worse": int((gain < 0).sum()), "equal": int((gain == 0).sum())}
            | {"p_value": _p_value(change)}
        )
    return pd.DataFrame(rows)


def _gain(rows: pd.DataFrame, better: Better) -> NDArray[np.float64]:
    """How much better the second is, in the direction of the metric."""
    first, second = rows["first"].to_numpy(float), rows["second"].to_numpy(float)
    match better:
        case Better.HIGHER:
            return second - first
        case Better.LOWER:
            return first - second
        case _:
            return np.abs(first) - np.abs(second)


def _p_value(differences: NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon

    if not differences.any():
        return float("nan")
    return float(wilcoxon(differences, zero_method="pratt").pvalue)


def _directions(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, Better]:
    """Metric -> in which direction it gets better, for the metrics that have one."""
    metrics = [table.drop_duplicates("metric").set_index("metric") for table in (first, second)]
    names = [set(table["definition"].items()) for table in metrics]
    if names[0] != names[1]:
        name = min(str(name) for name, _ in names[0] ^ names[1])
        raise DataError(f"the evaluations do not measure {name} alike", hint="evaluate both with the same options")
    known = {str(name): Better(better) for name, better in metrics[0]["better"].items()}
    return {name: better for name, better in known.items() if better is not Better.NEITHER}


def _differences(first: pd.DataFrame, second: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A row per case, label and metric."""
    keys = [set(map(tuple, table[_KEY].to_numpy().tolist())) for table in (first, second)]
    if keys[0] != keys[1]:
        case_id, label, _ = min(keys[0] ^ keys[1])
        raise DataError(
            f"only one of the evaluations has label {label} of case {case_id}",
            hint="compare evaluations of the same references",
        )
    long = [table.melt(_KEY, list(metrics), "metric", name) for table, name in ((first, "first"), (second, "second"))]
    both = long[0].merge(long[1], on=[*_KEY, "metric"])
    return both.assign(difference=both["second"] - both["first"])


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"case_id": str, "label": str})
    except (OSError, ValueError) as error:
        hint = "name folders that `volseg evaluate` wrote"
        raise DataError(f"{path} is no table of an evaluation: {error}", hint=hint) from error
