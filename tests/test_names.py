"""Patients, labels and files that are called by anything people call them, all the way through."""

from __future__ import annotations

import csv
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, make_case, train_folder
from hypothesis import given
from hypothesis import strategies as st
from test_case_ids import series

import volseg as vs
from volseg.config import Config, PartialConfig, dump, parse_assignments, read_config
from volseg.config.yaml_words import load_yaml
from volseg.errors import ConfigError, DataError, OutputError
from volseg.image.volume import Label
from volseg.io import FileSource, frame_count, read_mask, read_volume, write_mask, write_volume
from volseg.io.tables import read_table, write_table
from volseg.prediction.batch_inputs import KEY_FILE
from volseg.training.history import read_validation, write_validation
from volseg.training.validation import Validation

#: Everything a reader of CSV, YAML or Windows takes for something else, letters of several scripts, broken bytes.
NASTY = ["NA", "null", "001", "李娜", "Mu\u0308ller", "M\udcfcller", "nul", "a b", "a_b", "new\nline", "\u202ex"]
#: What readers of tables and YAML take for nothing, a truth or a number.
WORDS = ["NA", "N/A", "null", "None", "nan", "NO", "yes", "true", "001", "1e5", "-inf", "~", "#", "a: b", "mean", " x"]


def rows(output: Path) -> dict[str, dict[str, str]]:
    with (output / "cases.csv").open(encoding="utf-8", newline="") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def place(path: Path, seed: int) -> None:
    """An image that can be known again by where it lies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(make_case(seed)[0], path)


def test_each_mask_stays_with_its_image_whoever_comes_and_goes(trained_run: Path, tmp_path: Path) -> None:
    images, references, masks = tmp_path / "images", tmp_path / "references", tmp_path / "masks"
    for seed, name in enumerate(NASTY):
        place(images / "ward" / f"{name}.nii.gz", seed)
        (references / "ward").mkdir(parents=True, exist_ok=True)
        write_mask(make_case(seed)[1], references / "ward" / f"{name}.nii.gz")
    model = vs.load(trained_run)
    named: dict[str, set[str]] = {}
    for gone in (NASTY[::2], NASTY[1::2]):
        for name in NASTY:
            (images / "ward" / f"{name}.nii.gz").unlink(missing_ok=True)
            if name not in gone:
                place(images / "ward" / f"{name}.nii.gz", NASTY.index(name))
        for case_id, case in model.predict_folder(images, masks).items():
            assert case.image is not None
            assert case.mask.geometry.matches(read_volume(case.image).geometry)
            named.setdefault(case_id, set()).add(rows(masks)[case_id]["source"])
    assert len(named) == len(NASTY)
    assert all(len(sources) == 1 for sources in named.values())
    (masks / "cases.csv").unlink()  # all that lies there is scored
    result = vs.evaluate(masks, references, tmp_path / "scores", report=True, images=images)
    assert set(result.metrics["case_id"]) == set(named)
    assert (result.metrics["dice"] > 0.5).all()
    assert not result.failures
    assert vs.compare(tmp_path / "scores", tmp_path / "scores", tmp_path / "same").table["difference_mean"].eq(0).all()


def test_training_goes_on_whatever_patients_and_labels_are_called(tmp_path: Path) -> None:
    names = ["NA", "null", "007", "李娜"]
    for seed, name in enumerate(names):
        place(tmp_path / "data/images" / f"{name}.nii.gz", seed)
        (tmp_path / "data/labels").mkdir(exist_ok=True)
        write_mask(make_case(seed)[1], tmp_path / "data/labels" / f"{name}.nii.gz")
    tree = {**TINY, "training": {**TINY["training"], "epochs": 1, "steps_per_epoch": 1, "folds": 2, "fold": "all"}}  # type: ignore[dict-item]
    tree["data"] = {"labels": load_yaml("{NO: 1, 001: 2}")}
    for resume in (False, True):
        run = train_folder(tmp_path / "data", tmp_path / "run", tree, resume=resume)
        assert sorted(run.validation.case_ids) == sorted(names)
        assert run.validation.labels == ("NO", "001")
    table = read_table(tmp_path / "run/validation.csv")
    assert sorted(set(table["case_id"])) == sorted(names)
    assert vs.report(tmp_path / "run").is_file()


def test_the_name_of_a_patient_is_not_given_to_another(trained_run: Path, tmp_path: Path) -> None:
    series(tmp_path / "one/flat", 1, study="1.1", uid="1.1.1")
    series(tmp_path / "two/flat", 1, study="1.2", uid="1.2.1")
    place(tmp_path / "one/a/b_c.nii.gz", 1)
    place(tmp_path / "two/a_b/c.nii.gz", 2)
    model, output = vs.load(trained_run), tmp_path / "masks"
    assert set(model.predict_folder(tmp_path / "one", output, allow_mismatch=True)) == {"flat", "a_b_c"}
    before = (output / "a_b_c.nii.gz").read_bytes(), (output / "flat.nii.gz").read_bytes()
    batch = model.predict_folder(tmp_path / "two", output, allow_mismatch=True)
    assert batch.count("failed") == len(batch) == 2
    assert all(name.startswith(("flat-", "a_b_c-")) for name in batch)
    remedies = {name.partition("-")[0]: case.reason.rpartition("; ")[2] for name, case in batch.items()}
    assert remedies == {
        "flat": "choose another --output, or --case-id series",
        "a_b_c": "choose another --output",  # a file has no series to be called by
    }
    assert before == ((output / "a_b_c.nii.gz").read_bytes(), (output / "flat.nii.gz").read_bytes())
    assert rows(output)["flat"]["series_uid"] == "1.1.1"
    again = model.predict_folder(tmp_path / "two", output, case_id="series", allow_mismatch=True)
    assert again["1.2.1"].status == "segmented"


def test_a_pseudonym_says_nothing_and_a_private_table_says_whose_it_is(
    trained_run: Path, volseg_cli: Callable[..., tuple[int, str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, output = tmp_path / "in", tmp_path / "masks"
    place(source / "Waldteufel/Emilia.nii.gz", 1)
    (source / "Waldteufel/Emilia_seg.nii.gz").write_bytes((source / "Waldteufel/Emilia.nii.gz").read_bytes())
    (source / "Ottokar.nii.gz").write_bytes(b"damaged")
    series(source / "Kunigunde", 1, study="1.2.826", uid="1.2.826.77")
    series(source / "Kunigunde", 2, study="1.2.826", uid="1.2.826.78")
    words = ["-v", "predict", source, "--model", trained_run, "--output", output, "--report", "--case-id", "hash"]
    caplog.set_level(logging.INFO, "volseg")
    code, out, err = volseg_cli(*words)
    assert code == 3, err
    told = [out, err, caplog.text, *(path.name for path in output.rglob("*"))]
    told += [
        path.read_text("utf-8") for path in output.rglob("*.*") if path.suffix in {".csv", ".json", ".html", ".log"}
    ]
    key = (output / KEY_FILE).read_text("utf-8")
    for secret in ("Waldteufel", "Emilia", "Ottokar", "Kunigunde", "1.2.826.77", "1.2.826.78"):
        assert [secret in text for text in told if text != key] == [False] * (len(told) - 1)
        assert secret in key
    assert (output / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert {row["status"] for row in rows(output).values()} == {"segmented", "failed", "skipped"}
    assert set(rows(output)) == {line.split(",")[0] for line in key.splitlines()[1:]}
    (source / "Ottokar.nii.gz").unlink()
    volseg_cli(*words)
    assert "Ottokar" in (output / KEY_FILE).read_text("utf-8")  # its pseudonym may be in use elsewhere


def test_a_way_to_call_cases_that_is_none_is_refused(trained_run: Path, tmp_path: Path) -> None:
    place(tmp_path / "in/a.nii.gz", 1)
    with pytest.raises(ConfigError, match="there is no --case-id 'name'") as refused:
        vs.load(trained_run).predict_folder(tmp_path / "in", tmp_path / "out", case_id="name")  # type: ignore[arg-type]
    assert refused.value.hint == "choose one of path, series, hash"


def test_everything_skipped_has_a_row_of_its_own(trained_run: Path, tmp_path: Path) -> None:
    series(tmp_path / "in/flat", 1, study="1.2", uid="1.2.1")
    series(tmp_path / "in/flat", 2, study="1.2", uid="1.2.2", slices=9)
    for name in ("Anna.nii.gz", "anna.nii.gz"):
        place(tmp_path / "in" / name, 1)
    batch = vs.load(trained_run).predict_folder(tmp_path / "in", tmp_path / "out", allow_mismatch=True)
    assert (batch.count("segmented"), batch.count("skipped"), len(batch)) == (1, 3, 4)
    assert batch["flat"].status == "segmented"
    assert len({row["source"] for row in rows(tmp_path / "out").values()}) == 3


def test_nothing_but_skipped_files_is_a_batch_too(trained_run: Path, tmp_path: Path) -> None:
    for name in ("p.nii.gz", "p.nrrd"):
        place(tmp_path / "in" / name, 1)
    batch = vs.load(trained_run).predict_folder(tmp_path / "in", tmp_path / "out")
    assert batch.count("skipped") == len(batch) == 2


# Bytes that are no text


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_files_are_read_and_written_whatever_the_bytes_of_their_names(suffix: str, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    image, mask = make_case(1)
    write_volume(image, folder / f"J\udcf6rg{suffix}")
    write_mask(mask, folder / f"m\udcf6{suffix}")
    again = read_volume(FileSource(folder / f"J\udcf6rg{suffix}"))
    assert again.geometry.matches(image.geometry)
    np.testing.assert_array_equal(again.array, image.array)
    np.testing.assert_array_equal(read_mask(FileSource(folder / f"m\udcf6{suffix}")).array, mask.array)
    assert frame_count(folder / f"m\udcf6{suffix}") == 1
    assert len(list(folder.glob("[!.]*"))) == 2


def test_voxels_apart_from_their_header_are_found_as_well(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"M\xfcller")
    mask = make_case(1)[1]
    write_mask(mask, folder / "a.mha")
    header, _, voxels = (folder / "a.mha").read_bytes().partition(b"ElementDataFile = LOCAL\n")
    (folder / "b.zraw").write_bytes(voxels)
    (folder / "a.mhd").write_bytes(header + b"ElementDataFile = b.zraw\n")
    np.testing.assert_array_equal(read_mask(FileSource(folder / "a.mhd")).array, mask.array)


def test_a_run_is_not_begun_where_its_curves_cannot_be_written(tmp_path: Path) -> None:
    place(tmp_path / "data/images/a.nii.gz", 1)
    with pytest.raises(OutputError, match="is not valid UTF-8"):
        train_folder(tmp_path / "data", tmp_path / "r\udcfcn", TINY)


def test_a_damaged_file_of_such_a_name_fails_alone(trained_run: Path, tmp_path: Path) -> None:
    place(tmp_path / "in/good.nii.gz", 1)
    for suffix in (".nii.gz", ".nrrd", ".mha", ".dcm"):
        (tmp_path / "in" / f"b\udcfc{suffix[1:3]}{suffix}").write_bytes(b"damaged")
    batch = vs.load(trained_run).predict_folder(tmp_path / "in", tmp_path / "out", formats=("nifti", "seg-nrrd"))
    assert batch["good"].status == "segmented"
    assert batch.count("failed") == 3
    assert (tmp_path / "out/cases.csv").read_text("utf-8").count("\\udcfc") >= 3


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"PYTHONIOENCODING": "latin-1"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_console_that_takes_little_shows_everything(
    env: dict[str, str], words: tuple[str, ...], tmp_path: Path
) -> None:
    for number, name in enumerate(("李娜", "M\udcfcller", "new\nline", "plain")):
        place(tmp_path / f"{name}.nii.gz", number)
    command = [sys.executable, "-m", "volseg", "inspect", str(tmp_path), *words]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    found = json.loads(done.stdout) if words else [line for line in lines[:-1] if not line.startswith(b" ")]
    assert len(found) == 4
    if not words:
        assert lines[-1] == b"4 found: 4 ok"
        assert any(line.startswith(b"new\\nline.nii.gz") for line in lines)


# Words


@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4, unique=True))
def test_words_survive_tables(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = tmp_path_factory.mktemp("table") / "t.csv"
    write_table([{"case_id": word, "label": word, "reason": word, "source": word, "dice": 1.5} for word in words], path)
    table = read_table(path)
    for column in ("case_id", "label", "reason", "source"):
        assert table[column].tolist() == words
    assert table["dice"].tolist() == [1.5] * len(words)


@given(words=st.lists(st.sampled_from(WORDS), min_size=2, max_size=4, unique=True))
def test_words_survive_a_validation(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = tmp_path_factory.mktemp("table") / "v.csv"
    dice = np.arange(len(words) ** 2, dtype=float).reshape(len(words), -1) / 100
    write_validation(Validation(tuple(words), tuple(words[::-1]), dice, {}), path)
    again = read_validation(path)
    assert (again.case_ids, again.labels) == (tuple(words), tuple(words[::-1]))
    np.testing.assert_array_equal(again.dice, dice)


def test_keys_of_yaml_are_words() -> None:
    text = "{NO: 1, yes: 2, null: 3, ~: 4, 001: 5, 1e5: 6, -inf: 7, true: 8, NA: 9, 1.0: 10, 2020-01-01: 11}"
    words = [entry.split(":")[0].strip() for entry in text.strip("{}").split(",")]
    assert parse_assignments([f"data.labels={text}"]) == {
        "data": {"labels": dict(zip(words, range(1, 12), strict=True))}
    }


def test_values_of_yaml_stay_what_they_were() -> None:
    text = "a: [true, FALSE, null, ~, 3, 1.5, NO, on]\nb: &x {c: 1}\nd: {<<: *x, e: 2}"
    assert load_yaml(text) == {
        "a": [True, False, None, None, 3, 1.5, "NO", "on"],
        "b": {"c": 1},
        "d": {"c": 1, "e": 2},
    }
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        parse_assignments(["a=!!python/name:os.system"])


_CHOICES = [("yes", True), ("on", True), ("true", True), ("NO", False), ("off", False)]


@pytest.mark.parametrize(("word", "meant"), _CHOICES)
def test_a_choice_may_still_be_said_in_any_word(word: str, meant: bool, trained_run: Path) -> None:
    given = PartialConfig.of(parse_assignments([f"data.allow_gaps={word}"]))
    assert given.laid_over(read_config(trained_run / "config.yaml")).data.allow_gaps is meant


def test_labels_of_any_name_survive_a_written_configuration(trained_run: Path, tmp_path: Path) -> None:
    config = read_config(trained_run / "config.yaml").model_dump(mode="json")
    names = {word: value for value, word in enumerate(WORDS, start=1)}
    named = Config.model_validate({**config, "data": {**config["data"], "labels": names}, "augmentation": {}})
    (tmp_path / "c.yaml").write_text(dump(named))
    assert read_config(tmp_path / "c.yaml") == named


def test_a_label_that_no_file_could_hold_is_refused() -> None:
    with pytest.raises(DataError, match="cannot be encoded as UTF-8"):
        Label(1, "M\udcfcller")
