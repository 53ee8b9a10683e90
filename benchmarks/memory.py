"""Peak memory of segmenting a large CT, above the model and the volume: how it grows with slices and with labels.

Run it with `python benchmarks/memory.py`; `--help` shows what can be changed. The network is tiny, so that what is
measured is everything around it. Each row is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from volseg.cases import Case
from volseg.config import validate
from volseg.exporting import write
from volseg.io import FileSource
from volseg.io.files import atomic_path
from volseg.memory import peak_mb, reset_peak
from volseg.model.checkpoint import TrainedNetwork
from volseg.model.networks import build_network
from volseg.prediction.predictor import Predictor


def make_image(path: Path, slices: int) -> None:
    """Write 512 x 512 x slices of int16 CT numbers: a noisy cylinder in air."""
    import nibabel as nib

    rng = np.random.default_rng(0)
    i, j = np.meshgrid(np.linspace(-1, 1, 512), np.linspace(-1, 1, 512), indexing="ij")
    inside = i**2 + j**2 < 0.9
    array = np.empty((512, 512, slices), dtype=np.int16, order="F")
    for k in range(slices):
        array[..., k] = np.where(inside, 40 + 60 * np.sin(9 * i + k / 20) + rng.normal(0, 9, (512, 512)), -1000)
    image = nib.Nifti1Image(array, np.diag([0.8, 0.8, 0.8, 1.0]))
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def measure(path: Path, outputs: int, spacing_mm: float, memory_gb: float | None) -> dict[str, float]:
    """Segment one image in this process."""
    torch.set_num_threads(2)
    tree = {
        "data": {"labels": {f"label_{n}": n for n in range(1, outputs)}},
        "preprocessing": {
            "spacing_mm": [spacing_mm] * 3,
            "normalization": [{"method": "ct", "low": -150, "high": 250, "mean": 50, "std": 60}],
        },
        "patches": {"size": [96, 96, 96]},
        "network": {"name": "unet", "channels": [4, 8], "strides": [[2, 2, 2]], "residual_units": 0},
        "inference": {"backend": "torch", "precision": "bf16", "memory_gb": memory_gb},
    }
    config = validate(tree, "the benchmark")
    torch.manual_seed(0)
    predictor = Predictor([TrainedNetwork.of(build_network(config.network, 1, outputs).eval(), config)])
    reset_peak()
    before = peak_mb()
    case = Case("case", {"image": FileSource(path)})
    began = time.perf_counter()
    prepared = predictor.prepare(case)
    reading_mb = peak_mb() - before
    reset_peak()
    segmented = predictor.segment(prepared)
    mask = predictor.finish(segmented)
    volume_mb = prepared.gigabytes * 1e9 / 2**20
    del prepared
    write(mask, case.images["image"], path.with_name("mask.nii.gz"), "nifti")
    return {
        "volume_mb": volume_mb,
        "reading_mb": reading_mb - volume_mb,
        "segmenting_mb": peak_mb() - before - volume_mb,
        "seconds": time.perf_counter() - began,
        "network_seconds": segmented.network_seconds,
        "windows": segmented.windows,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="Measure the memory of segmenting a large CT.")
    parser.add_argument("--slices", nargs="+", type=int, default=[600, 1200])
    parser.add_argument("--outputs", nargs="+", type=int, default=[4, 25, 104], help="classes, background included")
    parser.add_argument("--spacing-mm", type=float, default=0.8, help="of the network; the image has 0.8 mm")
    parser.add_argument("--memory-gb", type=float, default=None)
    parser.add_argument("--one", type=Path, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.outputs[0], options.spacing_mm, options.memory_gb)))
        return
    print(
        f"512 x 512 x slices at 0.8 mm, network at {options.spacing_mm:g} mm; MB above the model and the float32 volume"
    )
    print(
        f"{'classes':>8}{'slices':>8}{'volume':>8}{'reading':>9}{'segmenting':>12}{'seconds':>9}{'network':>9}{'windows':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for slices in options.slices:
            make_image(Path(folder) / f"{slices}.nii.gz", slices)
        for outputs in options.outputs:
            for slices in options.slices:
                words = [sys.executable, __file__, "--one", f"{folder}/{slices}.nii.gz", "--outputs", str(outputs)]
                words += ["--spacing-mm", str(options.spacing_mm)]
                words += ["--memory-gb", str(options.memory_gb)] if options.memory_gb else []
                row = json.loads(
                    subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
                )
                print(
                    f"{outputs:8}{slices:8}{row['volume_mb']:8.0f}{row['reading_mb']:9.0f}{row['segmenting_mb']:12.0f}"
                    f"{row['seconds']:9.0f}{row['network_seconds']:9.0f}{row['windows']:9}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
