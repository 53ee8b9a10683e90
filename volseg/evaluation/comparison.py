"""Two evaluations of the same cases, case by case: which model is better, and how sure is that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from volseg.about import Facts, read_about
from volseg.errors import DataError
from volseg.evaluation.columns import Better
from volseg.evaluation.evaluate import METRICS_FILE, STATISTICS_FILE, CasePair
from volseg.image.naming import is_unnamed, matched
from volseg.image.units import Units
from volseg.image.volume import Label
from volseg.io import FileSource
from volseg.io.files import make_folder
from volseg.io.source import digest
from volseg.io.tables import read_table, write_table
from volseg.io.written import Inputs, claim
from volseg.metrics import LabelStatus
from volseg.metrics.bootstrap import bootstrap_means, interval

if TYPE_CHECKING:
    import pandas as pd

COMPARISON_FILE, DIFFERENCES_FILE = "comparison.csv", "differences.csv"

_KEY = ["case_id", "label", "value"]
#: What about.json calls the hash of all references.
_REFERENCES = "references"
#: Tables hold six significant digits: what is left of them after a subtraction is noise beyond this.
_DIGITS = 9


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


def compare(first: Path, second: Path, output: Path, *, overwrite: bool = False) -> Comparison:
    """Compare two evaluations and write `comparison.csv` and `differences.csv`.

    Args:
        first: A folder that `evaluate` wrote.
        second: Another, of the same references.
        output: The folder of the tables, made when it is missing.
        overwrite: Whether the user gave up files that lie where the tables are to be.

    Returns:
        The tables.

    Raises:
        DataError: If a folder holds no evaluation, or they are not of the same cases, labels and metrics.
        OutputExistsError: If there is a table that volseg did not write or that was changed since.
        OutputError: If the tables cannot be written.
    """
    paths = [output / COMPARISON_FILE, output / DIFFERENCES_FILE]
    claim(paths, Inputs.of(first, second), overwrite=overwrite)
    tables = [read_table(folder / METRICS_FILE, [*_KEY, "status"]) for folder in (first, second)]
    units = [Units.of_columns(table.columns) for table in tables]
    if units[0] != units[1]:
        raise DataError(
            f"{first} is measured in {units[0].length}, {second} in {units[1].length}",
            hint="evaluate both alike: data.pixel_mm says what a pixel is",
        )
    tables = list(_with_common_labels(tables[0], tables[1], same=_same_references(first, second)))
    numbers = [read_table(folder / STATISTICS_FILE, ["metric", "definition", "better"]) for folder in (first, second)]
    directions = _directions(*numbers)
    differences = _differences(tables[0], tables[1], list(directions))
    table = compare_tables(differences, directions)
    make_folder(output)
    write_table(table, output / COMPARISON_FILE)
    write_table(differences, output / DIFFERENCES_FILE)
    return Comparison(table, differences, output)


def compare_tables(differences: pd.DataFrame, directions: dict[str, Better]) -> pd.DataFrame:
    """Sum up paired differences.

    Args:
        differences: With the columns label, value, metric, first, first_status, second, second_status and difference.
        directions: Metric -> in which direction it gets better.

    Returns:
        A row per label and metric: in how many cases both have the number (`n`), the means of both, the mean of their
        differences with its 95 % confidence interval (percentiles of 2,000 resamples of the cases), their median, in
        how many cases the second is `better`, `worse` or `equal`, and `p_value` of Wilcoxon's signed-rank test
        (zeros take part in the ranking, Pratt 1959); NaN where all are equal. Nothing is corrected
        for the number of tests. Where a structure is in neither mask there is no number: such a case is `missing` in
        what is averaged, but whoever invents the structure there is counted as worse.
    """
    import pandas as pd

    rows = []
    for (_, label, metric), part in differences.groupby(["value", "label", "metric"], sort=False):
        known = part.dropna(subset="difference")
        change = known["difference"].to_numpy(float).round(_DIGITS)
        gain = _gain(known, directions[str(metric)])
        invented, left_alone = _invented(part)
        low, high = interval(bootstrap_means(change[:, None])[:, 0]) if len(known) > 1 else (np.nan, np.nan)
        rows.append(
            {"label": label, "metric": metric, "n": len(known), "missing": len(part) - len(known)}
            | {"first_mean": known["first"].mean(), "second_mean": known["second"].mean()}
            | {"difference_mean": known["difference"].mean(), "ci95_low": low, "ci95_high": high}
            | {"difference_median": known["difference"].median()}
            | {"better": int((gain > 0).sum()) + left_alone, "worse": int((gain < 0).sum()) + invented}
            | {"equal": int((gain == 0).sum())}
            | {"p_value": _p_value(change)}
        )
    return pd.DataFrame(rows)


def _gain(rows: pd.DataFrame, better: Better) -> NDArray[np.float64]:
    """How much better the second is, in the direction of the metric."""
    first, second = rows["first"].to_numpy(float), rows["second"].to_numpy(float)
    match better:
        case Better.HIGHER:
            gain = second - first
        case Better.LOWER:
            gain = first - second
        case _:
            gain = np.abs(first) - np.abs(second)
    return gain.round(_DIGITS)


def _invented(rows: pd.DataFrame) -> tuple[int, int]:
    """In how many cases without a number the second alone drew what is not there, and in how many the first alone."""
    lone = rows[rows["difference"].isna()]
    first, second = (lone[name] == LabelStatus.BOTH_EMPTY for name in ("first_status", "second_status"))
    return int((first & ~second).sum()), int((second & ~first).sum())


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


def references_fact(pairs: Sequence[CasePair]) -> Facts:
    """What tells the references of two evaluations apart: a hash of their files; nothing if one cannot be read."""
    plain = (
        replace(pair.reference, labels=()) if isinstance(pair.reference, FileSource) else pair.reference
        for pair in pairs
    )
    try:
        return ((_REFERENCES, digest(plain, " ".join(pair.case_id for pair in pairs))),)
    except DataError:
        return ()


def _same_references(first: Path, second: Path) -> bool | None:
    """Whether both evaluations took the same files; None where one of them does not say."""
    stated = [read_about(folder).facts.get(_REFERENCES) for folder in (first, second)]
    return stated[0] == stated[1] if all(stated) else None


def _with_common_labels(
    first: pd.DataFrame, second: pd.DataFrame, *, same: bool | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with one name and one value for each label that they have in common.

    Names come first. Where one has none, values of the same references mean the same; tables that do not say which
    files they took are held to the volumes of their references later on.

    Raises:
        DataError: If values would have to be compared, and the references are other files.
    """
    ours, theirs = (_labels_of(table) for table in (first, second))
    both = set(ours) & set(theirs)
    ours, theirs = ([label for label in labels if label not in both] for labels in (ours, theirs))
    new_ours: dict[Label, Label] = {}
    new_theirs: dict[Label, Label] = {}
    for value, label in matched(theirs, ours).items():
        other = next(one for one in theirs if one.value == value)
        by_value = is_unnamed(other) != is_unnamed(label)
        if by_value and same is False:
            raise DataError(
                f"one evaluation calls its label {label.name}, the other {other.name}, and the references are other "
                f"files",
                hint="compare evaluations of the same references",
            )
        common = other if is_unnamed(label) else label
        new_ours[label] = new_theirs[other] = Label(label.value, common.name)
    return _renamed(first, new_ours), _renamed(second, new_theirs)


def _labels_of(table: pd.DataFrame) -> list[Label]:
    rows = table[["label", "value"]].drop_duplicates().itertuples(index=False)
    return [Label(int(value), str(name)) for name, value in rows]


def _renamed(table: pd.DataFrame, new: Mapping[Label, Label]) -> pd.DataFrame:
    labels = [Label(int(value), str(name)) for name, value in zip(table["label"], table["value"], strict=True)]
    renamed = [new.get(label, label) for label in labels]
    return table.assign(label=[label.name for label in renamed], value=[label.value for label in renamed])


def _differences(first: pd.DataFrame, second: pd.DataFrame, metrics: Sequence[str]) -> pd.DataFrame:
    """A row per case, label and metric."""
    keys = [set(map(tuple, table[_KEY].to_numpy().tolist())) for table in (first, second)]
    if keys[0] != keys[1]:
        case_id, label, _ = min(keys[0] ^ keys[1])
        raise DataError(
            f"only one of the evaluations has label {label} of case {case_id}",
            hint="compare evaluations of the same references",
        )
    _check_references(first, second)
    long = []
    for table, name in ((first, "first"), (second, "second")):
        known = table.rename(columns={"status": f"{name}_status"})
        long.append(known.melt([*_KEY, f"{name}_status"], list(metrics), "metric", name))
    both = long[0].merge(long[1], on=[*_KEY, "metric"])
    return both.assign(difference=both["second"] - both["first"])


def _check_references(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """Refuse references of different volumes; a case that failed has none."""
    unit = Units.of_columns(first.columns).size
    one_size, other_size = (f"reference_{unit}_{side}" for side in "xy")
    both = first.merge(second, on=_KEY).dropna(subset=[one_size, other_size])
    other = both[~np.isclose(both[one_size], both[other_size], rtol=1e-5)]
    if len(other):
        row = other.iloc[0]
        raise DataError(
            f"label {row['label']} of case {row['case_id']} has {row[one_size]:g} {unit} in the reference of one "
            f"evaluation and {row[other_size]:g} {unit} in that of the other",
            hint="compare evaluations of the same references",
        )
