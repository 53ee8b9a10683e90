"""What version 0.1.0 wrote is read, or refused by name with the way out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, train_folder

import volseg
from volseg.config import PartialConfig, merge, read_overrides
from volseg.io import FileSource, read_mask
from volseg.model.checkpoint import load, save
from volseg.prediction.cases_csv import read_rows, results_of

OLD = Path(__file__).parent / "data" / "version_0_1_0"
CASES = ("case_0", "case_1")


def test_a_plan_is_complete_and_valid() -> None:
    given = PartialConfig.of(read_overrides(OLD / "plan.yaml"))
    assert given.is_complete
    assert given.tree["data"]["labels"] == {"label_1": 1, "label_2": 2}


def test_a_model_gives_the_masks_it_gave(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    model = volseg.load(OLD / "run", changes={"inference.precision": "fp32", "inference.backend": "torch"})
    for case_id in CASES:
        mask = model.predict(OLD / "images" / f"{case_id}.nii.gz").mask
        before = read_mask(FileSource(OLD / "masks" / f"{case_id}.nii.gz")).array
        # Windows take turns among mirror images now, and other processors round differently.
        assert np.count_nonzero(mask.array != before) <= 0.01 * np.count_nonzero(before)
    assert model.networks[0].volumes["label_2"].cases == 6


def test_a_batch_is_known_and_goes_on(tmp_path: Path) -> None:
    model = volseg.load(OLD / "run")
    masks = shutil.copytree(OLD / "masks", tmp_path / "masks")
    known = results_of(read_rows(masks / "cases.csv"), model.config.data)
    assert set(known) == set(CASES)
    batch = model.predict_folder(OLD / "images", masks)
    assert {case_id: batch[case_id].volumes_ml.keys() for case_id in CASES} == {
        case_id: result.volumes_ml.keys() for case_id, result in known.items()
    }
    assert batch.count("segmented") == 2


def test_a_run_can_be_reported(tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "run", tmp_path / "run")
    assert "validation Dice" in volseg.report(run).read_text(encoding="utf-8")


def test_a_model_of_a_version_with_other_keys_is_refused_with_the_way_out(tmp_path: Path) -> None:
    content = load(OLD / "run" / "model.pt")
    save(tmp_path / "model.pt", {**content, "config": content["config"].replace("overlap:", "overlapping:")})
    with pytest.raises(volseg.CheckpointError, match=r"model\.pt was written by another version of volseg") as caught:
        volseg.load(tmp_path / "model.pt")
    assert "train again" in caught.value.hint


#: Keys that version 0.1.0 did not have.
NEW_KEYS = {"data": {"geometry", "modality", "others"}, "training": {"split"}, "domain": None}


def without_new_keys(text: str) -> str:
    tree = yaml.safe_load(text)
    for section, keys in NEW_KEYS.items():
        for key in keys or ():
            del tree[section][key]
        if keys is None:
            del tree[section]
    return yaml.safe_dump(tree, sort_keys=False)


def test_a_run_is_resumed(dataset: Path, tmp_path: Path) -> None:
    tree = merge(TINY, {"training": {"epochs": 2, "steps_per_epoch": 2}})
    run = train_folder(dataset, tmp_path / "run", tree)
    last = run.folder / "last.pt"
    state = load(last)
    save(last, {**state, "config": without_new_keys(state["config"])})
    config = run.folder / "config.yaml"
    config.write_text(without_new_keys(config.read_text()))
    again = train_folder(dataset, run.folder, tree, resume=True)
    assert again.results[0].epochs == 2
