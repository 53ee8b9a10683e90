"""The surface distances of volseg beside MedPy's and MONAI's, on the same pairs, in turns on one core.

Run it with `python benchmarks/metrics.py`; `--help` shows what can be changed. `--cases 100` also evaluates as many
files of twenty labels and tells how much memory that takes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.metrics import Conventions, SurfaceScore, measure_surfaces, score_masks

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the peers
    from medpy.metric import binary
    from monai import metrics as monai_metrics

Pair = tuple[NDArray[np.bool_], NDArray[np.bool_]]

SHAPE, SPACING_MM = (160, 256, 256), (2.0, 0.8, 0.8)
TOLERANCES_MM = (1.0, 2.0, 3.0)


def organ(
    shape: tuple[int, ...], center: NDArray[np.float64], radii: NDArray[np.float64], seed: int
) -> NDArray[np.bool_]:
    """An ellipsoid with a wavy surface."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 3)
    axes = [(np.arange(size) - middle) / radius for size, middle, radius in zip(shape, center, radii, strict=True)]
    i, j, k = np.meshgrid(*axes, indexing="ij", sparse=True)
    waves = np.sin(5 * i + phases[0]) * np.sin(5 * j + phases[1]) * np.sin(5 * k + phases[2])
    return i**2 + j**2 + k**2 < 1 + 0.25 * waves


def one_organ() -> Pair:
    """As large as a liver: its box is a third of the grid."""
    middle, radii = np.array(SHAPE) / 2, np.array(SHAPE) * 0.35
    return organ(SHAPE, middle + 2, radii, seed=1), organ(SHAPE, middle, radii, seed=2)


def many_labels(size: int, labels: int, seed: int) -> NDArray[np.uint8]:
    """(size, size, size): organs on a jittered lattice."""
    rng = np.random.default_rng(seed)
    lattice = np.stack(np.meshgrid(*[(np.arange(3) + 0.5) / 3] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    array = np.zeros((size,) * 3, np.uint8)
    for value in range(1, labels + 1):
        center = size * (lattice[value % len(lattice)] + rng.uniform(-0.01, 0.01, 3))
        array[organ(array.shape, center, np.full(3, size * (0.06 + 0.006 * (value % 12))), seed)] = value
    return array


def with_volseg(pair: Pair) -> SurfaceScore:
    """The whole family: HD, HD95, ASSD, MASD, boundary IoU and NSD at three tolerances; cut out of the grid first."""
    masks = [Mask(mask.astype(np.uint8), Geometry(SHAPE, np.diag([*SPACING_MM, 1.0]))) for mask in pair]
    return score_masks(masks[0], masks[1], [Label(1, "organ")], Conventions(TOLERANCES_MM))[0].surface


def with_medpy(pair: Pair) -> float:
    """HD95 alone."""
    return float(binary.hd95(*pair, SPACING_MM))


def with_monai(pair: Pair) -> tuple[float, float, float]:
    """HD95, ASSD and NSD."""
    one_hot = [torch.from_numpy(mask[None, None]) for mask in pair]
    at = {"include_background": True, "spacing": SPACING_MM}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return (
            monai_metrics.compute_hausdorff_distance(*one_hot, percentile=95, **at).item(),
            monai_metrics.compute_average_surface_distance(*one_hot, symmetric=True, **at).item(),
            monai_metrics.compute_surface_dice(*one_hot, class_thresholds=[TOLERANCES_MM[0]], **at).item(),
        )


def seconds(work: Callable[[], object]) -> float:
    """Of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare_on_one_organ(rounds: int) -> None:
    """The three in turns."""
    pair = one_organ()
    ours, theirs = with_volseg(pair), with_monai(pair)
    pooled = measure_surfaces(*pair, SPACING_MM).distances.pooled_hd95_mm
    same = np.allclose([ours.hd95_mm, ours.assd_mm, ours.nsds[0]], theirs, atol=1e-4)
    same &= abs(pooled - with_medpy(pair)) < 1e-4
    works = {"volseg, all": with_volseg, "MedPy, HD95": with_medpy, "MONAI, HD95 + ASSD + NSD": with_monai}
    times = [{name: seconds(lambda work=work: work(pair)) for name, work in works.items()} for _ in range(rounds)]
    print(f"one organ in {'x'.join(map(str, SHAPE))}, {rounds} rounds; numbers {'equal' if same else 'DIFFER'}\n")
    print(f"{'':26}{'median s':>9}{'/ volseg':>10}")
    for name in works:
        ratio = median(row[name] / row["volseg, all"] for row in times)
        print(f"{name:26}{median(row[name] for row in times):9.3f}{ratio:10.1f}")


def time_many_labels(size: int, labels: int, rounds: int) -> None:
    """All numbers of all labels."""
    known = [Label(value, f"label_{value}") for value in range(1, labels + 1)]
    grid = Geometry((size,) * 3, np.diag([1.0, 1.0, 1.0, 1.0]))
    masks = [Mask(many_labels(size, labels, seed), grid) for seed in (1, 2)]
    times = [seconds(lambda: score_masks(*masks, known, Conventions(TOLERANCES_MM))) for _ in range(rounds)]
    print(f"\n{labels} labels in {size}^3, the same family and all other numbers: median {median(times):.2f} s")


def evaluate_files(cases: int, size: int, labels: int) -> None:
    """A folder of files, and the memory it takes."""
    from volseg.evaluation import CasePair, EvaluationSettings, evaluate
    from volseg.io import write_mask
    from volseg.io.source import FileSource
    from volseg.memory import peak_mb, reset_peak

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grid = Geometry((size,) * 3, np.eye(4))
        for part, seed in (("prediction", 1), ("reference", 2)):
            write_mask(Mask(many_labels(size, labels, seed), grid), folder / f"{part}.nii.gz")
        prediction, reference = (FileSource(folder / f"{part}.nii.gz") for part in ("prediction", "reference"))
        known = tuple(Label(value, f"label_{value}") for value in range(1, labels + 1))
        for count in (cases // 10, cases):
            pairs = [CasePair(f"case_{n}", prediction, reference) for n in range(count)]
            reset_peak()
            spent = seconds(lambda pairs=pairs: evaluate(pairs, EvaluationSettings(known), folder / "scores"))
            print(f"{count} cases of {labels} labels in {size}^3: {spent:.1f} s, at most {peak_mb():,.0f} MB")


def main() -> None:
    """Time all and print."""
    parser = argparse.ArgumentParser(description="Time volseg's metrics beside MedPy's and MONAI's.")
    parser.add_argument("--size", type=int, default=256, help="voxels along each axis of the image of many labels")
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=0, help="files to evaluate, to see the memory")
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare_on_one_organ(options.rounds)
    time_many_labels(options.size, options.labels, options.rounds)
    if options.cases:
        evaluate_files(options.cases, options.size, options.labels)


if __name__ == "__main__":
    main()
