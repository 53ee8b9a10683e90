"""What the numbers of a header and the stored values mean: read where it is clear, refused where it is not."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from test_dicom import drop, edit, item, make_volume, read_folder

from volseg.errors import DataError, GeometryError
from volseg.image.volume import Volume
from volseg.io.dicom import is_dicom, write_series
from volseg.io.dicom.header import parse_numbers
from volseg.io.dicom.images import read_images
from volseg.io.dicom.quiet import quiet_dicom

SHAPE = (4, 3, 2)

# Decimal strings


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (b"1.5", [1.5]),
        (b"0.9\\0.7", [0.9, 0.7]),
        (b" 0.9 \\ 0.7 ", [0.9, 0.7]),
        (b"0.9\\0.7\0", [0.9, 0.7]),
        (b"\t1\r\n", [1.0]),
        (b"0,9\\0,75", [0.9, 0.75]),
        (b"-812,12", [-812.12]),
        (b"0,125", [0.125]),  # no thousands begin with 0
        (b"1,2500", [1.25]),
        (b"+3", [3.0]),
        (b".5\\5.", [0.5, 5.0]),
        (b"1.00000000000000000001", [1.0]),  # longer than 16 characters
        (b"1E-3\\2e+2", [0.001, 200.0]),
        (b"-0", [0.0]),
        (b"", []),
        (b"  ", []),
        (b"\0\0", []),
    ],
)
def test_clear_numbers_are_read(text: bytes, numbers: list[float]) -> None:
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize(
    "text",
    [
        b"1,250",  # thousands?
        b"1.250,5",
        b"1,250.5",
        b"0.9,0.7",
        b"0.9\\",
        b"\\0.9",
        b"0.9\\\\0.7",
        b"0.9;0.7",
        b"0.9 0.7",
        b"0. 9",
        b"0.9\0 7",
        b"nan",
        b"inf",
        b"-Infinity",
        b"1e",
        b"e5",
        b".",
        b"-",
        b"--1",
        b"1-2",
        b"1.2.3",
        b"0x10",
        b"1_000",
        b"1d3",
        b"2.5mm",
        b"\xd9\xa1",  # an Arabic digit
        b"\xef\xbc\x91",  # a wide digit
        b"\xff",
        b"1\n2",
    ],
)
def test_unclear_numbers_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its message is the text itself
        parse_numbers(text)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_written_numbers_come_back(numbers: list[float]) -> None:
    assert parse_numbers("\\".join(repr(number) for number in numbers).encode()) == numbers


@given(st.binary(max_size=12))
def test_numbers_are_finite_or_refused_whatever_the_bytes(raw: bytes) -> None:
    try:
        numbers = parse_numbers(raw)
    except ValueError:
        return
    assert all(isinstance(number, float) for number in numbers)
    assert len(numbers) in {0, raw.count(b"\\") + 1}


def store(path: Path, keyword: str, raw: bytes, vr: str = "") -> None:
    """Store bytes as they are, valid or not."""
    tag = pydicom.tag.Tag(keyword)
    with quiet_dicom():
        dataset = pydicom.dcmread(path)
        vr = vr or pydicom.datadict.dictionary_VR(tag)
        raw += b" " * (len(raw) % 2)
        dataset[tag] = RawDataElement(tag, vr, len(raw), raw, 0, False, True)
        dataset.save_as(path)


@pytest.mark.parametrize(
    ("raw", "spacing_mm"),
    [(b"0,9\\0,7", (0.7, 0.9)), (b" 0.9 \\ 0.7\0", (0.7, 0.9)), (b"0.90000000000000000000\\0.7", (0.7, 0.9))],
)
def test_clear_spacings_are_read_from_files(raw: bytes, spacing_mm: tuple[float, float], tmp_path: Path) -> None:
    for path in write_series(make_volume(shape=SHAPE), tmp_path):
        store(path, "PixelSpacing", raw)
    assert read_folder(tmp_path).geometry.spacing_mm[:2] == pytest.approx(spacing_mm)


@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize("raw", [b"1\\2\\x", b"1,250\\1", b"1\\", b"1e999\\1\\1", b"1 2 3", b"0.9mm\\0.7mm"])
@pytest.mark.parametrize("where", ["all", "last"])
def test_unclear_geometry_is_refused_by_name(keyword: str, raw: bytes, where: str, tmp_path: Path) -> None:
    paths = write_series(make_volume(shape=SHAPE), tmp_path)
    for path in paths if where == "all" else paths[-1:]:
        store(path, keyword, raw)
    with pytest.raises(GeometryError, match=keyword):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "raw"),
    [
        ("RescaleSlope", b"1,5x"),
        ("RescaleSlope", b"two"),
        ("RescaleIntercept", b"-1,024"),
        ("RescaleIntercept", b"1\\2"),
        ("RescaleSlope", b"1e999"),
    ],
)
def test_unclear_values_are_refused_by_name(keyword: str, raw: bytes, tmp_path: Path) -> None:
    for path in write_series(make_volume(shape=SHAPE), tmp_path):
        store(path, keyword, raw)
    with pytest.raises(DataError, match=keyword):
        read_folder(tmp_path)


def test_a_comma_in_the_rescale_is_a_point(tmp_path: Path) -> None:
    volume = make_volume(shape=SHAPE)
    for path in write_series(volume, tmp_path):
        store(path, "RescaleSlope", b"0,5")
        store(path, "RescaleIntercept", b"-1,25")
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array * 0.5 - 1.25)


@pytest.mark.parametrize("vr", ["LO", "SH", "ST", "UN", "IS"])
def test_a_number_under_another_name_of_type_is_still_a_number(vr: str, tmp_path: Path) -> None:
    for path in write_series(make_volume(shape=SHAPE), tmp_path):
        store(path, "PixelSpacing", b"0.9\\0.7", vr)
    assert read_folder(tmp_path).geometry.spacing_mm[:2] == pytest.approx((0.7, 0.9))


# Standardised uptake values

PET: dict[str, Any] = {
    "SOPClassUID": uid.PositronEmissionTomographyImageStorage,
    "Modality": "PT",
    "Units": "BQML",
    "CorrectedImage": ["NORM", "DTIM", "ATTN", "SCAT", "DECY"],
    "DecayCorrection": "START",
    "PatientWeight": "70",
    "SeriesTime": "110000",
    "AcquisitionTime": "110000",
}
#: 18F: half-life 6586.2 s; 350 MBq.
INJECTION: dict[str, Any] = {
    "RadionuclideTotalDose": "350000000",
    "RadionuclideHalfLife": "6586.2",
    "RadiopharmaceuticalStartTime": "100000",
}


def write_pet(folder: Path, pet: Mapping[str, Any] = {}, injection: Mapping[str, Any] = {}) -> Volume:
    volume = make_volume(shape=(4, 3, 3))
    administration = {key: value for key, value in (INJECTION | injection).items() if value is not None}
    for path in write_series(volume, folder):
        edit(path, RadiopharmaceuticalInformationSequence=[item(**administration)], **(PET | pet))
    return volume


def suv_factor_of(folder: Path, volume: Volume) -> float:
    """The one number by which all voxels were multiplied."""
    array = read_folder(folder).array.astype(np.float64)
    known = volume.array != 0
    factors = array[known] / volume.array[known]
    np.testing.assert_allclose(factors, factors[0], rtol=1e-6)
    return float(factors[0])


@pytest.mark.parametrize(
    ("pet", "injection", "factor"),
    [
        # 70000 g / (350e6 Bq x 2^(-3600 / 6586.2)): one hour after the injection.
        ({}, {}, 70000 / (350e6 * 0.684637)),
        # Decay-corrected to the injection: no decay left to count.
        ({"DecayCorrection": "ADMIN"}, {"RadionuclideHalfLife": None}, 2e-4),
        # One half-life after the injection, half of the dose is left.
        ({}, {"RadionuclideHalfLife": "3600"}, 4e-4),
        # Injected at 23:30, scanned at 00:30: one hour.
        (
            {"SeriesTime": "003000", "AcquisitionTime": "003000"},
            {"RadiopharmaceuticalStartTime": "233000", "RadionuclideHalfLife": "3600"},
            4e-4,
        ),
        # Fractions of seconds.
        ({}, {"RadiopharmaceuticalStartTime": "095959.999999", "RadionuclideHalfLife": "3600"}, 4e-4),
        # A later bed position does not change what the images are corrected to.
        ({"AcquisitionTime": "111500"}, {"RadionuclideHalfLife": "3600"}, 4e-4),
        ({"PatientWeight": "35"}, {"RadionuclideHalfLife": "3600", "RadionuclideTotalDose": "3.5E8"}, 2e-4),
    ],
    ids=["an hour", "to injection", "half-life", "midnight", "fractions", "bed", "child"],
)
def test_uptake_by_hand(pet: dict[str, Any], injection: dict[str, Any], factor: float, tmp_path: Path) -> None:
    volume = write_pet(tmp_path, pet, injection)
    assert suv_factor_of(tmp_path, volume) == pytest.approx(factor, rel=1e-5)


def test_uptake_takes_the_rescale_into_account(tmp_path: Path) -> None:
    volume = write_pet(tmp_path, {"DecayCorrection": "ADMIN", "RescaleSlope": "2", "RescaleIntercept": "10"})
    np.testing.assert_allclose(read_folder(tmp_path).array, (volume.array * 2 + 10) * 2e-4, rtol=1e-6)


MISSING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"PatientWeight": None}, {}),
    ({"PatientWeight": "0"}, {}),
    ({"PatientWeight": "-70"}, {}),
    ({"CorrectedImage": ["NORM", "ATTN"]}, {}),
    ({"CorrectedImage": ["NORM", "DECY"]}, {}),
    ({"CorrectedImage": None}, {}),
    ({"DecayCorrection": "NONE"}, {}),
    ({"DecayCorrection": None}, {}),
    ({"SeriesTime": None}, {}),
    ({"AcquisitionTime": None}, {}),
    ({"SeriesTime": "120000"}, {}),  # after the acquisition: of some later processing
    ({"SeriesTime": "11:00:00"}, {}),
    ({"SeriesTime": "250000"}, {}),
    ({}, {"RadionuclideTotalDose": None}),
    ({}, {"RadionuclideTotalDose": "0"}),
    ({}, {"RadionuclideHalfLife": None}),
    ({}, {"RadiopharmaceuticalStartTime": None}),
    ({}, {"RadiopharmaceuticalStartTime": ""}),
]


@pytest.mark.parametrize(("pet", "injection"), MISSING, ids=str)
def test_without_every_number_values_stay_concentrations(
    pet: dict[str, Any], injection: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    volume = write_pet(tmp_path, pet, injection)
    with caplog.at_level(logging.WARNING, logger="volseg"):
        np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)
    assert "stays in Bq/ml" in caplog.text


@pytest.mark.parametrize("half_life", ["0", "-5", "1"])
def test_an_impossible_half_life_gives_no_uptake(half_life: str, tmp_path: Path) -> None:
    volume = write_pet(tmp_path, {}, {"RadionuclideHalfLife": half_life})
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)


def test_without_an_injection_values_stay_concentrations(tmp_path: Path) -> None:
    volume = write_pet(tmp_path)
    for path in tmp_path.iterdir():
        drop(path, "RadiopharmaceuticalInformationSequence")
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)


@pytest.mark.parametrize("units", ["GML", "CNTS", "PROPCPS"])
def test_other_units_stay_as_they_are(units: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = write_pet(tmp_path, {"Units": units})
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)
    assert not caplog.text


def test_one_volume_is_never_of_two_units(tmp_path: Path) -> None:
    """A slice without the weight: the volume is in Bq/ml or refused, but not a mixture."""
    volume = write_pet(tmp_path)
    drop(sorted(tmp_path.iterdir())[1], "PatientWeight")
    try:
        array = read_folder(tmp_path).array
    except DataError:
        return
    np.testing.assert_array_equal(array, volume.array)


def test_a_scan_across_midnight_is_never_of_two_units(tmp_path: Path) -> None:
    volume = write_pet(
        tmp_path, {"SeriesTime": "235500", "AcquisitionTime": "235500"}, {"RadiopharmaceuticalStartTime": "225500"}
    )
    edit(sorted(tmp_path.iterdir())[2], AcquisitionTime="000500")
    try:
        array = read_folder(tmp_path).array
    except DataError:
        return
    factors = array.astype(np.float64)[volume.array != 0] / volume.array[volume.array != 0]
    np.testing.assert_allclose(factors, factors[0], rtol=1e-6)


def test_a_time_without_seconds_is_hours_and_minutes(tmp_path: Path) -> None:
    """HHMM is a valid time (PS3.5 section 6.2): 1015 is a quarter past ten, not 10:01:05."""
    volume = write_pet(
        tmp_path,
        {"SeriesTime": "111500", "AcquisitionTime": "111500"},
        {"RadiopharmaceuticalStartTime": "1015", "RadionuclideHalfLife": "3600"},
    )
    assert suv_factor_of(tmp_path, volume) in (pytest.approx(4e-4), 1.0)


def test_days_between_injection_and_scan_count(tmp_path: Path) -> None:
    """89Zr is scanned days later; the date of the injection is stated, and one half-life is 78.4 hours."""
    volume = write_pet(
        tmp_path,
        {"SeriesDate": "20240104", "AcquisitionDate": "20240104"},
        {"RadionuclideHalfLife": "282240", "RadiopharmaceuticalStartDateTime": "20240101100000"},
    )
    elapsed_s = 3 * 86400 + 3600
    expected = 2e-4 * 2 ** (elapsed_s / 282240)
    assert suv_factor_of(tmp_path, volume) in (pytest.approx(expected, rel=1e-5), 1.0)


def test_an_injection_after_the_scan_is_no_injection_the_day_before(tmp_path: Path) -> None:
    """A clock that is a minute ahead would make 23 h 59 min of decay, and values thousands of times too large."""
    volume = write_pet(tmp_path, {}, {"RadiopharmaceuticalStartTime": "110100"})
    assert suv_factor_of(tmp_path, volume) == 1.0


def test_one_series_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_pet(tmp_path, {"PatientWeight": None})
    with caplog.at_level(logging.WARNING, logger="volseg"):
        read_folder(tmp_path)
    assert len(caplog.records) == 1


# Stored values


def write_stored(folder: Path, stored: np.ndarray, *, signed: bool, bits: int, allocated: int) -> None:
    """One slice of stored values, whatever is in the unused bits."""
    path = write_series(make_volume(shape=(*stored.shape[::-1], 1)), folder)[0]

    def change(dataset: Dataset) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
        dataset.PixelRepresentation = int(signed)
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
        dataset["PixelData"].VR = "OW"

    edit(path, change)


@pytest.mark.parametrize(
    ("dtype", "signed"), [("u1", False), ("i1", True), ("<u2", False), ("<i2", True), ("<u4", False), ("<i4", True)]
)
def test_any_width_and_sign(dtype: str, signed: bool, tmp_path: Path) -> None:
    info = np.iinfo(dtype)
    stored = np.array([[info.min, 0, 1], [info.max, 5, 7]], dtype)
    write_stored(tmp_path, stored, signed=signed, bits=info.bits, allocated=info.bits)
    np.testing.assert_array_equal(read_folder(tmp_path).array[0, :, :, 0].T, stored.astype(np.float32))


def test_twelve_bits_with_a_sign_of_their_own(tmp_path: Path) -> None:
    """0xFFF is -1 in 12 signed bits, though the upper four are zero."""
    stored = np.array([[0x000, 0x001, 0x7FF], [0x800, 0xFFF, 0xFFE]], "<u2")
    write_stored(tmp_path, stored, signed=True, bits=12, allocated=16)
    np.testing.assert_array_equal(
        read_folder(tmp_path).array[0, :, :, 0].T, np.float32([[0, 1, 2047], [-2048, -1, -2]])
    )


def test_overlays_in_the_unused_bits_are_no_values(tmp_path: Path) -> None:
    stored = np.array([[0x8000 | 100, 200, 0x1000 | 300], [4095, 0xF000, 0]], "<u2")
    write_stored(tmp_path, stored, signed=False, bits=12, allocated=16)
    np.testing.assert_array_equal(
        read_folder(tmp_path).array[0, :, :, 0].T, np.float32([[100, 200, 300], [4095, 0, 0]])
    )


@pytest.mark.parametrize("change", [-24, -2, 8, 24])
def test_pixels_that_are_no_whole_matrix_are_refused(change: int, tmp_path: Path) -> None:
    """A row of four pixels has 8 bytes; a slice of 4 x 3 has 24."""
    path = write_series(make_volume(shape=SHAPE), tmp_path)[1]

    def resize(dataset: Dataset) -> None:
        dataset.PixelData = dataset.PixelData[:change] if change < 0 else dataset.PixelData + bytes(change)

    edit(path, resize)
    with pytest.raises(DataError, match=r"0002\.dcm"):
        read_folder(tmp_path)


@pytest.mark.parametrize("change", [1, 2])
def test_padding_behind_the_pixels_does_no_harm(change: int, tmp_path: Path) -> None:
    volume = make_volume(shape=(3, 3, 1))
    path = write_series(volume, tmp_path)[0]
    edit(path, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData + bytes(change)))
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)


# Transfer syntaxes

NATIVE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]
COMPRESSED = [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless]


def recode(path: Path, syntax: uid.UID) -> None:
    dataset = pydicom.dcmread(path)
    if syntax in NATIVE:
        if not syntax.is_little_endian:
            width = dataset.BitsAllocated // 8
            dataset.PixelData = np.frombuffer(dataset.PixelData, f"<u{width}").astype(f">u{width}").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        fresh = Dataset()
        fresh.update(dataset)
        fresh.file_meta = dataset.file_meta
        fresh.save_as(path, enforce_file_format=True)
    else:
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)


@pytest.mark.parametrize("syntax", [*NATIVE, *COMPRESSED], ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("offset", [0, 1024], ids=["signed", "unsigned"])
def test_every_syntax_gives_the_same_values(syntax: uid.UID, offset: int, tmp_path: Path) -> None:
    volume = make_volume(shape=(64, 48, 3))
    volume = Volume(volume.array + np.float32(offset), volume.geometry)
    for path in write_series(volume, tmp_path):
        if offset:
            edit(path, PixelRepresentation=0)
        recode(path, syntax)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    read = read_folder(tmp_path)
    np.testing.assert_array_equal(read.array, volume.array)
    assert read.geometry.matches(volume.geometry)


def test_a_series_of_mixed_syntaxes(tmp_path: Path) -> None:
    volume = make_volume(shape=(64, 48, 7))
    for path, syntax in zip(write_series(volume, tmp_path), [*NATIVE, *COMPRESSED], strict=True):
        recode(path, syntax)
    np.testing.assert_array_equal(read_folder(tmp_path).array, volume.array)


@pytest.mark.parametrize(
    "syntax",
    [
        uid.UID("1.2.840.10008.1.2.4.201"),  # HTJ2K
        uid.MPEG2MPML,
        uid.UID("1.2.840.10008.1.2.4.94"),
        uid.UID("1.3.46.670589.33.1.4.1"),  # private
    ],
    ids=lambda syntax: syntax.name,
)
def test_what_no_decoder_knows_is_refused_by_name(syntax: uid.UID, tmp_path: Path) -> None:
    """The bytes are RLE: whatever is stated, they must not be taken for values."""
    for path in write_series(make_volume(shape=(20, 18, 2)), tmp_path):
        recode(path, uid.RLELossless)
        with quiet_dicom():
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = syntax
            dataset.save_as(path)
    with pytest.raises(DataError, match=r"000[12]\.dcm"):
        read_folder(tmp_path)


def test_a_compressed_image_that_is_lost_is_refused(tmp_path: Path) -> None:
    path = write_series(make_volume(shape=(20, 18, 1)), tmp_path)[0]
    recode(path, uid.RLELossless)
    edit(path, lambda dataset: setattr(dataset, "PixelData", pydicom.encaps.encapsulate([b"\0\0"])))
    with pytest.raises(DataError, match=r"0001\.dcm"):
        read_folder(tmp_path)


@pytest.mark.real_data
def test_stored_values_of_real_files_are_those_of_pydicom(real_data: Path) -> None:
    """Plain files are read without pydicom, whatever is in their unused bits."""
    compared = 0
    for path in sorted(path for path in (real_data / "dicom").rglob("*") if path.is_file() and is_dicom(path)):
        with quiet_dicom():
            try:
                images = read_images(path)
            except DataError:
                continue
            dataset = pydicom.dcmread(path, force=True)
            if dataset.file_meta.TransferSyntaxUID not in NATIVE:
                continue
            expected = dataset.pixel_array
            np.testing.assert_array_equal(images.stored.squeeze(), expected.squeeze(), err_msg=str(path))
            compared += 1
    assert compared > 20
