from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from test_importing import write_model

import volseg
from volseg.about import read_about
from volseg.errors import CheckpointError, OutputExistsError
from volseg.reporting.card import LabelCard, ModelCard, make_card


def test_a_card_says_what_the_run_says(trained_run: Path, tmp_path: Path) -> None:
    path = volseg.card(trained_run, tmp_path, licence="CC BY 4.0")
    rows = pd.read_csv(trained_run / "validation.csv")
    told = json.loads((tmp_path / "model_card.json").read_text())
    assert [label["name"] for label in told["labels"]] == list(dict.fromkeys(rows["label"]))
    for label in told["labels"]:
        scored = rows[rows["label"] == label["name"]]["dice"].dropna()
        assert (label["dice"], label["cases"]) == (pytest.approx(scored.mean()), len(scored))
        assert label["median_size"] > 0
    splits = json.loads((trained_run / "splits.json").read_text())
    assert told["training_cases"] == [len(splits[volseg.load(trained_run).config.training.fold]["train"])]
    text = path.read_text()
    assert "Licence: CC BY 4.0." in text
    assert "not a medical device" in text
    assert f"{told['labels'][0]['dice']:.3f}" in text
    assert volseg.load(trained_run).config.network.name in text


def test_a_card_names_no_case(trained_run: Path, tmp_path: Path) -> None:
    text = volseg.card(trained_run, tmp_path).read_text() + (tmp_path / "model_card.json").read_text()
    cases = set(pd.read_csv(trained_run / "validation.csv")["case_id"])
    assert cases
    assert not [case for case in cases if case in text]
    assert "Licence: not stated." in text


def test_a_card_of_another_programs_model_claims_nothing(tmp_path: Path) -> None:
    run = volseg.import_model(write_model(tmp_path / "model", folds=("0", "1")), tmp_path / "run")
    text = volseg.card(run).read_text()
    assert "The Dice on validation cases is unknown." in text
    assert "learning rate" not in text
    assert "imported from | nnU-Net v2" in text
    assert make_card(run).networks == 2
    assert "Liver (SCT 10200004)" in text


def test_a_card_of_somebody_else_stays(tmp_path: Path) -> None:
    run = volseg.import_model(write_model(tmp_path / "model"), tmp_path / "run")
    (run / "MODEL_CARD.md").write_text("mine")
    with pytest.raises(OutputExistsError):
        volseg.card(run)
    assert (run / "MODEL_CARD.md").read_text() == "mine"
    assert not (run / "model_card.json").exists()
    with pytest.raises(CheckpointError):
        volseg.card(tmp_path / "nothing")


def test_names_cannot_break_a_table() -> None:
    card = ModelCard({"a": "MR"}, (LabelCard(1, "x | y\nz", "", None, 0, None),), "ml", (), {}, 1, (), "none", (), ())
    (row,) = [line for line in card.markdown.splitlines() if line.startswith("| 1 |")]
    assert row == r"| 1 | x \| y z |  |  |  |  |  |"


def test_a_card_is_complete(trained_run: Path, tmp_path: Path) -> None:
    text = volseg.card(trained_run, tmp_path).read_text()
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == [
        "Intended use",
        "Structures and performance",
        "Training data",
        "Training",
        "Limitations",
        "To be filled in",
        "Identity",
    ]
    splits = json.loads((trained_run / "splits.json").read_text())
    assert f"had {len(splits[0]['train'])} training and {len(splits[0]['val'])} validation cases." in text
    assert "| steps | 120 |" in text
    (machine,) = read_about(trained_run).hardware
    assert f"| trained on | {machine.words} |" in text
    told = json.loads((tmp_path / "model_card.json").read_text())
    for label in told["labels"]:
        low, high = label["dice_ci95"]
        assert low <= label["dice"] <= high
        assert f"| {label['dice']:.3f} | {low:.3f} to {high:.3f} | {label['cases']} |" in text
