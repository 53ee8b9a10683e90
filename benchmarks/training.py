"""volseg's training beside MONAI's tutorial and nnU-Net, each on a core of its own at the same time, on one split.

Run it with `python benchmarks/training.py DATA --minutes M`; `--help` shows what can be changed. DATA is a data set of
one channel whose voxels are used at their own size. Every contender has M minutes from the raw folder on; the table
shows the Dice of the held-out cases, on the grid of their images, after parts of that time. All of them are given the
same folder of cases to learn from, in nnU-Net's layout; volseg holds some of these back to choose its model, and
cannot be stopped halfway: its rows before the last are what it measured on some of those itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
import torch
from numpy.typing import NDArray

from volseg.cases import Case, find_dataset, make_splits

#: Parts of the time after which contenders that can be stopped are scored; scoring does not count as their time.
MARKS = (0.25, 0.5, 0.75, 1.0)

Segment = Callable[[Path], NDArray[np.integer]]


@dataclass(frozen=True)
class Task:
    """What every contender gets.

    Attributes:
        train: Image and reference of the cases to learn from.
        held_out: Image and reference of the others.
        labels: Values to score.
        minutes: Time.
        seed: Of everything random.
        settings: What volseg is told with --set.
    """

    train: list[tuple[Path, Path]]
    held_out: list[tuple[Path, Path]]
    labels: list[int]
    minutes: float
    seed: int
    settings: list[str]


def make_task(options: argparse.Namespace) -> Task:
    """Split the data as volseg does."""
    cases = {case.case_id: case for case in find_dataset(options.data).cases}
    split = make_splits(list(cases), folds=5, holdout=0.0, seed=options.seed)[0]
    train, held_out = ([files_of(cases[case_id]) for case_id in ids] for ids in (split.train, split.val))
    values = {int(value) for _, reference in train[:20] for value in np.unique(read(reference))}
    return Task(train, held_out, sorted(values - {0}), options.minutes, options.seed, options.settings or [])


def files_of(case: Case) -> tuple[Path, Path]:
    """Image and reference."""
    (image,) = case.images.values()
    if case.reference is None:
        raise ValueError(f"{case.case_id} has no reference")
    return image.place, case.reference.place


def read(path: Path) -> NDArray[np.integer]:
    """The voxels of a label map."""
    return np.asarray(nib.load(path).dataobj).astype(np.int64)


def score(segment: Segment, task: Task) -> dict[int, float]:
    """Mean Dice per label over the held-out cases."""
    rows: dict[int, list[float]] = {label: [] for label in task.labels}
    for image, reference in task.held_out:
        got, wanted = segment(image), read(reference)
        for label, values in rows.items():
            one, other = got == label, wanted == label
            if total := int(one.sum()) + int(other.sum()):
                values.append(2 * int((one & other).sum()) / total)
    return {label: fmean(values) for label, values in rows.items()}


def write_raw(task: Task, folder: Path) -> None:
    """The cases to learn from, in nnU-Net's layout."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for n, (image, reference) in enumerate(task.train):
        (folder / "imagesTr" / f"case_{n:03}_0000.nii.gz").symlink_to(image.resolve())
        (folder / "labelsTr" / f"case_{n:03}.nii.gz").symlink_to(reference.resolve())
    labels = {"background": 0, **{f"label_{label}": label for label in task.labels}}
    description = {
        "channel_names": {"0": "MRI"}, "labels": labels, "numTraining": len(task.train), "file_ending": ".nii.gz"
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(description))


def train_volseg(task: Task) -> Iterator[tuple[float, dict[int, float]]]:
    """Through the command line, as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        data, run, masks = (Path(folder) / name for name in ("Dataset001_Task", "run", "masks"))
        write_raw(task, data)
        settings = [word for setting in task.settings for word in ("--set", setting)]
        command = [sys.executable, "-m", "volseg", "train", str(data), "--output", str(run), *settings]
        command += ["--minutes", str(task.minutes), "--set", f"training.seed={task.seed}"]
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        seconds = time.monotonic() - began
        yield from validated(pd.read_csv(run / "history.csv"), task)
        for image, _ in task.held_out:
            (Path(folder) / "images").mkdir(exist_ok=True)
            (Path(folder) / "images" / image.name).symlink_to(image.resolve())
        command = [sys.executable, "-m", "volseg", "predict", f"{folder}/images", "--model", str(run)]
        subprocess.run([*command, "--output", str(masks)], check=True, capture_output=True)
        yield seconds, score(lambda image: read(masks / image.name), task)


def validated(history: pd.DataFrame, task: Task) -> Iterator[tuple[float, dict[int, float]]]:
    """What volseg itself measured meanwhile, on cases it held back and without mirror images."""
    rows = history.dropna(subset="dice").set_index("seconds").filter(regex="^dice_")
    for mark in MARKS[:-1]:
        before = rows[rows.index <= 60 * task.minutes * mark]
        if len(before):
            yield before.index[-1], dict(zip(task.labels, before.iloc[-1].tolist(), strict=True))


def train_monai(task: Task) -> Iterator[tuple[float, dict[int, float]]]:
    """The loop of MONAI's spleen tutorial, with patches that fit the data and z-scores instead of CT numbers."""
    from monai import transforms as mt
    from monai.data import CacheDataset, DataLoader
    from monai.inferers import sliding_window_inference
    from monai.losses import DiceLoss
    from monai.networks.layers import Norm
    from monai.networks.nets import UNet
    from monai.utils import set_determinism

    set_determinism(task.seed)
    began = time.monotonic()
    sizes = np.median([nib.load(image).shape for image, _ in task.train], axis=0)
    patch = tuple(int(min(96, 16 * np.ceil(size / 16))) for size in sizes)
    keys = ("image", "label")
    pre = [
        mt.LoadImaged(keys, image_only=True),
        mt.EnsureChannelFirstd(keys),
        mt.NormalizeIntensityd("image", nonzero=True),
        mt.SpatialPadd(keys, patch),
    ]
    crop = mt.RandCropByPosNegLabeld(
        keys, "label", patch, pos=1, neg=1, num_samples=4, image_key="image", image_threshold=0
    )
    files = [{"image": image, "label": reference} for image, reference in task.train]
    cached = CacheDataset(files, mt.Compose([*pre, crop]), cache_rate=1.0, num_workers=1, progress=False)
    loader = DataLoader(cached, batch_size=2, shuffle=True)
    outputs = max(task.labels) + 1
    network = UNet(3, 1, outputs, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2, norm=Norm.BATCH)
    loss = DiceLoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    simple = mt.Compose([mt.LoadImage(image_only=True), mt.EnsureChannelFirst(), mt.NormalizeIntensity(nonzero=True)])

    def segment(image: Path) -> NDArray[np.integer]:
        with torch.inference_mode():
            logits = sliding_window_inference(simple(image)[None], patch, 4, network)
        return logits[0].argmax(0).numpy()

    marks, spent = list(MARKS), 0.0
    while marks:
        for batch in loader:
            network.train()
            optimizer.zero_grad()
            loss(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
            seconds = time.monotonic() - began - spent
            if marks and seconds >= 60 * task.minutes * marks[0]:
                marks.pop(0)
                network.eval()
                yield seconds, score(segment, task)
                spent = time.monotonic() - began - seconds


def train_nnunet(
    task: Task, adapt: Callable[[torch.nn.Module], None] | None = None
) -> Iterator[tuple[float, dict[int, float]]]:
    """nnU-Net's own plan, preprocessing, augmentation, network and loss; the schedule fits the time.

    Args:
        task: What there is to learn.
        adapt: Changes the network before it learns.
    """
    with tempfile.TemporaryDirectory() as folder:
        folders = {f"nnUNet_{name}": str(Path(folder) / name) for name in ("raw", "preprocessed", "results")}
        os.environ.update(folders | {"nnUNet_n_proc_DA": "1"})
        began = time.monotonic()
        write_raw(task, Path(folder) / "raw" / "Dataset001_Task")
        trainer = make_nnunet_trainer(Path(folder) / "preprocessed" / "Dataset001_Task")
        os.environ.update(nnUNet_n_proc_DA="0")  # patches are made in this process; planning takes no 0
        source, _ = trainer.get_dataloaders()
        network, marks, spent = trainer.network, list(MARKS), 0.0
        if adapt is not None:
            adapt(network)
        while marks:
            seconds = time.monotonic() - began - spent
            rate = trainer.initial_lr * max(0.0, 1 - seconds / (60 * task.minutes)) ** 0.9
            for group in trainer.optimizer.param_groups:
                group["lr"] = rate
            network.train()
            trainer.train_step(next(source))
            seconds = time.monotonic() - began - spent
            if seconds >= 60 * task.minutes * marks[0]:
                marks.pop(0)
                yield seconds, score(nnunet_segment(trainer), task)
                trainer.set_deep_supervision_enabled(True)
                spent = time.monotonic() - began - seconds


def make_nnunet_trainer(folder: Path) -> Any:
    """A trainer of nnU-Net after its own plan and preprocessing."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    api.extract_fingerprint_dataset(1, num_processes=1)
    plans_name = api.plan_experiment_dataset(1)[1]
    api.preprocess_dataset(1, configurations=("3d_fullres",), num_processes=(1,))
    plans, description = (json.loads((folder / f"{name}.json").read_text()) for name in (plans_name, "dataset"))
    plans["continue_training"] = False  # what its own command line adds
    trainer = nnUNetTrainer(plans, "3d_fullres", "all", description, torch.device("cpu"))
    trainer.initialize()
    return trainer


def multiply_bf16(network: torch.nn.Module) -> None:
    """Let a network answer in float32 what it has computed in bf16."""
    forward = network.forward

    def in_bf16(*inputs: torch.Tensor) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            answers = forward(*inputs)
        return [answer.float() for answer in answers] if isinstance(answers, list | tuple) else answers.float()

    network.forward = in_bf16


def nnunet_segment(trainer: Any) -> Segment:
    """nnU-Net's own prediction with mirroring."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    trainer.set_deep_supervision_enabled(False)
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager, [trainer.network.state_dict()],
        trainer.dataset_json, "nnUNetTrainer", trainer.inference_allowed_mirroring_axes,
    )  # fmt: skip

    def segment(image: Path) -> NDArray[np.integer]:
        array, properties = SimpleITKIO().read_images([str(image)])
        return predictor.predict_single_npy_array(array, properties).transpose(2, 1, 0)

    return segment


CONTENDERS = {
    "volseg": train_volseg,
    "monai": train_monai,
    "nnunet": train_nnunet,
    "nnunet_bf16": partial(train_nnunet, adapt=multiply_bf16),
}


def take_part(options: argparse.Namespace) -> None:
    """Train one contender in this process, on one core, and print a line of JSON per score."""
    task, answers = make_task(options), sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # nnU-Net talks
        for seconds, dice in CONTENDERS[options.contender](task):
            print(json.dumps({"seconds": round(seconds), "dice": dice}), file=answers, flush=True)


def race(options: argparse.Namespace) -> None:
    """Let all take part at the same time and print what became of them."""
    cores = psutil.Process().cpu_affinity()
    if len(cores) < len(options.contenders):
        sys.exit(f"{len(options.contenders)} contenders need a core each, there are {len(cores)}")
    processes = []
    for core, name in zip(cores, options.contenders, strict=False):
        words = [str(options.data), "--minutes", str(options.minutes), "--seed", str(options.seed), "--contender", name]
        words += [word for setting in options.settings or [] for word in ("--set", setting)]
        command = ["taskset", "--cpu-list", str(core), sys.executable, "-W", "ignore", __file__, *words]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
    print(f"{'':10}{'seconds':>8}{'mean':>8}  per label")
    last: dict[str, float] = {}
    for name, process in zip(options.contenders, processes, strict=True):
        lines = process.communicate()[0].splitlines()
        for line in lines:
            found = json.loads(line)
            last[name] = fmean(found["dice"].values())
            labels = "  ".join(f"{label} {dice:.4f}" for label, dice in found["dice"].items())
            print(f"{name:10}{found['seconds']:8}{last[name]:8.4f}  {labels}")
    for name, dice in last.items():
        print(f"volseg - {name}: {last['volseg'] - dice:+.4f}" if name != "volseg" and "volseg" in last else "")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train volseg beside others and compare the Dice of held-out cases.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=["volseg", "monai"])
    parser.add_argument("--set", dest="settings", action="append", help="for volseg, such as training.batch_size=2")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> None:
    """Take part or let others."""
    options = parse()
    if options.contender:
        take_part(options)
    else:
        race(options)


if __name__ == "__main__":
    main()
