"""Logits of a network -> labels on the grid of the scan: volseg beside nnU-Net, or what nnU-Net does with scikit-image.

Run it with `python benchmarks/restore.py`; `--help` shows what can be changed. Both get the same logits and interpolate
linearly; nnU-Net resamples the logits of every class to the grid of the scan and takes the largest.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.config import DataConfig
from volseg.image.box import Box
from volseg.image.resampled import ResampledVolume, Resampling
from volseg.inference.restore import find_targets, restore
from volseg.inference.sliding import Slab
from volseg.model.label_encoding import label_values, winners

Labels = NDArray[np.unsignedinteger]


def make_logits(classes: int, size: int, *, noise: bool) -> NDArray[np.float32]:
    """(classes, size, size, size): smooth blobs as a trained network gives them, or noise."""
    rng = np.random.default_rng(0)
    if noise:
        return rng.normal(size=(classes, size, size, size)).astype(np.float32)
    coarse = torch.from_numpy(rng.normal(0, 8, (1, classes, *[size // 12] * 3)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(size,) * 3, mode="trilinear")[0].numpy()
    return smooth + rng.normal(0, 0.3, smooth.shape).astype(np.float32)


def with_volseg(logits: NDArray[np.float32], shape: tuple[int, int, int]) -> Callable[[], Labels]:
    """As sums of windows come out of the network: the classes of a voxel side by side, one slab."""
    classes, *size = logits.shape
    data = DataConfig(labels={f"label_{n}": n for n in range(1, classes)})
    sums = torch.from_numpy(np.ascontiguousarray(np.moveaxis(logits, 0, -1)))
    spacing_mm = tuple(many / few for many, few in zip(shape, size, strict=True))
    scan = np.broadcast_to(np.float32(0), (1, *shape))
    network_input = ResampledVolume(scan, Resampling(tuple(shape), (1.0, 1.0, 1.0), tuple(size), spacing_mm))
    box = Box.whole(size)
    slab = Slab(box, sums, torch.ones(*size))
    (target,) = find_targets(network_input.resampling.positions_back, box, 1, 1)
    values = label_values(data)

    def work() -> Labels:
        mask = np.zeros(shape, dtype=values.dtype)
        for part, numbers in restore([slab], target, 0, lambda each: winners(each, data)):
            mask[part] = values[numbers]
        return mask

    return work


def with_nnunet(logits: NDArray[np.float32], shape: tuple[int, int, int]) -> Callable[[], Labels]:
    """nnU-Net's own function where it is installed, else the same with scikit-image."""
    try:
        from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape as resample
    except ImportError:
        from skimage.transform import resize

        def resample(data: NDArray[np.float32], new_shape: tuple[int, ...], *_: object, **__: object) -> NDArray:
            return np.stack(
                [resize(each.astype(float), new_shape, 1, mode="edge", anti_aliasing=False) for each in data]
            )

    spacing = [many / few for many, few in zip(shape, logits.shape[1:], strict=True)]

    def work() -> Labels:
        resampled = resample(logits, shape, spacing, [1.0, 1.0, 1.0], is_seg=False, order=1, order_z=0)
        return resampled.argmax(axis=0).astype(np.uint8)

    return work


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description="Time the way from logits to labels beside nnU-Net's.")
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--shape", nargs=3, type=int, default=[300, 512, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = tuple(options.shape)
    print(f"{options.classes} classes, {options.size}^3 -> {'x'.join(map(str, shape))}, {options.threads} threads")
    print(f"{'logits':10}{'volseg s':>10}{'nnU-Net s':>11}{'ratio':>8}  labels that agree")
    for noise in (False, True):
        logits = make_logits(options.classes, options.size, noise=noise)
        ours, theirs = with_volseg(logits, shape), with_nnunet(logits, shape)
        agree = (ours() == (wanted := timed(theirs))[1]).mean()
        seconds = [timed(ours)[0] for _ in range(options.rounds)]
        print(
            f"{'noise' if noise else 'blobs':10}{median(seconds):10.2f}{wanted[0]:11.2f}"
            f"{wanted[0] / median(seconds):8.1f}  {agree:.4%}",
            flush=True,
        )


def timed(work: Callable[[], Labels]) -> tuple[float, Labels]:
    """Seconds of one call, and what it gave."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
