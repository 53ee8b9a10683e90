"""Files that are packed otherwise than their name says, and files that must not be opened at all."""

from __future__ import annotations

import bz2
import gzip
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_io import make_volume, refused

from volseg.errors import DataError
from volseg.io import FileSource, discover, frame_count, read_volume, single_source, write_volume
from volseg.io.archives import gzip_depth, open_file
from volseg.io.dicom import write_series
from volseg.io.gzip_files import unpack


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


#: A file with which whoever waits for it waits for ever.
PIPES: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
if (KERNEL := Path("/proc/self/status")).is_file():  # stands for those of which nobody sees the end, as /proc/kmsg
    PIPES["a file of the kernel"] = lambda path: path.symlink_to(KERNEL)


@pytest.fixture
def plain(tmp_path: Path) -> bytes:
    write_volume(make_volume(), tmp_path / "plain.nii")
    return (tmp_path / "plain.nii").read_bytes()


def packed_at(data: bytes, *cuts: int) -> bytes:
    """Several members, as tools write them that pack block by block."""
    ends = [0, *cuts, len(data)]
    return b"".join(gzip.compress(data[a:b]) for a, b in pairwise(ends))


def with_name(data: bytes) -> bytes:
    """With the optional fields of the header: a name, a comment."""
    stream = BytesIO()
    with gzip.GzipFile("original name.nii", "wb", fileobj=stream) as file:
        file.write(data)
    return stream.getvalue()


#: Name of a file -> its bytes, from those of the plain image.
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "packed.nii": gzip.compress,
    "PACKED.NII": gzip.compress,
    "plain.nii.gz": bytes,
    "twice.nii.gz": lambda data: gzip.compress(gzip.compress(data)),
    "twice.nii": lambda data: gzip.compress(gzip.compress(data)),
    "blocks.nii.gz": lambda data: packed_at(data, 0, 3, 352, 500),
    "blocks.nii": lambda data: packed_at(data, 100),
    "tape.nii.gz": lambda data: gzip.compress(data) + b"\0" * 10_240,
    "empty_member.nii.gz": lambda data: gzip.compress(data) + gzip.compress(b""),
    "more.nii.gz": lambda data: gzip.compress(data + b"behind the voxels"),
    "more.nii": lambda data: data + b"behind the voxels",
    "named.nii.gz": with_name,
}


@pytest.mark.parametrize("name", PACKED)
def test_the_first_bytes_say_how_a_file_is_packed(name: str, plain: bytes, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / name
    path.write_bytes(PACKED[name](plain))
    volume = read_volume(FileSource(path))
    assert volume.geometry.matches(make_volume().geometry)
    np.testing.assert_array_equal(volume.array, make_volume().array)
    assert frame_count(path) == 1


def test_a_nifti_2_file_is_recognised_whatever_its_name(tmp_path: Path) -> None:
    image = nib.Nifti2Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1, 2, 3, 1]))
    image.set_qform(None, 0)
    (tmp_path / "image.nii.gz").write_bytes(image.to_bytes())
    volume = read_volume(FileSource(tmp_path / "image.nii.gz"))
    np.testing.assert_array_equal(volume.array[0], image.get_fdata())


def test_a_qform_alone_is_read_whatever_the_packing(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.diag([1, 2, 3, 1]))
    image.set_sform(None, 0)
    image.set_qform(np.diag([1, 2, 3, 1]), 1)
    (tmp_path / "image.nii.gz").write_bytes(image.to_bytes())
    assert read_volume(FileSource(tmp_path / "image.nii.gz")).geometry.spacing_mm == pytest.approx((1, 2, 3))


def test_what_lies_behind_a_whole_image_is_left_out_aloud(
    plain: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(plain) + b"\0\0<!-- uploaded -->")
    np.testing.assert_array_equal(read_volume(FileSource(path)).array, make_volume().array)
    assert "17 bytes after the end of the image are ignored" in caplog.text


BROKEN: dict[str, Callable[[bytes], bytes]] = {
    "wrong_checksum.nii": lambda data: gzip.compress(data)[:-8] + b"\0\0\0\0" + gzip.compress(data)[-4:],
    "wrong_checksum.nii.gz": lambda data: gzip.compress(data)[:-8] + b"\0\0\0\0" + gzip.compress(data)[-4:],
    "cut.nii": lambda data: gzip.compress(data)[:-1],
    "second_member_cut.nii.gz": lambda data: packed_at(data, 400)[:-1],
    "second_member_broken.nii.gz": lambda data: gzip.compress(data) + gzip.compress(data)[:20],
    "second_member_lost.nii.gz": lambda data: gzip.compress(data[:400]),
    "inner_cut.nii.gz": lambda data: gzip.compress(gzip.compress(data)[:-1]),
    "three_times.nii.gz": lambda data: gzip.compress(gzip.compress(gzip.compress(data))),
    "bzip2.nii.gz": bz2.compress,
    "deflate.nii.gz": zlib.compress,
    "letters.nii": lambda data: gzip.compress(b"no image " * 200),
    "short.nii": lambda data: data[:-1],
    "head.nii.gz": lambda data: data[:200],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_checksum_that_fails_is_no_image(name: str, plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name](plain))
    assert refused(lambda: read_volume(FileSource(path)), path).hint


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_what_was_never_fetched_is_named(suffix: str, tmp_path: Path) -> None:
    for content, reason, remedy in (
        (b"", "is empty", "copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer", "git lfs pull"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "web page", "download it again"),
    ):
        path = tmp_path / f"image{suffix}"
        path.write_bytes(content)
        error = refused(partial(read_volume, FileSource(path)), path)
        assert reason in str(error)
        assert remedy in error.hint


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_packed_file_of_another_format_says_so(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    write_volume(make_volume(), path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert "is gzipped" in str(refused(lambda: read_volume(FileSource(path)), path))


def test_more_than_the_voxels_takes_no_memory(plain: bytes) -> None:
    """What a header does not ask for is verified and dropped: a small file may unpack to any size."""
    bomb = gzip.compress(plain + b"\0" * 50_000_000)
    assert unpack(BytesIO(bomb), len(plain)).content == plain


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5), st.integers(0, 700))
def test_unpacking_is_that_of_gzip(members: list[bytes], most: int) -> None:
    data = b"".join(map(gzip.compress, members))
    unpacked = unpack(BytesIO(data), most)
    assert unpacked.content == gzip.decompress(data)[:most]
    assert unpacked.trailing == 0


def test_how_often_a_file_is_packed(tmp_path: Path) -> None:
    data = os.urandom(200_000)
    for depth in range(4):
        (tmp_path / "file").write_bytes(data)
        assert gzip_depth(tmp_path / "file") == depth
        data = gzip.compress(data, 1)


def test_a_file_that_is_cut_while_it_is_used_does_not_end_the_process(plain: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image.nii"
    path.write_bytes(plain)
    volume = read_volume(FileSource(path))
    os.truncate(path, 0)
    np.testing.assert_array_equal(volume.array, make_volume().array)


# What must not be opened


@pytest.mark.parametrize("kind", PIPES)
@pytest.mark.parametrize("name", ["p.nii.gz", "p.nii", "p.mha", "p.nrrd", "p.dcm", "p", "IM0003", "p.zip"])
def test_what_is_no_file_is_never_opened(kind: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    PIPES[kind](Path(name))
    write_volume(make_volume(), Path("good.nii.gz"))
    write_series(make_volume(), Path("series"))
    found = discover(Path())
    refusals = []
    for source in found.sources:
        try:
            read_volume(source)
        except DataError as error:
            refusals.append(str(error))
    refusals += [item.reason for item in found.set_aside]
    assert len(refusals) == 1
    assert f"{name} is {kind}" in refusals[0]


@pytest.mark.parametrize("kind", PIPES)
def test_it_casts_no_doubt_on_the_images_beside_it(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(make_volume(), tmp_path)
    monkeypatch.chdir(tmp_path)
    PIPES[kind](Path("lock"))
    found = discover(Path())
    assert read_volume(found.sources[0]).geometry.shape == make_volume().geometry.shape
    assert [item.path.name for item in found.set_aside] == ["lock"]


@pytest.mark.parametrize("kind", PIPES)
def test_named_by_itself_it_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    PIPES[kind](Path("lock"))
    with pytest.raises(DataError, match=f"is {kind}"):
        single_source(Path("lock"))


HEADERS = {
    "image.mhd": "NDims = 3\nElementSpacing = 1 1 1\nOffset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    "DimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = voxels\n",
    "image.nhdr": "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nspace: lps\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\ndata file: voxels\n",
}


@pytest.mark.parametrize("name", HEADERS)
def test_voxels_that_lie_in_a_pipe_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(HEADERS[name])
    os.mkfifo(tmp_path / "voxels")
    with pytest.raises(DataError, match="voxels is a named pipe"):
        read_volume(FileSource(tmp_path / name))


def test_the_pipe_of_a_two_file_image_is_refused(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "image.hdr")
    (tmp_path / "image.img").unlink()
    os.mkfifo(tmp_path / "image.img")
    with pytest.raises(DataError, match=r"image\.img is a named pipe"):
        read_volume(FileSource(tmp_path / "image.hdr"))


LINKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a broken link": (lambda path: path.symlink_to("gone"), "is a broken link"),
    "a loop": (lambda path: path.symlink_to(path.name), "leads back to itself"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "nothing": (lambda path: None, "does not exist"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_why_an_image_cannot_be_opened(kind: str, tmp_path: Path) -> None:
    make, reason = LINKS[kind]
    path = tmp_path / "image.nii.gz"
    make(path)
    error = refused(lambda: read_volume(FileSource(path)), path)
    assert reason in str(error)
    assert error.hint


@pytest.mark.parametrize("kind", ["a broken link", "a loop"])
def test_a_broken_link_does_not_vanish(kind: str, tmp_path: Path) -> None:
    write_volume(make_volume(), tmp_path / "good.nii.gz")
    make, reason = LINKS[kind]
    make(tmp_path / "image.nii.gz")
    make(tmp_path / "image.dcm")
    found = discover(tmp_path)
    assert [source.place.name for source in found.sources] == ["good.nii.gz", "image.nii.gz"]
    assert reason in str(refused(lambda: read_volume(found.sources[1]), tmp_path / "image.nii.gz"))
    assert [item.path.name for item in found.set_aside] == ["image.dcm"]
    assert reason in found.set_aside[0].reason


def test_a_folder_that_is_called_like_an_image(tmp_path: Path) -> None:
    """macOS and some archives make a folder of the file's name around it."""
    (tmp_path / "empty.nii.gz").mkdir()
    write_volume(make_volume(), tmp_path / "full.nii.gz" / "image.nii.gz")
    found = discover(tmp_path)
    assert [source.place for source in found.sources] == [tmp_path / "full.nii.gz" / "image.nii.gz"]
    assert [item.path.name for item in found.set_aside] == ["empty.nii.gz"]


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / "/".join(["folder"] * 900), tmp_path / ("x" * 300 + ".nii.gz")):
        with pytest.raises(DataError, match=r"(too long|does not exist)"):
            discover(path)
        with pytest.raises(DataError):
            read_volume(FileSource(path))


# Archives


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_copy_in_an_archive_is_one_file(tmp_path: Path) -> None:
    files = write_series(make_volume(), tmp_path / "series")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as packed:
        for path in (*files, files[0]):
            packed.write(path, path.name)
    (source,) = discover(tmp_path / "study.zip").sources
    assert read_volume(source).geometry.shape == make_volume().geometry.shape


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_for_two_contents_costs_only_what_it_concerns(tmp_path: Path) -> None:
    whole, doubled = (write_series(make_volume(), tmp_path / name) for name in ("whole", "doubled"))
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as packed:
        for path in whole:
            packed.write(path, f"whole/{path.name}")
        for path in doubled:
            packed.write(path, f"doubled/{path.name}")
        packed.write(doubled[1], f"doubled/{doubled[0].name}")
    found = discover(tmp_path / "study.zip")
    assert ["several files called" in item.reason for item in found.set_aside] == [True]
    read = [source for source in found.sources if source.place.name == "whole"]
    assert [read_volume(source).geometry.shape for source in read] == [make_volume().geometry.shape]
    for source in set(found.sources) - set(read):
        with pytest.raises(DataError):
            read_volume(source)


def test_a_member_that_states_an_absurd_size_costs_only_itself(tmp_path: Path) -> None:
    files = write_series(make_volume(), tmp_path / "series")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as packed:
        for path in files:
            packed.write(path, path.name)
        packed.writestr("notes.bin", b"x")
    data = bytearray((tmp_path / "study.zip").read_bytes())
    entry = data.rfind(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<L", 2**32 - 2)
    (tmp_path / "study.zip").write_bytes(bytes(data))
    (source,) = discover(tmp_path / "study.zip").sources
    assert read_volume(source).geometry.shape == make_volume().geometry.shape


def test_a_dicom_file_with_something_behind_its_gzip_is_refused(tmp_path: Path) -> None:
    path = write_series(make_volume(), tmp_path)[0]
    path.write_bytes(gzip.compress(path.read_bytes()) + b"more")
    with pytest.raises(DataError, match="4 bytes after its end"):
        open_file(path)
