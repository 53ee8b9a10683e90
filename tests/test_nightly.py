"""`volseg predict` on a folder that grows, night after night: what it says, what it makes anew, how it exits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from conftest import make_case

from volseg.cases import Case
from volseg.image.volume import Volume
from volseg.io import FileSource, discover, read_mask, write_volume
from volseg.io.dicom import write_series
from volseg.prediction.predictor import Predictor
from volseg.prediction.prepared import Prepared

Volseg = Callable[..., tuple[int, str, str]]
Night = Callable[[], tuple[int, str, str]]


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    return tmp_path / "incoming"


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    return tmp_path / "masks"


@pytest.fixture
def night(volseg: Volseg, incoming: Path, masks: Path, trained_run: Path) -> Night:
    """The same command every time: exit code, the closing line up to where it points at the table, stderr."""

    def run() -> tuple[int, str, str]:
        code, out, err = volseg("predict", incoming, "--model", trained_run, "--output", masks)
        (line,) = out.splitlines()
        assert line.endswith(f"; see {masks / 'cases.csv'}")
        return code, line.rsplit("; ", 1)[0], err

    return run


def test_nights(night: Night, incoming: Path, masks: Path) -> None:
    code, line, err = night()
    assert (code, line) == (0, "0 segmented, 0 skipped, 0 failed of 0 discovered; 0 new, 0 unchanged")
    assert err == f"{incoming} holds nothing to segment yet\n"
    write_volume(make_case(0)[0], incoming / "p0.nii.gz")
    (incoming / "letter.pdf").write_bytes(b"%PDF-1.4")
    assert night()[:2] == (0, "1 segmented, 0 skipped, 0 failed of 1 discovered; 1 new, 0 unchanged")
    stamp = (masks / "p0.nii.gz").stat().st_mtime_ns
    assert night()[:2] == (0, "1 segmented, 0 skipped, 0 failed of 1 discovered; 0 new, 1 unchanged")
    write_volume(make_case(1)[0], incoming / "p1.nii.gz")
    write_volume(make_case(2)[0], incoming / "p1_seg.nii.gz")  # a mask by its name: nobody has to be woken for it
    assert night()[:2] == (0, "2 segmented, 1 skipped, 0 failed of 3 discovered; 1 new, 1 unchanged")
    assert (masks / "p0.nii.gz").stat().st_mtime_ns == stamp
    for path in incoming.iterdir():
        path.unlink()
    assert night()[:2] == (0, "0 segmented, 0 skipped, 0 failed of 0 discovered; 0 new, 0 unchanged")
    assert {"p0", "p1"} <= set(pd.read_csv(masks / "cases.csv")["case_id"])  # of earlier nights


def test_what_cannot_be_read_is_told_every_night_until_somebody_has_mended_it(night: Night, incoming: Path) -> None:
    write_volume(make_case(0)[0], incoming / "good.nii.gz")
    (incoming / "bad.nii.gz").write_bytes(b"damaged")
    counts = "1 segmented, 0 skipped, 1 failed of 2 discovered"
    assert night()[:2] == (3, f"{counts}; 1 new, 0 unchanged")
    code, line, err = night()
    assert (code, line) == (3, f"{counts}; 0 new, 1 unchanged")
    assert "failed: bad: " in err  # it was tried again
    (incoming / "bad.nii.gz").unlink()
    write_volume(make_case(1)[0], incoming / "bad.nii.gz")
    assert night()[:2] == (0, "2 segmented, 0 skipped, 0 failed of 2 discovered; 1 new, 1 unchanged")


def test_a_skipped_file_that_may_be_an_image_is_told(night: Night, incoming: Path) -> None:
    """It is no case, so it does not fail; but a patient may wait for a mask."""
    write_volume(make_case(0)[0], incoming / "good.nii.gz")
    image, _ = make_case(1)
    series = incoming / "ct"
    write_series(Volume(np.rint(image.array), image.geometry), series)
    night()
    (slices,) = (source.files for source in discover(series).sources)
    (incoming / "lost").mkdir()
    (incoming / "lost" / "0001.dcm").write_bytes(slices[0].read_bytes()[:300])
    code, line, err = night()
    assert (code, line) == (3, "2 segmented, 1 skipped, 0 failed of 3 discovered; 0 new, 2 unchanged")
    assert "skipped: lost_0001: " in err


def test_a_folder_of_nothing_but_what_is_no_image_is_told(night: Night, incoming: Path) -> None:
    image, _ = make_case(1)
    write_series(Volume(np.rint(image.array), image.geometry), incoming / "ct")
    report = b"\0" * 128 + b"DICM"
    for path in (incoming / "ct").iterdir():
        path.unlink()
    (incoming / "ct" / "report.dcm").write_bytes(report)
    assert night()[0] == 3


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.02, 0.6, 0.999])
def test_half_a_file_gives_no_mask(night: Night, incoming: Path, masks: Path, suffix: str, share: float) -> None:
    """As it looks while it is being copied into the folder."""
    write_volume(make_case(0)[0], incoming / "good.nii.gz")
    path = incoming / f"p0{suffix}"
    write_volume(make_case(1)[0], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert night()[0] == 3
    assert [mask.name for mask in masks.glob("*.nii.gz")] == ["good.nii.gz"]
    path.write_bytes(whole)
    assert night()[:2] == (0, "2 segmented, 0 skipped, 0 failed of 2 discovered; 1 new, 1 unchanged")


def test_half_a_series_gives_a_mask_that_the_next_night_replaces(
    night: Night, incoming: Path, masks: Path, tmp_path: Path
) -> None:
    """Slices at one end may be missing: nothing in the files says that there are more."""
    image, _ = make_case(0)
    series = tmp_path / "series"
    write_series(Volume(np.rint(image.array), image.geometry), series)
    (source,) = discover(series).sources
    half = source.files[: len(source.files) // 2]
    (incoming / "p0").mkdir()
    for path in half:
        shutil.copy(path, incoming / "p0")
    assert night()[:2] == (0, "1 segmented, 0 skipped, 0 failed of 1 discovered; 1 new, 0 unchanged")
    assert len(half) in nib.load(masks / "p0.nii.gz").shape
    shutil.copytree(series, incoming / "p0", dirs_exist_ok=True)
    assert night()[:2] == (0, "1 segmented, 0 skipped, 0 failed of 1 discovered; 1 new, 0 unchanged")
    assert read_mask(FileSource(masks / "p0.nii.gz")).geometry.matches(image.geometry, 1e-3)


def test_a_file_that_changes_while_it_is_read_is_read_again_the_next_night(
    night: Night, incoming: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied with all its room taken at once, say: zeros first, the voxels later."""
    path = incoming / "p0.nii"
    write_volume(make_case(0)[0], path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    prepare = Predictor.prepare

    def copied_on(predictor: Predictor, case: Case) -> Prepared:
        prepared = prepare(predictor, case)
        path.write_bytes(whole)
        return prepared

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "prepare", copied_on)
        assert night()[:2] == (0, "1 segmented, 0 skipped, 0 failed of 1 discovered; 1 new, 0 unchanged")
    assert night()[:2] == (0, "1 segmented, 0 skipped, 0 failed of 1 discovered; 1 new, 0 unchanged")
    assert night()[:2] == (0, "1 segmented, 0 skipped, 0 failed of 1 discovered; 0 new, 1 unchanged")


def test_hidden_files_are_not_looked_at(night: Night, incoming: Path) -> None:
    """What rsync calls a file until it is whole."""
    (incoming / ".p0.nii.gz.Xy12ab").write_bytes(b"half")
    (incoming / ".p1.nii.gz").write_bytes(b"half")
    assert night()[:2] == (0, "0 segmented, 0 skipped, 0 failed of 0 discovered; 0 new, 0 unchanged")
