"""volseg's segmentation of a case beside MONAI's, from the image on disk to the mask on disk, in turns.

Run it with `python benchmarks/inference.py`; `--help` shows what can be changed. Both get the same weights, windows,
overlap and weighting; every mask is compared with the one that MONAI makes in float32.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
import torch
from monai import transforms as mt
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from volseg.cases import Case
from volseg.config import Config, validate
from volseg.exporting import write
from volseg.image.geometry import Geometry
from volseg.image.volume import Volume
from volseg.inference.engines import available, start
from volseg.io import FileSource, write_volume
from volseg.model.checkpoint import TrainedNetwork
from volseg.model.networks import build_network
from volseg.prediction.predictor import Predictor

PATCH = (96, 96, 96)
WINDOW = (-100.0, 240.0)
NETWORKS = {
    "unet": {"name": "unet", "channels": [32, 64, 128, 256, 320], "strides": [[2, 2, 2]] * 4},
    "vnet": {"name": "vnet"},
    "dynunet": {"name": "dynunet"},
    "segresnet": {"name": "segresnet"},
}
LABELS = {"dark": 1, "middle": 2, "bright": 3}


@dataclass(frozen=True)
class Measured:
    """One way to segment the case.

    Attributes:
        name: What it is called in the table.
        work: Image file, mask file -> nothing; gives the label values.
    """

    name: str
    work: Callable[[Path, Path], None]


def draw(shape: Sequence[int], rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Blobs of four CT numbers with noise, and which they are, 0 to 3."""
    coarse = torch.from_numpy(rng.normal(size=[1, 1, *(max(2, size // 12) for size in shape)]).astype(np.float32))
    smooth = nn.functional.interpolate(coarse, size=tuple(shape), mode="trilinear")[0, 0].numpy()
    numbers = np.digitize(smooth, [-0.3, 0.0, 0.3])
    return (numbers * 70.0 + rng.normal(0, 8, shape)).astype(np.float32), numbers


def add_air(body: NDArray[np.float32], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Turn what lies outside a cylinder into air, in place, and tell where that is."""
    i, j = (np.linspace(-1, 1, size) for size in body.shape[:2])
    outside = np.broadcast_to((i[:, None] ** 2 + j**2 > 4 / np.pi * (1 - share))[..., None], body.shape)
    body[outside] = rng.normal(-1000, 12, int(outside.sum()))
    return outside


def make_image(path: Path, shape: tuple[int, int, int], spacing_mm: float, air: float) -> NDArray[np.int64]:
    """Write a body of blobs; a share of the volume, around it, is air. Gives the labels that are right."""
    rng = np.random.default_rng(0)
    body, numbers = draw(shape, rng)
    if air:
        numbers[add_air(body, air, rng)] = 0
    geometry = Geometry(shape, np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0]))
    write_volume(Volume(np.rint(body)[np.newaxis].astype(np.float32), geometry), path)
    return numbers


def make_config(network: str, backend: str, precision: str) -> Config:
    """A complete configuration for CT at 1.5 mm."""
    tree = {
        "data": {"labels": LABELS},
        "preprocessing": {
            "spacing_mm": (1.5, 1.5, 1.5),
            "normalization": [{"method": "window", "low": WINDOW[0], "high": WINDOW[1]}],
        },
        "patches": {"size": PATCH},
        "network": NETWORKS[network],
        "inference": {"backend": backend, "precision": precision},
    }
    return validate(tree, "the benchmark")


def teach(network: nn.Module, steps: int, side: int) -> None:
    """Train a little, on bodies with and without air, so that the answers are as clear as those of a network in use."""
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    bodies = []
    for air in (0.0, 0.5):
        body, numbers = draw((256, 256, 96), rng)
        if air:
            numbers[add_air(body, air, rng)] = 0
        bodies.append((np.clip((body - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1), numbers))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    network.train()
    for step in range(steps):
        seen, numbers = bodies[step % 2]
        i, j, k = (slice(begin, begin + side) for begin in rng.integers(0, np.subtract(seen.shape, side) + 1))
        optimizer.zero_grad()
        answer = network(torch.from_numpy(seen[None, None, i, j, k]))
        nn.functional.cross_entropy(answer, torch.from_numpy(numbers[None, i, j, k])).backward()
        optimizer.step()
    network.eval()


def with_monai(network: nn.Module, *, tuned: bool) -> Callable[[Path, Path], None]:
    """MONAI's pipeline as its tutorials have it; tuned: bf16, channels last, weights of the windows kept."""
    pre = mt.Compose(
        [
            mt.LoadImaged("image", image_only=True),
            mt.EnsureChannelFirstd("image"),
            mt.Orientationd("image", axcodes="RAS", labels=None),
            mt.Spacingd("image", pixdim=(1.5, 1.5, 1.5), mode="bilinear"),
            mt.ScaleIntensityRanged("image", *WINDOW, 0.0, 1.0, clip=True),
        ]
    )
    network = network.to(memory_format=torch.channels_last_3d) if tuned else network
    inferer = SlidingWindowInferer(
        PATCH, sw_batch_size=1 if tuned else 4, overlap=0.5, mode="gaussian", cache_roi_weight_map=tuned
    )

    def predictor(patch: torch.Tensor) -> torch.Tensor:
        if not tuned:
            return network(patch)
        with torch.autocast("cpu", torch.bfloat16):
            return network(patch.to(memory_format=torch.channels_last_3d)).float()

    def work(image: Path, mask: Path) -> None:
        post = mt.Compose(
            [
                mt.Invertd("pred", transform=pre, orig_keys="image", nearest_interp=False, to_tensor=True),
                mt.AsDiscreted("pred", argmax=True),
                mt.SaveImaged(
                    "pred",
                    output_dir=mask.parent,
                    output_postfix="monai_tuned" if tuned else "monai",
                    separate_folder=False,
                    print_log=False,
                    output_dtype=np.uint8,
                ),
            ]
        )
        with torch.inference_mode():
            sample = pre({"image": image})
            sample["pred"] = inferer(sample["image"][None], predictor)[0]
            post(sample)

    return work


def with_volseg(model: TrainedNetwork) -> Callable[[Path, Path], None]:
    """The same with volseg; engines are tried out once, before anything is timed."""
    predictor = Predictor([model])

    def work(image: Path, mask: Path) -> None:
        case = Case("case", {"image": FileSource(image)})
        began = time.perf_counter()
        prepared = predictor.prepare(case)
        read_seconds = time.perf_counter() - began
        segmented = predictor.segment(prepared)
        write(predictor.finish(segmented), case.images["image"], mask, "nifti")
        seen = segmented.network_seconds + segmented.restore_seconds
        say(
            f"  volseg: read {read_seconds:.2f} s, network {segmented.network_seconds:.2f} s, "
            f"restore {segmented.restore_seconds:.2f} s of {seen:.2f} s, {segmented.windows} windows"
        )

    return work


def matmul_rate(dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product, which no network can exceed."""
    one = torch.randn(4096, 4096).to(dtype)
    times = []
    for _ in range(4):
        began = time.perf_counter()
        one @ one
        times.append(time.perf_counter() - began)
    return 2 * 4096**3 / min(times)


def operations(network: nn.Module) -> int:
    """Multiplications and additions of one patch."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 1, *PATCH))
    return counter.get_total_flops()


def main() -> None:
    """Measure and print a table."""
    options = parse()
    torch.set_num_threads(options.threads)
    rates = {name: matmul_rate(dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    say(f"matrix products: fp32 {rates['fp32'] / 1e9:.0f}, bf16 {rates['bf16'] / 1e9:.0f} GFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        for air in options.air:
            image = Path(folder) / f"air_{100 * air:.0f}_percent.nii.gz"
            right = make_image(image, tuple(options.shape), options.spacing_mm, air)
            for network in options.networks:
                compare(network, image, right, options, rates)


def compare(
    name: str, image: Path, right: NDArray[np.int64], options: argparse.Namespace, rates: dict[str, float]
) -> None:
    """Time all ways to segment one image with one network."""
    config = make_config(name, options.backend, options.precision)
    torch.manual_seed(0)
    network = build_network(config.network, 1, len(LABELS) + 1)
    teach(network, options.steps, 32 if name == "vnet" else 96)
    masks = {
        way: image.parent / f"{image.name.removesuffix('.nii.gz')}_{way}.nii.gz"
        for way in ("monai", "monai_tuned", "volseg")
    }
    ways = {
        "monai": with_monai(network, tuned=False),
        "monai_tuned": with_monai(build_copy(network, config), tuned=True),
        "volseg": with_volseg(TrainedNetwork.of(network, config)),
    }
    if not options.fp32:
        del ways["monai"]
    small = image.with_name("small.nii.gz")
    make_image(small, (120, 120, 120), options.spacing_mm, 0.0)
    for way, work in ways.items():
        work(small, masks[way])  # volseg tries out its engines here
    times: dict[str, list[float]] = {way: [] for way in ways}
    for n in range(options.rounds):
        for way, work in ways.items():
            if way == "monai" and n:
                continue  # once is enough for what takes longest
            began = time.perf_counter()
            work(image, masks[way])
            times[way].append(time.perf_counter() - began)
    shape = "x".join(str(size) for size in options.shape)
    title = image.name.removesuffix(".nii.gz").replace("_", " ")
    print(f"\n{name}, {title}, {shape} voxels of {options.spacing_mm:g} mm; {options.rounds} rounds")
    print(f"{'':14}{'median s':>10}{'fastest':>10}{'ratio':>8}{'right':>9}  differ from {next(iter(ways))}")
    wanted = np.asarray(nib.load(masks[next(iter(ways))]).dataobj)
    for way, seconds in times.items():
        got = np.asarray(nib.load(masks[way]).dataobj)
        ratio = median(seconds) / median(times["volseg"])
        print(
            f"{way:14}{median(seconds):10.2f}{min(seconds):10.2f}{ratio:8.2f}{(got == right).mean():9.2%}"
            f"  {(got != wanted).mean():.4%}"
        )
    print_rates(network, config, rates)
    sys.stdout.flush()


def print_rates(network: nn.Module, config: Config, rates: dict[str, float]) -> None:
    """What each engine makes of the processor: the network's own operations over the rate of matrix products."""
    flops, patch = operations(network), torch.rand(1, 1, *PATCH)
    for engine in available(torch.device("cpu")):
        run = start(engine, network, 1, config.patches.size, torch.device("cpu"))
        run(patch)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            run(patch)
            times.append(time.perf_counter() - began)
        share = flops / median(times) / rates[engine.precision]
        print(
            f"{engine!s:14}{median(times):10.3f} s a patch of {flops / 1e9:.0f} GFLOP, "
            f"{share:.0%} of the {engine.precision} matrix rate"
        )


def build_copy(network: nn.Module, config: Config) -> nn.Module:
    """The same network, with weights of its own."""
    copy = build_network(config.network, 1, len(LABELS) + 1)
    copy.load_state_dict(network.state_dict())
    return copy.eval()


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time volseg's segmentation beside MONAI's.")
    parser.add_argument("--networks", nargs="+", default=["unet", "vnet"], choices=list(NETWORKS))
    parser.add_argument("--shape", nargs=3, type=int, default=[256, 256, 200])
    parser.add_argument("--spacing-mm", type=float, default=1.5, help="of the image; the networks work at 1.5 mm")
    parser.add_argument("--air", nargs="+", type=float, default=[0.0, 0.5], help="shares of the volume around a body")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100, help="of training, before")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--fp32", action=argparse.BooleanOptionalAction, default=True, help="MONAI in float32, too")
    return parser.parse_args()


def say(text: str) -> None:
    """What is going on."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
