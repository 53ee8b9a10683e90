"""Finding series in any heap of files: archives, litter, quick looks at headers, slices that are damaged."""

from __future__ import annotations

import gzip
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from test_dicom import AXIAL, drop, edit, item, make_volume

from volseg.errors import DataError
from volseg.image.geometry import Geometry
from volseg.image.volume import Volume
from volseg.io import discover, read_volume, single_source
from volseg.io.dicom import is_dicom, scan_dicom, write_series
from volseg.io.dicom.classify import examine
from volseg.io.dicom.elements import glance
from volseg.io.dicom.fast_scan import QuickLook
from volseg.io.dicom.header import BROKEN
from volseg.io.dicom.quiet import quiet_dicom
from volseg.io.signatures import HEAD_BYTES
from volseg.io.source import Discovery, SegmentsSource, Source

SHAPE = (4, 3, 5)


@pytest.fixture
def volume() -> Volume:
    return make_volume(shape=SHAPE)


def pack(folder: Path, archive: Path, *, inside: str = "") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, f"{inside}{path.relative_to(folder)}")
    shutil.rmtree(folder)
    return archive


def assert_only(found: Discovery, volume: Volume) -> None:
    (source,) = found.sources
    read = read_volume(source)
    np.testing.assert_array_equal(read.array, volume.array)
    assert read.geometry.matches(volume.geometry)


# Archives


@pytest.mark.parametrize("inside", ["", "study/series 1/", "ÜBER/日本/"])
@pytest.mark.parametrize("name", ["study.zip", "STUDY.ZIP"])
def test_a_series_in_an_archive(name: str, inside: str, volume: Volume, tmp_path: Path) -> None:
    write_series(volume, tmp_path / "series")
    archive = pack(tmp_path / "series", tmp_path / name, inside=inside)
    for root in (tmp_path, archive):
        found = discover(root)
        assert_only(found, volume)
        assert not found.set_aside
    assert single_source(archive).files[0].is_relative_to(archive)


def test_what_lies_between_the_images_of_an_archive(volume: Volume, tmp_path: Path) -> None:
    write_series(volume, tmp_path / "series")
    (tmp_path / "series" / "notes.txt").write_text("a scan")
    (tmp_path / "series" / "t1.nii.gz").write_bytes(b"")
    (tmp_path / "series" / "more.zip").write_bytes(b"")
    (tmp_path / "series" / "__MACOSX").mkdir()
    (tmp_path / "series" / "__MACOSX" / "._0001.dcm").write_bytes(b"\0")
    pack(tmp_path / "series", tmp_path / "study.zip")
    found = discover(tmp_path)
    assert_only(found, volume)
    assert found.ignored == 1  # the notes
    assert {item.path.name: item.reason for item in found.set_aside} == dict.fromkeys(
        ("t1.nii.gz", "more.zip"), "only DICOM is read from an archive: unpack it"
    )


def test_a_series_in_an_archive_and_beside_it_is_one(volume: Volume, tmp_path: Path) -> None:
    paths = write_series(volume, tmp_path / "series")
    with zipfile.ZipFile(tmp_path / "rest.zip", "w") as packed:
        for path in paths[3:]:
            packed.write(path, path.name)
            path.unlink()
    assert_only(discover(tmp_path), volume)


def test_gzipped_files(volume: Volume, tmp_path: Path) -> None:
    for n, path in enumerate(write_series(volume, tmp_path)):
        packed = tmp_path / (f"{path.name}.gz" if n % 2 else f"IM{n}")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        assert is_dicom(packed)
    assert_only(discover(tmp_path), volume)


def test_gzipped_files_in_an_archive(volume: Volume, tmp_path: Path) -> None:
    for path in write_series(volume, tmp_path / "series"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    assert_only(discover(pack(tmp_path / "series", tmp_path / "study.zip")), volume)


def mark_encrypted(archive: Path) -> None:
    """Set the flag that says so in every local and central header."""
    data = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + flags] |= 1
            at = data.find(signature, at + 4)
    archive.write_bytes(bytes(data))


def test_an_encrypted_archive_is_set_aside_file_by_file(volume: Volume, tmp_path: Path) -> None:
    write_series(volume, tmp_path / "series")
    mark_encrypted(pack(tmp_path / "series", tmp_path / "study.zip"))
    found = discover(tmp_path)
    assert not found.sources
    assert [item.path.name for item in found.set_aside] == [f"{k:04d}.dcm" for k in range(1, 6)]
    assert all("encrypted" in item.reason for item in found.set_aside)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_cut_archive_does_not_vanish(keep: float, volume: Volume, tmp_path: Path) -> None:
    write_series(volume, tmp_path / "series")
    archive = pack(tmp_path / "series", tmp_path / "study.zip")
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * keep)])
    found = discover(tmp_path)
    assert not found.sources
    assert [item.path for item in found.set_aside] == [archive]


def test_a_damaged_file_in_an_archive_makes_no_shorter_volume(volume: Volume, tmp_path: Path) -> None:
    write_series(volume, tmp_path / "series")
    archive = pack(tmp_path / "series", tmp_path / "study.zip")
    with zipfile.ZipFile(archive) as packed:
        last = packed.infolist()[-1]
    data = bytearray(archive.read_bytes())
    data[last.header_offset + 200] ^= 0xFF  # its checksum is wrong now, or it cannot be unpacked at all
    archive.write_bytes(bytes(data))
    found = discover(tmp_path)
    assert [item.path.name for item in found.set_aside] == ["0005.dcm"]
    with pytest.raises(DataError, match=r"0005\.dcm"):
        read_volume(found.sources[0])


def test_an_archive_reaches_no_file_outside_it(volume: Volume, tmp_path: Path) -> None:
    secret = write_series(volume, tmp_path / "elsewhere")[0]
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "study.zip", "w") as packed:
        packed.writestr(str(secret), b"not what lies there")
    assert all(
        path.is_relative_to(tmp_path / "in") for source in discover(tmp_path / "in").sources for path in source.files
    )


@pytest.mark.parametrize("name", ["../up.dcm", "a/../../up.dcm", "a//b.dcm", "./c.dcm", "C:\\d\\e.dcm"])
def test_odd_names_in_an_archive_stay_inside(name: str, volume: Volume, tmp_path: Path) -> None:
    """What cannot be found again by its path is left out or set aside; nothing outside is opened."""
    path = write_series(make_volume(shape=(4, 3, 1)), tmp_path / "series")[0]
    (tmp_path / "in").mkdir()
    shutil.copy(path, tmp_path / "up.dcm")
    (tmp_path / "in" / "study.zip").touch()
    with zipfile.ZipFile(tmp_path / "in" / "study.zip", "w") as packed:
        packed.write(path, name)
    found = discover(tmp_path / "in")
    if ".." in name:
        assert found.sources == ()
        assert ["leads out of it" in item.reason for item in found.set_aside] == [True]
    else:
        (source,) = found.sources
        assert read_volume(source).geometry.shape == (4, 3, 1)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_in_an_archive_make_no_shorter_volume(volume: Volume, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as packed:
        for k, path in enumerate(write_series(volume, tmp_path / "series")):
            packed.write(path, f"IM{max(k, 1)}")
    shutil.rmtree(tmp_path / "series")
    assert_whole_or_refused(discover(tmp_path).sources, volume.geometry)


def test_a_rewritten_archive_is_opened_again(volume: Volume, tmp_path: Path) -> None:
    write_series(volume, tmp_path / "series")
    assert_only(discover(pack(tmp_path / "series", tmp_path / "study.zip")), volume)
    other = make_volume(shape=SHAPE, seed=7)
    write_series(other, tmp_path / "series")
    assert_only(discover(pack(tmp_path / "series", tmp_path / "study.zip")), other)


# Litter and indices


def test_a_dicomdir_stands_for_its_folder(volume: Volume, tmp_path: Path) -> None:
    write_series(volume, tmp_path / "DICOM" / "S1")
    for name in ("DICOMDIR", "dicomdir"):
        (tmp_path / name).write_bytes(b"whatever it holds")
        assert_only(discover(tmp_path / name), volume)


@pytest.mark.real_data
def test_a_real_dicomdir(real_data: Path) -> None:
    root = real_data / "dicom/dicomdir_study"
    assert discover(root / "DICOMDIR") == discover(root)
    (index,) = [item for item in discover(root).set_aside if item.path.name == "DICOMDIR"]
    records = pydicom.dcmread(root / "DICOMDIR").DirectoryRecordSequence
    listed = [root.joinpath(*record.ReferencedFileID) for record in records if "ReferencedFileID" in record]
    gone = sum(not path.exists() for path in listed)
    assert (f"{gone} of the {len(listed)} files it lists are missing" in index.reason) == (gone > 0)


def test_litter_does_not_matter(volume: Volume, tmp_path: Path) -> None:
    write_series(volume, tmp_path)
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0" * 500)
    (tmp_path / "autorun.inf").write_text("[autorun]\nopen=viewer.exe\n")
    (tmp_path / "viewer.exe").write_bytes(b"MZ" + bytes(3000))
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.4\n" + bytes(range(256)) * 20)
    (tmp_path / "index.html").write_text("<html></html>" * 100)
    (tmp_path / "._0001.dcm").write_bytes(bytes(4096))
    found = discover(tmp_path)
    assert_only(found, volume)
    assert found.ignored == 5
    assert not found.set_aside


# Quick looks

#: The last tag before the pixels.
LAST = 0x0028FFFF


def element_values(data: bytes) -> dict[int, bytes]:
    """The raw value of every top-level element that has one, as pydicom's parser finds them; sequences left out."""
    with quiet_dicom():
        dataset = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, force=True)
    raw = (dataset.get_item(tag) for tag in dataset.keys())  # noqa: SIM118  iterating would parse the values
    return {int(e.tag): e.value for e in raw if isinstance(e, RawDataElement) and e.VR != "SQ" and e.value}


def real_files(root: Path) -> list[Path]:
    return sorted(path for name in ("dicom", "dicom_seg_rt") for path in (root / name).rglob("*") if path.is_file())


@pytest.mark.real_data
@pytest.mark.parametrize("size", [HEAD_BYTES, 4096, 2**30])
def test_a_glance_sees_what_pydicom_sees_in_real_files(size: int, real_data: Path) -> None:
    seen = 0
    for path in real_files(real_data):
        data = path.read_bytes()
        wanted = {tag: v for tag, v in element_values(data).items() if tag <= LAST} if is_dicom(path) else {}
        found = glance(data[:size], set(wanted), LAST)
        if found is not None:
            seen += 1
            assert found.elements == wanted, path
    assert seen > 20


@pytest.mark.real_data
def test_a_quick_look_says_what_a_long_one_says_of_real_files(real_data: Path) -> None:
    look, seen = QuickLook(), 0
    with quiet_dicom():
        for path in real_files(real_data):
            if is_dicom(path) and (found := look(path.read_bytes()[:HEAD_BYTES], path)) is not None:
                seen += 1
                assert found == examine(path)
    assert seen > 20


TEXT = st.text("ABCxyz 0123456789", max_size=20)


def nested(depth: int) -> st.SearchStrategy[Dataset]:
    """Data sets of a few elements, sequences of undefined or defined length within each other."""
    inner = nested(depth - 1) if depth else st.just(Dataset())
    return st.builds(
        lambda text, blob, items, undefined: _with_sequence(text, blob, items, undefined=undefined),
        TEXT,
        st.binary(max_size=40),
        st.lists(inner, max_size=2),
        st.booleans(),
    )


def _with_sequence(text: str, blob: bytes, items: list[Dataset], *, undefined: bool) -> Dataset:
    dataset = item(StudyDescription=text)
    dataset.add_new(0x00091001, "OB", blob + b"\0" * (len(blob) % 2))
    dataset.ReferencedStudySequence = items
    dataset["ReferencedStudySequence"].is_undefined_length = undefined
    for each in items:
        each.is_undefined_length_sequence_item = undefined
    return dataset


@pytest.mark.filterwarnings("ignore:VR lookup failed")  # pydicom, of elements that no dictionary has
@settings(max_examples=150)
@given(
    dataset=nested(2),
    syntax=st.sampled_from([uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian]),
    stated=st.sampled_from([uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.RLELossless, None]),
    cut=st.integers(0, 400),
)
def test_a_glance_sees_what_pydicom_sees(dataset: Dataset, syntax: uid.UID, stated: uid.UID | None, cut: int) -> None:
    """Also where the file is written in another encoding than it states, or is cut: then it may see nothing."""
    dataset.PatientID, dataset.Rows = "P1", 5
    dataset.ImagePositionPatient = [1, 2, 3]
    data = encoded(dataset, syntax, stated or syntax)
    wanted = {0x00081030, 0x00091001, 0x00100020, 0x00200032}
    found = glance(data[: len(data) - cut] if cut < len(data) else data, wanted, 0x0020FFFF)
    honest = (stated or syntax) == syntax or {stated, syntax} == {uid.RLELossless, uid.ExplicitVRLittleEndian}
    if honest and cut == 0 and syntax != uid.ExplicitVRBigEndian:
        assert found is not None
    if found is not None:
        try:
            values = element_values(data)
        except BROKEN:
            values = {}
        assert {tag: value for tag, value in found.elements.items() if value} == {
            tag: values[tag] for tag in wanted if tag in values
        }


def encoded(dataset: Dataset, syntax: uid.UID, stated: uid.UID) -> bytes:
    """A file whose data set is in one transfer syntax and which states another."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = stated, uid.MRImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    head, body = BytesIO(), BytesIO()
    pydicom.filewriter.write_file_meta_info(head, meta, enforce_standard=False)
    options = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian, "force_encoding": True}
    pydicom.dcmwrite(body, dataset, **options)
    return bytes(128) + b"DICM" + head.getvalue() + body.getvalue()


@settings(max_examples=80)
@given(
    values=st.fixed_dictionaries(
        {},
        optional={
            "AcquisitionTime": st.sampled_from(["101500", "101500.50", " 1015 ", ""]),
            "TriggerTime": st.sampled_from(["1.50", " 20 ", "+3", "x", ""]),
            "AcquisitionNumber": st.sampled_from(["1", " 02 ", "-1", "1.0", "x", ""]),
            "InstanceNumber": st.sampled_from(["7", "+7", "-7", "07 ", "x", "", "1\\2"]),
            "TemporalPositionIdentifier": st.sampled_from(["3", " 3", ""]),
            "ImagePositionPatient": st.sampled_from(["1\\2\\3", "1\\2\\3,5", "1\\2", "a\\b\\c", "", "1e999\\0\\0"]),
            "SOPInstanceUID": st.sampled_from(["1.2.3", "1.2.3.4"]),
        },
    )
)
def test_a_quick_look_at_the_second_file_says_what_a_long_one_says(values: dict[str, str]) -> None:
    """The first file of a series is understood in full, the others by the elements in which they may differ."""
    with tempfile.TemporaryDirectory() as folder, quiet_dicom():
        first, second = write_series(make_volume(shape=(4, 3, 2)), Path(folder))
        look = QuickLook()
        assert look(first.read_bytes()[:HEAD_BYTES], first) == examine(first)
        rewrite(second, values)
        assert look(second.read_bytes()[:HEAD_BYTES], second) == examine(second)


def rewrite(path: Path, values: dict[str, str]) -> None:
    """Store texts as they are, valid or not."""
    dataset = pydicom.dcmread(path)
    for keyword, text in values.items():
        tag = pydicom.tag.Tag(keyword)
        raw = text.encode() + b" " * (len(text) % 2)
        vr = pydicom.datadict.dictionary_VR(tag)
        dataset[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    dataset.save_as(path)


def test_names_in_any_character_set_are_read_alike(tmp_path: Path) -> None:
    for path in write_series(make_volume(shape=(4, 3, 2)), tmp_path, series_description="Schädel längs 頭"):
        with quiet_dicom():
            found = QuickLook()(path.read_bytes()[:HEAD_BYTES], path)
            assert found == examine(path)
        assert isinstance(found, tuple)
        assert found[0].traits.description == "Schädel längs 頭"


# First and last slices that are damaged


def flip(*places: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        for place in places:
            data[place] ^= 0x55
        path.write_bytes(bytes(data))

    return change


def cut(size: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[:size])


def states(**elements: Any) -> Callable[[Path], None]:
    return lambda path: edit(path, **elements)


def lacks(*keywords: str) -> Callable[[Path], None]:
    return lambda path: drop(path, *keywords)


def replaced(old: bytes, new: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))

    return change


DAMAGE: dict[str, Callable[[Path], None]] = {
    "empty": cut(0),
    "cut in the preamble": cut(100),
    "cut behind the prefix": cut(132),
    "cut in the meta information": cut(200),
    "cut in the header": cut(600),
    "cut before the pixels": lambda path: cut(path.stat().st_size - 24 - 8)(path),
    "cut in the pixels": lambda path: cut(path.stat().st_size - 2)(path),
    "nothing but zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "no prefix": flip(128, 129),
    "meta information length": flip(140),
    "transfer syntax": replaced(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.1\0"),
    "implicit stated": replaced(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0"),
    "no class": lacks("SOPClassUID"),
    "another class": states(SOPClassUID=uid.RTDoseStorage),
    "a broken class": states(SOPClassUID="1.2.840.10008.5.1.4.1.1.999"),
    "no series": lacks("SeriesInstanceUID"),
    "another series": states(SeriesInstanceUID="1.2.3.4"),
    "another study": states(StudyInstanceUID="1.2.3.4"),
    "another series number": states(SeriesNumber=77),
    "no rows": lacks("Rows"),
    "other rows": states(Rows=2),
    "other columns": states(Columns=3),
    "rows and columns exchanged": states(Rows=4, Columns=3),
    "no position": lacks("ImagePositionPatient"),
    "a broken position": states(ImagePositionPatient=[1, 2]),
    "another position": states(ImagePositionPatient=["-120.5", "33.25", "812.125"]),
    "no orientation": lacks("ImageOrientationPatient"),
    "another orientation": states(ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
    "a wrong orientation": states(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
    "no spacing": lacks("PixelSpacing"),
    "another spacing": states(PixelSpacing=["9", "0.7"]),
    "colour": states(SamplesPerPixel=3),
    "a palette": states(PhotometricInterpretation="PALETTE COLOR"),
    "a mosaic": states(ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"]),
    "reformatted": states(ImageType=["DERIVED", "SECONDARY", "MPR"]),
    "no pixels": lacks("PixelData"),
    "more bits": states(BitsAllocated=32),
}


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_outer_slice_never_gives_a_shorter_volume(what: str, place: int, tmp_path: Path) -> None:
    volume = make_volume(shape=SHAPE)
    DAMAGE[what](write_series(volume, tmp_path)[place])
    assert_whole_or_refused(scan_dicom(sorted(tmp_path.iterdir())).series, volume.geometry)


def assert_whole_or_refused(sources: Iterable[Source], geometry: Geometry) -> None:
    for source in sources:
        try:
            read = read_volume(source)
        except DataError:
            continue
        if len(source.files) > 1:
            assert read.geometry.matches(geometry)


@pytest.mark.parametrize(
    "what",
    [
        "no prefix",
        "empty",
        "cut in the preamble",
        "nothing but zeros",
    ],
)
def test_a_damaged_slice_without_an_ending_is_missed(what: str, tmp_path: Path) -> None:
    """It looks like no DICOM at all, but lies in a folder of files that are named like it."""
    volume = make_volume(shape=SHAPE)
    paths = [path.rename(tmp_path / f"IM{n}") for n, path in enumerate(write_series(volume, tmp_path))]
    DAMAGE[what](paths[-1])
    assert_whole_or_refused(scan_dicom(sorted(tmp_path.iterdir())).series, volume.geometry)


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_an_outer_slice_whose_series_uid_swallows_the_header_is_missed(place: int, tmp_path: Path) -> None:
    volume = make_volume(shape=SHAPE)
    replaced(b"\x0e\0UI@\0", b"\x0e\0UI@\xf3")(write_series(volume, tmp_path)[place])
    assert_whole_or_refused(scan_dicom(sorted(tmp_path.iterdir())).series, volume.geometry)


@pytest.mark.parametrize("place", [0, -1], ids=["first", "last"])
def test_an_outer_slice_that_claims_more_frames_is_missed(place: int, tmp_path: Path) -> None:
    volume = make_volume(shape=SHAPE)
    paths = write_series(volume, tmp_path)
    for path in paths:
        edit(path, NumberOfFrames=1)
    edit(paths[place], NumberOfFrames=2)
    assert_whole_or_refused(scan_dicom(sorted(tmp_path.iterdir())).series, volume.geometry)


def test_a_damaged_middle_of_three_slices_is_missed(tmp_path: Path) -> None:
    """What is left are two slices, between which a third lies."""
    volume = make_volume(shape=(4, 3, 3))
    edit(write_series(volume, tmp_path)[1], SeriesInstanceUID="1.2.3.4")
    assert_whole_or_refused(scan_dicom(sorted(tmp_path.iterdir())).series, volume.geometry)


@pytest.mark.parametrize("at", [2, 3, 20, 60], ids=["method", "flags", "early", "later"])
def test_a_damaged_gzipped_slice_is_missed(at: int, tmp_path: Path) -> None:
    volume = make_volume(shape=SHAPE)
    for path in write_series(volume, tmp_path):
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    flip(at)(tmp_path / "0005.dcm.gz")
    assert_whole_or_refused(scan_dicom(sorted(tmp_path.iterdir())).series, volume.geometry)


@pytest.mark.parametrize("what", ["cut in the meta information", "cut in the header", "no series"])
def test_a_damaged_slice_in_a_folder_of_two_series_is_set_aside(what: str, tmp_path: Path) -> None:
    """Whose slice it was cannot be told; one such file in an export of many series must not cost all of them."""
    volume = make_volume(shape=SHAPE)
    for path in write_series(make_volume(shape=(4, 3, 3)), tmp_path / "other"):
        path.rename(tmp_path / f"other_{path.name}")
    DAMAGE[what](write_series(volume, tmp_path)[-1])
    scan = scan_dicom(sorted(path for path in tmp_path.iterdir() if path.is_file()))
    assert len(scan.set_aside) == 1
    assert scan.set_aside[0].reason


@pytest.mark.parametrize("count", [1, 2])
def test_several_slices_of_another_matrix_at_the_end_are_missed(count: int, tmp_path: Path) -> None:
    volume = make_volume(shape=(4, 3, 8))
    for path in write_series(volume, tmp_path)[-count:]:
        edit(path, Rows=2)
    assert_whole_or_refused(scan_dicom(sorted(tmp_path.iterdir())).series, volume.geometry)


# Numbers that no arithmetic survives


@pytest.mark.parametrize(("z", "count"), [("-1e200", 5), ("1e999", 3), ("1e300", 3)])
def test_a_place_beyond_all_numbers_stops_nothing_else(z: str, count: int, tmp_path: Path) -> None:
    """An image whose position overflows, beside one that is alone in its volume, so that positions are compared."""
    volume = make_volume(shape=(4, 3, count))
    paths = write_series(volume, tmp_path)
    rewrite(paths[1], {"ImagePositionPatient": f"0\\0\\{z}"})
    edit(paths[-1], Rows=2)
    assert_whole_or_refused(scan_dicom(sorted(tmp_path.iterdir())).series, volume.geometry)


# Neighbours that have every right to be there


def write_pair(folder: Path, first: Volume, second: Volume, **elements: Any) -> None:
    """Two series of one study."""
    for number, volume in enumerate((first, second), start=1):
        for path in write_series(volume, folder / str(number)):
            edit(path, StudyInstanceUID="1.2", FrameOfReferenceUID="1.2.9", **({"SeriesNumber": number} | elements))


@pytest.mark.parametrize(
    "second",
    [
        make_volume(shape=(4, 3, 5), seed=1),
        make_volume(shape=(8, 6, 5), seed=1),
        make_volume(
            shape=(4, 3, 5), origin_mm=(-120.5, 33.25, -812.125 + 12.5), seed=1
        ),  # goes on where the first ends
        make_volume(shape=(4, 3, 1), origin_mm=(-120.5, 33.25, -812.125 + 12.5), seed=1),
        make_volume(AXIAL * [1, 1, -1], shape=(4, 3, 5), seed=1),
    ],
    ids=["same places", "finer", "continuing", "one slice", "reversed"],
)
def test_a_neighbouring_series_does_no_harm(second: Volume, tmp_path: Path) -> None:
    first = make_volume(shape=SHAPE)
    write_pair(tmp_path, first, second)
    found = discover(tmp_path)
    assert len(found.sources) == 2
    read = [read_volume(source) for source in found.sources]
    np.testing.assert_array_equal(read[0].array, first.array)
    assert read[1].geometry.shape == second.geometry.shape


def test_two_series_without_numbers_do_no_harm(tmp_path: Path) -> None:
    volumes = [make_volume(shape=SHAPE, seed=seed) for seed in (0, 1)]
    write_pair(tmp_path, *volumes, SeriesNumber=None)
    found = discover(tmp_path)
    assert found.set_aside == ()
    for source, volume in zip(found.sources, volumes, strict=True):
        np.testing.assert_array_equal(read_volume(source).array, volume.array)


@pytest.mark.parametrize(
    "companion",
    [
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        {"ImageType": ["DERIVED", "SECONDARY", "MIP"]},
        {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
        {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "CT_SOM5 MIP"]},
    ],
    ids=["localizer", "mip", "screen", "vendor's mip"],
)
def test_other_kinds_within_the_series_do_no_harm(companion: dict[str, Any], tmp_path: Path) -> None:
    volume = make_volume(shape=SHAPE)
    paths = write_series(volume, tmp_path)
    shutil.copy(paths[0], tmp_path / "companion")
    edit(tmp_path / "companion", SOPInstanceUID="1.2.3.4", ImagePositionPatient=[0, 0, 0], **companion)
    scan = scan_dicom(sorted(tmp_path.iterdir()))
    assert [item.path.name for item in scan.set_aside] == ["companion"]
    (source,) = scan.series
    np.testing.assert_array_equal(read_volume(source).array, volume.array)


def test_a_secondary_capture_of_its_own_series_does_no_harm(volume: Volume, tmp_path: Path) -> None:
    paths = write_series(volume, tmp_path)
    shutil.copy(paths[0], tmp_path / "capture")
    edit(
        tmp_path / "capture",
        SOPClassUID=uid.SecondaryCaptureImageStorage,
        SOPInstanceUID="1.2.3.4",
        SeriesInstanceUID="1.2.3.5",
        SamplesPerPixel=3,
    )
    (source,) = scan_dicom(sorted(tmp_path.iterdir())).series
    np.testing.assert_array_equal(read_volume(source).array, volume.array)


def test_files_are_accounted_for_once_whatever_they_are(volume: Volume, tmp_path: Path) -> None:
    for n, damage in enumerate(DAMAGE.values()):
        damage(write_series(volume, tmp_path / str(n))[-1])
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    scan = scan_dicom(files)
    assert not any(isinstance(source, SegmentsSource) for source in scan.series)
    seen = [path for source in scan.series for path in source.files] + [item.path for item in scan.set_aside]
    assert len(seen) == len(set(seen)) == len(files) - scan.ignored
