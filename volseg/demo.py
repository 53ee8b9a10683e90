"""The whole of volseg on phantoms it makes itself: train, predict, evaluate, report."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from volseg import api
from volseg.cases.phantoms import LABELS, write_dataset
from volseg.loaded_model import load
from volseg.model.devices import choose_device
from volseg.parallel import use_threads
from volseg.progress import Progress, ignore_progress

if TYPE_CHECKING:
    import torch

    from volseg.evaluation import Evaluation
    from volseg.results import Batch
    from volseg.training.run import Run

_CASES, _TEST_CASES = 16, 4
_CHANGES = {
    "data.labels": {label.name: label.value for label in LABELS},
    "data.modality": "unknown",  # phantoms are of no modality, though DICOM must state one
    "network": {"name": "unet", "channels": [16, 32, 64, 128]},
    # In a few hundred steps of a slow machine, the kidneys are told apart where each is seen on both sides.
    "augmentation": {"flip_axes": ["left-right"]},
    "training": {"folds": 8, "batch_size": 2},
    "postprocess": [{"label": "*", "keep_largest": True}],
}


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo made.

    Attributes:
        run: The training.
        batch: The masks of cases that training never saw.
        evaluation: Their scores, with a report.
    """

    run: Run
    batch: Batch
    evaluation: Evaluation


def run_demo(
    output: str | PathLike[str],
    minutes: float = 3.0,
    progress: Progress = ignore_progress,
    *,
    threads: int | None = None,
    device: str | torch.device | None = None,
) -> Demo:
    """Make phantoms, train on most of them, segment and score the others.

    Args:
        output: Gets train/, test/, run/, masks/ and scores/.
        minutes: For training.
        progress: Told all along.
        threads: How many threads this process computes with; unless given, those that it may use.
        device: "cpu", "cuda", "cuda:1", "mps"; unless given, a CUDA device if there is one.

    Returns:
        Everything that came out.

    Raises:
        OutputError: If the output cannot be written or already holds a run.
        ConfigError: If there is no such device.
    """
    device = choose_device(device)
    use_threads(threads)
    folder = Path(output)
    write_dataset(folder / "train", _CASES, seed=0, progress=progress)
    write_dataset(folder / "test", _TEST_CASES, seed=1000, progress=progress)
    run = api.train(
        folder / "train", folder / "run", changes=_CHANGES, minutes=minutes, device=device, progress=progress
    )
    batch = load(folder / "run", device=device).predict_folder(folder / "test", folder / "masks", progress=progress)
    evaluation = api.evaluate(folder / "masks", folder / "test", folder / "scores", report=True, progress=progress)
    return Demo(run, batch, evaluation)
