"""What volseg writes for hospitals, before judges that are not ours: a validator, and an archive that gives it back."""

from __future__ import annotations

import gzip
import io
import logging
import subprocess
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from orthanc import Orthanc, running, tool
from pydicom import uid
from pydicom.dataset import Dataset

from volseg.cases.inputs import find_inputs
from volseg.exporting import FORMATS, OF_PICTURES, Encoding, Format, output_path, write
from volseg.exporting.description import Description, ModelIdentity
from volseg.image.geometry import Geometry
from volseg.image.terminology import lookup
from volseg.image.volume import Label, Mask, Volume
from volseg.io import SeriesSource, discover
from volseg.io.dicom import read_instances, write_series
from volseg.io.dicom.rtstruct import read_rtstruct

SHAPE = (13, 11, 5)
DESCRIPTION = Description("Größen: {labels}", ModelIdentity("Bauch + Becken", ("0123456789abcdef", "fedcba9876543210")))
#: The objects that are written of every mask.
KINDS: dict[str, tuple[Format, Encoding]] = {
    "seg": ("dicom-seg", "binary"),
    "labelmap": ("dicom-seg", "labelmap"),
    "rtstruct": ("rtstruct", "binary"),
    "sr": ("dicom-sr", "binary"),
    "sr of labelmap": ("dicom-sr", "labelmap"),
}
MODALITIES = {"seg": "SEG", "labelmap": "SEG", "rtstruct": "RTSTRUCT", "sr": "SR", "sr of labelmap": "SR"}
PATIENT = {
    "PatientName": "Müller^Änne",
    "PatientID": "PID-4711",
    "PatientBirthDate": "19500228",
    "PatientSex": "F",
    "StudyDate": "20200102",
    "StudyTime": "123456.5",
    "AccessionNumber": "ACC-0815",
    "StudyID": "STUDY-42",
    "ReferringPhysicianName": "Größe^Otto",
}
#: Two alphabets and the one for sounds, as hospitals in Japan write names.
JAPANESE = PATIENT | {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう", "ReferringPhysicianName": "Suzuki"}
#: All that an object says of the patient.
PATIENT_GROUP = {"PatientName", "PatientID", "PatientBirthDate", "PatientSex"}
#: What only objects of the patient's own study may state.
IDENTIFYING = ("Müller", "Änne", "Größe", "PID-4711", "19500228", "20200102", "123456.5", "ACC-0815", "STUDY-42")
CANARY = "KANARIENVOGEL"
ORGANS = (
    "liver", "spleen", "pancreas", "gallbladder", "stomach", "left kidney", "kidney_right", "Lunge links", "aorta",
    "heart", "liver tumour", "kidney_cyst_left", "rib_left_3", "brain", "prostate", "urinary bladder", "trachea",
    "oesophagus", "left femur", "right adrenal gland",
)  # fmt: skip
LABELS = (
    Label(1, "liver", structure=lookup("liver")),
    Label(2, "left kidney", structure=lookup("left kidney")),
    Label(5, "mine"),
)
MANY_LABELS = (
    *(Label(value, name, structure=lookup(name)) for value, name in enumerate(ORGANS, start=1)),
    *(Label(value, f"größerer Herd {value}") for value in range(21, 31)),
)


@dataclass(frozen=True)
class Exported:
    """A series, a mask of it, and the objects made from both by kind."""

    source: SeriesSource
    mask: Mask
    objects: Mapping[str, Path]

    @property
    def image(self) -> Dataset:
        """The first image of the series."""
        return pydicom.dcmread(self.source.files[0], stop_before_pixels=True)


# Series and masks


def make_series(folder: Path, modality: str = "CT", slices: int = SHAPE[2]) -> SeriesSource:
    shape = (*SHAPE[:2], slices)
    array = np.random.default_rng(0).integers(-1000, 1000, (1, *shape)).astype(np.float32)
    geometry = Geometry.from_lps(shape, (-120.5, 33.25, -812.125), np.eye(3), (0.7, 0.9, 2.5))
    write_series(Volume(array, geometry), folder, modality=modality)
    return series_in(folder)


def series_in(folder: Path) -> SeriesSource:
    """The largest series: a folder may hold localizers too."""
    found = [source for source in discover(folder).sources if isinstance(source, SeriesSource)]
    return max(found, key=lambda source: len(source.files))


def edited(source: SeriesSource, change: Callable[[Dataset], Any]) -> SeriesSource:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in source.files:
            dataset = pydicom.dcmread(path)
            change(dataset)
            dataset.save_as(path)
    return series_in(source.folder)


def identified(source: SeriesSource, charset: str | list[str], elements: Mapping[str, str]) -> SeriesSource:
    return edited(source, lambda dataset: stated(dataset, {"SpecificCharacterSet": charset} | elements))


def stated(dataset: Dataset, elements: Mapping[str, Any]) -> Dataset:
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def bare_mr(folder: Path) -> SeriesSource:
    """Of patient and study it says nothing but the UIDs."""
    unsaid = [*PATIENT, "SpecificCharacterSet", "SeriesNumber", "PositionReferenceIndicator", "Manufacturer"]
    unsaid += ["PatientPosition", "SeriesDescription", "SliceThickness", "SpacingBetweenSlices"]
    return edited(make_series(folder, "MR"), lambda dataset: [delattr(dataset, keyword) for keyword in unsaid])


def enhanced_mr(folder: Path) -> SeriesSource:
    """The slices of a series as frames of one file, in another order."""
    source = identified(make_series(folder, "MR"), "ISO_IR 192", PATIENT)
    images = [pydicom.dcmread(source.files[k]) for k in (3, 0, 1, 4, 2)]
    dataset = images[0]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.EnhancedMRImageStorage
    dataset.NumberOfFrames = len(images)
    orientation = stated(Dataset(), {"ImageOrientationPatient": dataset.ImageOrientationPatient})
    measures = stated(Dataset(), {"PixelSpacing": dataset.PixelSpacing, "SliceThickness": dataset.SliceThickness})
    shared = {"PlaneOrientationSequence": [orientation], "PixelMeasuresSequence": [measures]}
    dataset.SharedFunctionalGroupsSequence = [stated(Dataset(), shared)]
    positions = [stated(Dataset(), {"ImagePositionPatient": image.ImagePositionPatient}) for image in images]
    groups = [stated(Dataset(), {"PlanePositionSequence": [position]}) for position in positions]
    dataset.PixelData = b"".join(image.PixelData for image in images)
    for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness"):
        delattr(dataset, keyword)
    dataset.PerFrameFunctionalGroupsSequence = groups
    for path in source.files:
        path.unlink()
    dataset.save_as(folder / "enhanced.dcm")
    return series_in(folder)


SERIES: dict[str, Callable[[Path], SeriesSource]] = {
    "latin": lambda folder: identified(make_series(folder), "ISO_IR 100", PATIENT),
    "unicode": lambda folder: identified(make_series(folder), "ISO_IR 192", JAPANESE),
    "japanese": lambda folder: identified(make_series(folder), ["", "ISO 2022 IR 87"], JAPANESE),
    "bare MR": bare_mr,
    "enhanced MR": enhanced_mr,
    "single slice": lambda folder: identified(make_series(folder, slices=1), "ISO_IR 100", PATIENT),
    "empty mask": lambda folder: identified(make_series(folder), "ISO_IR 100", PATIENT),
    "30 labels": lambda folder: identified(make_series(folder, slices=2), "ISO_IR 100", PATIENT),
}


def make_mask(source: SeriesSource, labels: Sequence[Label] = LABELS, *, empty: bool = False) -> Mask:
    """Blocks and single voxels of every label in the first third of the rows; the last label has no voxel."""
    geometry = read_instances(source).geometry
    array = np.zeros(geometry.shape, np.uint8)
    if not empty:
        values = [0, *(label.value for label in labels[:-1])]
        small = np.random.default_rng(1).choice(values, [-(-size // 3) for size in geometry.shape])
        array[:] = small.repeat(3, 0).repeat(3, 1).repeat(3, 2)[tuple(map(slice, geometry.shape))]
        array[geometry.shape[0] // 3 :] = 0
        array[-1, 0, -1] = labels[0].value
    return Mask(array, geometry, tuple(labels))


def exported(source: SeriesSource, mask: Mask, folder: Path) -> Exported:
    folder.mkdir()
    objects = {kind: folder / f"{kind.replace(' ', '_')}.dcm" for kind in KINDS}
    for kind, (form, encoding) in KINDS.items():
        write(mask, source, objects[kind], form, encoding, DESCRIPTION)
    return Exported(source, mask, objects)


@pytest.fixture(scope="module", params=[*SERIES, pytest.param("real CT", marks=pytest.mark.real_data)])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The objects of one series after the other."""
    folder = tmp_path_factory.mktemp("case")
    if request.param == "real CT":
        real_data = request.getfixturevalue("real_data")
        source = series_in(real_data / "dicom" / "dicomdir_study" / "98892001" / "CT5N")
    else:
        source = SERIES[request.param](folder / "series")
    labels = MANY_LABELS if request.param == "30 labels" else LABELS
    return exported(source, make_mask(source, labels, empty=request.param == "empty mask"), folder / "objects")


# A validator


#: The edition of 2022 has no label maps.
NOT_KNOWN = {
    "labelmap": ("Information Object Not found", "SegmentNumber of 0"),
    "sr of labelmap": ("Referenced SOP Class that is not segmentation",),
}


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error(case: Exported, kind: str) -> None:
    errors = [line for line in dciodvfy(case.objects[kind]) if line.startswith(("Error", "Abort"))]
    assert [line for line in errors if not any(words in line for words in NOT_KNOWN.get(kind, ()))] == []


def dciodvfy(path: Path) -> list[str]:
    result = subprocess.run(
        [tool("dciodvfy"), path], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return (result.stdout + result.stderr).splitlines()


def test_dcmqi_reads_label_maps(case: Exported, tmp_path: Path) -> None:
    options = ["--inputDICOM", case.objects["labelmap"], "--outputDirectory", tmp_path, "--outputType", "nrrd"]
    command = [tool("segimage2itkimage"), *options]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = tmp_path.glob("*.nrrd")
    found = sitk.GetArrayFromImage(sitk.ReadImage(path))
    numbers = [int(np.count_nonzero(case.mask.array == label.value)) for label in case.mask.labels]
    assert [int(np.count_nonzero(found == number)) for number in range(1, len(numbers) + 1)] == numbers


# An archive


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(tmp_path_factory.mktemp("orthanc")) as archive:
        yield archive


@pytest.mark.parametrize("way", [Orthanc.store, Orthanc.stow], ids=["C-STORE", "STOW-RS"])
def test_objects_go_to_the_archive_and_back(
    case: Exported, orthanc: Orthanc, way: Callable[[Orthanc, Sequence[Path]], None]
) -> None:
    orthanc.clear()
    way(orthanc, [*case.objects.values()])
    for kind, path in case.objects.items():
        sent = pydicom.dcmread(path)
        assert_found(orthanc, sent, MODALITIES[kind])
        kept = orthanc.file(sent.SOPInstanceUID)
        retrieved = orthanc.retrieve(sent.StudyInstanceUID, sent.SeriesInstanceUID, sent.SOPInstanceUID)
        if way is Orthanc.stow:
            assert kept == retrieved == path.read_bytes()
        else:  # DIMSE has no file meta information: the archive writes its own
            assert_same_object(kept, sent)
            assert_same_object(retrieved, sent)


def assert_found(orthanc: Orthanc, sent: Dataset, modality: str) -> None:
    """Studies, series and instances can be asked for by what an archive knows of them."""
    (study,) = orthanc.find("studies", StudyInstanceUID=sent.StudyInstanceUID)
    assert_same_patient(study, sent)
    asked = {"StudyInstanceUID": sent.StudyInstanceUID, "Modality": modality}
    assert sent.SeriesInstanceUID in [value_in(series, "0020000E") for series in orthanc.find("series", **asked)]
    (instance,) = orthanc.find("instances", SeriesInstanceUID=sent.SeriesInstanceUID)
    assert value_in(instance, "00080018") == sent.SOPInstanceUID
    assert value_in(instance, "00080016") == sent.SOPClassUID


def assert_same_patient(answer: Mapping[str, Any], sent: Dataset) -> None:
    """The archive decodes what the object says as pydicom does, whatever the character set."""
    assert value_in(answer, "00100020") == str(sent.PatientID)
    name = value_in(answer, "00100010")
    parts = (sent.PatientName.alphabetic, sent.PatientName.ideographic, sent.PatientName.phonetic)
    assert tuple((name or {}).get(part, "") for part in ("Alphabetic", "Ideographic", "Phonetic")) == parts


def value_in(answer: Mapping[str, Any], tag: str) -> Any:
    """The only value of an element of DICOM JSON, "" where there is none."""
    (value,) = answer.get(tag, {}).get("Value") or [""]
    return value


def assert_same_object(data: bytes, sent: Dataset) -> None:
    """Element by element, and no pixel coded in another way; DCMTK may state value representations that we left out."""
    fetched = pydicom.dcmread(io.BytesIO(data))
    assert fetched.file_meta.TransferSyntaxUID in {sent.file_meta.TransferSyntaxUID, uid.ExplicitVRLittleEndian}
    assert fetched.file_meta.TransferSyntaxUID.is_compressed == sent.file_meta.TransferSyntaxUID.is_compressed
    assert [element.tag for element in fetched] == [element.tag for element in sent]
    for element in sent:
        assert fetched[element.tag] == element, element.keyword


def test_contours_of_any_length_survive_the_archive(orthanc: Orthanc, tmp_path: Path) -> None:
    """In explicit transfer syntaxes, which DCMTK prefers, long decimal strings have no room: it calls them unknown."""
    shape = (1400, 3, 1)
    geometry = Geometry.from_lps(shape, (-120.123, 33.25, -812.125), np.eye(3), (0.703, 0.703, 2.5))
    write_series(Volume(np.zeros((1, *shape), np.float32), geometry), tmp_path / "series", modality="CT")
    source = series_in(tmp_path / "series")
    array = np.zeros(shape, np.uint8)
    array[::2] = array[:, :1] = 1  # a comb, of 4 points per tooth
    write(Mask(array, geometry, (Label(1, "comb"),)), source, tmp_path / "rt.dcm", "rtstruct")
    sent = pydicom.dcmread(tmp_path / "rt.dcm")
    for way in (Orthanc.store, Orthanc.stow):
        orthanc.clear()
        way(orthanc, [tmp_path / "rt.dcm"])
        (tmp_path / "back.dcm").write_bytes(orthanc.file(sent.SOPInstanceUID))
        assert contours_in(tmp_path / "back.dcm") == contours_in(tmp_path / "rt.dcm")
        (marked,) = read_rtstruct(tmp_path / "back.dcm", geometry)
        np.testing.assert_array_equal(marked.voxels(), array == 1)


def contours_in(path: Path) -> list[bytes]:
    """The texts of the coordinates, as they are stored."""
    (item,) = pydicom.dcmread(path).ROIContourSequence
    return [contour.get_item("ContourData").value for contour in item.ContourSequence]


# Who the patient is, and what else is said of them


def test_patient_and_study_are_those_of_the_images(case: Exported) -> None:
    image = case.image
    for path in case.objects.values():
        dataset = pydicom.dcmread(path)
        assert dataset.StudyInstanceUID == image.StudyInstanceUID
        assert {element.keyword for element in dataset if element.tag.group == 0x0010} == PATIENT_GROUP
        for keyword in PATIENT:  # type 2: stated, be it empty
            assert str(dataset[keyword].value or "") == str(image.get(keyword) or ""), (path.name, keyword)


FAULTS: dict[str, Mapping[str, Any]] = {
    "impossible date of birth": {"PatientBirthDate": "19500229"},
    "date of ACR-NEMA": {"StudyDate": "2020.01.02"},
    "time of ACR-NEMA": {"StudyTime": "12:34:56"},
    "sex unknown": {"PatientSex": "U"},
    "letters of no character set": {"SpecificCharacterSet": ""},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_the_images_are_not_copied(fault: str, tmp_path: Path) -> None:
    """What scanners write and the standard does not allow; the patient is the same one all the same."""
    source = identified(make_series(tmp_path / "series", slices=2), "ISO_IR 100", PATIENT)
    with pydicom.config.disable_value_validation():
        source = edited(source, lambda dataset: overwrite(dataset, FAULTS[fault]))
    case = exported(source, make_mask(source), tmp_path / "objects")
    wrong = {}
    for kind, path in case.objects.items():
        dataset = pydicom.dcmread(path)
        assert (dataset.PatientID, dataset.PatientName) == (PATIENT["PatientID"], PATIENT["PatientName"])
        assert dataset.StudyInstanceUID == case.image.StudyInstanceUID
        wrong[kind] = [line for line in dciodvfy(path) if line.startswith("Error - Value") or "enumerated" in line]
    assert wrong == {kind: [] for kind in case.objects}


def overwrite(dataset: Dataset, elements: Mapping[str, str]) -> None:
    """Change values and leave the bytes of texts as they are."""
    for keyword, value in elements.items():
        dataset[keyword] = pydicom.DataElement(pydicom.tag.Tag(keyword), dataset[keyword].VR, value)


def secretive(dataset: Dataset) -> None:
    """Put something that must not be passed on wherever there is room for it."""
    words = ("OtherPatientIDs", "PatientAddress", "PatientComments", "InstitutionName", "InstitutionAddress")
    words += ("PatientMotherBirthName", "ReviewerName", "ImageComments", "StudyDescription", "SeriesDescription")
    words += ("OperatorsName", "PerformingPhysicianName", "StationName", "DeviceSerialNumber", "ProtocolName")
    words += ("OtherPatientNames", "MilitaryRank", "Occupation", "PatientTelephoneNumbers", "AdmissionID")
    words += ("PhysiciansOfRecord", "NameOfPhysiciansReadingStudy", "RequestingPhysician", "Manufacturer")
    stated(dataset, dict.fromkeys(words, CANARY))
    dataset.private_block(0x0011, CANARY, create=True).add_new(1, "LO", CANARY)
    dataset.private_block(0x0019, "VENDOR", create=True).add_new(1, "OB", CANARY.encode() + b" ")
    item = stated(Dataset(), {"PatientID": CANARY, "RequestedProcedureDescription": CANARY})
    dataset.OtherPatientIDsSequence = dataset.RequestAttributesSequence = [item]


@pytest.mark.parametrize("series", ["latin", "enhanced MR"])
def test_nothing_else_of_the_patient_gets_out(
    series: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    source = edited(SERIES[series](tmp_path / "series"), secretive)
    assert CANARY.encode() in source.files[0].read_bytes()
    caplog.clear()
    (case,) = find_inputs(tmp_path, ("image",)).cases
    with caplog.at_level(logging.DEBUG):
        for form in (form for form in FORMATS if form not in OF_PICTURES):
            write(make_mask(source), source, output_path(tmp_path / "out", case.case_id, form), form)
    written = {path.relative_to(tmp_path / "out"): path.read_bytes() for path in files_in(tmp_path / "out")}
    assert len({path.parts[0] for path in written}) >= len(FORMATS) - len(OF_PICTURES) - 1  # STL and PLY share a folder
    for path, content in written.items():
        data = gzip.decompress(content) if path.suffix == ".gz" else content
        banned = (CANARY,) if path.suffix == ".dcm" else (CANARY, *IDENTIFYING)
        assert [word for word in banned if word.encode() in data or word.encode("latin1") in data] == []
    told = f"{caplog.text} {capfd.readouterr()} {' '.join(map(str, written))}"
    assert [word for word in (CANARY, *IDENTIFYING) if word in told] == []


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("kind", KINDS)
def test_text_in_the_images_is_warned_of(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = make_series(tmp_path / "series")
    form, encoding = KINDS[kind]
    with caplog.at_level(logging.WARNING, logger="volseg"):
        write(make_mask(source), source, tmp_path / "object.dcm", form, encoding)
        assert not caplog.records
        source = edited(source, lambda dataset: setattr(dataset, "BurnedInAnnotation", "YES"))
        write(make_mask(source), source, tmp_path / "object.dcm", form, encoding)
    assert ["BurnedInAnnotation is YES" in record.message for record in caplog.records] == [True]


# The same result


@pytest.mark.parametrize("case", ["latin", "enhanced MR"], indirect=True)
def test_the_same_export_is_the_same_file(case: Exported, tmp_path: Path) -> None:
    again = exported(case.source, case.mask, tmp_path / "again").objects
    dated = bool(pydicom.dcmread(case.source.files[0], stop_before_pixels=True).get("StudyDate"))
    for kind, path in case.objects.items():
        if dated or kind == "rtstruct":
            assert path.read_bytes() == again[kind].read_bytes()
        else:  # it must state a date, and its images have none
            assert pydicom.dcmread(path).SOPInstanceUID == pydicom.dcmread(again[kind]).SOPInstanceUID
