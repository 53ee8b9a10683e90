"""A verdict on several evaluations: which is better, and how certain that is, in a sentence."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from volseg.evaluation.summary import MEAN_ROW
from volseg.text import listed

if TYPE_CHECKING:
    import pandas as pd

_METRIC = "dice"
#: A difference is called sure below this probability of seeing it by chance, and clear below that.
_SURE, _CLEAR = 0.05, 0.001
#: Of fewer cases, resampling says little.
_FEW_CASES = 10


@dataclass(frozen=True)
class _Lead:
    """The lead of one evaluation over another.

    Attributes:
        over: The other.
        cases: In how many both have a Dice.
        mean: Of the one that is ahead.
        other_mean: Of the other.
        gain: The mean difference.
        low: Of its 95 % confidence interval.
        high: Likewise.
        better: In how many cases the one is better.
        p_value: Of Wilcoxon's signed-rank test, corrected for the number of pairs; NaN where all cases are equal.
        least_p_value: The smallest that so many cases can give, corrected likewise.
    """

    over: str
    cases: int
    mean: float
    other_mean: float
    gain: float
    low: float
    high: float
    better: int
    p_value: float
    least_p_value: float

    @property
    def is_sure(self) -> bool:
        return self.p_value < _SURE and self.low > 0

    @property
    def numbers(self) -> str:
        return f"by {_size(self.gain)}, 95 % interval {_size(self.low)} to {_size(self.high)}, p {_short(self.p_value)}"


def verdict_of(table: pd.DataFrame, names: Sequence[str]) -> str:
    """Return a sentence that says which evaluation has the best mean Dice, and whether the difference is significant.

    A difference counts as sure where Wilcoxon's signed-rank test over the cases gives p < 0.05, corrected for the
    number of pairs (Holm 1979), and the 95 % confidence interval of the mean difference leaves out zero.

    Args:
        table: The rows of all pairs, as `Comparison` has them.
        names: The evaluations.
    """
    rows = table[(table["label"] == MEAN_ROW) & (table["metric"] == _METRIC) & (table["n"] > 0)]
    if rows.empty:
        return "No verdict: no case has a Dice in two evaluations."
    rows = rows.assign(p_value=_holm(rows["p_value"].to_numpy(float)))
    means = {name: _mean_of(rows, name) for name in names}
    best = max(means, key=lambda name: means[name])
    leads = [_lead(row, best, len(rows)) for row in rows.to_dict("records") if best in _pair(row)]
    return _of_two(best, leads[0]) if len(leads) == 1 else _of_several(best, leads, len(rows))


def _of_two(best: str, lead: _Lead) -> str:
    means = f"mean Dice {lead.mean:.3f} against {lead.other_mean:.3f}"
    interval = f"{lead.gain:+.3f}, 95 % interval {lead.low:+.3f} to {lead.high:+.3f}"
    over = f"over {_cases(lead.cases)}, {lead.better} of them better; Wilcoxon p {_short(lead.p_value)}"
    if np.isnan(lead.p_value):
        return f"{best} and {lead.over} are equal: mean Dice {lead.mean:.3f} and no difference in {_cases(lead.cases)}."
    if lead.least_p_value >= _SURE:
        return (
            f"{_cases(lead.cases)} {'is' if lead.cases == 1 else 'are'} too few to say which is better: {best} is "
            f"ahead of {lead.over} ({means}), but so few cases give no p below {_SURE:g}, whatever the difference."
        )
    if not lead.is_sure:
        return (
            f"{best} and {lead.over} cannot be told apart: {means} ({interval}) {over}; the difference may be chance."
        )
    few = f"; {lead.cases} cases are a narrow basis all the same" if lead.cases < _FEW_CASES else ""
    clearly = "clearly " if lead.p_value < _CLEAR else ""
    return f"{best} is {clearly}better than {lead.over}: {means} ({interval}) {over}{few}."


def _of_several(best: str, leads: Sequence[_Lead], pairs: int) -> str:
    equal = [lead.over for lead in leads if np.isnan(lead.p_value)]
    beaten = [f"{lead.over} ({lead.numbers})" for lead in leads if lead.is_sure]
    close = [f"{lead.over} ({lead.numbers})" for lead in leads if not lead.is_sure and not np.isnan(lead.p_value)]
    cases = min(lead.cases for lead in leads)
    too_few = max(lead.least_p_value for lead in leads) >= _SURE
    words = [
        *([f"is better than {listed(beaten)}"] if beaten else []),
        *([f"cannot be told apart from {listed(close)}"] if close else []),
        *([f"equals {listed(equal)} in every case"] if equal else []),
    ]
    few = f"; so few cases cannot show a difference among {pairs} pairs" if too_few else ""
    corrected = f" (Wilcoxon, p corrected for {pairs} pairs)"
    return (
        f"{best} has the highest mean Dice, {leads[0].mean:.3f} over {_cases(cases)}: it {' and '.join(words)}"
        f"{corrected}{few}."
    )


def _lead(row: Mapping[Hashable, Any], best: str, pairs: int) -> _Lead:
    """Return the lead of the better evaluation of a pair."""
    first, second = _pair(row)
    value = {name: float(number) for name, number in row.items() if name not in _WORDS}
    forward = second == best
    gain, low, high = (
        value[name] if forward else -value[name] for name in ("difference_mean", "ci95_low", "ci95_high")
    )
    means = value["second_mean"], value["first_mean"]
    cases = int(value["n"])
    return _Lead(
        over=first if forward else second,
        cases=cases,
        mean=means[0] if forward else means[1],
        other_mean=means[1] if forward else means[0],
        gain=gain,
        low=min(low, high),
        high=max(low, high),
        better=int(value["better"] if forward else value["worse"]),
        p_value=value["p_value"],
        least_p_value=2 / 2**cases * pairs,
    )


_WORDS = ("label", "metric", "first_evaluation", "second_evaluation")


def _pair(row: Mapping[Hashable, Any]) -> tuple[str, str]:
    return str(row["first_evaluation"]), str(row["second_evaluation"])


def _mean_of(rows: pd.DataFrame, name: str) -> float:
    """Return the mean Dice of one evaluation."""
    sides = [rows.loc[rows[f"{side}_evaluation"] == name, f"{side}_mean"] for side in ("first", "second")]
    return float(np.mean(np.concatenate([side.to_numpy(float) for side in sides])))


def _holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correct p-values for multiple tests (Holm 1979); NaN stands for no test."""
    corrected = p_values.copy()
    order = [n for n in np.argsort(p_values) if not np.isnan(p_values[n])]
    largest = 0.0
    for place, n in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p_values[n]))
        corrected[n] = largest
    return corrected


def _short(p_value: float) -> str:
    return f"< {_CLEAR:g}" if p_value < _CLEAR else f"= {p_value:.2g}"


def _size(difference: float) -> str:
    return f"{round(difference, 3) + 0.0:.3f}"  # there is no -0.000


def _cases(count: int) -> str:
    return f"{count} case{'s' * (count != 1)}"
