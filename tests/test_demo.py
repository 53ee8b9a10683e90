from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import volseg
from volseg.progress import Progress

Cli = Callable[..., tuple[int, str, str]]


def until(stage: str, done: int = 1, of: int | None = None) -> Progress:
    """Cancel as soon as a stage, of so many steps if that is said, is so far."""

    def progress(name: str, steps: int, total: int, note: str = "") -> None:
        if name == stage and steps >= done and of in {None, total}:
            raise volseg.Cancelled

    return progress


def times(folder: Path) -> dict[Path, int]:
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("[!.]*")) if path.is_file()}


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A demo that was interrupted while it made phantoms."""
    with pytest.raises(volseg.Cancelled):
        volseg.run_demo(tmp_path / "demo", 0.1, until("phantoms"))
    return tmp_path / "demo"


def refused(folder: Path, minutes: float = 0.1) -> str:
    """Why the demo does not begin in a folder; it must not have begun any work."""
    before = times(folder)

    def work(stage: str, *_: object) -> None:
        pytest.fail(f"{stage} began")

    with pytest.raises(volseg.OutputError) as error:
        volseg.run_demo(folder, minutes, work)
    assert times(folder) == before
    assert error.value.hint
    return str(error.value)


@pytest.mark.parametrize("name", ["train", "test", "run", "masks", "scores", "picture.png"])
def test_a_folder_of_somebody_else_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    assert refused(tmp_path) == f"{tmp_path / name} already exists"


def test_other_files_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "demo.log").write_text("mine")
    with pytest.raises(volseg.Cancelled):
        volseg.run_demo(tmp_path, 0.1, until("phantoms"))


def test_a_finished_demo_is_refused(begun: Path) -> None:
    (begun / "picture.png").write_bytes(b"")
    assert refused(begun) == f"{begun} holds a finished demo"


def test_a_demo_goes_on_with_the_same_minutes_only(begun: Path) -> None:
    assert "was started with volseg " in refused(begun, minutes=2)
    assert "--minutes 0.1" in refused(begun, minutes=2)


def test_a_data_set_appears_whole_or_not_at_all(begun: Path) -> None:
    assert [path.name for path in begun.glob("[!.]*")] == []
    with pytest.raises(volseg.Cancelled):
        volseg.run_demo(begun, 0.1, until("phantoms", done=16))  # of which none is in train/ yet
    assert not (begun / "train").exists()
    assert not list(begun.rglob("*phantom*"))


def test_two_demos_do_not_write_into_one_folder(begun: Path) -> None:
    said = []

    def meanwhile(stage: str, *_: object) -> None:
        said.append(refused(begun))
        raise volseg.Cancelled

    with pytest.raises(volseg.Cancelled):
        volseg.run_demo(begun, 0.1, meanwhile)
    assert said == [f"another process is writing a run into {begun}"]


@pytest.mark.slow
def test_an_interrupted_demo_goes_on_where_it_stopped(tmp_path: Path, volseg_cli: Cli) -> None:
    demo = tmp_path / "demo"
    kept: dict[Path, int] = {}
    for stop in (until("phantoms", 4, of=4), until("train", 500), until("predict"), until("evaluate")):
        with pytest.raises(volseg.Cancelled):
            volseg.run_demo(demo, 0.2, stop)
        now = times(demo)
        assert kept.items() <= now.items()
        kept = {path: time for path, time in now.items() if path.parts[len(demo.parts)] in {"train", "test"}}
    assert len(list((demo / "train" / "labels").glob("*.nii.gz"))) == 16
    epochs = pd.read_csv(demo / "run" / "history.csv")["epoch"].tolist()
    code, out, _ = volseg_cli("demo", "--output", demo, "--minutes", "0.2")
    assert code == 0
    assert pd.read_csv(demo / "run" / "history.csv")["epoch"].tolist() == epochs
    assert kept.items() <= times(demo).items()
    assert set(pd.read_csv(demo / "masks" / "cases.csv")["status"]) == {"segmented"}
    assert "kidney_left" in out


@pytest.mark.slow
def test_the_demo_ends_with_a_picture_and_commands_that_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volseg_cli: Cli
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("shutil.which", lambda _: "volseg")
    code, out, _ = volseg_cli("demo", "--minutes", "0.2")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    with Image.open("volseg-demo/picture.png") as picture:
        pixels = np.asarray(picture).astype(int)
    assert pixels.shape[1] > 2 * pixels.shape[0]
    assert np.mean(np.ptp(pixels, axis=2) > 20) > 0.01, "organs are in colour"

    told = out[out.index("Look at the report") :].replace("\\\n", " ").splitlines()
    report, export, train = (shlex.split(line) for line in told if line.startswith("  "))
    assert Path(report[1]).is_file()
    assert volseg_cli(*export[1:])[0] == 0
    assert Path("phantom_04.seg.nrrd").is_file()
    brief = ["--set", "training.steps_per_epoch=1", "--set", "training.workers=0", "--epochs", "1"]
    words = [{"DATA": "volseg-demo/train"}.get(word, word) for word in train[1:-2]]
    assert train[-2] == "--minutes"
    assert volseg_cli(*words, *brief)[0] == 0

    code, _, err = volseg_cli("demo", "--minutes", "0.2")
    assert code == 2
    assert err.splitlines()[0] == "error: volseg-demo holds a finished demo"
