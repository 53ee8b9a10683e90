"""What it takes to augment a training patch on one core: volseg's planned changes, each by itself, and nnU-Net's.

Run it with `python benchmarks/augmentation.py`; `--help` shows what can be changed. nnU-Net's pipeline
(batchgeneratorsv2) takes part where nnU-Net is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from statistics import fmean, median

import numpy as np
import torch
from monai.data import set_track_meta

from volseg.config import AugmentationConfig
from volseg.transforms import IMAGE, REFERENCE, build_augmentation

PLANNED = AugmentationConfig(flip_axes=("left-right",))
PROBABILITIES = [name for name in AugmentationConfig.model_fields if name.endswith("_probability")]


def milliseconds(work: Callable[[], object], rounds: int) -> list[float]:
    """Times of some rounds, after one that does not count."""
    times = []
    for n in range(rounds + 1):
        began = time.perf_counter()
        work()
        if n:
            times.append(1000 * (time.perf_counter() - began))
    return times


def volseg_chain(config: AugmentationConfig, side: int) -> Callable[[], object]:
    """A chain, ready to run on a patch."""
    chain = build_augmentation(config, {"a": 1}, (side,) * 3)
    chain.set_random_state(seed=0)
    image = torch.randn(1, side, side, side)
    reference = (torch.rand(1, side, side, side) > 0.5).float()
    return lambda: chain({IMAGE: image.clone(), REFERENCE: reference.clone()})


def nnunet_chain(side: int) -> Callable[[], object]:
    """nnU-Net's own pipeline with its own settings; its rotation needs a larger patch to start from."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    rotation = (-np.pi / 6, np.pi / 6)
    chain = nnUNetTrainer.get_training_transforms(
        np.array([side] * 3), rotation, None, (0, 1, 2), False, use_mask_for_norm=[False], is_cascaded=False,
        foreground_labels=[1], regions=None, ignore_label=None,
    )  # fmt: skip
    larger = int(1.3 * side)
    image = torch.randn(1, larger, larger, larger)
    reference = (torch.rand(1, larger, larger, larger) > 0.5).to(torch.int16)
    return lambda: chain(image=image.clone(), segmentation=reference.clone())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the augmentation of patches on one core.")
    parser.add_argument("--side", type=int, default=128, help="of the patch, in voxels")
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    set_track_meta(False)
    print(f"milliseconds for a patch of {options.side}^3 voxels on one core")
    off = dict.fromkeys(PROBABILITIES, 0.0)
    for name in PROBABILITIES:
        config = PLANNED.model_copy(update={**off, name: 1.0})
        print(
            f"{name.removesuffix('_probability'):16}{median(milliseconds(volseg_chain(config, options.side), 5)):8.0f}"
        )
    ours = fmean(milliseconds(volseg_chain(PLANNED, options.side), options.rounds))
    print(f"{'as planned, mean':16}{ours:8.0f}")
    if importlib.util.find_spec("nnunetv2"):
        theirs = fmean(milliseconds(nnunet_chain(options.side), options.rounds))
        print(f"{'nnU-Net, mean':16}{theirs:8.0f}  {theirs / ours:.1f}x")


if __name__ == "__main__":
    main()
