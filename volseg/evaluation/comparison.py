"""Paired comparison of evaluations of the same cases: which is better, and how certain that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from volseg.about import Facts, read_about
from volseg.errors import DataError
from volseg.evaluation.columns import Better
from volseg.evaluation.evaluate import METRICS_FILE, STATISTICS_FILE, CasePair
from volseg.evaluation.summary import MEAN_ROW
from volseg.evaluation.verdict import verdict_of
from volseg.image.naming import is_unnamed, matched
from volseg.image.units import Units
from volseg.image.volume import Label
from volseg.io import FileSource
from volseg.io.files import make_folder
from volseg.io.source import digest
from volseg.io.tables import read_table, write_table
from volseg.io.written import Inputs, claim
from volseg.metrics import LabelStatus
from volseg.metrics.bootstrap import NO_INTERVAL, bootstrap_means, interval

if TYPE_CHECKING:
    import pandas as pd

COMPARISON_FILE, DIFFERENCES_FILE = "comparison.csv", "differences.csv"

_KEY = ["case_id", "label", "value"]
_STATISTICS = ["metric", "definition", "better"]
#: What about.json calls the hash of all references.
_REFERENCES = "references"
#: Tables hold six significant digits: what is left of them after a subtraction is noise beyond this.
_DIGITS = 9


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison, as it was written.

    Attributes:
        table: A row per label and metric, see `compare_tables`, then one per metric over all labels, called "mean", see
            `compare_over_labels`; of several evaluations these rows for each pair, which `first_evaluation` and
            `second_evaluation` name.
        differences: A row per pair, case, label and metric: `first`, `second` and second minus first.
        folder: Holds comparison.csv and differences.csv.
        names: The evaluations, called by their folders.
        verdict: A sentence that says which evaluation is better, and how certain that is.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    folder: Path
    names: tuple[str, ...] = ()
    verdict: str = ""

    @property
    def means(self) -> pd.DataFrame:
        """Means over the cases: a row per label and metric, a column per evaluation."""
        import pandas as pd

        sides = [
            self.table[["label", "metric", f"{side}_evaluation", f"{side}_mean"]].set_axis(
                ["label", "metric", "evaluation", "mean"], axis=1
            )
            for side in ("first", "second")
        ]
        known = pd.concat(sides)
        rows = pd.MultiIndex.from_frame(known[["label", "metric"]].drop_duplicates())
        means = known.pivot_table("mean", ["label", "metric"], "evaluation", aggfunc="first")
        return means.reindex(index=rows, columns=list(self.names)).rename_axis(columns=None).reset_index()


def compare(
    first: Path, second: Path, output: Path, *, others: Sequence[Path] = (), overwrite: bool = False
) -> Comparison:
    """Compare evaluations pair by pair and write `comparison.csv` and `differences.csv`.

    Args:
        first: A folder that `evaluate` wrote.
        second: Another, of the same references.
        output: The folder of the tables, made when it is missing.
        others: More of them.
        overwrite: Whether the user gave up files that lie where the tables are to be.

    Returns:
        The tables, and the verdict.

    Raises:
        DataError: If a folder holds no evaluation, or they are not of the same cases, labels and metrics.
        OutputExistsError: If there is a table that volseg did not write or that was changed since.
        OutputError: If the tables cannot be written.
    """
    import pandas as pd

    folders = [first, second, *others]
    paths = [output / COMPARISON_FILE, output / DIFFERENCES_FILE]
    claim(paths, Inputs.of(*folders), overwrite=overwrite)
    tables = _tables(folders)
    directions = _directions([read_table(folder / STATISTICS_FILE, _STATISTICS) for folder in folders])
    names = _names(folders)
    compared, changes = [], []
    for one, other in combinations(range(len(folders)), 2):
        pair = {"first_evaluation": names[one], "second_evaluation": names[other]}
        between = _differences(tables[one], tables[other], list(directions))
        rows = pd.concat([compare_tables(between, directions), compare_over_labels(between, directions)])
        compared.append(rows.assign(**pair))
        changes.append(between.assign(**pair))
    table, differences = (pd.concat(parts, ignore_index=True) for parts in (compared, changes))
    make_folder(output)
    write_table(table, output / COMPARISON_FILE)
    write_table(differences, output / DIFFERENCES_FILE)
    return Comparison(table, differences, output, names, verdict_of(table, names))


def _tables(folders: Sequence[Path]) -> list[pd.DataFrame]:
    """Read the scores of each evaluation, with the same names for the same labels.

    Raises:
        DataError: If a folder holds none, or they are measured in other units.
    """
    tables = [read_table(folder / METRICS_FILE, [*_KEY, "status"]) for folder in folders]
    units = [Units.of_columns(table.columns) for table in tables]
    for number in range(1, len(folders)):
        if units[number] != units[0]:
            raise DataError(
                f"{folders[0]} is measured in {units[0].length}, {folders[number]} in {units[number].length}",
                hint="evaluate both alike: data.pixel_mm says what a pixel is",
            )
    # Twice, because the first evaluation may take a name from the last one that those between do not have yet.
    for number in 2 * list(range(1, len(folders))):
        same = _same_references(folders[0], folders[number])
        tables[0], tables[number] = _with_common_labels(tables[0], tables[number], same=same)
    return tables


def _names(folders: Sequence[Path]) -> tuple[str, ...]:
    """Name folders by the shortest ends of their paths that differ; number repetitions."""
    parts = [folder.absolute().parts for folder in folders]
    names: list[str] = []
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len({*parts}):
            break
    return tuple(
        name if name not in names[:number] else f"{name} ({names[:number].count(name) + 1})"
        for number, name in enumerate(names)
    )


def compare_tables(differences: pd.DataFrame, directions: dict[str, Better]) -> pd.DataFrame:
    """Summarise paired differences.

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


def compare_over_labels(differences: pd.DataFrame, directions: dict[str, Better]) -> pd.DataFrame:
    """Summarise paired differences over all labels, with equal weights.

    Args:
        differences: As for `compare_tables`, with the column case_id.
        directions: Metric -> in which direction it gets better.

    Returns:
        A row per metric with the columns of `compare_tables` and the label "mean". The means are those of the labels'
        means, as in summary.csv. Cases are resampled for the interval, ranked for the p-value and counted, each by the
        mean of its labels: labels of one case are no cases of their own.
    """
    import pandas as pd

    rows = []
    for metric, part in differences.groupby("metric", sort=False):
        known = part.dropna(subset="difference")
        gains = (
            known.assign(gain=_gain(known, directions[str(metric)])).groupby("case_id")["gain"].mean().round(_DIGITS)
        )
        by_label = known.groupby(["value", "label"])[["first", "second", "difference"]].mean().mean()
        changes = known.pivot_table(values="difference", index="case_id", columns=["value", "label"])
        change = changes.mean(axis=1).to_numpy(float).round(_DIGITS)
        rows.append(
            {"label": MEAN_ROW, "metric": metric, "n": len(changes)}
            | {"missing": part["case_id"].nunique() - len(changes)}
            | {"first_mean": by_label["first"], "second_mean": by_label["second"]}
            | {"difference_mean": by_label["difference"]}
            | dict(zip(("ci95_low", "ci95_high"), _interval_over_labels(changes), strict=True))
            | {"difference_median": np.median(change) if len(change) else np.nan}
            | {"better": int((gains > 0).sum()), "worse": int((gains < 0).sum()), "equal": int((gains == 0).sum())}
            | {"p_value": _p_value(change)}
        )
    return pd.DataFrame(rows)


def _interval_over_labels(changes: pd.DataFrame) -> tuple[float, float]:
    """Return the confidence limits of the mean of the columns' means, by resampling cases."""
    if len(changes) < 2:
        return NO_INTERVAL
    means = bootstrap_means(changes.to_numpy(float).round(_DIGITS))
    return interval(np.nanmean(means, axis=1))


def _gain(rows: pd.DataFrame, better: Better) -> NDArray[np.float64]:
    """Return by how much the second is better, with the sign of the metric's direction."""
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
    """Count the cases without a value in which only the second, and in which only the first, has a false alarm."""
    lone = rows[rows["difference"].isna()]
    first, second = (lone[name] == LabelStatus.BOTH_EMPTY for name in ("first_status", "second_status"))
    return int((first & ~second).sum()), int((second & ~first).sum())


def _p_value(differences: NDArray[np.float64]) -> float:
    from scipy.stats import wilcoxon

    if not differences.any():
        return float("nan")
    return float(wilcoxon(differences, zero_method="pratt").pvalue)


def _directions(numbers: Sequence[pd.DataFrame]) -> dict[str, Better]:
    """Return metric -> direction in which it improves, for the metrics that have one."""
    metrics = [table.drop_duplicates("metric").set_index("metric") for table in numbers]
    first, *others = [set(table["definition"].items()) for table in metrics]
    for other in others:
        if other != first:
            name = min(str(name) for name, _ in first ^ other)
            raise DataError(f"the evaluations do not measure {name} alike", hint="evaluate both with the same options")
    known = {str(name): Better(better) for name, better in metrics[0]["better"].items()}
    return {name: better for name, better in known.items() if better is not Better.NEITHER}


def references_fact(pairs: Sequence[CasePair]) -> Facts:
    """Return a hash of the references, to detect differences between evaluations; empty if one is unreadable."""
    plain = (
        replace(pair.reference, labels=()) if isinstance(pair.reference, FileSource) else pair.reference
        for pair in pairs
    )
    try:
        return ((_REFERENCES, digest(plain, " ".join(pair.case_id for pair in pairs))),)
    except DataError:
        return ()


def _same_references(first: Path, second: Path) -> bool | None:
    """Return whether both evaluations used the same references; None if unknown."""
    stated = [read_about(folder).facts.get(_REFERENCES) for folder in (first, second)]
    return stated[0] == stated[1] if all(stated) else None


def _with_common_labels(
    first: pd.DataFrame, second: pd.DataFrame, *, same: bool | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give each label that is in both tables the same name and value in both.

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
    """Return a row per case, label and metric."""
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
    """Refuse to compare if the reference volumes of a case differ; failed cases have none."""
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
