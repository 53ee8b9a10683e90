"""A demo of the whole pipeline on synthetic phantoms: train, predict, evaluate, report, and draw a picture."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from volseg import api
from volseg.cases.phantoms import LABELS, write_dataset
from volseg.errors import OutputError, OutputExistsError
from volseg.io.disk_errors import output_error
from volseg.io.files import owned_folder
from volseg.io.json_files import read_json, write_json
from volseg.io.written import move_folder, own_path
from volseg.loaded_model import load
from volseg.model.devices import choose_device
from volseg.parallel import use_threads
from volseg.progress import Progress, ignore_progress
from volseg.training.files import CONFIG_FILE
from volseg.version import __version__

if TYPE_CHECKING:
    import torch

    from volseg.evaluation import Evaluation
    from volseg.results import Batch
    from volseg.training.run import Run

#: The case to draw: its image is a DICOM series, as in the clinic.
DRAWN_CASE = "phantom_04"
_CASES, _TEST_CASES = 16, 4
#: The outputs in the order of their creation: the picture comes last.
_TRAIN, _TEST, _RUN, _MASKS, _SCORES, _PICTURE = "train", "test", "run", "masks", "scores", "picture.png"
_CHANGES = {
    "data.labels": {label.name: label.value for label in LABELS},
    "data.colors": {label.name: label.color for label in LABELS},
    "data.modality": "unknown",  # phantoms have no modality, although DICOM must state one
    "network": {"name": "unet", "channels": [16, 32, 64, 128]},
    # A slow machine takes some two hundred steps, enough to tell the kidneys apart in patches that are small and
    # yet wide enough for both, of patients who are never mirrored; see benchmarks/TRAINING.md.
    "patches.size": [48, 32, 24],
    "augmentation": {"flip_axes": []},
    "training": {"folds": 8, "batch_size": 2},
    "postprocess": [{"label": "*", "keep_largest": True}],
}


@dataclass(frozen=True, eq=False)
class Demo:
    """The results of the demo.

    Attributes:
        run: The training run.
        batch: The masks of the test cases.
        evaluation: Their scores, with a report.
        picture: Three slices of one test case, with its predicted organs.
    """

    run: Run
    batch: Batch
    evaluation: Evaluation
    picture: Path


def run_demo(
    output: str | PathLike[str],
    minutes: float = 3.0,
    progress: Progress = ignore_progress,
    *,
    threads: int | None = None,
    device: str | torch.device | None = None,
) -> Demo:
    """Create phantoms, train on most of them, segment and score the others, and draw one.

    An interrupted demo continues where it stopped; a finished one is never repeated in its folder.

    Args:
        output: Folder for train/, test/, run/, masks/, scores/ and picture.png.
        minutes: Time for training.
        progress: Called throughout.
        threads: Number of threads of this process; by default all that it may use.
        device: "cpu", "cuda", "cuda:1" or "mps"; by default a CUDA device if there is one.

    Returns:
        All results.

    Raises:
        OutputError: If the output cannot be written, or holds a finished demo, one with other settings, or other files
            with the same names.
        ConfigError: If the device does not exist.
    """
    device = choose_device(device)
    use_threads(threads)
    folder = Path(output)
    _check(folder, minutes)
    with owned_folder(folder):
        write_json(_begun(folder), _settings(minutes))
        _make_phantoms(folder / _TRAIN, _CASES, 0, progress)
        _make_phantoms(folder / _TEST, _TEST_CASES, 1000, progress)
        run = api.train(
            folder / _TRAIN,
            folder / _RUN,
            changes=_CHANGES,
            minutes=minutes,
            resume=(folder / _RUN / CONFIG_FILE).is_file(),
            device=device,
            progress=progress,
        )
        batch = load(folder / _RUN, device=device).predict_folder(folder / _TEST, folder / _MASKS, progress=progress)
        evaluation = api.evaluate(folder / _MASKS, folder / _TEST, folder / _SCORES, report=True, progress=progress)
        return Demo(run, batch, evaluation, _draw(batch, folder / _PICTURE))


def _check(folder: Path, minutes: float) -> None:
    """Refuse a folder in which the demo can neither start nor continue, before any work.

    Raises:
        OutputError: If it is such a folder.
    """
    if not _begun(folder).is_file():
        for name in (_TRAIN, _TEST, _RUN, _MASKS, _SCORES, _PICTURE):
            if os.path.lexists(folder / name):
                raise OutputExistsError(f"{folder / name} already exists", hint="choose another --output")
        return
    if (folder / _PICTURE).exists():
        raise OutputExistsError(
            f"{folder} holds a finished demo", hint=f"see {folder / _SCORES}, or choose another --output"
        )
    begun = read_json(_begun(folder), dict, "does not state the settings of the demo", "choose another --output")
    if begun != _settings(minutes):
        stated = " ".join(f"{name} {value}" for name, value in begun.items())
        raise OutputError(
            f"the demo in {folder} was started with {stated}",
            hint="continue with the same --minutes and version, or choose another --output",
        )


def _begun(folder: Path) -> Path:
    """Return the file with the settings of a demo that has started."""
    return own_path(folder, "demo")


def _settings(minutes: float) -> dict[str, str | float]:
    return {"volseg": __version__, "--minutes": minutes}


def _make_phantoms(folder: Path, cases: int, seed: int, progress: Progress) -> None:
    """Create a data set atomically; an existing one is kept."""
    if folder.exists():
        return
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=own_path(folder, f"{folder.name}-").name) as part:
            made = Path(part) / folder.name
            write_dataset(made, cases, seed, progress)
            move_folder(made, folder)
    except OSError as error:
        raise output_error(folder, error) from error


def _draw(batch: Batch, path: Path) -> Path:
    """Draw one of the cases."""
    from volseg.exporting import save_mask

    case = batch[DRAWN_CASE]
    save_mask(case.mask, path, case.image)
    return path
