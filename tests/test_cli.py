from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import TINY, make_case
from nibabel.fileholders import FileHolder

from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Mask
from volseg.io import FileSource, read_mask, write_mask, write_volume
from volseg.model.checkpoint import load

Volseg = Callable[..., tuple[int, str, str]]

VERBS = [
    *("demo", "inspect", "show", "plan", "train", "predict", "evaluate", "report", "card", "cite", "export", "import"),
    *("convert", "download"),
]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A config file for trainings that take seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


def one_line(err: str) -> None:
    """An error is one line that says what, and at most one that says what to do; never a traceback."""
    lines = [line for line in err.splitlines() if not line.startswith(("warning", "look", "prepare", "scan"))]
    assert lines[0].startswith("error: ")
    assert len(lines) <= 2
    assert "Traceback" not in err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(volseg: Volseg, verb: str) -> None:
    code, out, _ = volseg(verb, "--help")
    assert code == 0
    assert f"Example: volseg {verb}" in out


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_is_never_cut_off(volseg: Volseg, verb: str, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    code, out, _ = volseg(verb, "-h")
    assert code == 0
    assert max(map(len, out.splitlines())) <= int(columns)
    assert not re.search(r"[\w,;]\.\.\.", out), out  # as a text ends that is cut off
    options = [line.split()[0] for line in out.splitlines() if line.startswith("  -")]
    assert {"-v,", "-h,", "--log"} <= set(options)
    assert ("-o," in options) == ("--output" in out)


def test_commands_are_described_in_whole_sentences(volseg: Volseg, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = volseg("-h")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    commands = out.split("Commands:")[1]
    assert "..." not in commands
    assert all(f"\n  {verb} " in commands for verb in VERBS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_verbs_and_options(shell: str) -> None:
    words = {"bash": "volseg pre", "zsh": "volseg pre", "fish": "volseg pre"}[shell]
    environment = {
        **os.environ,
        "_VOLSEG_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": words,
        "COMP_CWORD": "1",
    }
    program = "import sys; sys.argv = ['volseg']; from volseg.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert "predict" in done.stdout, done.stderr


def test_verbose_may_stand_behind_the_verb(volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path) -> None:
    words = ("predict", dataset / "images" / "case_0.nii.gz", "--model", trained_run, "-o", tmp_path / "masks")
    assert volseg(*words)[0] == 0
    for verbose in (("-v", *words), (*words, "-v"), (*words, "--verbose")):
        assert "info: case case_0 is up to date" in volseg(*verbose)[2]
    assert "info: " not in volseg(*words)[2]


def test_a_line_per_epoch_in_the_log_of_the_run_and_on_stderr(
    volseg: Volseg, dataset: Path, tiny: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("train", dataset, "-o", run, "--config", tiny, "--epochs", "2")
    code, out, err = volseg(*words)
    assert code == 0
    assert "best epoch: " in out
    lines = (run / "train.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d \S", line) for line in lines)
    told = [line.split(" ", 1)[1] for line in lines]
    assert told[0] == "started fold 0: 4 training cases, 2 validation cases"
    assert re.fullmatch(
        r"epoch 2, step 20: loss \d\.\d{3}, val Dice \d\.\d{3}, lr \d\.\de[+-]\d\d, \d+ s, \d:\d\d:\d\d left", told[2]
    )
    assert told[3].startswith("finished fold 0: best epoch ")
    assert set(told) <= set(err.splitlines())


def test_a_run_that_learned_next_to_nothing_says_so_at_its_end(
    volseg: Volseg, dataset: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ("--epochs", "1", "--set", "training.steps_per_epoch=1", "--set", "training.learning_rate=1e-6")
    code, _, err = volseg("train", dataset, "-o", tmp_path / "run", "--config", tiny, *words)
    assert code == 0
    assert err.splitlines()[-1].startswith("warning: the network ")
    assert "after only 1 step. Train longer" in err.splitlines()[-1]


def test_the_same_reason_of_many_cases_is_one_line(
    volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path
) -> None:
    for name in "abc":
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / f"{name}.nii.gz").write_bytes(b"damaged")
    shutil.copy(dataset / "images" / "case_0.nii.gz", tmp_path / "in" / "good.nii.gz")
    log = tmp_path / "log"
    code, _, err = volseg("predict", tmp_path / "in", "--model", trained_run, "-o", tmp_path / "out", "--log", log)
    assert code == 3
    (line,) = [line for line in err.splitlines() if line.startswith("failed: ")]
    assert line.endswith("(and 2 more)")
    assert log.read_text().count("WARNING") == 4  # each of them, and the end


def test_the_main_job_from_end_to_end(volseg: Volseg, dataset: Path, tiny: Path, tmp_path: Path) -> None:
    run, masks, scores = tmp_path / "run", tmp_path / "masks", tmp_path / "scores"
    code, out, _ = volseg("train", dataset, "--output", run, "--config", tiny, "--set", "training.epochs=2")
    assert code == 0
    assert "4 training cases, 2 validation cases, 0 files not used" in out
    code, out, _ = volseg(
        "predict", dataset, "--model", run, "--output", masks, "--format", "nifti", "--format", "nrrd"
    )
    assert (code, out.split(";")[0]) == (0, "6 segmented, 0 skipped, 0 failed of 6 discovered")
    assert len(list(masks.glob("*.nrrd"))) == 6
    code, out, err = volseg("evaluate", masks, dataset / "labels", "--output", scores)
    assert code == 0
    assert "note:" not in err  # a case in two formats is one case
    table = pd.read_csv(scores / "metrics.csv")
    assert len(table) == 12
    assert {"case_id", "label", "status", "dice", "hd95_mm", "nsd"} <= set(table.columns)
    assert "mean" in out


def test_a_missing_prediction_is_scored_or_left_out_as_asked(
    volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    volseg("predict", dataset / "images" / "case_0.nii.gz", "--model", trained_run, "--output", masks)
    code, _, err = volseg("evaluate", masks, dataset / "labels", "--output", tmp_path / "strict")
    assert code == 0
    assert "5 references have no prediction and are scored 0" in err
    strict = pd.read_csv(tmp_path / "strict" / "summary.csv")
    assert strict.loc[strict["label"] == "label_1", "not_predicted"].tolist() == [5]
    volseg("evaluate", masks, dataset / "labels", "--output", tmp_path / "lenient", "--only-predicted")
    lenient = pd.read_csv(tmp_path / "lenient" / "summary.csv")
    assert lenient["dice_mean"].iloc[0] > 5 * strict["dice_mean"].iloc[0]


def test_masks_of_all_batches_in_a_folder_are_scored_and_no_others(
    volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    volseg("predict", dataset / "images" / "case_0.nii.gz", "--model", trained_run, "--output", masks)
    volseg("predict", dataset / "images" / "case_1.nii.gz", "--model", trained_run, "--output", masks)
    shutil.copy(dataset / "labels" / "case_2.nii.gz", masks)
    volseg("evaluate", masks, dataset / "labels", "--output", tmp_path / "scores", "--only-predicted")
    assert set(pd.read_csv(tmp_path / "scores" / "metrics.csv")["case_id"]) == {"case_0", "case_1"}


def test_what_else_can_be_measured(volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path) -> None:
    masks, references = tmp_path / "masks", dataset / "labels"
    assert volseg("predict", dataset, "--model", trained_run, "--output", masks, "--probabilities")[0] == 0
    for name, hd95 in (("pooled", "pooled"), ("again", "pooled"), ("directed", "max_of_directed")):
        code, _, err = volseg(
            *("evaluate", masks, references, "--output", tmp_path / name, "--hd95", hd95, "--nsd", "area_weighted"),
            *("--tolerance-mm", "1", "--tolerance-mm", "3", "--lesions", "--centerline", "--probabilities"),
            *("--within", references, "--resample"),
        )
        assert (code, err.splitlines()[-1]) == (0, "evaluate 6/6 case_5")
    table = pd.read_csv(tmp_path / "pooled" / "metrics.csv")
    assert {"nsd", "nsd_3mm", "lesion_f1", "centerline_dice", "auroc", "masd_mm"} <= set(table.columns)
    # The region of interest is what the reference marks.
    marked = (table["tp"] + table["fn"]).groupby(table["case_id"]).transform("sum")
    assert (table["tp"] + table["fp"] + table["fn"] + table["tn"]).tolist() == marked.tolist()
    code, out, _ = volseg("evaluate", "--compare", tmp_path / "pooled", tmp_path / "again", "--output", tmp_path / "c")
    assert code == 0
    assert ["dice", "6", "0", "0", "0", "6"] in [line.split()[1:7] for line in out.splitlines()]
    assert (tmp_path / "c" / "differences.csv").is_file()
    code, _, err = volseg(
        "evaluate", "--compare", tmp_path / "pooled", tmp_path / "directed", "--output", tmp_path / "d"
    )
    assert code == 2
    assert "do not measure hd95_mm alike" in err


def test_a_case_without_a_region_of_interest_fails_alone(volseg: Volseg, dataset: Path, tmp_path: Path) -> None:
    regions = tmp_path / "regions"
    regions.mkdir()
    shutil.copy(dataset / "labels" / "case_0.nii.gz", regions)
    code, _, err = volseg(
        "evaluate", dataset / "labels", dataset / "labels", "--within", regions, "--output", tmp_path / "o"
    )
    assert code == 3
    assert "failed: case_1: there is no region of interest for this case" in err
    assert pd.read_csv(tmp_path / "o" / "metrics.csv").set_index("case_id").loc["case_0", "dice"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("words", [("--compare", "--lesions"), ("--compare", "--tolerance-mm", "1"), ("--images", ".")])
def test_options_that_would_be_ignored_are_refused(
    volseg: Volseg, dataset: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    code, _, err = volseg("evaluate", dataset / "labels", dataset / "labels", "--output", tmp_path / "o", *words)
    assert code == 2
    assert words[-2 if words[-1] in "1." else -1] in err
    assert not (tmp_path / "o").exists()


def test_scoring_without_labels_json_survives_a_damaged_file(volseg: Volseg, dataset: Path, tmp_path: Path) -> None:
    masks = Path(shutil.copytree(dataset / "labels", tmp_path / "masks"))
    references = Path(shutil.copytree(dataset / "labels", tmp_path / "references"))
    (references / "case_2.nii.gz").write_bytes(b"no image")
    mask = read_mask(FileSource(masks / "case_0.nii.gz"))
    array = mask.array.copy()
    array[0, 0, 0] = 9  # a false alarm of a label that no reference has
    write_mask(Mask(array, mask.geometry), masks / "case_0.nii.gz")
    code, _, err = volseg("evaluate", masks, references, "--output", tmp_path / "scores")
    assert code == 3
    assert "failed: case_2" in err
    table = pd.read_csv(tmp_path / "scores" / "metrics.csv").set_index(["case_id", "label"])
    assert table.loc[("case_0", "label_9"), "status"] == "false_alarm"
    assert table.loc[("case_0", "label_1"), "dice"] == 1.0


def test_plan_writes_a_file_that_train_takes(volseg: Volseg, dataset: Path, tiny: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    code, out, _ = volseg("plan", dataset, "--output", config, "--config", tiny)
    assert code == 0
    assert "6 cases (images and labels with equal names), 0 files not used" in out
    one_epoch = ("--set", "training.epochs=1", "--set", "training.steps_per_epoch=1")
    code, _, _ = volseg("train", dataset, "--output", tmp_path / "run", "--config", config, *one_epoch)
    assert code == 0


def test_inspect_says_what_is_there(volseg: Volseg, dataset: Path, tmp_path: Path) -> None:
    shutil.copy(dataset / "images" / "case_0.nii.gz", tmp_path / "good.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"bad")
    code, out, _ = volseg("inspect", tmp_path, "--json")
    assert code == 0
    findings = {finding["path"]: finding for finding in json.loads(out)}
    assert findings["good.nii.gz"]["shape"] == [20, 18, 16]
    assert findings["good.nii.gz"]["axis_codes"] == "RAS"
    assert findings["bad.nii.gz"]["status"] == "unusable"
    code, out, _ = volseg("inspect", tmp_path)
    assert "20x18x16" in out


def test_export_puts_a_mask_into_the_order_of_its_image(volseg: Volseg, tmp_path: Path) -> None:
    image, mask = make_case(0)
    write_volume(image, tmp_path / "image.nii.gz")
    order = AxisOrder((2, 0, 1), (True, False, True))
    geometry = image.geometry.reordered(order)
    write_mask(Mask(np.ascontiguousarray(order.apply(mask.array)), geometry), tmp_path / "mask.nii.gz")
    out_file = tmp_path / "out.nrrd"
    words = ("export", tmp_path / "mask.nii.gz", "--reference", tmp_path / "image.nii.gz", "--format", "nrrd")
    code, _, _ = volseg(*words, "--output", out_file)
    assert code == 0
    written = read_mask(FileSource(out_file))
    np.testing.assert_array_equal(written.array, mask.array)
    assert written.geometry.matches(image.geometry, 1e-4)
    moved = image.geometry.affine.copy()
    moved[0, 3] += 3
    write_mask(Mask(mask.array, Geometry(mask.array.shape, moved)), tmp_path / "mask.nii.gz")
    code, _, err = volseg(*words, "--output", tmp_path / "no.nrrd")
    assert code == 2
    one_line(err)
    assert not (tmp_path / "no.nrrd").exists()


BAD = {
    "no such folder": (["train", "{tmp}/nothing", "--output", "{tmp}/r"], "does not exist"),
    "empty folder": (["train", "{tmp}/empty", "--output", "{tmp}/r"], "holds no labelled case"),
    "wrong key": (["train", "{data}", "--output", "{tmp}/r", "--set", "training.epoch=3"], "no key 'training.epoch'"),
    "wrong value": (["train", "{data}", "--output", "{tmp}/r", "--set", "training.epochs=many"], "training.epochs"),
    "no assignment": (["train", "{data}", "--output", "{tmp}/r", "--set", "epochs"], "key=value"),
    "wrong network": (["train", "{data}", "--output", "{tmp}/r", "--set", "network.name=foo"], "there is no 'foo'"),
    "patch does not fit": (["train", "{data}", "--output", "{tmp}/r", "--set", "patches.size=[9,9,9]"], "divisible"),
    "labels not in config": (
        ["train", "{data}", "--output", "{tmp}/r", "--set", "data.labels={{a: 1}}"],
        "label value 2",
    ),
    "no such config": (
        ["train", "{data}", "--output", "{tmp}/r", "--config", "{tmp}/no.yaml"],
        "cannot read the config",
    ),
    "broken config": (["train", "{data}", "--output", "{tmp}/r", "--config", "{tmp}/broken.yaml"], "is not YAML"),
    "output is a file": (["train", "{data}", "--output", "{tmp}/broken.yaml"], "cannot write"),
    "no model": (["predict", "{data}", "--model", "{tmp}/nothing", "--output", "{tmp}/o"], "there is no model at"),
    "text as model": (
        ["predict", "{data}", "--model", "{tmp}/broken.yaml", "--output", "{tmp}/o"],
        "damaged or not a model",
    ),
    "nothing to predict": (["predict", "{tmp}/no", "--model", "{run}", "--output", "{tmp}/o"], "does not exist"),
    "no image to predict": (
        ["predict", "{tmp}/broken.yaml", "--model", "{run}", "--output", "{tmp}/o"],
        "holds no image",
    ),
    "output of predict is a file": (
        ["predict", "{data}", "--model", "{run}", "--output", "{tmp}/broken.yaml"],
        "cannot write",
    ),
    "no references": (["evaluate", "{data}/labels", "{tmp}/empty", "--output", "{tmp}/o"], "holds no reference"),
    "inspect nothing": (["inspect", "{tmp}/nothing"], "does not exist"),
    "unknown task": (["download", "Task99_Nothing", "--output", "{tmp}/o"], "Task99_Nothing"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_exit_code_2(
    volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.yaml").write_text("a: [1, 2")
    words, expected = BAD[name]
    code, _, err = volseg(*(word.format(tmp=tmp_path, data=dataset, run=trained_run) for word in words))
    assert code == 2
    assert expected in err
    one_line(err)
    assert not list(tmp_path.rglob(".volseg-part-*"))


def test_wrong_words_are_explained(volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path) -> None:
    assert volseg("trian")[0] == 2
    code, _, err = volseg("predict", dataset, "--model", trained_run, "--output", tmp_path, "--format", "jpeg")
    assert code == 2
    assert "there is no format 'jpeg'" in err
    code, _, err = volseg("evaluate", dataset, dataset, "--output", tmp_path, "--hd95", "median")
    assert code == 2
    assert "there is no percentile 'median'" in err
    assert "max_of_directed, pooled, area_weighted" in err


def test_some_failed_cases_are_exit_code_3(volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path) -> None:
    shutil.copy(dataset / "images" / "case_0.nii.gz", tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:500])
    code, out, err = volseg("predict", tmp_path, "--model", trained_run, "--output", tmp_path / "out")
    assert code == 3
    assert "1 segmented, 0 skipped, 1 failed of 2 discovered" in out
    assert "failed: b: " in err
    assert "Traceback" not in err


def test_a_defect_of_ours_is_exit_code_1_with_a_log(
    volseg: Volseg, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("volseg.inspection.inspect_folder", defect)
    code, _, err = volseg("inspect", dataset)
    assert code == 1
    assert "Traceback" not in err
    log = Path(err.split("report it with ")[1].strip())
    assert "ZeroDivisionError: oops" in log.read_text()
    log.unlink()


def test_a_full_disk_leaves_nothing_half_written(
    volseg: Volseg, dataset: Path, trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writes of masks fail as on a full disk; what was written before is complete."""
    real_save = nib.Nifti1Image.to_file_map

    def full(image: nib.Nifti1Image, files: dict[str, FileHolder]) -> None:
        path = Path(str(files["image"].filename))
        if "case_3" in path.name:
            path.write_bytes(b"half")
            raise OSError(28, os.strerror(28))
        real_save(image, files)

    monkeypatch.setattr(nib.Nifti1Image, "to_file_map", full)
    code, _, err = volseg("predict", dataset, "--model", trained_run, "--output", tmp_path / "out")
    assert code == 2
    assert "case_3.nii.gz: No space left on device" in err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == [f"case_{n}.nii.gz" for n in range(3)]
    assert not list((tmp_path / "out").glob(".volseg-part-*"))
    assert len(pd.read_csv(tmp_path / "out" / "cases.csv")) == 3
    monkeypatch.undo()


@pytest.mark.parametrize("stated", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}])
def test_threads_wait_awake_for_a_moment_only_unless_the_user_says_otherwise(stated: dict[str, str]) -> None:
    program = "import os, volseg; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    environment = {key: value for key, value in os.environ.items() if key not in {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**environment, **stated}, capture_output=True, text=True, check=True
    )
    spins = stated.get("GOMP_SPINCOUNT") if stated else "5000"
    assert done.stdout.splitlines()[-1] == f"{spins} {stated.get('OMP_WAIT_POLICY')}"


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a process has written a file, or has ended without."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.05)


@pytest.mark.slow
def test_kill_9_in_the_middle_of_training_costs_nothing(dataset: Path, tiny: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "volseg",
        "train",
        str(dataset),
        "--config",
        str(tiny),
        "--set",
        "training.epochs=6",
    ]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [*command, "--output", str(killed)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    wait_for(killed / "last.pt", process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "validation.csv").exists()
    subprocess.run([*command, "--output", str(killed), "--resume"], check=True, capture_output=True)
    subprocess.run([*command, "--output", str(whole)], check=True, capture_output=True)
    one, other = load(killed / "model.pt")["weights"], load(whole / "model.pt")["weights"]
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert (killed / "validation.csv").read_text() == (whole / "validation.csv").read_text()
    assert (killed / "splits.json").read_text() == (whole / "splits.json").read_text()
    assert (killed / "config.yaml").read_text() == (whole / "config.yaml").read_text()


TEAM = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.mark.slow
def test_two_processes_learn_what_one_does_and_survive_the_loss_of_one(
    dataset: Path, tiny: Path, tmp_path: Path
) -> None:
    """The same global batch; the order of sums differs, so the weights agree to rounding.

    AdamW would blow the rounding up where a gradient is nothing else (biases before a normalisation).
    """
    words = ["-m", "volseg", "train", str(dataset), "--config", str(tiny), "--epochs", "8"]
    words += ["--set", "training.precision=fp32", "--set", "training.optimizer=sgd"]
    words += ["--set", "training.learning_rate=0.01", "--output"]
    subprocess.run([sys.executable, *words, str(tmp_path / "alone")], check=True, capture_output=True)
    told = subprocess.run([*TEAM, *words, str(tmp_path / "group")], check=True, capture_output=True, text=True)
    assert told.stdout.count("training cases") == 1
    assert len(list((tmp_path / "group" / "tensorboard").iterdir())) == 1  # of the leader alone
    with (tmp_path / "told.txt").open("wb") as told_file:
        agent = subprocess.Popen(
            [*TEAM, "--max-restarts", "1", *words, str(tmp_path / "hurt")], stdout=told_file, stderr=told_file
        )
    wait_for(tmp_path / "hurt" / "last.pt", agent)
    members = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
    os.kill(int(members[-1]), signal.SIGKILL)
    assert agent.wait() == 0, (tmp_path / "told.txt").read_text()
    alone, group, hurt = (load(tmp_path / name / "model.pt")["weights"] for name in ("alone", "group", "hurt"))
    for key, value in alone.items():
        torch.testing.assert_close(group[key], value, rtol=1e-3, atol=1e-5)
        assert torch.equal(hurt[key], group[key])
    tables = [pd.read_csv(tmp_path / name / "validation.csv") for name in ("alone", "group")]
    pd.testing.assert_frame_equal(*tables, atol=1e-3)


@pytest.mark.slow
def test_a_batch_that_cannot_be_dealt_out_is_refused(dataset: Path, tiny: Path, tmp_path: Path) -> None:
    words = ["train", str(dataset), "--config", str(tiny), "--set", "training.batch_size=3", "--output"]
    group = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "volseg", *words]
    told = subprocess.run([sys.executable, *group, str(tmp_path / "run")], check=False, capture_output=True, text=True)
    assert told.returncode != 0
    assert "error: training.batch_size: 3 patches cannot be divided evenly among 2 processes" in told.stderr
    assert not (tmp_path / "run" / "last.pt").exists()
