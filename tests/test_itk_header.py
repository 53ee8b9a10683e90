"""Headers of NRRD and MetaImage that ITK would pass over, guess at, or follow to where nothing must be opened."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_io import META, NRRD, VALUES, refused, save_text

from volseg.io import frame_count, read_volume
from volseg.io.source import FileSource

APART = {
    "image.mhd": META.replace("ElementDataFile = LOCAL\n", "ElementDataFile = "),
    "image.nhdr": NRRD.strip() + "\ndata file: ",
}


def read_text(path: Path, header: str) -> np.ndarray:
    return read_volume(save_text(path, header)).array[0].ravel(order="F")


def why_refused(path: Path, header: str) -> str:
    source = save_text(path, header, b"")
    error = refused(lambda: read_volume(source), path)
    assert error.hint
    return str(error)


# Numbers


@pytest.mark.parametrize("value", ["", "-60 20", "-60 20 30 40", "-60.5,20.5,-30.5", "(-60, 20, -30)", "-60 20 -30 mm"])
def test_an_offset_that_itk_would_guess_at_is_refused(value: str, tmp_path: Path) -> None:
    why = why_refused(tmp_path / "a.mha", META.replace("10 20 30", value))
    assert f"'{f'Offset = {value}'}' must have 3 finite numbers" in why


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e999", "0x10", "1_0", "1,5", "x"])
@pytest.mark.parametrize("line", [line for line in META.splitlines() if line[0] in "TOED" and line[-1].isdigit()])
def test_every_number_of_the_place_is_finite(line: str, word: str, tmp_path: Path) -> None:
    why = why_refused(tmp_path / "a.mha", META.replace(line, f"{line[:-1]}{word}"))
    assert f"{line[:-1]}{word}" in why


@pytest.mark.parametrize("name", ["Position", "Origin", "ElementSize", "CenterOfRotation", "Rotation", "Orientation"])
def test_every_field_of_the_place_has_as_many_numbers_as_axes_ask_for(name: str, tmp_path: Path) -> None:
    why = why_refused(tmp_path / "a.mha", META.replace("ElementDataFile", f"{name} = 1 2\nElementDataFile"))
    assert f"{name} = 1 2" in why or f"but '{name}' is '1 2'" in why


@pytest.mark.parametrize("axes", ["", "3 3", "three", "3.0", "0", "4", "2"])
def test_the_number_of_axes_is_one_number(axes: str, tmp_path: Path) -> None:
    assert "finite numbers" in why_refused(tmp_path / "a.mha", META.replace("NDims = 3", f"NDims = {axes}"))


def test_a_metaimage_may_have_colons_and_blank_lines(tmp_path: Path) -> None:
    header = META.replace("Offset =", "\nOffset:").replace("ElementDataFile =", "ElementDataFile:")
    assert np.array_equal(read_text(tmp_path / "a.mha", header), np.arange(60))
    why = why_refused(tmp_path / "a.mha", META.replace("ElementDataFile", "Offset: 1 1 1\nElementDataFile"))
    assert "contradicts itself" in why


@pytest.mark.parametrize("unit", ["um", "cm", "m"])
def test_a_metaimage_in_another_unit_than_mm_is_refused(unit: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    why = why_refused(path, META.replace("ElementDataFile", f"DistanceUnits = {unit}\nElementDataFile"))
    assert f"states its positions in {unit}, volseg takes mm" in why
    for fine in ("mm", "?"):
        assert read_text(path, META.replace("ElementDataFile", f"DistanceUnits = {fine}\nElementDataFile")).size == 60


@pytest.mark.parametrize("old", ["(10,20,30)", "(4,0,0)"])
@pytest.mark.parametrize(
    "new", ["(4,0,0x)", "(4,0,1_0)", "(4,0,0x10)", "(4,0)", "(4,0,inf)", "(4 0 0)", "4,0,0", "(4,0,0) 7"]
)
def test_vectors_of_nrrd_are_three_finite_numbers_each(old: str, new: str, tmp_path: Path) -> None:
    assert "vectors of three finite numbers" in why_refused(tmp_path / "a.nrrd", NRRD.replace(old, new))


# Files of voxels


def slices(folder: Path) -> None:
    for n in (1, 2, 3):
        (folder / f"s{n:03d}.raw").write_bytes(VALUES[20 * n - 20 : 20 * n])


LISTED = "LIST{}\ns001.raw\ns002.raw\ns003.raw"


@pytest.mark.parametrize("files", [LISTED.format(""), LISTED.format(" 2"), "s%03d.raw 1 3 1"])
@pytest.mark.parametrize("name", APART)
def test_voxels_in_several_files(name: str, files: str, tmp_path: Path) -> None:
    slices(tmp_path)
    path = tmp_path / name
    path.write_text(f"{APART[name]}{files}\n")
    source = FileSource(path)
    assert np.array_equal(read_volume(source).array[0].ravel(order="F"), np.arange(60))
    assert source.files == (path, *(tmp_path / f"s00{n}.raw" for n in (1, 2, 3)))


HIDDEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "s002.raw is a named pipe"),
    "device": (lambda path: path.symlink_to(os.devnull), "s002.raw is a device"),
    "folder": (Path.mkdir, "s002.raw is a folder"),
    "nothing": (lambda path: None, "s002.raw does not exist"),
}


@pytest.mark.parametrize("kind", HIDDEN)
@pytest.mark.parametrize("files", [LISTED.format(""), "s%03d.raw 1 3 1", "s002.raw"])
@pytest.mark.parametrize("name", APART)
def test_every_file_of_voxels_is_looked_at_before_it_is_opened(
    name: str, files: str, kind: str, tmp_path: Path
) -> None:
    slices(tmp_path)
    (tmp_path / "s002.raw").unlink()
    make, reason = HIDDEN[kind]
    make(tmp_path / "s002.raw")
    path = tmp_path / name
    path.write_text(f"{APART[name]}{files}\n")
    for read in (lambda: read_volume(FileSource(path)), lambda: frame_count(path)):
        assert reason in str(refused(read, path))
    assert FileSource(path).files[0] == path


@pytest.mark.parametrize("header", [META.replace("ElementDataFile = LOCAL\n", ""), META.replace("Element", "element")])
def test_a_metaimage_that_names_no_voxels_is_refused(header: str, tmp_path: Path) -> None:
    assert "no 'ElementDataFile'" in why_refused(tmp_path / "a.mha", header)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ("LIST\ns001.raw\ns002.raw", "names 2 files for its voxels, but its sizes need 3"),
        ("LIST 1\ns001.raw\ns002.raw\ns003.raw", "need 15"),
        ("LIST 3\ns001.raw", "names 1 files"),
        ("LIST 0\ns001.raw", "neither a list nor a pattern"),
        ("LISTs\ns001.raw", "neither a list nor a pattern"),
        ("s%03d.raw 1 2 1", "names 2 files"),
        ("s%03d.raw 1 9 1", "names 9 files"),
        ("s%03d.raw 1 999999999 1", "need 3"),
        ("s%03d.raw 3 1 1", "names 0 files"),
        ("s%03d.raw 3 1 -1", "nor a pattern"),
        ("s%03d.raw 1 3 0", "nor a pattern"),
        ("s%03d.raw 1 3", "nor a pattern"),  # ITK would divide by zero, which ends the process
        ("s%03d.raw 1 3 1 2", "nor a pattern"),
        ("s%s%n.raw 1 3 1", "nor a pattern"),
        ("s%03d%03d.raw 1 3 1", "nor a pattern"),
        ("s001.raw\0", "contains NUL"),
    ],
)
def test_files_that_itk_would_miscount_are_refused(files: str, reason: str, tmp_path: Path) -> None:
    slices(tmp_path)
    assert reason in why_refused(tmp_path / "image.mhd", f"{APART['image.mhd']}{files}\n")


def test_packed_voxels_in_several_files_are_refused(tmp_path: Path) -> None:
    slices(tmp_path)
    header = APART["image.mhd"].replace("ElementDataFile", "CompressedData = True\nElementDataFile")
    assert "packed" in why_refused(tmp_path / "image.mhd", header + f"{LISTED.format('')}\n")


def test_a_nrrd_may_count_backwards(tmp_path: Path) -> None:
    slices(tmp_path)
    path = tmp_path / "image.nhdr"
    path.write_text(APART["image.nhdr"] + "s%03d.raw 3 1 -1 2\n")
    voxels = np.arange(60).reshape(3, 20)[::-1].ravel()
    assert np.array_equal(read_volume(FileSource(path)).array[0].ravel(order="F"), voxels)
