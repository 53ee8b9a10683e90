"""One bad item never stops the rest, and what is said of it says what to do."""

from __future__ import annotations

import csv
import errno
import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import TINY, make_case, predict_folder, train_folder
from test_packing import make_socket

from volseg import inspect
from volseg.errors import ItemOutputError, OutputError
from volseg.image.volume import Volume
from volseg.io import discover, write_mask, write_volume
from volseg.io.dicom import write_series
from volseg.io.files import atomic_path, output_error
from volseg.prediction.batch import Request

RunCli = Callable[..., tuple[int, str, str]]


def rows_of(path: Path) -> dict[str, dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["case_id"]: row for row in csv.DictReader(file)}


def with_unit(path: Path, code: int) -> None:
    image = nib.load(path)
    array = np.asanyarray(image.dataobj).copy()
    image.header["xyzt_units"] = code
    path.unlink()
    nib.save(nib.Nifti1Image(array, None, image.header), path)


def write_refused(folder: Path) -> dict[str, str]:
    """Images that are refused, each for a reason that has a remedy.

    Returns:
        Name -> the remedy.
    """
    image, _ = make_case(0)
    files = write_series(image, folder / "gap")
    files[len(files) // 2].unlink()
    write_volume(image, folder / "microns.nii.gz")
    with_unit(folder / "microns.nii.gz", 3)
    write_volume(image, folder / "metres.nii")
    with_unit(folder / "metres.nii", 1)
    nib.save(nib.Nifti1Image(np.random.default_rng(0).random((4, 4, 4)), None), folder / "nowhere.nii.gz")
    write_volume(Volume(np.concatenate([image.array, image.array + 1]), image.geometry), folder / "dynamic.nii.gz")
    (folder / "lfs.nii.gz").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (folder / "void.nrrd").touch()
    (folder / "gone.nii.gz").symlink_to("elsewhere")
    return {
        "gap": "--allow-gaps",
        "microns": "convert it to mm",
        "metres": "convert it to mm",
        "nowhere": "set one of them",
        "dynamic": "split it",
        "lfs": "git lfs pull",
        "void": "copy it again",
        "gone": "repair the link",
    }


def test_the_remedy_stands_beside_the_case(trained_run: Path, tmp_path: Path, volseg: RunCli) -> None:
    (tmp_path / "in").mkdir()
    remedies = write_refused(tmp_path / "in")
    write_volume(make_case(1)[0], tmp_path / "in" / "good.nii.gz")
    os.mkfifo(tmp_path / "in" / "pipe")
    make_socket(tmp_path / "in" / "s.dcm")
    code, out, err = volseg("predict", tmp_path / "in", "--model", trained_run, "--output", tmp_path / "out")
    assert code == 3, err
    rows = rows_of(tmp_path / "out" / "cases.csv")
    assert {name for name, row in rows.items() if row["status"] == "segmented"} == {"good"}
    for name, remedy in remedies.items():
        assert rows[name]["status"] == "failed"
        assert remedy in rows[name]["reason"]
        assert remedy in err
        assert str(tmp_path) not in rows[name]["reason"]
    skipped = {row["reason"].partition(";")[0] for row in rows.values() if row["status"] == "skipped"}
    assert skipped == {"pipe is a named pipe, not a file", "s.dcm is a socket, not a file"}
    assert f"1 segmented, 2 skipped, {len(remedies)} failed" in out


def test_inspect_says_the_remedy(tmp_path: Path) -> None:
    remedies = write_refused(tmp_path)
    found = {item.path.split(".")[0]: item for item in inspect(tmp_path)}
    for name, remedy in remedies.items():
        assert found[name].status == "unusable"
        assert remedy in found[name].remark


def write_labelled(folder: Path) -> None:
    """Four good cases, and one whose image is refused for a reason that has a remedy."""
    for seed in range(5):
        image, mask = make_case(seed)
        write_volume(image, folder / "images" / f"case_{seed}.nii.gz")
        write_mask(mask, folder / "labels" / f"case_{seed}.nii.gz")
    with_unit(folder / "images" / "case_4.nii.gz", 3)


def test_training_says_the_remedy_of_a_case_that_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_labelled(tmp_path / "data")
    tree = TINY | {"training": {**TINY["training"], "epochs": 1, "steps_per_epoch": 1}}  # type: ignore[dict-item]
    run = train_folder(tmp_path / "data", tmp_path / "run", tree)
    (reason,) = [item.reason for item in run.not_used]
    assert "convert it to mm" in reason
    assert "convert it to mm" in (tmp_path / "run" / "not_used.csv").read_text(encoding="utf-8")
    planned = [record.message for record in caplog.records if "left out of the plan" in record.message]
    assert ["convert it to mm" in message for message in planned] == [True]


def test_evaluation_says_how_another_grid_is_compared(tmp_path: Path, volseg: RunCli) -> None:
    mask = make_case(0)[1]
    affine = mask.geometry.affine.copy()
    affine[:3, 3] += 40
    write_mask(mask, tmp_path / "masks" / "p.nii.gz")
    write_mask(type(mask)(mask.array, type(mask.geometry)(mask.geometry.shape, affine)), tmp_path / "refs" / "p.nii.gz")
    code, _, err = volseg("evaluate", tmp_path / "masks", tmp_path / "refs", "--output", tmp_path / "scores")
    assert code == 3
    assert "--resample" in err
    assert "--resample" in (tmp_path / "scores" / "metrics.csv").read_text(encoding="utf-8")


# Outputs


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_name_that_is_too_long_concerns_one_output(suffix: str, tmp_path: Path) -> None:
    mask = make_case(0)[1]
    with pytest.raises(ItemOutputError, match="too long") as caught:
        write_mask(mask, tmp_path / f"{'n' * 255}{suffix}")
    assert "shorten" in caught.value.hint
    assert not list(tmp_path.glob("[!.]*"))


@pytest.mark.parametrize(
    ("code", "one"),
    [
        (errno.ENAMETOOLONG, True),
        (errno.EISDIR, True),
        (errno.ENOTDIR, True),
        (errno.EINVAL, True),
        (errno.ENOSPC, False),
        (errno.EDQUOT, False),
        (errno.EROFS, False),
        (errno.EIO, False),
    ],
)
def test_what_concerns_one_output_and_what_the_run(code: int, one: bool, tmp_path: Path) -> None:
    error = output_error(tmp_path / "a.nii.gz", OSError(code, os.strerror(code)))
    assert isinstance(error, OutputError)
    assert isinstance(error, ItemOutputError) is one
    assert error.hint


def test_a_folder_in_the_way_of_one_mask_costs_that_case(trained_run: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_volume(make_case(1)[0], tmp_path / "in" / f"{name}.nii.gz")
    in_the_way = tmp_path / "out" / "b.nii.gz"
    in_the_way.mkdir(parents=True)
    (in_the_way / "mine.txt").write_text("mine")
    results = predict_folder(tmp_path / "in", [trained_run], Request(tmp_path / "out"))
    assert {result.case_id: str(result.status) for result in results} == {
        "a": "segmented",
        "b": "failed",
        "c": "segmented",
    }
    assert (in_the_way / "mine.txt").read_text() == "mine"


def test_a_disk_that_is_full_ends_the_batch(trained_run: Path, tmp_path: Path, tiny_disk: Path) -> None:
    for name in ("a", "b"):
        write_volume(make_case(1)[0], tmp_path / "in" / f"{name}.nii.gz")
    (tiny_disk / "filler").write_bytes(b"0" * 40_000)
    with pytest.raises(OutputError) as caught:
        predict_folder(tmp_path / "in", [trained_run], Request(tiny_disk, probabilities=True))
    assert not isinstance(caught.value, ItemOutputError)
    assert "free some space" in caught.value.hint
    del caught
    gc.collect()  # a file that is still open would keep the disk


# Files that come and go


def test_a_file_that_vanishes_costs_only_itself(trained_run: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_volume(make_case(1)[0], tmp_path / "in" / f"{name}.nii.gz")

    def vanish(*_: object) -> None:
        (tmp_path / "in" / "c.nii.gz").unlink(missing_ok=True)

    results = predict_folder(tmp_path / "in", [trained_run], Request(tmp_path / "out"), progress=vanish)
    outcomes = {result.case_id: (str(result.status), result.reason) for result in results}
    assert outcomes["a"][0] == outcomes["b"][0] == "segmented"
    assert outcomes["c"][0] == "segmented" or "does not exist" in outcomes["c"][1]


def test_a_link_back_into_the_tree_ends(tmp_path: Path) -> None:
    write_volume(make_case(0)[0], tmp_path / "a" / "image.nii.gz")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert len(discover(tmp_path).sources) == 1


def test_half_a_file_that_is_still_copied_costs_only_itself(trained_run: Path, tmp_path: Path) -> None:
    image = make_case(1)[0]
    for name in ("a.nii.gz", "b.nii", "c.mha", "d.nrrd", "e.nii.gz"):
        write_volume(image, tmp_path / "in" / name)
    for name in ("a.nii.gz", "b.nii", "c.mha", "d.nrrd"):
        path = tmp_path / "in" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    results = predict_folder(tmp_path / "in", [trained_run], Request(tmp_path / "out"))
    assert [str(result.status) for result in results] == ["failed"] * 4 + ["segmented"]
    assert all("again" in result.reason for result in results[:4])


def test_what_stands_where_a_folder_is_needed_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ItemOutputError, match="cannot write"), atomic_path(tmp_path / "file" / "mask.nii.gz"):
        pass
    assert shutil.disk_usage(tmp_path).free


def test_a_row_with_an_impossible_path_costs_only_itself(trained_run: Path, tmp_path: Path) -> None:
    write_volume(make_case(1)[0], tmp_path / "good.nii.gz")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    rows = {"good": "good.nii.gz", "long": "x" * 300, "pipe": "pipe", "loop": "loop", "gone": "gone.nii.gz"}
    text = "".join(f"{case_id},{path}\n" for case_id, path in rows.items())
    (tmp_path / "list.csv").write_text(f"case_id,image\n{text}")
    results = predict_folder(tmp_path / "list.csv", [trained_run], Request(tmp_path / "out"))
    outcomes = {result.case_id: str(result.status) for result in results}
    assert outcomes == {"good": "segmented", **dict.fromkeys(rows.keys() - {"good"}, "skipped")}
    reasons = {result.case_id: result.reason for result in results}
    assert "too long; shorten" in reasons["long"]
    assert "is a named pipe" in reasons["pipe"]
    assert "leads back to itself" in reasons["loop"]


@pytest.mark.parametrize("verb", ["inspect", "plan", "predict"])
def test_an_input_whose_path_is_too_long_is_a_usage_error(verb: str, trained_run: Path, volseg: RunCli) -> None:
    more = {"inspect": [], "plan": ["--output", "plan.yaml"], "predict": ["--model", trained_run, "--output", "out"]}
    code, _, err = volseg(verb, "x" * 300, *more[verb])
    assert code == 2
    assert "too long" in err
    assert "hint: shorten" in err
