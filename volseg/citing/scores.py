"""The scores of an evaluation, in sentences and as a LaTeX table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.about import About, facts_of_models, read_about
from volseg.citing.words import ranged
from volseg.errors import DataError
from volseg.evaluation.evaluate import METRICS_FILE, STATISTICS_FILE, SUMMARY_FILE
from volseg.evaluation.summary import MEAN_ROW
from volseg.io.tables import read_table
from volseg.text import listed

if TYPE_CHECKING:
    import pandas as pd

#: Counts that a table always shows, and counts that it shows if one of them is not zero.
_COUNTS = {"missed": "missed", "false_alarm": "false alarms"}
_OTHER_COUNTS = {"not_predicted": "not predicted", "failed": "failed", "absent": "absent"}
_SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
}


@dataclass(frozen=True)
class _Metric:
    """A column of the table.

    Attributes:
        name: Its name in statistics.csv.
        title: Its title in the table.
        digits: Number of decimal places.
        words: Its name in the text, with its citation; `{definition}` stands for the one in statistics.csv.
    """

    name: str
    title: str
    digits: int
    words: str


_METRICS = (
    _Metric("dice", "Dice", 3, "the Dice coefficient [@dice1945]"),
    _Metric("hd95_mm", "HD95 (mm)", 2, "the 95th percentile of the Hausdorff distance (HD95, {definition})"),
    _Metric("hd95_px", "HD95 (px)", 2, "the 95th percentile of the Hausdorff distance (HD95, {definition})"),
    _Metric("nsd", "NSD", 3, "the normalised surface Dice (NSD [@nikolov2018nsd], {definition})"),
    _Metric("lesion_f1", "Lesion F1", 3, "the F1 score of separate components [@kirillov2019panoptic]"),
    _Metric("centerline_dice", "clDice", 3, "the centreline Dice [@shit2021cldice]"),
)


@dataclass(frozen=True, eq=False)
class Scores:
    """An evaluation as read from its folder.

    Attributes:
        statistics: A row per label and metric.
        summary: A row per label, and one over all.
        cases: Ids of the evaluated cases.
        about: Its origin.
    """

    statistics: pd.DataFrame
    summary: pd.DataFrame
    cases: frozenset[str]
    about: About

    @property
    def metrics(self) -> tuple[_Metric, ...]:
        """The metrics to report, as far as they were measured."""
        known = set(self.statistics["metric"])
        return tuple(metric for metric in _METRICS if metric.name in known)

    @property
    def words(self) -> str:
        """Sentences about the metrics, the number of cases and the results."""
        definitions = dict(zip(self.statistics["metric"], self.statistics["definition"], strict=True))
        measured = [
            metric.words.format(definition=str(definitions[metric.name]).rpartition(": ")[2]) for metric in self.metrics
        ]
        mean = _row(self.summary, MEAN_ROW)
        interval = f" (95 % confidence interval {_limits(mean, 'dice_', 3)})" if _limits(mean, "dice_", 3) else ""
        return (
            f"The predicted masks of {ranged([len(self.cases)], 'case')} were compared with the references by "
            f"{listed(measured)}; definitions follow Metrics Reloaded [@maierhein2024metrics]. A structure that was "
            "missed, or predicted where there is none, was given the worst value: 0, or the image diagonal for "
            "distances. A case without the structure in either mask was not scored. Confidence intervals are "
            "percentile intervals of 2,000 bootstrap resamples of the cases [@efron1979bootstrap]. The mean Dice over "
            "the labels was "
            f"{mean['dice_mean']:.3f}{interval}."
        )

    @property
    def table(self) -> str:
        """The table in LaTeX, with the package booktabs."""
        counts = _COUNTS | {name: words for name, words in _OTHER_COUNTS.items() if self.summary[name].any()}
        head = ["structure", "scored", *counts.values(), *(metric.title for metric in self.metrics)]
        labels = [str(label) for label in dict.fromkeys(self.statistics["label"])]
        rows = [list(self._cells(label, list(counts))) for label in (*labels, MEAN_ROW)]
        lines = [" & ".join(map(escaped, row)) + r" \\" for row in rows]
        numbers = "r" * (1 + len(counts)) + "l" * len(self.metrics)
        return "\n".join([
            "% needs \\usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{self._caption}}}",
            r"  \label{tab:scores}",
            rf"  \begin{{tabular}}{{l{numbers}}}",
            r"    \toprule",
            f"    {' & '.join(map(escaped, head))} \\\\",
            r"    \midrule",
            *(f"    {line}" for line in lines[:-1]),
            r"    \midrule",
            f"    {lines[-1]}",
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ])  # fmt: skip

    @property
    def _caption(self) -> str:
        return (
            "Means over cases, with 95\\,\\% bootstrap confidence intervals in brackets. Missed structures and false "
            "alarms are included in the means."
        )

    def _cells(self, label: str, counts: Sequence[str]) -> Iterator[str]:
        """Yield the cells of a row: a label, or the mean of all labels."""
        summed = _row(self.summary, label)
        yield label
        for name in ("scored", *counts):
            yield f"{summed[name]:.0f}"
        for metric in self.metrics:
            of_metric = self.statistics[self.statistics["metric"] == metric.name]
            if label == MEAN_ROW:
                interval = _limits(summed, "dice_", metric.digits) if metric.name == "dice" else ""
                mean = float(of_metric["mean"].mean())
            else:
                row = _row(of_metric, label)
                interval, mean = _limits(row, "", metric.digits), float(row["mean"])
            yield "--" if math.isnan(mean) else f"{mean:.{metric.digits}f}" + (f" [{interval}]" if interval else "")


def read_scores(folder: Path, files: Sequence[Path]) -> Scores:
    """Read an evaluation of the masks of a model.

    Args:
        folder: Folder that `volseg evaluate` wrote.
        files: Files of the model.

    Raises:
        DataError: If the folder holds no evaluation, or the masks belong to another model.
    """
    about = read_about(folder)
    stated = {value for name, value in about.facts.items() if name.startswith("masks: model ")}
    own = {value for _, value in facts_of_models(files)}
    if stated and stated != own:
        raise DataError(
            f"{folder} evaluates masks of another model",
            hint="give the run that predicted the masks, or the scores of this run",
        )
    cases = read_table(folder / METRICS_FILE, ["case_id", "label", "status"])["case_id"]
    needed = ["label", "metric", "definition", "mean", "ci95_low", "ci95_high"]
    return Scores(
        statistics=read_table(folder / STATISTICS_FILE, needed),
        summary=read_table(folder / SUMMARY_FILE, ["label", "scored", "dice_mean", "dice_ci95_low", *_COUNTS]),
        cases=frozenset(cases),
        about=about,
    )


def escaped(text: str) -> str:
    """Escape the special characters of LaTeX."""
    return "".join(_SPECIAL.get(char, char) for char in text)


def _row(table: pd.DataFrame, label: str) -> pd.Series[Any]:
    """Return the row of a label; the last row with the name of the mean is the mean."""
    rows = table[table["label"] == label]
    return rows.iloc[-1 if label == MEAN_ROW else 0]


def _limits(row: pd.Series[Any], prefix: str, digits: int) -> str:
    """Return an interval in words; empty if there is none."""
    low, high = float(row[f"{prefix}ci95_low"]), float(row[f"{prefix}ci95_high"])
    return "" if math.isnan(low) else f"{low:.{digits}f} to {high:.{digits}f}"
