"""Finding and reading DICOM: volseg beside SimpleITK, on the same files, which are made in a temporary folder.

Run it with `python benchmarks/dicom_read.py`.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813  the library's own short name

from volseg.image.geometry import Geometry
from volseg.image.volume import Volume
from volseg.io import discover, read_volume, single_source
from volseg.io.dicom import write_series

FOLDERS, FILES_PER_FOLDER = 50, 100
SLICES, MATRIX = 300, 512
ROUNDS = 5


def write_tree(root: Path) -> None:
    """5,000 small files: a series per folder, five folders per patient."""
    rng = np.random.default_rng(0)
    for number in range(FOLDERS):
        array = rng.integers(0, 1000, (1, 64, 64, FILES_PER_FOLDER)).astype(np.float32)
        geometry = Geometry.from_lps(array.shape[1:], (0, 0, number), np.eye(3), (1, 1, 2))
        write_series(Volume(array, geometry), root / f"patient{number // 5:02d}" / f"series{number:02d}", modality="CT")


def write_ct(folder: Path) -> None:
    """300 slices of 512 x 512."""
    array = np.random.default_rng(1).integers(-1024, 3000, (1, MATRIX, MATRIX, SLICES)).astype(np.float32)
    geometry = Geometry.from_lps(array.shape[1:], (-180, -180, -400), np.eye(3), (0.7, 0.7, 1))
    write_series(Volume(array, geometry), folder, modality="CT")


def scan_with_itk(root: Path) -> int:
    """Every folder's series and the files of each, in order of position, as its documentation has it."""
    found = 0
    for folder, _, files in os.walk(root):
        for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(folder) if files else ():
            found += len(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder, uid))
    return found


def scan_with_volseg(root: Path) -> int:
    """Every series below the root, its files in order of position."""
    return sum(len(source.files) for source in discover(root).sources)


def read_with_itk(folder: Path) -> float:
    """A series as an array."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return float(sitk.GetArrayFromImage(reader.Execute())[0, 0, 0])


def read_with_volseg(folder: Path) -> float:
    """The same: found, checked, and read."""
    return float(read_volume(single_source(folder)).array[0, 0, 0, 0])


def compare(name: str, volseg: Callable[[Path], float], itk: Callable[[Path], float], place: Path) -> None:
    """Time both in turn and print the medians and their ratio."""
    if volseg(place) != itk(place):
        raise SystemExit(f"{name}: the two do not agree")
    seconds: dict[Callable[[Path], float], list[float]] = {volseg: [], itk: []}
    for _ in range(ROUNDS):
        for work, taken in seconds.items():
            start = time.perf_counter()
            work(place)
            taken.append(time.perf_counter() - start)
    ours, theirs = statistics.median(seconds[volseg]), statistics.median(seconds[itk])
    print(f"{name:42s} {ours:8.2f} s {theirs:10.2f} s {theirs / ours:8.1f} x")


def main() -> None:
    """Make the files, run both, print the table."""
    with tempfile.TemporaryDirectory() as folder:
        tree, ct = Path(folder) / "tree", Path(folder) / "ct"
        write_tree(tree)
        write_ct(ct)
        print(f"{'':42s} {'volseg':>10s} {'SimpleITK':>12s} {'ratio':>10s}")
        compare("scan 5,000 files in 50 folders", scan_with_volseg, scan_with_itk, tree)
        compare("find and read 300 slices of 512 x 512", read_with_volseg, read_with_itk, ct)


if __name__ == "__main__":
    main()
