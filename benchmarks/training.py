"""volseg's training beside MONAI's tutorial and nnU-Net, each on a core of its own at the same time, on one split.

Run it with `python benchmarks/training.py DATA --minutes M`; `--help` shows what can be changed. DATA is any labelled
data set of one channel that volseg finds; voxels are used at their own size. Every contender has M minutes from the raw
folder on; each is scored by the Dice of the held-out cases, on the grid of their images, after parts of that time. All
of them are given the same folder of cases to learn from, in nnU-Net's layout; volseg holds some of these back to choose
its model, and cannot be stopped halfway: its scores before the last are what it measured on some of those itself.

What a contender reached with a seed is kept in the output folder and is not run again: the same command goes on where a
race was interrupted, or where `--within` ended it.
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
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
import torch
from numpy.typing import NDArray

from volseg.cases import find_dataset, make_splits, read_images, read_reference
from volseg.image.volume import Mask
from volseg.io import write_mask, write_volume

#: Parts of the time after which contenders that can be stopped are scored; scoring does not count as their time.
MARKS = (0.25, 0.5, 0.75, 1.0)

Segment = Callable[[Path], NDArray[np.integer]]


@dataclass(frozen=True)
class Task:
    """What every contender gets.

    Attributes:
        train: Image and reference of the cases to learn from.
        held_out: Image and reference of the others.
        labels: Values to score, from 1.
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


@dataclass(frozen=True)
class Score:
    """What a contender has reached.

    Attributes:
        seconds: Of its time.
        steps: Of its optimiser.
        dice: Mean over the cases of each label.
        cases: Those that no contender has seen, or those that volseg holds back itself.
    """

    seconds: float
    steps: int
    dice: dict[int, float]
    cases: Literal["held out", "validation"] = "held out"

    @property
    def mean(self) -> float:
        """Over the labels."""
        return fmean(self.dice.values())


@dataclass(frozen=True)
class Entry:
    """One contender with one seed.

    Attributes:
        data: Name of the data set.
        contender: Who.
        seed: Of the split and of everything else.
        minutes: It has.
    """

    data: str
    contender: str
    seed: int
    minutes: float

    def file(self, folder: Path) -> Path:
        """Where its result is kept."""
        return folder / f"{self.data}-{self.contender}-seed{self.seed}-{self.minutes:g}min.json"


@dataclass(frozen=True)
class Result:
    """An entry, what volseg was told, and what was reached, the last score on the held-out cases at its end."""

    entry: Entry
    settings: list[str]
    scores: list[Score]


def write_cases(data: Path, folder: Path) -> None:
    """Write the cases of a data set as NIfTI with labels from 1, whatever they come as; not twice."""
    if (folder / "cases.json").is_file():
        return
    dataset = find_dataset(data)
    if len(dataset.channels) != 1:
        sys.exit(f"{data}: its images have {len(dataset.channels)} channels, the contenders here take one")
    masks = {}
    for case in dataset.cases:
        image = read_images(case, dataset.channels)
        write_volume(image, folder / "images" / f"{case.case_id}.nii.gz")
        masks[case.case_id] = read_reference(case, image, ())
    values = np.unique(np.concatenate([[0], *(np.unique(mask.array) for mask in masks.values())]))
    for case_id, mask in masks.items():
        numbers = np.searchsorted(values, mask.array).astype(np.uint8)  # the first value is background, 0
        write_mask(Mask(numbers, mask.geometry), folder / "labels" / f"{case_id}.nii.gz")
    description = {"cases": list(masks), "labels": list(range(1, len(values)))}
    (folder / "cases.json").write_text(json.dumps(description))


def make_task(folder: Path, seed: int, minutes: float, settings: list[str]) -> Task:
    """Split the cases that were written, as volseg does."""
    description = json.loads((folder / "cases.json").read_text())
    split = make_splits(description["cases"], folds=5, holdout=0.0, seed=seed)[0]
    train, held_out = (
        [(folder / "images" / f"{case_id}.nii.gz", folder / "labels" / f"{case_id}.nii.gz") for case_id in ids]
        for ids in (split.train, split.val)
    )
    return Task(train, held_out, description["labels"], minutes, seed, settings)


def read(path: Path) -> NDArray[np.integer]:
    """The voxels of a label map."""
    return np.asarray(nib.load(path).dataobj).astype(np.int64)


def mean_dice(segment: Segment, task: Task) -> dict[int, float]:
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


def train_volseg(task: Task) -> Iterator[Score]:
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
        history = pd.read_csv(run / "history.csv")
        yield from validated(history, task)
        for image, _ in task.held_out:
            (Path(folder) / "images").mkdir(exist_ok=True)
            (Path(folder) / "images" / image.name).symlink_to(image.resolve())
        command = [sys.executable, "-m", "volseg", "predict", f"{folder}/images", "--model", str(run)]
        subprocess.run([*command, "--output", str(masks)], check=True, capture_output=True)
        dice = mean_dice(lambda image: read(masks / image.name), task)
        yield Score(seconds, int(history["step"].iloc[-1]), dice)


def validated(history: pd.DataFrame, task: Task) -> Iterator[Score]:
    """What volseg itself measured meanwhile, on cases it held back and without mirror images."""
    for row in history.dropna(subset="dice").to_dict("records"):
        values = [value for column, value in row.items() if column.startswith("dice_")]
        yield Score(row["seconds"], row["step"], dict(zip(task.labels, values, strict=True)), "validation")


def train_monai(task: Task) -> Iterator[Score]:
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

    marks, spent, steps = list(MARKS), 0.0, 0
    while marks:
        for batch in loader:
            network.train()
            optimizer.zero_grad()
            loss(network(batch["image"]), batch["label"]).backward()
            optimizer.step()
            steps += 1
            seconds = time.monotonic() - began - spent
            if marks and seconds >= 60 * task.minutes * marks[0]:
                marks.pop(0)
                network.eval()
                yield Score(seconds, steps, mean_dice(segment, task))
                spent = time.monotonic() - began - seconds


def train_nnunet(task: Task, adapt: Callable[[torch.nn.Module], None] | None = None) -> Iterator[Score]:
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
        network, marks, spent, steps = trainer.network, list(MARKS), 0.0, 0
        if adapt is not None:
            adapt(network)
        while marks:
            seconds = time.monotonic() - began - spent
            rate = trainer.initial_lr * max(0.0, 1 - seconds / (60 * task.minutes)) ** 0.9
            for group in trainer.optimizer.param_groups:
                group["lr"] = rate
            network.train()
            trainer.train_step(next(source))
            steps += 1
            seconds = time.monotonic() - began - spent
            if seconds >= 60 * task.minutes * marks[0]:
                marks.pop(0)
                yield Score(seconds, steps, mean_dice(nnunet_segment(trainer), task))
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
    task, answers = make_task(options.data, options.seeds[0], options.minutes, options.settings), sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # nnU-Net talks
        for score in CONTENDERS[options.contender](task):
            print(json.dumps(asdict(score)), file=answers, flush=True)


def race(options: argparse.Namespace) -> int:
    """Let all take part who have no result yet, as many at the same time as there are cores.

    Returns:
        How many of them failed.
    """
    deadline = time.monotonic() + 60 * options.within
    folder: Path = options.output
    cases = folder / "data" / options.data.name
    write_cases(options.data, cases)
    entries = [
        Entry(options.data.name, contender, seed, options.minutes)
        for seed in options.seeds
        for contender in options.contenders
    ]
    waiting, failed = [entry for entry in entries if not entry.file(folder).exists()], 0
    cores = sorted(psutil.Process().cpu_affinity())
    while waiting:
        if time.monotonic() + 60 * (options.minutes + options.overhead) > deadline:
            print(f"{len(waiting)} of {len(entries)} runs are left; the same command goes on\n")
            break
        group, waiting = waiting[: len(cores)], waiting[len(cores) :]
        failed += run_side_by_side(group, cores, cases, options)
    return failed


def run_side_by_side(group: Sequence[Entry], cores: Sequence[int], cases: Path, options: argparse.Namespace) -> int:
    """Run some entries, a core each, and keep their results.

    Returns:
        How many of them failed, or took longer than they may.
    """
    ends, failed = time.monotonic() + 60 * (options.minutes + options.overhead), 0
    processes = [start(entry, core, cases, options.settings) for core, entry in zip(cores, group, strict=False)]
    try:
        for entry, process in zip(group, processes, strict=True):
            with contextlib.suppress(subprocess.TimeoutExpired):
                lines = process.communicate(timeout=max(0.0, ends - time.monotonic()))[0].splitlines()
            if process.returncode == 0:
                scores = [as_score(json.loads(line)) for line in lines]
                keep(Result(entry, options.settings, scores), options.output)
            else:
                failed += 1
                why = "took too long" if process.returncode is None else f"ended with {process.returncode}"
                print(f"{entry.contender}, seed {entry.seed}: no result, it {why}", file=sys.stderr)
    finally:
        for process in processes:
            if process.poll() is None:
                for each in psutil.Process(process.pid).children(recursive=True):
                    each.kill()
                process.kill()
    return failed


def start(entry: Entry, core: int, cases: Path, settings: Sequence[str]) -> subprocess.Popen[str]:
    """Start a contender on a core."""
    words = [str(cases), "--minutes", str(entry.minutes), "--seeds", str(entry.seed), "--contender", entry.contender]
    words += [word for setting in settings for word in ("--set", setting)]
    command = ["taskset", "--cpu-list", str(core), sys.executable, "-W", "ignore", __file__, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def as_score(content: dict[str, Any]) -> Score:
    """A score that was JSON, whose keys are always text."""
    return Score(**{**content, "dice": {int(label): dice for label, dice in content["dice"].items()}})


def keep(result: Result, folder: Path) -> None:
    """Write a result, whole or not at all."""
    file = result.entry.file(folder)
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(asdict(result)))
    unfinished.replace(file)


def kept(folder: Path) -> list[Result]:
    """All results of a folder."""
    contents = [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]
    return [
        Result(Entry(**content["entry"]), content["settings"], [as_score(score) for score in content["scores"]])
        for content in contents
    ]


def curves(results: Sequence[Result]) -> pd.DataFrame:
    """A row per score: Dice over steps and minutes."""
    return pd.DataFrame(
        {
            **asdict(result.entry), "cases": score.cases, "seconds": round(score.seconds, 1), "steps": score.steps,
            "dice": score.mean, **{f"dice_{label}": dice for label, dice in score.dice.items()},
        }
        for result in results
        for score in result.scores
    )  # fmt: skip


def table(results: Sequence[Result]) -> str:
    """Markdown: the Dice of the held-out cases at the end, over the seeds, and volseg's beside it on the same seeds."""
    last = {result.entry: result.scores[-1].mean for result in results}
    lines = ["| data | minutes | contender | seeds | Dice | from, to | volseg / it |", "| --- " * 7 + "|"]
    for data, minutes, contender in dict.fromkeys((each.data, each.minutes, each.contender) for each in last):
        own = {
            each: dice
            for each, dice in last.items()
            if (each.data, each.minutes, each.contender) == (data, minutes, contender)
        }
        pairs = {each: last.get(Entry(data, "volseg", each.seed, minutes)) for each in own}
        ratios = [volseg / own[each] for each, volseg in pairs.items() if volseg and own[each]]
        ratio = f"{fmean(ratios):.3f}" if ratios and contender != "volseg" else ""
        spread = f"{min(own.values()):.4f}, {max(own.values()):.4f}"
        lines.append(
            f"| {data} | {minutes:g} | {contender} | {len(own)} | {fmean(own.values()):.4f} | {spread} | {ratio} |"
        )
    return "\n".join(lines)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train volseg beside others and compare the Dice of held-out cases.")
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each contender and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=["volseg", "monai"])
    parser.add_argument("--set", dest="settings", action="append", default=[], help="for volseg: training.batch_size=2")
    parser.add_argument("--output", type=Path, default=Path("race"), help="results, and what an earlier race has left")
    parser.add_argument("--within", type=float, default=float("inf"), help="minutes for the whole command")
    parser.add_argument("--overhead", type=float, default=15.0, help="minutes that scoring may take beside --minutes")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> int:
    """Take part or let others, and show what all races in the folder have come to."""
    options = parse()
    if options.contender:
        take_part(options)
        return 0
    for result in kept(options.output):
        if result.entry.contender == "volseg" and result.settings != options.settings:
            sys.exit(f"{options.output} holds results of volseg with other --set: use another --output")
    failed = race(options)
    if results := kept(options.output):
        curves(results).to_csv(options.output / "dice.csv", index=False)
        print(table(results))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
