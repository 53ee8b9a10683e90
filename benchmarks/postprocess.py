"""volseg's post-processing beside SciPy's, on the same mask, one after the other in turns.

Run it with `python benchmarks/postprocess.py`; `--help` shows what can be changed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from volseg.config import LabelRule
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.prediction.postprocess import postprocess

Array = NDArray[np.uint8]

MIN_VOXELS = 10
RULE = LabelRule(label="*", keep_largest=True, fill_holes=True, min_voxels=MIN_VOXELS)


def make_mask(size: int, labels: int, seed: int = 0) -> Array:
    """(size, size, size): balls on a jittered lattice, some cut by others, with holes inside and specks around."""
    rng = np.random.default_rng(seed)
    array = np.zeros((size,) * 3, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(*[(np.arange(3) + 0.5) / 3] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    places = lattice[rng.permutation(len(lattice))][np.arange(labels) % len(lattice)]
    for value, place in enumerate(places, start=1):
        _add_ball(array, value, size * (place + rng.uniform(-0.04, 0.04, 3)), size * rng.uniform(0.1, 0.2))
    chance = rng.random(array.shape, dtype=np.float32)
    array[chance < 0.002] = 0
    specks = chance > 0.9995
    array[specks] = rng.integers(1, labels + 1, int(specks.sum()))
    return array


def with_volseg(array: Array) -> Array:
    """The rule as volseg applies it."""
    labels = tuple(Label(value, f"label_{value}") for value in range(1, int(array.max()) + 1))
    return postprocess(Mask(array, Geometry(array.shape, np.eye(4)), labels), [RULE]).array.astype(np.uint8)


def with_scipy(array: Array) -> Array:
    """The same, label after label, each within its bounding box."""
    result = array.copy()
    for value, box in enumerate(ndimage.find_objects(array), start=1):
        if box is not None:
            crop = result[box]
            before = crop == value
            crop[before & ~_largest(before)] = 0
    for value, box in enumerate(ndimage.find_objects(result), start=1):
        if box is not None:
            crop = result[box]
            crop[ndimage.binary_fill_holes(crop == value) & (crop == 0)] = value
    return result


def measure(work: Callable[[Array], Array], array: Array) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work(array)
    return time.perf_counter() - began


def main() -> None:
    """Time both and print a table."""
    parser = argparse.ArgumentParser(description="Time volseg's post-processing beside SciPy's.")
    parser.add_argument("--size", type=int, default=256, help="voxels along each axis")
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    array = make_mask(options.size, options.labels)
    same = np.array_equal(with_volseg(array), with_scipy(array))  # also warms both up
    rounds = [(measure(with_volseg, array), measure(with_scipy, array)) for _ in range(options.rounds)]
    ours, theirs = (sorted(times) for times in zip(*rounds, strict=True))
    print(f"keep largest, fill holes, at least {MIN_VOXELS} voxels; {options.labels} labels in {options.size}^3 voxels")
    print(f"{options.rounds} rounds, seconds; masks {'equal' if same else 'DIFFER'}\n")
    print(f"{'':8}{'median':>8}{'fastest':>9}{'slowest':>9}")
    for name, times in (("volseg", ours), ("scipy", theirs)):
        print(f"{name:8}{median(times):8.3f}{times[0]:9.3f}{times[-1]:9.3f}")
    print(f"\nscipy / volseg, median of the rounds: {median(scipy / volseg for volseg, scipy in rounds):.1f}")


def _add_ball(array: Array, value: int, center: NDArray[np.float64], radius: float) -> None:
    i, j, k = (np.arange(size) - middle for size, middle in zip(array.shape, center, strict=True))
    array[i[:, None, None] ** 2 + j[None, :, None] ** 2 + k[None, None, :] ** 2 <= radius**2] = value


def _largest(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Its largest component that is large enough; neighbours by faces, edges and corners."""
    components, count = ndimage.label(inside, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel(), minlength=count + 1)
    sizes[0] = 0
    champion = int(sizes.argmax())
    found: NDArray[np.bool_] = components == (champion if sizes[champion] >= MIN_VOXELS else -1)
    return found


if __name__ == "__main__":
    main()
