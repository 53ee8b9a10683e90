"""Evaluations side by side: what is summed up over labels, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import volseg
from volseg.evaluation import compare
from volseg.evaluation.verdict import _holm

RunCli = Callable[..., tuple[int, str, str]]
Numbers = Sequence[float] | NDArray[np.float64]
STEPS = np.arange(1, 13) / 100


def scored(folder: Path, **dice: Numbers) -> Path:
    """An evaluation by hand: the Dice of each label, case by case."""
    rows = [
        {"case_id": f"c{n}", "label": label, "value": value, "status": "ok", "dice": each, "reference_ml": 1.0}
        for value, (label, numbers) in enumerate(dice.items(), start=1)
        for n, each in enumerate(numbers)
    ]
    folder.mkdir(parents=True)
    pd.DataFrame(rows).to_csv(folder / "metrics.csv", index=False)
    numbers = pd.DataFrame([{"metric": "dice", "definition": "as it is", "better": "higher"}])
    numbers.to_csv(folder / "statistics.csv", index=False)
    return folder


def verdict(folder: Path, *dice: Numbers) -> str:
    first, second, *others = [scored(folder / f"m{n}", head=each) for n, each in enumerate(dice)]
    return compare(first, second, folder / "out", others=others).verdict


def test_the_last_row_is_that_of_all_labels(tmp_path: Path) -> None:
    """A case counts once, by the mean of its labels, of which each weighs the same."""
    first = scored(tmp_path / "first", head=[0.5, 0.5, 0.5], tail=[0.6, 0.6, np.nan])
    second = scored(tmp_path / "second", head=[0.7, 0.5, 0.4], tail=[0.8, 0.4, np.nan])
    table = compare(first, second, tmp_path / "out").table
    assert table["label"].tolist() == ["head", "tail", "mean"]
    row = table.iloc[-1]
    # head gains 0.2, 0 and -0.1; tail 0.2 and -0.2; cases 0.2, -0.1 and -0.1
    assert (row["first_mean"], row["second_mean"]) == (pytest.approx(0.55), pytest.approx((1.6 / 3 + 0.6) / 2))
    assert row["difference_mean"] == pytest.approx((0.1 / 3 + 0) / 2)
    assert row["difference_median"] == pytest.approx(-0.1)
    assert (row["n"], row["missing"], row["better"], row["worse"], row["equal"]) == (3, 0, 1, 2, 0)
    assert row["ci95_low"] < row["difference_mean"] < row["ci95_high"]


def test_files_name_the_evaluations_and_keep_their_columns(tmp_path: Path) -> None:
    compare(scored(tmp_path / "a", head=STEPS), scored(tmp_path / "b", head=STEPS / 2), tmp_path / "out")
    columns = list(pd.read_csv(tmp_path / "out" / "comparison.csv"))
    assert columns[:4] == ["label", "metric", "n", "missing"]
    assert columns[-3:] == ["p_value", "first_evaluation", "second_evaluation"]
    rows = pd.read_csv(tmp_path / "out" / "differences.csv")
    assert rows.iloc[0][["first_evaluation", "second_evaluation", "first", "second"]].tolist() == [
        "a",
        "b",
        0.01,
        0.005,
    ]


def test_a_verdict_says_which_is_better_and_how_sure_that_is(tmp_path: Path) -> None:
    # 12 gains of different sizes: 2 of 2^12 signs are as extreme
    text = verdict(tmp_path / "sure", np.full(12, 0.5), 0.5 + STEPS)
    assert text.startswith("m1 is clearly better than m0: mean Dice 0.565 against 0.500 (+0.065, 95 % interval +0.0")
    assert text.endswith("over 12 cases, 12 of them better; Wilcoxon p < 0.001.")
    # 7 gains: 2 / 2^7
    text = verdict(tmp_path / "few", 0.5 + STEPS[:7], np.full(7, 0.5))
    assert text.startswith("m0 is better than m1: mean Dice 0.540 against 0.500 (+0.040, ")
    assert text.endswith("7 of them better; Wilcoxon p = 0.016; 7 cases are a narrow basis all the same.")
    text = verdict(tmp_path / "chance", np.full(12, 0.5), 0.5 + STEPS * (-1) ** np.arange(12))
    assert text.startswith("m0 and m1 cannot be told apart: mean Dice 0.500 against 0.495 (+0.005, 95 % interval -0.0")
    text = verdict(tmp_path / "equal", STEPS, STEPS)
    assert text == "m0 and m1 are equal: mean Dice 0.065 and no difference in 12 cases."


def test_a_verdict_of_few_cases_claims_nothing(tmp_path: Path) -> None:
    # Of 5 gains 2 / 2^5 is the smallest p there is.
    text = verdict(tmp_path / "five", np.full(5, 0.5), np.full(5, 0.9) + STEPS[:5])
    assert text.startswith("5 cases are too few to say which is better: m1 is ahead of m0 (mean Dice 0.930 against")
    assert "clearly" not in text
    assert verdict(tmp_path / "one", [0.5], [0.9]).startswith("1 case is too few")


def test_several_evaluations_are_compared_pair_by_pair(tmp_path: Path) -> None:
    dice = [np.full(12, 0.5), 0.5 + STEPS, 0.501 + STEPS + 0.005 * (-1.0) ** np.arange(12)]
    first, second, third = [scored(tmp_path / f"m{n}" / "scores", head=each) for n, each in enumerate(dice)]
    found = compare(first, second, tmp_path / "out", others=[third])
    assert found.names == ("m0/scores", "m1/scores", "m2/scores")
    pairs = found.table[["first_evaluation", "second_evaluation"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [["m0/scores", "m1/scores"], ["m0/scores", "m2/scores"], ["m1/scores", "m2/scores"]]
    alone = compare(second, third, tmp_path / "alone")
    assert found.table.iloc[-2:].reset_index(drop=True).equals(alone.table)
    assert found.means[["label", "m0/scores"]].to_numpy().tolist() == [["head", 0.5], ["mean", 0.5]]
    assert found.verdict.startswith("m2/scores has the highest mean Dice, 0.566 over 12 cases: it is better than m0/sc")
    assert "and cannot be told apart from m1/scores (by 0.001, 95 % interval -0.002 to 0.004, p = " in found.verdict
    assert found.verdict.endswith("(Wilcoxon, p corrected for 3 pairs).")
    assert len(found.differences) == 3 * 12
    same = compare(first, first, tmp_path / "same")
    assert same.names == ("scores", "scores (2)")


def test_p_values_are_corrected_after_holm() -> None:
    assert _holm(np.array([0.04, 0.01, np.nan, 0.03])) == pytest.approx([0.06, 0.03, np.nan, 0.06], nan_ok=True)


def test_the_command_takes_several(volseg_cli: RunCli, tmp_path: Path) -> None:
    folders = [scored(tmp_path / name, head=STEPS * n) for n, name in enumerate("abc", start=1)]
    code, out, _ = volseg_cli("evaluate", "--compare", *folders, "--output", tmp_path / "out")
    assert code == 0
    assert ["label", "metric", "a", "b", "c"] in [line.split() for line in out.splitlines()]
    assert ["mean", "dice", "0.065", "0.13", "0.195"] in [line.split() for line in out.splitlines()]
    assert "\nc has the highest mean Dice, 0.195 over 12 cases: it is better than a (by 0.130, " in out
    in_python = volseg.compare(folders[0], folders[1], tmp_path / "again", others=folders[2:])
    assert in_python.verdict in out
    code, out, err = volseg_cli("evaluate", "--compare", *folders[:2], "--output", tmp_path / "two")
    assert code == 0
    assert "first: a; second: b" in err
    assert "b is clearly better than a: mean Dice 0.130 against 0.065" in out


def test_three_folders_are_no_evaluation(volseg_cli: RunCli, tmp_path: Path) -> None:
    code, _, err = volseg_cli("evaluate", "a", "b", "c", "--output", tmp_path / "out")
    assert code == 2
    assert "--compare takes several folders of scores" in err
