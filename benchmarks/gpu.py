"""Whether volseg runs on a GPU, and how well: one command, one Markdown table.

Run it with `python benchmarks/gpu.py`; `--help` shows what can be changed. It takes PyTorch, NumPy, MONAI, nibabel,
pydantic and PyYAML, and nothing else, so that it travels to a machine without a package registry. A row that fails says
so, the others go on, and the exit code is 1; without a GPU it is 2.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean, median

import monai
import numpy as np
import torch
from monai.inferers import sliding_window_inference
from numpy.typing import NDArray
from torch import distributed, nn
from torch.nn import functional

from volseg.cases.phantoms import FIELD_OF_VIEW_MM, LABELS, make_phantom
from volseg.config import Config
from volseg.image.intensities import Intensities
from volseg.image.resampled import ResampledVolume
from volseg.inference.engines import Engine, split_on_oom, start
from volseg.inference.mirroring import Mirroring
from volseg.inference.segmentation import Limits, Network, Work, segment
from volseg.inference.sliding import sliding_window
from volseg.inference.windows import SlidingWindow, lay
from volseg.model.devices import choose_device
from volseg.model.label_encoding import winners
from volseg.model.networks import build_network, choose_memory_format, choose_precision
from volseg.planning import Fingerprint, Machine, make_plan, with_gpu
from volseg.planning.fingerprint import CasePrint
from volseg.training.distributed import SINGLE_PROCESS, ProcessGroup, join_process_group
from volseg.training.patches import find_locations
from volseg.training.preparation import PreparedCase
from volseg.training.sampling import Patches, TrainingBatch, batches
from volseg.training.schedule import Clock
from volseg.training.state import State
from volseg.training.state import start as start_training
from volseg.training.step import TrainingStep
from volseg.training.validation import Validator

Triple = tuple[int, int, int]

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
#: Mean loss of the last quarter of the steps: as a share of that of the first, and of that on the CPU, at most.
FALLEN, LIKE_THE_CPU = 0.9, 1.1
#: Largest difference of a logit from the CPU's in float32, as a share of the largest logit.
LIKE_THE_CPU_LOGITS = 1e-3
#: Seconds that one whole volume may take; a slow card gets fewer slices.
VOLUME_SECONDS = 40.0
#: What volseg may take for its sums.
MEMORY_GB = 3.0
#: Compiling cannot be stopped: it is not begun with less time left.
COMPILING_SECONDS = 120.0


@dataclass(frozen=True)
class Size:
    """How much is computed.

    Attributes:
        scan: Voxels of the scans that a network is planned for.
        spacing_mm: Their voxel size.
        phantom: Voxels of the phantoms that it learns from.
        volume: Voxels of the volume that is segmented.
        steps: Of a training.
    """

    scan: Triple
    spacing_mm: tuple[float, float, float]
    phantom: Triple
    volume: Triple
    steps: int


CT = Size((512, 512, 300), (0.8, 0.8, 1.0), (160, 140, 128), (512, 512, 256), 32)
SMALL = Size((40, 36, 32), (4.0, 4.0, 4.0), (40, 36, 32), (40, 36, 32), 20)
#: What the small network is planned for, whatever the machine.
SMALL_MACHINE = Machine(features=8, most_features=8, memory_gb=0.05, workers=1, most_patches=4)


@dataclass(frozen=True)
class Task:
    """A planned network and what it learns from."""

    config: Config
    cases: Sequence[PreparedCase]


@dataclass(frozen=True)
class Measured:
    """What a row says.

    Attributes:
        time: With its unit.
        memory: Of the GPU, at its peak.
        result: What came out.
    """

    time: str
    memory: str
    result: str


@dataclass(frozen=True)
class Part:
    """A row to be measured."""

    name: str
    setting: str
    measure: Callable[[], Measured]


class LeftOutError(Exception):
    """There is no time for a row, or nothing to measure."""


class WrongError(Exception):
    """A result is not what it must be."""


@dataclass(frozen=True)
class Bench:
    """What all rows share; data and networks are made when a row first needs them.

    Attributes:
        device: What is measured.
        quick: Whether the small network stands for the planned one.
        folder: For prepared cases.
        deadline: Of `time.monotonic`.
    """

    device: torch.device
    quick: bool
    folder: Path
    deadline: float

    @property
    def is_gpu(self) -> bool:
        """Whether there is memory of its own to measure, and a queue to wait for."""
        return self.device.type == "cuda"

    @property
    def seconds_left(self) -> float:
        """Until the command is to end."""
        return self.deadline - time.monotonic()

    @property
    def dtype(self) -> torch.dtype:
        """What volseg would choose here."""
        return choose_precision("auto", self.device)

    @cached_property
    def small(self) -> Task:
        """A task that the CPU can repeat."""
        return make_task(SMALL, SMALL_MACHINE, self.folder)

    @cached_property
    def planned(self) -> Task:
        """What volseg plans for CT on this machine."""
        if self.quick:
            return self.small
        gpu_gb = torch.cuda.get_device_properties(0).total_memory / 1e9 if self.is_gpu else 16.0
        return make_task(CT, with_gpu(gpu_gb, os.cpu_count() or 1), self.folder)

    @property
    def size(self) -> Size:
        """Of the planned task."""
        return SMALL if self.quick else CT

    @cached_property
    def on_cpu(self) -> Training:
        """The small task on the CPU in float32."""
        return train(self.small, torch.device("cpu"), torch.float32)

    @cached_property
    def network(self) -> nn.Module:
        """The planned network after a short training, so that its answers are clear."""
        return train(self.planned, self.device, self.dtype, self.deadline).state.network.eval()

    def wait(self) -> None:
        """Until the GPU has done what it was told."""
        if self.is_gpu:
            torch.cuda.synchronize()

    @contextmanager
    def peak(self) -> Iterator[Callable[[], str]]:
        """Yields what tells the peak of the GPU's memory since."""
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield lambda: f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if self.is_gpu else ""

    def seconds(self, work: Callable[[], object]) -> float:
        """How long it takes, waiting for the GPU included."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def usual_seconds(self, work: Callable[[], object]) -> float:
        """The median of several times, after two that get everything ready."""
        seconds = []
        for _ in range(4 if self.quick else 10):
            seconds.append(self.seconds(work))
            if len(seconds) > 3 and self.seconds_left < 0:
                break
        return median(seconds[2:])


def make_task(size: Size, machine: Machine, folder: Path) -> Task:
    """Plan a network for CT scans and prepare phantoms for it."""
    organs = np.repeat(np.array([[40.0, 60.0, 90.0, 120.0]], dtype=np.float32), 50, axis=1)
    scan = CasePrint(
        size.scan, size.spacing_mm, ("CT",), (Intensities(-1000, -900, 0, 200),), organs,
        {label.value: 100.0 for label in LABELS},
    )  # fmt: skip
    plan = make_plan(
        Fingerprint(("image",), {label.name: label.value for label in LABELS}, {}, (scan,)), "dynunet", machine
    )
    schedule = {"epochs": 1, "steps_per_epoch": size.steps, "warmup_steps": 4, "ema_decay": 0.0, "learning_rate": 5e-3}
    config = plan.changed({f"training.{key}": value for key, value in schedule.items()}).config
    return Task(config, [prepare(seed, size, config, folder) for seed in range(2)])


def prepare(seed: int, size: Size, config: Config, folder: Path) -> PreparedCase:
    """A phantom as preparation leaves it on disk."""
    r, a, s = (extent / count for extent, count in zip(FIELD_OF_VIEW_MM, size.phantom, strict=True))
    volume, mask = make_phantom(seed, size.phantom, (r, a, s))
    case_id = f"phantom_{size.phantom[0]}_{seed}"
    image, reference = (folder / f"{case_id}.{what}.npy" for what in ("image", "labels"))
    np.save(image, (volume.array - volume.array.mean()) / volume.array.std())
    np.save(reference, mask.array)
    counts = np.bincount(mask.array.ravel()).tolist()
    locations = find_locations(mask.array, seed=0)
    voxels, unknown = {value: counts[value] for value in locations}, (False,) * config.data.outputs
    return PreparedCase(case_id, image, reference, locations, voxels, (r, a, s), unknown)


@dataclass(frozen=True)
class Training:
    """A short training.

    Attributes:
        state: At its end.
        losses: Of its steps.
        step_seconds: The median.
        waited: Share of the time that the step waited for patches.
    """

    state: State
    losses: Sequence[float]
    step_seconds: float
    waited: float


def train(
    task: Task,
    device: torch.device,
    dtype: torch.dtype,
    deadline: float = math.inf,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Training:
    """Train as volseg does, at the deadline with fewer steps than are planned."""
    config = task.config
    state = start_training(config, device, dtype, Clock(config.training))
    step = TrainingStep(state, config, dtype, group)
    patches = Patches(task.cases, config, group.batch_shard(config.training.batch_size))
    losses, waits, seconds = [], [], []
    state.network.train()
    with closing(batches(patches, config.training.workers, 0)) as source:
        for _ in range(config.training.steps_per_epoch):
            began = time.perf_counter()
            batch = next(source)
            waits.append(time.perf_counter() - began)
            losses.append(step(batch).loss)  # waits for the GPU, the optimiser of the step before included
            seconds.append(time.perf_counter() - began)
            if len(seconds) > 4 and time.monotonic() > deadline:
                break
    rest = slice(min(4, len(seconds) - 1), None)  # the first steps choose algorithms and fill the queue of patches
    alone = [whole - waited for whole, waited in zip(seconds[rest], waits[rest], strict=True)]
    return Training(state, losses, median(alone), sum(waits[rest]) / sum(seconds[rest]))


def measure_training(bench: Bench, name: str, dtype: torch.dtype) -> Measured:
    """The step of a training: its time, its memory, and whether the network learns, the small one as on the CPU."""
    task = bench.small if name == "small" else bench.planned
    with bench.peak() as peak:
        training = train(task, bench.device, dtype, bench.deadline)
        memory = peak()
    quarter = max(1, len(training.losses) // 4)
    first, last = fmean(training.losses[:quarter]), fmean(training.losses[-quarter:])
    result = f"loss {first:.3f} to {last:.3f} in {len(training.losses)} steps"
    if not last < FALLEN * first:  # not a number, too
        raise WrongError(f"the loss does not fall: {result}")
    if name == "small" and len(training.losses) == len(bench.on_cpu.losses):
        wanted = fmean(bench.on_cpu.losses[-quarter:])
        result += f", {wanted:.3f} on the CPU in float32"
        if not last < LIKE_THE_CPU * wanted:
            raise WrongError(f"it learns less than on the CPU: {result}")
    result += f"; {training.waited:.1%} of the time waiting for patches"
    return Measured(f"{1000 * training.step_seconds:.1f} ms", memory, result)


def measure_copy(bench: Bench) -> Measured:
    """How long a batch takes to the GPU, as it is and from memory that is pinned."""
    if not bench.is_gpu:
        raise LeftOutError("there is no other memory to copy to")
    batch = noise(bench.planned.config)
    plain = bench.usual_seconds(lambda: (batch.image.to(bench.device), batch.reference.to(bench.device)))
    image, reference = batch.image.pin_memory(), batch.reference.pin_memory()
    pinned = bench.usual_seconds(
        lambda: (image.to(bench.device, non_blocking=True), reference.to(bench.device, non_blocking=True))
    )
    return Measured(f"{1000 * plain:.2f} ms", "", f"{1000 * pinned:.2f} ms from pinned memory")


def noise(config: Config) -> TrainingBatch:
    """A batch without a meaning."""
    count, size, outputs = config.training.batch_size, config.patches.size, config.data.outputs
    reference = torch.randint(outputs, (count, 1, *size), dtype=torch.int32)
    return TrainingBatch(torch.randn(count, 1, *size), reference, torch.zeros(count, outputs, dtype=torch.bool))


def plain_step(bench: Bench, layout: torch.memory_format) -> tuple[nn.Module, Callable[[nn.Module], None]]:
    """The planned network, and what computes its gradients once, in one layout of memory."""
    config = bench.planned.config
    network = build_network(config.network, 1, config.data.outputs).train()
    network.to(bench.device, memory_format=layout)
    image = noise(config).image.to(bench.device, memory_format=layout)

    def step(run: nn.Module) -> None:
        network.zero_grad()
        with torch.autocast(bench.device.type, bench.dtype, enabled=bench.dtype != torch.float32):
            logits = run(image)
        logits.float().square().mean().backward()

    return network, step


def measure_layouts(bench: Bench) -> Measured:
    """Channels last against contiguous."""
    layouts = {"channels last": torch.channels_last_3d, "contiguous": torch.contiguous_format}
    milliseconds = {}
    with bench.peak() as peak:
        for name, layout in layouts.items():
            network, step = plain_step(bench, layout)
            milliseconds[name] = 1000 * bench.usual_seconds(partial(step, network))
        memory = peak()
    used = next(name for name, layout in layouts.items() if layout is choose_memory_format("auto", bench.device))
    shown = ", ".join(f"{name} {value:.1f} ms" for name, value in milliseconds.items())
    return Measured(f"{milliseconds[used]:.1f} ms", memory, f"{shown}; volseg trains with {used}")


def measure_algorithm_search(bench: Bench) -> Measured:
    """What letting cuDNN try out its algorithms gives, which volseg does not."""
    if not bench.is_gpu:
        raise LeftOutError("a matter of cuDNN")
    network, step = plain_step(bench, choose_memory_format("auto", bench.device))
    usual = bench.usual_seconds(partial(step, network))
    with cudnn("benchmark"), bench.peak() as peak:
        searched = bench.usual_seconds(partial(step, network))
        return Measured(f"{1000 * searched:.1f} ms", peak(), f"without {1000 * usual:.1f} ms")


@contextmanager
def cudnn(setting: str, *, on: bool = True) -> Iterator[None]:
    """Change one of cuDNN's settings for a while."""
    before = getattr(torch.backends.cudnn, setting)
    setattr(torch.backends.cudnn, setting, on)
    try:
        yield
    finally:
        setattr(torch.backends.cudnn, setting, before)


def measure_compiling(bench: Bench) -> Measured:
    """What torch.compile takes and gives; a CPU has it captured only, which takes no compiler."""
    if not bench.quick and bench.seconds_left < COMPILING_SECONDS:
        raise LeftOutError("too little time left to compile")
    network, step = plain_step(bench, choose_memory_format("auto", bench.device))
    usual = bench.usual_seconds(partial(step, network))
    compiled = torch.compile(network, backend=compile_backend(bench))
    with bench.peak() as peak:
        first = bench.seconds(partial(step, compiled))
        then = bench.usual_seconds(partial(step, compiled))
        return Measured(f"{1000 * then:.1f} ms", peak(), f"compiled in {first:.0f} s; as it is {1000 * usual:.1f} ms")


def compile_backend(bench: Bench) -> str:
    """Of torch.compile."""
    return "inductor" if bench.is_gpu else "aot_eager"


def measure_group(bench: Bench) -> Measured:
    """A group of one process, which torchrun starts."""
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", __file__, "--member"]
    hidden = {} if bench.is_gpu else {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **hidden}, capture_output=True, text=True, check=False,
        timeout=max(30.0, bench.seconds_left),
    )  # fmt: skip
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if "Error: " in line]  # torchrun's own report comes after
        raise WrongError(f"torchrun ended with {done.returncode}: {first_line((reasons or [done.stderr])[0])}")
    said = json.loads(last_line(done.stdout))
    return Measured(f"{said['milliseconds']:.1f} ms", "", f"{said['backend']}, a sum of ones is {said['sum']:g}")


def take_part() -> None:
    """Be the one process of that group: train a little, and say so in JSON."""
    device = choose_device()
    with join_process_group(device) as group, tempfile.TemporaryDirectory() as folder:
        ones = torch.ones(1, device=device)
        distributed.all_reduce(ones)
        task = make_task(SMALL, SMALL_MACHINE, Path(folder))
        training = train(task, device, choose_precision("auto", device), group=group)
        said = {"backend": distributed.get_backend(), "sum": ones.item(), "milliseconds": 1000 * training.step_seconds}
    print(json.dumps(said))


def measure_volume(bench: Bench, dtype: torch.dtype) -> Measured:
    """A whole volume through volseg's sliding window and through MONAI's."""
    config, network = bench.planned.config, bench.network
    engine = Engine.of(dtype)
    run = split_on_oom(start(engine, network, 1, config.patches.size, bench.device))
    with_volseg = Network(
        run,
        engine.sums_dtype,
        SlidingWindow(config.patches.size, config.inference.overlap),
        Mirroring(),
        config.data.outputs,
        bench.device,
    )
    volume = fitting_volume(bench, run)
    r, a, s = config.patches.size
    contenders = [partial(segment_with_volseg, bench, with_volseg), partial(segment_with_monai, bench, network, dtype)]
    labels, seconds, memory = [], [], []
    for contender in contenders:
        contender(volume[:, :r, :a, :s])  # what is made ready once
        with bench.peak() as peak:
            began = time.perf_counter()
            labels.append(contender(volume))
            seconds.append(time.perf_counter() - began)
            memory.append(peak())
    differing = float((labels[0] != labels[1]).mean())
    shape = " x ".join(map(str, volume.shape[1:]))
    return Measured(
        f"volseg {seconds[0]:.2f} s, MONAI {seconds[1]:.2f} s",
        f"volseg {memory[0]}, MONAI {memory[1]}" if bench.is_gpu else "",
        f"MONAI / volseg {seconds[1] / seconds[0]:.2f} for {shape} voxels; {differing:.4%} of the labels differ",
    )


def fitting_volume(bench: Bench, run: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[np.float32]:
    """(1, R, A, S) a phantom as large as a CT, with fewer slices where those would take too long."""
    config, (r, a, s) = bench.planned.config, bench.size.volume
    patch, overlap, batch = config.patches.size, config.inference.overlap, config.inference.batch_size
    windows = [
        math.ceil(max(0, size - side) / (side * (1 - overlap))) + 1 for size, side in zip((r, a, s), patch, strict=True)
    ]
    patches = torch.zeros(batch, 1, *patch)
    window_seconds = bench.usual_seconds(lambda: run(patches)) / batch
    allowed = min(VOLUME_SECONDS, bench.seconds_left / 4)
    rows = min(windows[2], int(allowed / (window_seconds * windows[0] * windows[1])))
    if rows < 1:
        raise LeftOutError(f"a window takes {window_seconds:.2f} s, a layer of them too long")
    depth = s if rows == windows[2] else int(patch[2] * (1 + (rows - 1) * (1 - overlap)))
    image = torch.from_numpy(np.array(bench.planned.cases[0].image))[None]
    return functional.interpolate(image, (r, a, depth), mode="trilinear")[0].numpy()


def segment_with_volseg(bench: Bench, network: Network, volume: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The labels of a volume."""
    config = bench.planned.config
    labels = np.zeros(volume.shape[1:], np.uint8)
    limits = Limits(config.inference.batch_size, MEMORY_GB)
    seen = ResampledVolume.as_it_is(volume)
    for box, numbers in segment([network], [seen], None, lambda each: winners(each, config.data), limits, Work()):
        labels[box] = numbers
    return labels


def segment_with_monai(
    bench: Bench, network: nn.Module, dtype: torch.dtype, volume: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """The same as MONAI's documentation has it."""
    config, image = bench.planned.config, torch.from_numpy(volume)[None].to(bench.device)
    with torch.inference_mode(), torch.autocast(bench.device.type, dtype, enabled=dtype != torch.float32):
        logits = sliding_window_inference(
            image, config.patches.size, config.inference.batch_size, network, config.inference.overlap,
            mode="gaussian", sigma_scale=0.125,
        )  # fmt: skip
    return logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy()


def measure_equality(bench: Bench) -> Measured:
    """Logits in float32 beside those of the CPU."""
    config, network, cpu = bench.planned.config, bench.network, torch.device("cpu")
    r, a, s = config.patches.size
    image = torch.from_numpy(np.array(bench.planned.cases[1].image[:, : r + r // 4, :a, :s]))

    def logits(device: torch.device) -> torch.Tensor:
        run = start(Engine("torch", "fp32"), network, 1, config.patches.size, device)
        windows = lay(image.shape[1:], SlidingWindow(config.patches.size, config.inference.overlap))
        return sliding_window(run, config.data.outputs, image, windows, device=device)

    wanted = logits(cpu)
    seconds = bench.seconds(lambda: logits(bench.device))
    with cudnn("allow_tf32"):
        rounded = (logits(bench.device) - wanted).abs().max().item()
    with cudnn("allow_tf32", on=False):
        found = logits(bench.device)
    apart, largest = (found - wanted).abs().max().item(), wanted.abs().max().item()
    differing = float((found.argmax(dim=0) != wanted.argmax(dim=0)).float().mean())
    result = f"largest difference of a logit {apart:.2g} of {largest:.3g}, with TF32 {rounded:.2g}"
    result += f"; {differing:.4%} of the labels differ"
    if not apart <= LIKE_THE_CPU_LOGITS * largest:
        raise WrongError(f"the logits are not the CPU's: {result}")
    return Measured(f"{seconds:.2f} s", "", result)


def measure_validation(bench: Bench) -> Measured:
    """The validation of whole phantoms, and that of the small network beside the CPU's."""
    planned = bench.network
    with bench.peak() as peak:
        validator, cases = Validator(bench.planned.config, bench.dtype), bench.planned.cases
        seconds = bench.seconds(lambda: validator.validate(planned, cases)) / len(cases)
        memory = peak()
    small, cpu = bench.small, torch.device("cpu")
    network = bench.on_cpu.state.network
    dice = [
        Validator(small.config, torch.float32).validate(network.to(device), small.cases).mean
        for device in (bench.device, cpu)
    ]
    result = f"Dice of the small network {dice[0]:.4f}, on the CPU {dice[1]:.4f}"
    if abs(dice[0] - dice[1]) > 0.01:
        raise WrongError(f"the Dice is not the CPU's: {result}")
    return Measured(f"{seconds:.2f} s a case", memory, result)


def parts(bench: Bench) -> Iterator[Part]:
    """All rows, what matters most first."""
    precisions = {name: dtype for name, dtype in DTYPES.items() if bench.is_gpu or dtype is not torch.float16}
    for task in ["small"] if bench.quick else ["planned", "small"]:
        for name, dtype in precisions.items():
            yield Part("training step", f"{task}, {name}", partial(measure_training, bench, task, dtype))
    yield Part("equality with the CPU", "float32", partial(measure_equality, bench))
    for dtype in dict.fromkeys((torch.float32, bench.dtype)):
        yield Part("a whole volume", short(dtype), partial(measure_volume, bench, dtype))
    yield Part("validation", short(bench.dtype), partial(measure_validation, bench))
    yield Part("one process of torchrun", "small", partial(measure_group, bench))
    yield Part("copy of a batch", "planned", partial(measure_copy, bench))
    yield Part("layout of memory", f"planned, {short(bench.dtype)}", partial(measure_layouts, bench))
    yield Part("cudnn.benchmark", f"planned, {short(bench.dtype)}", partial(measure_algorithm_search, bench))
    yield Part(
        "torch.compile", f"planned, {short(bench.dtype)}, {compile_backend(bench)}", partial(measure_compiling, bench)
    )


def short(dtype: torch.dtype) -> str:
    """The name of a type of numbers."""
    return next(name for name, each in DTYPES.items() if each is dtype)


def measure(part: Part, bench: Bench) -> tuple[Measured, bool]:
    """A row, and whether it is well."""
    if bench.seconds_left < 0:
        return Measured("", "", "left out: no time left"), True
    try:
        return part.measure(), True
    except LeftOutError as why:
        return Measured("", "", f"left out: {why}"), True
    except Exception as error:  # noqa: BLE001  whatever fails is a row, and the others go on
        return Measured("", "", f"failed: {type(error).__name__}: {first_line(str(error))}"), False


def first_line(text: str) -> str:
    """The first line of a message, in a cell of a table."""
    return text.strip().partition("\n")[0].replace("|", "/")


def last_line(text: str) -> str:
    """The last line of what a program said."""
    return (text.strip().splitlines() or [""])[-1]


def describe(bench: Bench) -> str:
    """The machine, the libraries and the planned network."""
    lines = [f"- {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}"]
    if bench.is_gpu:
        card, (free, total) = torch.cuda.get_device_properties(0), torch.cuda.mem_get_info()
        memory = f"{total / 1e9:.1f} GB, {free / 1e9:.1f} of them free"
        lines.insert(0, f"- {card.name}, {memory}, compute capability {card.major}.{card.minor}, driver {driver()}")
    cuda = f", CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}" if bench.is_gpu else ""
    tf32 = "in TF32" if bench.is_gpu and torch.backends.cudnn.allow_tf32 else "as they are"
    lines.append(f"- PyTorch {torch.__version__}{cuda}, MONAI {monai.__version__}; convolutions of float32 {tf32}")
    for name, task in {"planned": bench.planned, "small": bench.small}.items():
        config, size = task.config, " x ".join(map(str, task.config.patches.size))
        lines.append(
            f"- {name}: {config.network.name} of {config.network.filters[0]} features, "
            f"{config.training.batch_size} patches of {size}, {config.training.workers} workers"
        )
    return "\n".join(lines)


def driver() -> str:
    """The version of the GPU's driver, as far as it says."""
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return first_line(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Tell whether volseg runs on a GPU, and how well.")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="the CPU only tries out the script")
    parser.add_argument("--quick", action="store_true", help="a small network in place of the planned one")
    parser.add_argument("--minutes", type=float, default=8.0, help="what does not fit is left out (default 8)")
    parser.add_argument("--output", type=Path, help="write the table to a file, too")
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> int:
    """Measure, print as it goes, and tell by the exit code."""
    options = parse()
    if options.member:
        take_part()
        return 0
    if options.device == "cuda" and not torch.cuda.is_available():
        print("PyTorch finds no GPU here; --device cpu tries out the script without one", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        deadline = time.monotonic() + 60 * options.minutes
        bench = Bench(torch.device(options.device), options.quick, Path(folder), deadline)
        lines, well = [describe(bench), "", "| part | setting | time | GPU memory | result |", "| --- " * 5 + "|"], True
        print("\n".join(lines), flush=True)
        for part in parts(bench):
            row, is_well = measure(part, bench)
            well &= is_well
            lines.append(f"| {part.name} | {part.setting} | {row.time} | {row.memory} | {row.result} |")
            print(lines[-1], flush=True)
    if options.output:
        options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
