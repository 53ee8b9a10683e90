from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, MakeOnce, predict_folder, train_folder

from volseg.cases import find_dataset, make_splits
from volseg.cli.epoch_lines import EpochLines
from volseg.config import Config, LabelRule, PartialConfig, TrainingConfig, merge, read_config, validate
from volseg.errors import CheckpointError, ConfigError, DataError, OutputError, TrainingError
from volseg.image.volume import Mask, Volume
from volseg.io import FileSource, read_mask, read_volume, write_mask, write_volume
from volseg.io.files import write_text
from volseg.model.checkpoint import finalize_model, load, load_model, save
from volseg.prediction.request import Request
from volseg.training import loop
from volseg.training.agreement import Agreement
from volseg.training.epoch import EpochRecord
from volseg.training.history import RunLog, read_validation
from volseg.training.postprocess_tuning import RULES, choose_postprocessing, trials_for
from volseg.training.preparation import PreparedCase, prepare_cases
from volseg.training.schedule import Clock, FinalValidation, learning_rate
from volseg.training.slice_picture import compared_slice
from volseg.training.state import State, _moving_average
from volseg.training.step import StepResult
from volseg.training.stopping import is_finished, is_overfitting
from volseg.training.timing import StepTimer, step_seconds
from volseg.training.validation import NO_TRIALS, Validation, Validator
from volseg.training.validation_loss import ValidationLoss


class Killed(BaseException):
    """Ends a run at a step as a signal would: nothing below may catch it."""


class KillAt:
    """Kills a run at a step, from 1."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stage.startswith("train") and "loss" in note:
            self.left -= 1
            if self.left == 0:
                raise Killed


class Watch:
    """A clock in place of `time.monotonic` that goes on only when somebody looks, however fast the machine is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds_per_look: float = 0.0) -> None:
        self.now, self.seconds_per_look = 0.0, seconds_per_look
        monkeypatch.setattr(time, "monotonic", self)

    def __call__(self) -> float:
        self.now += self.seconds_per_look
        return self.now


def weights(run: Path, name: str = "model.pt") -> dict[str, torch.Tensor]:
    content = load(run / name)
    return dict(content["weights"] if "weights" in content else content["network"])


def assert_same_weights(one: Path, other: Path) -> None:
    for name in ("model.pt", "last.pt"):
        first, second = weights(one, name), weights(other, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_leaves_what_it_promises(trained_run: Path) -> None:
    for name in ("config.yaml", "model.pt", "last.pt", "history.csv", "splits.json", "validation.csv", "tensorboard"):
        assert (trained_run / name).exists()
    assert not list(trained_run.rglob(".volseg-part-*"))
    history = pd.read_csv(trained_run / "history.csv")
    assert history["epoch"].tolist() == list(range(1, 13))
    assert history["step"].tolist() == list(range(10, 121, 10))
    assert history["loss"].iloc[-1] < 0.7 * history["loss"].iloc[0]
    validation = pd.read_csv(trained_run / "validation.csv")
    splits = json.loads((trained_run / "splits.json").read_text())
    assert sorted(set(validation["case_id"])) == splits[0]["val"]
    assert validation["dice"].mean() > 0.7


def test_the_model_carries_its_configuration(trained_run: Path) -> None:
    model = load_model(trained_run, torch.device("cpu"))
    assert model.config.model_copy(update={"postprocess": None}) == read_config(trained_run / "config.yaml")
    assert not model.network.training


def test_tensorboard_has_named_curves_and_slices(trained_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained_run / "tensorboard"))
    events.Reload()
    scalars = events.Tags()["scalars"]
    assert {"training/loss", "training/learning_rate", "dice/dice", "dice/dice_label_1"} <= set(scalars)
    assert len(events.Scalars("training/loss")) == 12
    assert {"training/gradient_norm", "training/voxels_per_second", "training/data_wait_share"} <= set(scalars)
    (text,) = events.Tensors("configuration/text_summary")
    assert b"learning_rate: 0.01" in text.tensor_proto.string_val[0]
    assert events.Tags()["images"] == ["reference left, prediction right"]
    assert [event.step for event in events.Scalars("training/loss")] == list(range(10, 121, 10))
    picture = events.Images("reference left, prediction right")[-1]
    assert (picture.step, min(picture.width, picture.height) >= 400) == (120, True)
    assert "training/validation_loss" in scalars


def test_tensorboard_has_the_hyperparameters_without_a_run_of_their_own(trained_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert len(list((trained_run / "tensorboard").iterdir())) == 1
    events = EventAccumulator(str(trained_run / "tensorboard"))
    events.Reload()
    content = events.PluginTagToContent("hparams")
    started = HParamsPluginData.FromString(content["_hparams_/session_start_info"]).session_start_info
    assert started.hparams["training.learning_rate"].number_value == 0.01
    assert started.hparams["network.name"].string_value == "unet"


def test_the_same_seed_gives_the_same_bits_and_so_does_a_resumed_run(dataset: Path, tmp_path: Path) -> None:
    tree = merge(TINY, {"network": {"dropout": 0.3}, "training": {"epochs": 3, "steps_per_epoch": 3}})
    train_folder(dataset, tmp_path / "one", tree)
    with pytest.raises(Killed):
        train_folder(dataset, tmp_path / "other", tree, progress=KillAt(5))
    train_folder(dataset, tmp_path / "other", tree, resume=True)
    assert_same_weights(tmp_path / "one", tmp_path / "other")
    one, other = (tmp_path / name for name in ("one", "other"))
    assert (one / "validation.csv").read_text() == (other / "validation.csv").read_text()
    timed = ["seconds", "steps_per_second", "voxels_per_second", "data_wait_share"]
    histories = [pd.read_csv(run / "history.csv").drop(columns=timed) for run in (one, other)]
    pd.testing.assert_frame_equal(histories[0], histories[1])
    told = [line.split(" ", 1)[1].split(":")[0] for line in (other / "train.log").read_text().splitlines()]
    assert told == [
        *("started fold 0", "epoch 1, step 3", "resumed after epoch 1, step 3"),  # appended to
        *("epoch 2, step 6", "epoch 3, step 9", "finished fold 0"),
    ]


def test_a_log_that_somebody_changed_stays_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "train.log"
    log = RunLog(path)
    log.add("one")
    log.add("two")
    assert [line.split(" ", 1)[1] for line in path.read_text().splitlines()] == ["one", "two"]
    path.write_text("a note of mine\n")
    log.add("three")
    assert path.read_text() == "a note of mine\n"
    assert "lines of train.log cannot be written" in caplog.text
    RunLog(tmp_path / "other.log", is_leader=False).add("nothing")
    assert not (tmp_path / "other.log").exists()


def test_a_log_of_the_user_is_never_replaced(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("mine")
    with pytest.raises(OutputError, match="volseg did not write it"):
        train_folder(dataset, tmp_path, TINY)
    assert (tmp_path / "train.log").read_text() == "mine"


def test_vnet_trains_and_its_model_loads(dataset: Path, tmp_path: Path) -> None:
    network = {
        "network": {"name": "vnet"},
        "patches": {"size": [32, 16, 16]},
        # Muon takes seconds for each step of millions of weights.
        "training": {"epochs": 1, "steps_per_epoch": 3, "warmup_steps": 0, "optimizer": "sgd"},
    }
    train_folder(dataset, tmp_path / "run", merge(TINY, network))
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert history["skipped_steps"].tolist() == [0]
    assert load_model(tmp_path / "run", torch.device("cpu")).config.network.name == "vnet"


def test_worker_threads_change_nothing(dataset: Path, tmp_path: Path) -> None:
    for workers in (0, 2):
        tree = merge(TINY, {"training": {"epochs": 1, "steps_per_epoch": 4, "workers": workers}})
        train_folder(dataset, tmp_path / str(workers), tree)
    assert_same_weights(tmp_path / "0", tmp_path / "2")


def test_another_seed_gives_other_weights(dataset: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        tree = merge(TINY, {"training": {"epochs": 1, "steps_per_epoch": 1, "seed": seed}})
        train_folder(dataset, tmp_path / str(seed), tree)
    one, other = (weights(tmp_path / seed) for seed in "01")
    assert any(not torch.equal(one[key], other[key]) for key in one)


ALL_FOLDS = merge(TINY, {"training": {"learning_rate": 0.01, "epochs": 2, "fold": "all"}})


@pytest.fixture(scope="session")
def folds_run(dataset: Path, make_once: MakeOnce) -> Path:
    """A run that has trained a network per fold."""
    return make_once("folds_run", lambda run: train_folder(dataset, run, ALL_FOLDS))


def test_epochs_of_several_folds_name_the_fold(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = merge(ALL_FOLDS, {"training": {"epochs": 1}})
    train_folder(dataset, tmp_path / "run", tree, on_epoch_done=EpochLines())
    lines = capsys.readouterr().out.splitlines()
    folds = tree["training"]["folds"]
    assert [line.split(":")[0] for line in lines] == [f"fold {fold}, epoch 1" for fold in range(folds)]


def test_all_folds_are_trained_resumed_and_averaged(dataset: Path, folds_run: Path, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train_folder(dataset, tmp_path / "killed", ALL_FOLDS, progress=KillAt(25))
    assert (tmp_path / "killed" / "fold_0" / "validation.csv").is_file()
    with pytest.raises(CheckpointError, match=r"no model at .*fold_1"):
        predict_folder(dataset, [tmp_path / "killed"], Request(tmp_path / "early"))
    first = (tmp_path / "killed" / "fold_0" / "last.pt").stat().st_mtime_ns
    run = train_folder(dataset, tmp_path / "killed", ALL_FOLDS, resume=True)
    assert (tmp_path / "killed" / "fold_0" / "last.pt").stat().st_mtime_ns == first
    for fold in range(3):
        assert_same_weights(folds_run / f"fold_{fold}", tmp_path / "killed" / f"fold_{fold}")
    table = pd.read_csv(folds_run / "validation.csv")
    assert (tmp_path / "killed" / "validation.csv").read_text() == (folds_run / "validation.csv").read_text()
    assert sorted(table["case_id"].unique()) == [f"case_{n}" for n in range(6)]  # each held out once
    assert table["dice"].mean() == pytest.approx(run.validation.mean, abs=1e-5)
    predict_folder(dataset, [folds_run], Request(tmp_path / "run"))
    predict_folder(dataset, sorted(folds_run.glob("fold_*")), Request(tmp_path / "folds"))
    for n in range(6):
        name = f"case_{n}.nii.gz"
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "folds" / name).read_bytes()


def test_a_run_of_all_folds_is_not_taken_for_one_model(dataset: Path, folds_run: Path, tmp_path: Path) -> None:
    start_from = {"training": {"start_from": str(folds_run)}}
    for attempt in (
        lambda: load_model(folds_run, torch.device("cpu")),
        lambda: train_folder(dataset, tmp_path / "next", merge(TINY, start_from)),
    ):
        with pytest.raises(CheckpointError, match="run holds 3 models, one for each fold") as caught:
            attempt()
        assert str(caught.value.hint).endswith("fold_0/model.pt")


def test_post_processing_is_taken_where_it_raises_the_dice() -> None:
    nan = float("nan")
    rows = {
        "": [[0.8, 0.9, nan], [0.6, 0.9, 0.5]],
        "keep_largest": [[0.9, 0.8, nan], [0.6, 0.9, 0.5]],
        "fill_holes": [[0.8, 0.9, nan], [0.6, 0.95, 0.5]],
        # without its false alarm, the second kidney is right
        "keep_largest_fill_holes": [[0.85, 0.9, nan], [0.6, 0.9, nan]],
    }
    for times, wanted in ((3, ["keep_largest", "fill_holes", "keep_largest_fill_holes"]), (2, [])):
        dice = {rule: np.array(values * times) for rule, values in rows.items()}
        case_ids = tuple(f"case_{n}" for n in range(2 * times))
        validation = Validation(case_ids, ("liver", "spleen", "kidney"), dice.pop(""), dice)
        names = zip(validation.labels, wanted, strict=False)
        expected = [RULES[rule].model_copy(update={"label": label}) for label, rule in names]
        assert (
            list(choose_postprocessing(_config(labels={"liver": 1, "spleen": 2, "kidney": 3}), validation).rules)
            == expected
        )


def _config(**data: object) -> Config:
    preprocessing = {"spacing_mm": [1, 1, 1], "normalization": [{"method": "zscore"}]}
    return validate(merge(TINY, {"data": data, "preprocessing": preprocessing}), "test")


def test_thresholds_are_taken_where_they_raise_the_dice() -> None:
    regions = [{"name": name, "labels": [value], "value": value} for value, name in ((1, "edema"), (2, "core"))]
    config = _config(labels={"a": 1, "b": 2}, regions=regions)
    assert trials_for(config).names == ("threshold_0.3", "threshold_0.4", "threshold_0.6", "threshold_0.7")
    dice = {"threshold_0.3": [0.7, 0.6], "threshold_0.6": [0.8, 0.4]}
    tried = {name: np.array([values] * 6) for name, values in dice.items()}
    validation = Validation(tuple("abcdef"), ("edema", "core"), np.array([[0.75, 0.6]] * 6), tried)
    decided = choose_postprocessing(config, validation)
    assert [region.threshold for region in decided.data.regions] == [0.6, None]
    assert decided.rules == ()
    assert trials_for(decided) == NO_TRIALS  # what is decided is not tried again


@pytest.fixture(scope="session")
def region_run(dataset: Path, make_once: MakeOnce) -> Path:
    """A run whose network has learned one region that is not sure everywhere."""
    regions = [{"name": "both", "labels": [1, 2], "value": 1}]
    tree = {"data": {"labels": {"ball": 1, "cube": 2}, "regions": regions}, "training": {"epochs": 4}}
    return make_once("region_run", lambda run: train_folder(dataset, run, merge(TINY, tree)))


@pytest.mark.parametrize("threshold", [0.2, 0.7])
def test_a_voxel_belongs_to_a_region_above_its_threshold(
    dataset: Path, region_run: Path, tmp_path: Path, threshold: float
) -> None:
    """Of two networks the thresholds are averaged as logits."""
    assert "dice_threshold_0.3" in pd.read_csv(region_run / "validation.csv")
    config = read_config(region_run / "config.yaml")
    cutoff = 0.0
    for name, own in (("one", threshold), ("other", 0.4)):
        (region,) = config.data.regions
        data = config.data.model_copy(update={"regions": (region.model_copy(update={"threshold": own}),)})
        shutil.copytree(region_run, tmp_path / name)
        finalize_model(tmp_path / name / "model.pt", config.model_copy(update={"data": data}), {})
        cutoff += math.log(own / (1 - own)) / 2
    wanted = 1 / (1 + math.exp(-cutoff))
    request = Request(tmp_path / "masks", probabilities=True)
    predict_folder(dataset / "images", [tmp_path / "one", tmp_path / "other"], request)
    paths = sorted((tmp_path / "masks").glob("*.probabilities.nii.gz"))
    assert len(paths) == 6
    for path in paths:
        likely = read_volume(FileSource(path)).array[0]
        mask = read_mask(FileSource(path.with_name(path.name.replace(".probabilities", "")))).array
        clear = np.abs(likely - wanted) > 1 / 255
        assert 0 < mask.mean() < 1
        np.testing.assert_array_equal((mask == 1)[clear], (likely > wanted)[clear])


def test_a_run_gives_its_models_the_post_processing_that_it_chose(
    dataset: Path, folds_run: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(folds_run / "validation.csv").fillna(1.0).groupby("label").mean(numeric_only=True)
    assert len(table) == 2
    rules = [load_model(folds_run / f"fold_{fold}", torch.device("cpu")).config.rules for fold in range(3)]
    decided = choose_postprocessing(
        read_config(folds_run / "config.yaml"), read_validation(folds_run / "validation.csv")
    )
    assert rules == [decided.rules] * 3
    for label, row in table.iterrows():
        assert (label in {rule.label for rule in decided.rules}) == (row.filter(like="dice_").max() > row["dice"])
    asked = {"postprocess": [{"label": "label_1", "fill_holes": True}], "training": {"epochs": 1}}
    run = train_folder(dataset, tmp_path / "asked", merge(TINY, asked))
    assert run.decided.rules == (LabelRule(label="label_1", fill_holes=True),)
    assert "dice_keep_largest" not in pd.read_csv(tmp_path / "asked" / "validation.csv")


def test_folds_share_the_time_of_a_run(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch, seconds_per_look=20)
    train_folder(dataset, tmp_path / "run", merge(TINY, {"training": {"fold": "all", "minutes": 90, "epochs": None}}))
    assert 0.7 * 5400 < watch.now < 1.1 * 5400
    for fold in range(3):
        history = pd.read_csv(tmp_path / "run" / f"fold_{fold}" / "history.csv")
        assert 0.7 * 1800 < history["seconds"].iloc[-1] < 1.1 * 1800


def test_training_ends_when_the_dice_is_good_enough(dataset: Path, tmp_path: Path) -> None:
    tree = {"training": {"epochs": 30, "learning_rate": 0.01, "target_dice": 0.5, "validation_interval": 1}}
    run = train_folder(dataset, tmp_path / "run", merge(TINY, tree))
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert len(history) == run.results[0].epochs < 30
    assert (history["dice"] >= 0.5).tolist() == [False] * (len(history) - 1) + [True]


@pytest.mark.parametrize(
    ("dice", "ended"),
    [
        ([0.5, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7], True),
        ([0.5, 0.8, 0.7, 0.7, 0.7, 0.7], False),  # not for long enough
        ([0.5, 0.8, 0.79, 0.79, 0.79, 0.79, 0.79], False),  # within what chance does
        ([0.5, 0.8, 0.7, 0.7, 0.79, 0.7, 0.7], False),  # one recovered
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], False),
        ([], False),
    ],
)
def test_a_run_that_overfits_ends(dice: list[float], ended: bool) -> None:
    history: list[dict[str, float]] = [{"epoch": 1.0}]
    for value in dice:
        history += [{"dice": value}, {"loss": 0.1}]
    assert is_overfitting(history) == ended


@pytest.mark.parametrize(("step", "ended"), [(7, False), (8, True), (16, True)])
def test_a_dice_that_dips_while_a_network_learns_ends_nothing(step: int, ended: bool) -> None:
    """One label is learned, and another lost for a while: that is no overfitting in the first half of a run."""
    settings = TrainingConfig(epochs=16, steps_per_epoch=1)
    state = State(
        torch.nn.Identity(), None, torch.optim.SGD([torch.zeros(1)]), torch.amp.GradScaler("cpu"), Clock(settings)
    )
    state.epoch, state.step = step, step
    state.history += [{"dice": dice} for dice in (0.1, 0.27, 0.23, 0.23, 0.23, 0.23, 0.23)]
    assert is_finished(state, settings) == ended


def test_the_time_that_is_left_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Watch(monkeypatch)
    by_steps = Clock(TrainingConfig(epochs=10, steps_per_epoch=10), spent_seconds=1000.0, started=0.0)
    by_steps.start_steps(20)
    by_steps.reserve_seconds = 7.0
    by_steps.spent_seconds += 60.0
    by_steps.sample()  # 30 steps took 2 seconds each, and there are 50 to go
    assert by_steps.seconds_left(50) == pytest.approx(107.0)
    by_time = Clock(TrainingConfig(minutes=1.0), spent_seconds=20.0, started=0.0)
    assert by_time.seconds_left(5) == pytest.approx(40.0)


def test_a_step_that_does_not_fit_into_memory_says_what_to_change(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("volseg.training.losses.SegmentationLoss.forward", full)
    with pytest.raises(TrainingError, match="2 patches of 16 x 16 x 16 voxels does not fit") as caught:
        train_folder(dataset, tmp_path / "run", TINY)
    assert "training.batch_size" in str(caught.value.hint)


def test_an_error_in_a_patch_names_its_case(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(*_: object) -> None:
        raise IndexError("oops")

    monkeypatch.setattr("volseg.training.sampling.cut", defect)
    with pytest.raises(IndexError) as caught:
        train_folder(dataset, tmp_path / "run", merge(TINY, {"training": {"workers": 1}}))
    assert re.search(r"creating a training patch of case case_\d", caught.value.__notes__[0])


def test_regions_are_trained_and_validated(dataset: Path, tmp_path: Path) -> None:
    regions = [{"name": "both", "labels": [1, 2], "value": 1}, {"name": "box", "labels": [2], "value": 2}]
    data = {"labels": {"ball": 1, "cube": 2}, "regions": regions}
    run = train_folder(
        dataset, tmp_path / "run", merge(TINY, {"data": data, "training": {"learning_rate": 0.01, "epochs": 6}})
    )
    assert run.validation.labels == ("both", "box")
    assert run.validation.mean > 0.5


def test_what_references_do_not_say_is_neither_learned_nor_scored(dataset: Path, tmp_path: Path) -> None:
    """Of each case only one half is annotated; the other would teach that there is nothing."""
    sparse = Path(shutil.copytree(dataset, tmp_path / "sparse"))
    for path in (sparse / "labels").glob("[!.]*"):
        mask = read_mask(FileSource(path))
        array = mask.array.copy()
        array[:, :9] = 5
        write_mask(Mask(array, mask.geometry), path)
    labels = {"data": {"labels": {"ball": 1, "box": 2, "ignore": 5}}, "training": {"learning_rate": 0.01, "epochs": 8}}
    run = train_folder(sparse, tmp_path / "run", merge(TINY, labels))
    assert run.validation.labels == ("ball", "box")
    assert run.validation.mean > 0.6
    predict_folder(dataset, [tmp_path / "run"], Request(tmp_path / "masks"))
    paths = sorted((tmp_path / "masks").glob("*.nii.gz"))
    assert len(paths) == 6
    for path in paths:
        mask = read_mask(FileSource(path)).array
        assert mask.max() == 2
        assert (mask[:, :9] == 2).sum() > 50  # the box reaches into the half that was never annotated


def partly_labelled(dataset: Path, folder: Path, annotated: str = "{}") -> Path:
    """A manifest of cases of which each reference was drawn for one label only, the other one erased."""
    rows = ["case_id,image,reference,annotated"]
    for n, image in enumerate(sorted((dataset / "images").glob("[!.]*"))):
        mask = read_mask(FileSource(dataset / "labels" / image.name))
        drawn, name = ((1, "ball"), (2, "box"))[n % 2]
        reference = folder / f"reference_{n}.nii.gz"
        write_mask(Mask(mask.array * (mask.array == drawn), mask.geometry), reference)
        rows.append(f"case_{n},{image},{reference},{annotated.format(name)}")
    (folder / "cases.csv").write_text("\n".join(rows))
    return folder / "cases.csv"


BALL_AND_BOX = {"data": {"labels": {"ball": 1, "box": 2}}, "training": {"learning_rate": 0.01, "epochs": 10}}


def test_data_sets_labelled_for_different_organs_teach_both(dataset: Path, tmp_path: Path) -> None:
    """No reference ever shows both, and each network answer is one label: only what is unknown may be either."""
    run = train_folder(partly_labelled(dataset, tmp_path), tmp_path / "run", merge(TINY, BALL_AND_BOX))
    assert np.isnan(run.validation.dice).sum() == len(run.validation.case_ids)  # the other label is not scored
    predict_folder(dataset, [tmp_path / "run"], Request(tmp_path / "masks"))
    paths = sorted((tmp_path / "masks").glob("*.nii.gz"))
    assert len(paths) == 6
    for path in paths:
        mask, whole = read_mask(FileSource(path)).array, read_mask(FileSource(dataset / "labels" / path.name)).array
        for value in (1, 2):
            found, wanted = mask == value, whole == value
            assert 2 * (found & wanted).sum() / (found.sum() + wanted.sum()) > 0.5


def test_what_is_said_to_be_annotated_is_checked(dataset: Path, tmp_path: Path) -> None:
    manifest = partly_labelled(dataset, tmp_path, annotated="{};spleen")
    with pytest.raises(ConfigError, match=r"case_0: annotated names spleen; data\.labels lists ball, box"):
        train_folder(manifest, tmp_path / "strange", merge(TINY, BALL_AND_BOX))
    swap = {"augmentation": {"flip_axes": ["left-right"], "swap_labels": [["ball", "box"]]}}
    manifest = partly_labelled(dataset, tmp_path)
    with pytest.raises(ConfigError, match="only one of ball and box is annotated, but mirroring swaps them"):
        train_folder(manifest, tmp_path / "half", merge(TINY, merge(BALL_AND_BOX, swap)))
    manifest = partly_labelled(dataset, tmp_path, annotated="box")
    once = {"training": {"epochs": 1, "steps_per_epoch": 1}}
    run = train_folder(manifest, tmp_path / "marked", merge(TINY, merge(BALL_AND_BOX, once)))
    reasons = [item.reason.split("; ")[0] for item in run.failed]
    assert reasons == ["the reference marks ball, which is not among its annotated labels"] * 3


def test_a_time_budget_is_kept(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Watch(monkeypatch, seconds_per_look=50)
    tree = merge(TINY, {"training": {"minutes": 60, "epochs": 100000}})
    run = train_folder(dataset, tmp_path / "run", tree)
    history = pd.read_csv(tmp_path / "run" / "history.csv")
    assert 0.7 * 3600 < history["seconds"].iloc[-1] < 1.1 * 3600
    assert history["learning_rate"].iloc[-1] < 0.1 * history["learning_rate"].max()
    assert (tmp_path / "run" / "model.pt").is_file()
    assert run.results[0].epochs > 3


def test_what_time_ran_out_on_is_validated_all_the_same(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock may run out while an epoch is written down that was not to be validated."""
    watch = Watch(monkeypatch, seconds_per_look=50)
    write = loop.write_history

    def write_slowly(history: list[dict[str, Any]], path: Path) -> None:
        watch.now += 3600
        write(history, path)

    monkeypatch.setattr(loop, "write_history", write_slowly)
    tree = merge(TINY, {"training": {"minutes": 60, "epochs": None, "validation_interval": 100}})
    run = train_folder(dataset, tmp_path / "run", tree)
    assert run.results[0].epochs == 1
    assert run.results[0].model.is_file()
    assert pd.read_csv(tmp_path / "run" / "history.csv")["dice"].notna().iloc[-1]


def test_a_full_disk_leaves_the_last_model_as_it_is(tiny_disk: Path) -> None:
    path = tiny_disk / "model.pt"
    save(path, {"weights": {"a": torch.zeros(100)}})
    before = path.read_bytes()
    for count in (16_000, 20_000, 100_000):
        with pytest.raises(OutputError, match="No space left"):
            save(path, {"weights": {"a": torch.randn(count)}})
        assert path.read_bytes() == before
        assert list(tiny_disk.glob("[!.]*")) == [path]


def test_early_stopping(dataset: Path, tmp_path: Path) -> None:
    tree = merge(TINY, {"training": {"epochs": 50, "steps_per_epoch": 1, "patience": 2, "learning_rate": 1e-12}})
    run = train_folder(dataset, tmp_path / "run", tree)
    assert run.results[0].epochs < 50


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "volseg.training.losses.SegmentationLoss.forward", lambda *_: torch.tensor(float("nan"), requires_grad=True)
    )
    with pytest.raises(TrainingError, match="not finite") as error:
        train_folder(dataset, tmp_path / "run", TINY)
    assert "learning_rate" in error.value.hint


def test_a_run_is_not_overwritten_and_not_resumed_with_other_options(dataset: Path, trained_run: Path) -> None:
    with pytest.raises(OutputError, match="already holds a run"):
        train_folder(dataset, trained_run, TINY)
    with pytest.raises(ConfigError, match="another configuration"):
        train_folder(dataset, trained_run, {"training": {"learning_rate": 0.5}}, resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_two_runs_never_write_into_one_folder(resume: bool, dataset: Path, tmp_path: Path) -> None:
    begin = "import sys, pathlib, volseg.io.files as files\n"
    hold = "with files.owned_folder(pathlib.Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", begin + hold, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(OutputError, match="another process is writing a run into"):
            train_folder(dataset, tmp_path / "run", TINY, resume=resume)
        assert not [path for path in (tmp_path / "run").iterdir() if not path.name.startswith(".")]
        other.kill()
    tree = merge(TINY, {"training": {"epochs": 1, "steps_per_epoch": 1}})
    assert train_folder(dataset, tmp_path / "run", tree).results  # the lock went with its owner


def test_a_run_that_is_not_there_to_resume_is_told(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A path may be misspelled; a script may always ask to resume."""
    too_small = merge(TINY, {"patches": {"size": [2, 2, 2]}})  # it ends before anything is prepared
    for told in (True, False):
        caplog.clear()
        with pytest.raises(ConfigError, match="a single voxel"):
            train_folder(dataset, tmp_path / "rum", too_small, resume=True)
        assert (f"there is no run to resume in {tmp_path / 'rum'}: starting a new one" in caplog.text) is told


def test_a_case_that_cannot_be_used_is_listed_and_the_others_train(dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    (data / "images" / "case_2.nii.gz").write_bytes((data / "images" / "case_2.nii.gz").read_bytes()[:200])
    (data / "images" / "case_9.nii.gz").write_bytes((data / "images" / "case_1.nii.gz").read_bytes())
    run = train_folder(data, tmp_path / "run", merge(TINY, {"training": {"epochs": 1, "steps_per_epoch": 1}}))
    assert [item.path.name for item in run.failed] == ["case_2.nii.gz"]
    assert {item.path.name for item in run.not_used} == {"case_2.nii.gz", "case_9.nii.gz"}
    table = pd.read_csv(tmp_path / "run" / "not_used.csv")
    assert table["reason"].str.contains("damaged|without a label").all()
    assert len(run.splits[0].train) + len(run.splits[0].val) == 5


def test_a_case_that_cannot_be_used_is_dealt_into_no_fold(dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    (held_out,) = make_splits([f"case_{n}" for n in range(6)], 6, 0.0, 0)[0].val
    (data / "labels" / f"{held_out}.nii.gz").write_bytes(b"damaged")
    settings = {"training": {"epochs": 1, "steps_per_epoch": 1, "folds": 6}}
    (split,) = train_folder(data, tmp_path / "run", merge(TINY, settings)).splits
    assert (len(split.train), len(split.val)) == (4, 1)


def test_prepared_cases_are_never_stale(dataset: Path, tmp_path: Path) -> None:
    """Changing a file, a label or the spacing prepares anew; changing nothing does not."""
    from volseg.cases import find_dataset
    from volseg.config import parse_assignments
    from volseg.planning import plan_folder
    from volseg.training.preparation import prepare_cases

    data = shutil.copytree(dataset, tmp_path / "data")
    _, plan = plan_folder(data, PartialConfig.of(TINY))
    cache = tmp_path / "cache"

    def files(config: Any) -> set[str]:
        before = set(cache.glob("[!.]*")) if cache.exists() else set()
        prepare_cases(find_dataset(data).cases, config, cache)
        return {path.name.split("-")[0] for path in set(cache.glob("[!.]*")) - before}

    opened = set(Path("/proc/self/fd").iterdir())
    assert len(files(plan.config)) == 6
    assert len(set(Path("/proc/self/fd").iterdir()) - opened) < 6  # a process may hold few files: not one per case
    assert files(plan.config) == set()
    image = read_volume(FileSource(data / "images" / "case_0.nii.gz"))
    (data / "images" / "case_0.nii.gz").unlink()
    write_volume(Volume(image.array + 1, image.geometry), data / "images" / "case_0.nii.gz")
    assert files(plan.config) == {"case_0"}
    mask = read_mask(FileSource(data / "labels" / "case_3.nii.gz"))
    write_mask(Mask(np.ones_like(mask.array), mask.geometry), data / "labels" / "case_3.nii.gz")
    assert files(plan.config) == {"case_3"}
    other = merge(plan.config.model_dump(mode="json"), parse_assignments(["preprocessing.spacing_mm=[2,2,2]"]))
    assert len(files(validate(other, "test"))) == 6


def test_steps_that_are_not_finite_are_counted_and_left_out_of_the_means() -> None:
    epoch = EpochRecord(10.0)
    one = Agreement(torch.tensor([3]), torch.tensor([8]), torch.tensor(15), torch.tensor(20))
    for loss in (1.0, math.nan, 2.0):
        epoch.add(StepResult(loss, 4.0, 0.01, 100, one), waited_seconds=0.5)
    row = epoch.history_row(13.0)
    assert (row["loss"], row["gradient_norm"], row["skipped_steps"]) == (1.5, 4.0, 1)
    assert (row["train_accuracy"], row["train_dice"]) == (0.75, 0.75)  # of two steps alike
    assert row["train_iou"] == pytest.approx(0.6)
    assert (row["steps_per_second"], row["voxels_per_second"], row["data_wait_share"]) == (1.0, 100, 0.5)


def test_sums_that_do_not_fit_on_the_gpu_are_kept_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "image.npy", np.zeros((1, 4, 4, 4), np.float32))
    case = PreparedCase("a", tmp_path / "image.npy", tmp_path / "none.npy", {}, {}, (1, 1, 1), (False, False))
    attempts = []

    def slide(*args: object) -> torch.Tensor:
        attempts.append(args[5:])
        if len(attempts) == 1:
            raise torch.OutOfMemoryError
        return torch.zeros(2, 4, 4, 4)

    monkeypatch.setattr("volseg.training.validation.sliding_window", slide)
    validator = Validator(_config(labels={"ball": 1}), torch.float32)
    validator._slide(torch.nn.Identity(), case, torch.device("cuda"))
    assert attempts == [(torch.device("cuda"), 16), ()]


def test_schedules() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_steps=10, schedule="cosine")
    assert learning_rate(config, 0, 0.0) == pytest.approx(0.1)
    assert learning_rate(config, 100, 0.0) == 1.0
    assert learning_rate(config, 100, 0.5) == pytest.approx(0.5)
    assert learning_rate(config, 100, 1.0) == pytest.approx(0.0)
    poly = config.model_copy(update={"schedule": "poly"})
    assert learning_rate(poly, 100, 0.5) == pytest.approx(0.5**0.9)


def test_a_step_is_timed_again_where_the_machine_is_not_what_it_was(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two configurations: on a quiet machine, again on it, and on a busy one."""
    one = read_config(trained_run / "config.yaml")
    other = one.model_copy(update={"training": one.training.model_copy(update={"memory_format": "channels_last"})})
    timed: list[float] = []
    speed = [1.0]

    def step(config: Config, device: torch.device, threads: Sequence[int]) -> float:
        timed.append(speed[0])
        return speed[0]

    monkeypatch.setattr("volseg.training.timing.step_seconds", step)
    seen = []
    for speed[0] in (1.0, 1.1, 2.0, 2.0):
        timer = StepTimer(torch.device("cpu"), tmp_path)
        seen.append([timer(one), timer(other)])
        assert timer(one) == seen[-1][0]  # not timed twice
    assert seen == [[1.0, 1.0], [1.1, 1.0], [2.0, 2.0], [2.0, 2.0]]
    assert timed == [1.0, 1.0, 1.1, 2.0, 2.0, 2.0]


def test_timing_a_step_disturbs_nothing(trained_run: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert 0 < step_seconds(read_config(trained_run / "config.yaml"), torch.device("cpu"), [2, 1]) < 60
    assert torch.equal(torch.get_rng_state(), before)


def test_warm_up_is_a_tenth_of_a_short_run() -> None:
    config = TrainingConfig(learning_rate=1.0, warmup_steps=50)
    rates = [learning_rate(config, step, step / 100) for step in range(100)]
    assert rates.index(max(rates)) == 10
    assert max(rates) > 0.97
    # Half of the time went by before the first step: the tenth is of what is left.
    assert learning_rate(config, 0, 0.5, warm_from=0.5) == pytest.approx(0.02 * 0.5)
    assert learning_rate(config, 3, 0.55, warm_from=0.5) == pytest.approx(0.5 * (1 + math.cos(0.55 * math.pi)))
    long = [learning_rate(config, step, step / 10_000) for step in range(100)]
    assert long.index(max(long)) == 49


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        (math.inf, (40, 2, 120.0)),
        (120.0, (40, 2, 120.0)),
        (119.0, (40, 1, 80.0)),
        (79.0, (39, 1, 78.0)),
        (5.0, (2, 1, 4.0)),
        (-3.0, (1, 1, 2.0)),
    ],
)
def test_the_final_validation_is_what_there_is_time_for(allowed: float, expected: tuple[int, int, float]) -> None:
    """Forty cases in two views of a second each, with trials of a second."""
    found = FinalValidation.within(allowed, cases=40, seconds_by_views={2: 2.0, 1: 1.0}, trial_seconds=1.0)
    assert (found.cases, found.views, found.seconds) == expected


def test_mirror_images_that_cost_nothing_are_kept_when_time_is_short() -> None:
    found = FinalValidation.within(79.0, cases=40, seconds_by_views={2: 1.0}, trial_seconds=1.0)
    assert (found.cases, found.views, found.seconds) == (39, 2, 78.0)


@pytest.mark.parametrize(("minutes", "seconds", "expected"), [(2, 10, 1), (20, 10, 7), (2, 4, 3), (0.1, 9, 1)])
def test_a_validation_during_training_takes_at_most_a_tenth(minutes: float, seconds: float, expected: int) -> None:
    assert Clock(TrainingConfig(minutes=minutes)).cases_in_time(7, seconds) == expected
    assert Clock(TrainingConfig(epochs=3)).cases_in_time(7, seconds) == 7


def test_a_short_run_scores_few_cases_during_training(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Validator, "time_case", lambda *_: (1000.0, 0.0))
    config = merge(TINY, {"training": {"folds": 2, "epochs": 1, "minutes": 100}})
    run = train_folder(dataset, tmp_path / "run", config)
    assert "validation during training scores 1 of 3 cases" in (tmp_path / "run" / "train.log").read_text()
    assert len(run.validation.case_ids) + len(run.validation.left_out) == 3
    saved = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert saved["clock"]["validated_cases"] == 1


def test_what_a_final_validation_leaves_out_is_told() -> None:
    whole = FinalValidation(12, 8, 100.0)
    assert FinalValidation(12, 1, 12.0).compared_with(whole) == "1 of 8 mirrored views"
    assert FinalValidation(3, 1, 3.0).compared_with(whole) == "3 of 12 cases and 1 of 8 mirrored views"
    assert FinalValidation(3, 8, 25.0).compared_with(whole) == "3 of 12 cases"


def test_the_final_validation_keeps_to_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    clock = Clock(TrainingConfig(minutes=10.0), started=0.0)
    assert clock.final_seconds == 60.0
    watch.now = 550.0
    clock.sample()
    assert clock.final_seconds_left == pytest.approx(50 + 18)
    for config in (TrainingConfig(minutes=10.0, validate_all=True), TrainingConfig()):
        unlimited = Clock(config, started=0.0)
        assert unlimited.final_seconds == unlimited.final_seconds_left == math.inf


def test_held_out_cases_that_there_was_no_time_for_are_told(dataset: Path, tmp_path: Path) -> None:
    def none_left(clock: Clock) -> float:
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "final_seconds_left", property(none_left))
        run = train_folder(dataset, tmp_path / "run", merge(TINY, {"training": {"folds": 2, "epochs": 1}}))
    table = pd.read_csv(tmp_path / "run" / "validation.csv")
    scored = table[table["views"] > 0]["case_id"].unique()
    assert len(scored) == 1
    assert table["case_id"].nunique() == 3
    assert table[table["views"] == 0]["dice"].isna().all()
    again = read_validation(tmp_path / "run" / "validation.csv")
    assert (again.case_ids, again.views, again.left_out) == (
        run.validation.case_ids, run.validation.views, run.validation.left_out
    )  # fmt: skip


def test_the_clock_of_a_resumed_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    Watch(monkeypatch)
    clock = Clock(TrainingConfig(minutes=1.0, epochs=10**6), spent_seconds=30.0, started=0.0)
    assert clock.progress(0) == pytest.approx(0.5)
    clock.reserve_seconds = 12.0
    assert clock.progress(0) == pytest.approx(30 / 48)
    clock.reserve_seconds = 0.0
    assert clock.progress(0) == pytest.approx(30 / 48)  # it never goes back


def test_moving_average_looks_back_a_tenth_then_by_its_decay() -> None:
    mean, counter = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    update = _moving_average(0.9)
    update([mean, counter], [torch.ones(1), torch.tensor([5])], 1)
    assert mean.item() == pytest.approx(1 - 2 / 11)
    assert counter.item() == 5
    update([mean], [torch.zeros(1)], 10**6)
    assert mean.item() == pytest.approx((1 - 2 / 11) * 0.9)


def test_mean_dice_skips_labels_that_nobody_has_but_not_missed_ones() -> None:
    nan = math.nan
    validation = Validation(("a", "b"), ("x", "y", "z"), np.array([[1.0, nan, nan], [0.0, 0.5, nan]]))
    np.testing.assert_allclose(validation.per_label, [0.5, 0.5, nan])
    assert validation.mean == 0.5


RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_a_slice_is_drawn_as_radiologists_see_it() -> None:
    """In the plane of the slices, large enough to be seen, each label's edge in its colour."""
    image = np.zeros((4, 3, 2), np.float32)
    image[3, 2, 1] = 1.0  # the patient's right, anterior
    reference, prediction = np.zeros((2, 4, 3, 2), np.uint8)
    reference[0, 0, 1], prediction[0, 0, 1], prediction[1, 0, 1] = 1, 1, 2  # left, posterior
    picture = compared_slice(image, reference, prediction, "RAS", (1.0, 1.0, 3.0), {1: RED, 2: BLUE})
    assert picture.shape == (3 * 128, 2 * 4 * 128 + 8, 3)
    left, right = picture[:, : 4 * 128], picture[:, 4 * 128 + 8 :]
    assert left[0, 0].tolist() == right[0, 0].tolist() == [255, 255, 255]  # top left
    assert (picture.reshape(-1, 3) == [255, 255, 255]).all(axis=1).sum() == 2 * 128**2
    assert left[3 * 128 - 64, 3 * 128].tolist() == [255, 0, 0]  # the edge of the voxel at the lower right
    assert left[3 * 128 - 64, 4 * 128 - 64].tolist() == [0, 0, 0]  # its middle
    assert (left == BLUE).all(axis=-1).sum() == 0
    assert right[3 * 128 - 64, 2 * 128].tolist() == [0, 0, 255]


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SAR", "AIL"])
def test_a_slice_looks_alike_however_its_axes_are_stored(axes: str) -> None:
    rng = np.random.default_rng(0)
    image, labels = rng.random((6, 5, 4), np.float32), rng.integers(0, 3, (6, 5, 4))
    spacing = {"R": 1.0, "A": 1.5, "S": 4.0}
    straight = compared_slice(image, labels, labels, "RAS", (1.0, 1.5, 4.0), {1: RED, 2: BLUE})
    names = [{"L": "R", "P": "A", "I": "S"}.get(letter, letter) for letter in axes]
    flips = tuple(slice(None, None, -1 if letter in "LPI" else None) for letter in axes)
    stored = [array.transpose(["RAS".index(name) for name in names])[flips] for array in (image, labels)]
    drawn = compared_slice(stored[0], stored[1], stored[1], axes, [spacing[name] for name in names], {1: RED, 2: BLUE})
    np.testing.assert_array_equal(drawn, straight)


def test_a_large_picture_is_thinned_out() -> None:
    large = np.zeros((1, 2100, 1000), np.float32)
    picture = compared_slice(large, large.astype(np.uint8), large.astype(np.uint8), "SAR", (1.0, 1.0, 1.0), {})
    assert picture.shape == (700, 2 * 334 + 8, 3)


def test_a_flat_picture_is_shown_in_its_plane() -> None:
    flat = np.zeros((1, 7, 9), np.float32)
    picture = compared_slice(flat, flat.astype(np.uint8), flat.astype(np.uint8), "SAR", (1.0, 1.0, 1.0), {})
    assert picture.shape == (7 * 57, 2 * 9 * 57 + 8, 3)


def test_the_validation_loss_is_that_of_the_same_patches_and_changes_nothing(trained_run: Path, dataset: Path) -> None:
    history = pd.read_csv(trained_run / "history.csv").dropna(subset="validation_loss")
    assert len(history) > 3
    assert history["validation_loss"].iloc[-1] < 0.7 * history["validation_loss"].iloc[0]
    config = read_config(trained_run / "config.yaml")
    prepared, _ = prepare_cases(find_dataset(dataset, config.data).cases, config, trained_run.parent / "patches")
    network = load_model(trained_run, torch.device("cpu")).network.train()
    loss = ValidationLoss(list(prepared.values()), config, torch.float32)
    before, state = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    assert loss(network) == loss(network)
    assert network.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("damage", ["missing", "text", "truncated", "foreign", "pickle", "weights"])
def test_damaged_models_are_refused(trained_run: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "model.pt"
    match damage:
        case "text":
            write_text(file, "no model")
        case "truncated":
            file.write_bytes((trained_run / "model.pt").read_bytes()[:5000])
        case "foreign":
            torch.save({"state_dict": {}}, file)
        case "pickle":
            torch.save({"volseg": "0", "weights": Path("x")}, file)
        case "weights":
            content = load(trained_run / "model.pt")
            content["weights"].popitem()
            save(file, content)
    with pytest.raises(CheckpointError, match=str(file)):
        _ = load_model(file, torch.device("cpu")).network


def test_too_few_cases(tmp_path: Path, dataset: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        shutil.copy(dataset / folder / "case_0.nii.gz", tmp_path / folder / "case_0.nii.gz")
    with pytest.raises(DataError, match="at least two are needed"):
        train_folder(tmp_path, tmp_path / "run", TINY)


def test_a_budget_that_reading_used_up_still_gives_a_model(dataset: Path, tmp_path: Path) -> None:
    run = train_folder(dataset, tmp_path / "run", merge(TINY, {"training": {"minutes": 1e-6}}))
    assert run.results[0].epochs == 1
    assert run.results[0].model.is_file()


def test_a_patch_that_leaves_one_voxel_is_refused_before_anything_is_prepared(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a single voxel at its deepest level"):
        train_folder(dataset, tmp_path / "run", merge(TINY, {"patches": {"size": [2, 2, 2]}}))
    assert not (tmp_path / "run" / "cache").exists()


def test_cases_added_later_are_listed_and_not_mixed_into_a_resumed_run(dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    tree = merge(TINY, {"training": {"epochs": 2, "steps_per_epoch": 2}})
    with pytest.raises(Killed):
        train_folder(data, tmp_path / "run", tree, progress=KillAt(3))
    for folder in ("images", "labels"):
        shutil.copy(data / folder / "case_0.nii.gz", data / folder / "case_new.nii.gz")
    run = train_folder(data, tmp_path / "run", tree, resume=True)
    assert [item.path.name for item in run.not_used] == ["case_new.nii.gz"]
    table = pd.read_csv(tmp_path / "run" / "not_used.csv")
    assert table["path"].tolist() == ["images/case_new.nii.gz"]
