"""volseg's DICOM Segmentations beside highdicom's, called as its documentation shows, on the same mask in turns.

Run it with `python benchmarks/dicom_seg.py`; `--help` shows what can be changed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from volseg.exporting import Encoding, write
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io import SeriesSource, single_source
from volseg.io.dicom import read_instances, write_series

SPACING_MM = (1.0, 1.0, 2.5)


def make_series(folder: Path, size: int, slices: int) -> SeriesSource:
    """An axial series of zeros."""
    shape = (size, size, slices)
    geometry = Geometry(shape, np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0]))
    write_series(Volume(np.zeros((1, *shape), np.float32), geometry), folder, modality="CT")
    source = single_source(folder)
    assert isinstance(source, SeriesSource)
    return source


def make_mask(geometry: Geometry, labels: int, seed: int = 0) -> Mask:
    """Balls on a lattice, of a tenth to a sixth of the image's width."""
    rng = np.random.default_rng(seed)
    array = np.zeros(geometry.shape, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(*[(np.arange(3) + 0.5) / 3] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    places = lattice[rng.permutation(len(lattice))][np.arange(labels) % len(lattice)]
    for value, place in enumerate(places, start=1):
        radius_mm = geometry.shape[0] * SPACING_MM[0] * rng.uniform(0.1, 0.16)
        i, j, k = (
            (np.arange(size) - size * middle) * step
            for size, middle, step in zip(geometry.shape, place, SPACING_MM, strict=True)
        )
        array[i[:, None, None] ** 2 + j[:, None] ** 2 + k**2 <= radius_mm**2] = value
    return Mask(array, geometry, tuple(Label(value, f"label {value}") for value in range(1, labels + 1)))


def with_volseg(mask: Mask, source: SeriesSource, path: Path, encoding: Encoding) -> None:
    """A Segmentation as `volseg export` writes it."""
    write(mask, source, path, "dicom-seg", encoding)


def with_highdicom(mask: Mask, source: SeriesSource, path: Path, encoding: Encoding) -> None:
    """Sorted images, a stack of a boolean array per segment, a description of each."""
    images = [pydicom.dcmread(str(file)) for file in source.files]
    images.sort(key=lambda image: image.ImagePositionPatient[2])
    pixels = np.stack([mask.array.transpose(2, 1, 0) == label.value for label in mask.labels], axis=-1)
    algorithm = hd.AlgorithmIdentificationSequence("plain", codes.cid7162.ArtificialIntelligence, "1")
    segments = [
        hd.seg.SegmentDescription(
            label.value, label.name, codes.SCT.Organ, codes.SCT.Organ, "AUTOMATIC", algorithm_identification=algorithm
        )
        for label in mask.labels
    ]
    syntax = ExplicitVRLittleEndian if encoding == "binary" else JPEGLSLossless
    identity = (hd.UID(), 1, hd.UID(), 1, "plain", "plain", "1", "1")
    hd.seg.Segmentation(images, pixels, encoding.upper(), segments, *identity, transfer_syntax_uid=syntax).save_as(path)


def voxels_of(path: Path) -> NDArray[np.unsignedinteger]:
    """(K, J, I) segment numbers, read by highdicom; slices without a segment at the ends are left out."""
    return hd.seg.segread(path).get_volume(combine_segments=True).array


def measure(write: Callable[..., None], *arguments: object) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    write(*arguments)
    return time.perf_counter() - began


def compare(mask: Mask, source: SeriesSource, folder: Path, encoding: Encoding, rounds: int) -> None:
    """Time both in turns and print three lines."""
    work = ((with_volseg, folder / "volseg.dcm"), (with_highdicom, folder / "highdicom.dcm"))
    for way, path in work:  # warms both up
        way(mask, source, path, encoding)
    same = np.array_equal(*(voxels_of(path) for _, path in work))
    times = [[measure(way, mask, source, path, encoding) for way, path in work] for _ in range(rounds)]
    print(f"\n{encoding}; masks {'equal' if same else 'DIFFER'}\n{'':10}{'median s':>9}{'fastest':>9}{'MB':>8}")
    for (_, path), seconds in zip(work, zip(*times, strict=True), strict=True):
        print(f"{path.stem:10}{median(seconds):9.3f}{min(seconds):9.3f}{path.stat().st_size / 1e6:8.3f}")
    print(f"highdicom / volseg, median of the rounds: {median(theirs / ours for ours, theirs in times):.1f}")


def main() -> None:
    """Make a series and a mask, and compare both encodings."""
    parser = argparse.ArgumentParser(description="Time volseg's DICOM SEG beside highdicom's.")
    parser.add_argument("--size", type=int, default=256, help="columns and rows")
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # highdicom on the name of a patient without a surname
    with tempfile.TemporaryDirectory() as folder:
        source = make_series(Path(folder, "series"), options.size, options.slices)
        mask = make_mask(read_instances(source).geometry, options.labels)
        print(f"{options.labels} segments in {mask.geometry}, {options.rounds} rounds, headers of the series read anew")
        for encoding in ("binary", "labelmap"):
            compare(mask, source, Path(folder), encoding, options.rounds)


if __name__ == "__main__":
    main()
