from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import settings
from numpy.typing import NDArray

from volseg.cases import Case
from volseg.config import PartialConfig
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.resampling import interpolate_axis, sample_positions
from volseg.image.volume import Mask, Volume
from volseg.io import write_mask, write_volume
from volseg.model.checkpoint import TrainedNetwork
from volseg.prediction.cases_csv import CaseResult
from volseg.prediction.predictor import Predictor
from volseg.prediction.request import Request
from volseg.training.run import Run

# How long an example takes says something of the machine only, which may be busy.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")

#: All ways to store one anatomy: six orders of the axes, each of them forward or backward.
STORAGE_ORDERS = [
    AxisOrder(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)
]


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Names of files that are no UTF-8 may be logged; workers cannot send them, and would end all tests instead."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}")
    return folder


def resample_linear(
    array: torch.Tensor,
    spacing_mm: tuple[float, float, float],
    shape: tuple[int, int, int],
    new_spacing_mm: tuple[float, float, float],
) -> torch.Tensor:
    """Interpolate linearly along each axis; beyond the outermost voxel centres the value stays.

    Args:
        array: (C, I, J, K) floating point.
        spacing_mm: Its spacing.
        shape: Voxels of the result along each axis.
        new_spacing_mm: tuple[float, float, float] of the result.

    Returns:
        (C, *shape) of the same dtype.
    """
    for axis in range(3):
        positions = sample_positions(array.shape[axis + 1], spacing_mm[axis], shape[axis], new_spacing_mm[axis])
        array = interpolate_axis(array, axis + 1, positions)
    return array


def rotation(axis: int, degrees: float) -> NDArray[np.float64]:
    """A rotation about one world axis."""
    turn = np.deg2rad(degrees)
    matrix = np.eye(3)
    one, other = [n for n in range(3) if n != axis]
    matrix[[one, one, other, other], [one, other, one, other]] = [
        np.cos(turn),
        -np.sin(turn),
        np.sin(turn),
        np.cos(turn),
    ]
    return matrix


def make_case(seed: int, shape: tuple[int, int, int] = (20, 18, 16)) -> tuple[Volume, Mask]:
    """A bright ball and a dim box in noise, oblique and anisotropic."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = rotation(2, 10) @ rotation(0, 7) @ np.diag([1.0, 1.1, 2.0])
    affine[:3, 3] = rng.uniform(-50, 50, 3)
    i, j, k = np.indices(shape)
    center = np.array([6, 9, 8]) + rng.integers(-1, 2, 3)
    mask = np.zeros(shape, np.uint8)
    mask[(i - center[0]) ** 2 + (j - center[1]) ** 2 + (k - center[2]) ** 2 <= 16] = 1
    mask[12:18, 4:12, 5:11] = 2
    image = rng.normal(100, 5, shape) + np.array([0.0, 80.0, 40.0])[mask]
    geometry = Geometry(shape, affine)
    return Volume(image.astype(np.float32)[np.newaxis], geometry), Mask(mask, geometry)


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """Make a folder once for all workers of a session: who asks first makes it, the others wait. Read it only."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make_folder(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = shared / name, shared / f"{name}.whole"
        with FileLock(shared / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a failed attempt has left
                make(folder)
                whole.touch()
        return folder

    return make_folder


@pytest.fixture(scope="session")
def dataset(make_once: MakeOnce) -> Path:
    """Six labelled cases in images/ and labels/."""

    def make(folder: Path) -> None:
        for seed in range(6):
            image, mask = make_case(seed)
            write_volume(image, folder / "images" / f"case_{seed}.nii.gz")
            write_mask(mask, folder / "labels" / f"case_{seed}.nii.gz")

    return make_once("dataset", make)


#: A network and a schedule so small that a whole training takes seconds.
TINY = {
    "network": {"name": "unet", "channels": [8, 16], "strides": [[2, 2, 2]], "residual_units": 1},
    "patches": {"size": [16, 16, 16]},
    # Stated, since balls and boxes beside each other are planned like a left and a right structure.
    "augmentation": {"flip_axes": ["left-right"]},
    "inference": {"overlap": 0.1, "batch_size": 16, "mirror_axes": ["left-right"]},
    "training": {"epochs": 3, "steps_per_epoch": 10, "batch_size": 2, "workers": 0, "folds": 3, "warmup_steps": 2},
}


def train_folder(data: Path, output: Path, tree: Mapping[str, Any], **options: Any) -> Run:
    """Train with some keys of the configuration."""
    from volseg.training.run import train_folder as train

    return train(data, output, PartialConfig.of(tree), **options)


def predict_folder(
    source: Path, models: Sequence[Path], request: Request, changes: Mapping[str, Any] | None = None, **options: Any
) -> list[CaseResult]:
    """Segment everything in a folder with some runs or model files."""
    import volseg
    from volseg.prediction.batch import segment_batch
    from volseg.prediction.batch_inputs import find_batch

    model = volseg.load(models, changes=changes)
    return segment_batch(find_batch(source, model.config.data), model.networks, request, **options)


def predict(case: Case, models: Sequence[TrainedNetwork]) -> Mask:
    """Segment one case."""
    predictor = Predictor(models)
    return predictor.finish(predictor.segment(predictor.prepare(case)))


@pytest.fixture(scope="session")
def trained_run(dataset: Path, make_once: MakeOnce) -> Path:
    """A run whose model has learned the balls and boxes well enough to draw them."""
    from volseg.config import merge

    tree = merge(TINY, {"training": {"epochs": 12, "learning_rate": 0.01}})
    return make_once("trained_run", lambda run: train_folder(dataset, run, tree))


@pytest.fixture(autouse=True, scope="session")
def _one_core_each() -> None:
    """Workers that run side by side share the cores: threads of one would only wait for those of another."""
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
        torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of its own, so that nothing is remembered from one session of tests to the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture
def volseg_cli(volseg: Callable[..., tuple[int, str, str]]) -> Callable[..., tuple[int, str, str]]:
    """The command line, for modules that use the library beside it."""
    return volseg


@pytest.fixture
def volseg(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str, str]]]:
    """Run the command line in this process: exit code, stdout, stderr."""
    from volseg.cli import main

    logger = logging.getLogger("volseg")
    level = logger.level

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["volseg", *(str(word) for word in words)])
        with pytest.raises(SystemExit) as exit_:
            main()
        out, err = capfd.readouterr()
        return int(exit_.value.code or 0), out, err

    yield run
    logger.setLevel(level)  # the command line lets everything be logged; tests after it shall not


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    with mounted_disk(tmp_path / "disk", "64k") as disk:
        yield disk


@contextmanager
def mounted_disk(disk: Path, size: str) -> Iterator[Path]:
    """Mount a disk of a size."""
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a tiny disk can only be mounted by root")
    try:
        yield disk
    finally:  # lazily, since a failed test may still have files open
        subprocess.run(["umount", "-l", str(disk)], check=True)
