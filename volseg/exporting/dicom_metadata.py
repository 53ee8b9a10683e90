"""Parts that all DICOM objects share: patient and study, origin of the mask, meaning of its labels."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import fastremap
import numpy as np
from highdicom import AlgorithmIdentificationSequence, ContributingEquipment
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage

from volseg.errors import DataError, GeometryError
from volseg.exporting.description import Description, ModelIdentity
from volseg.exporting.formats import Format
from volseg.exporting.uids import derived_uid
from volseg.image.terminology import Code, Structure, private
from volseg.image.volume import Label, Mask
from volseg.io.dicom import Instances
from volseg.io.dicom.dataset import decimal_string
from volseg.io.dicom.header import Header
from volseg.io.dicom.quiet import filter_loggers
from volseg.version import __version__

filter_loggers("highdicom")

#: Equipment module (PS3.3 section C.7.5.2). The serial number is required, although software has none.
MANUFACTURER = "volseg"
_SERIAL_NUMBER = "1"
#: Version of an algorithm that its object does not state.
UNKNOWN_VERSION = "unknown"
#: The attributes of patient and study that PS3.3 sections C.7.1.1 and C.7.2.1 require (type 2), and no others.
_PATIENT_AND_STUDY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "ReferringPhysicianName",
)
_REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID")
_SEXES = {"M", "F", "O"}
#: A date in the format of ACR-NEMA, and a time of day (PS3.5 section 6.2).
_OLD_DATE = re.compile(r"\d{4}\.\d{2}\.\d{2}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")


@dataclass(frozen=True)
class ObjectUids:
    """The identifiers of an object that is alone in its series."""

    series: str
    instance: str


def object_uids(kind: str, mask: Mask, instances: Instances, form: Format, description: Description) -> ObjectUids:
    """Return identifiers that depend on all content: the same mask, images and model give the same object.

    Args:
        kind: Distinguishes objects of different kinds.
        mask: Its voxels and labels.
        instances: The images, which determine the grid.
        form: The format.
        description: The series description and the model; an object that states anything else is a different object
            (PS3.3 section C.12.1.1.1).
    """
    images = (f"{instances.header_of(frame).dataset.get('SOPInstanceUID')}#{frame.index}" for frame in instances.frames)
    voxels = np.ascontiguousarray(mask.array.T, dtype="<u2").tobytes()
    said = (description.series_of(form, mask.labels), str(description.model), description.origin, description.algorithm)
    content = derived_uid(kind, __version__, *said, repr(mask.labels), *images, voxels)
    return ObjectUids(derived_uid(content, "series"), derived_uid(content, "instance"))


def check_grid(mask: Mask, instances: Instances) -> None:
    """Refuse a mask on another grid than its images.

    Raises:
        GeometryError: If the grids differ.
    """
    if not mask.geometry.matches(instances.geometry):
        raise GeometryError(
            mask.geometry.mismatch(instances.geometry, "the mask", f"the series in {instances.folder}"),
            hint="export a mask with the images it was predicted from",
        )


def made_by_volseg(uids: ObjectUids, series_number: int) -> dict[str, Any]:
    """Return highdicom's common keyword arguments for every object: its identifiers and its equipment."""
    return {
        "series_instance_uid": uids.series,
        "series_number": series_number,
        "sop_instance_uid": uids.instance,
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MANUFACTURER,
        "software_versions": __version__,
        "device_serial_number": _SERIAL_NUMBER,
    }


def check_values(mask: Mask) -> None:
    """Refuse a mask with voxels of unknown meaning.

    Raises:
        DataError: If a value has no label, or the labels cannot be numbered.
    """
    named = {0, *(label.value for _, label in numbered(mask.labels))}
    if strange := sorted(set(fastremap.unique(mask.array).tolist()) - named):
        raise DataError(f"the mask has voxels of value {strange[0]}, which has no label", hint="name it in the labels")


def required(header: Header, keyword: str) -> str:
    """Return an element that every DICOM image must have (type 1).

    Raises:
        DataError: If it is absent or empty.
    """
    words = header.words(keyword)
    if not words or not words[0]:
        raise DataError(
            f"{header.path} does not state {keyword}, which DICOM objects made from it must state",
            hint="restore it in the images, or use a format other than DICOM, such as nifti",
        )
    return words[0]


def study_header(instances: Instances) -> Dataset:
    """Return patient, study, series and frame of reference of the images, and nothing else.

    Missing required elements are empty, as the standard allows (type 2); invalid dates are left empty, too.

    Returns:
        A data set with UTF-8 texts.

    Raises:
        DataError: If an image does not state its study or series.
        GeometryError: If the images state several frames of reference.
    """
    source = next(iter(instances.headers.values()))
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _PATIENT_AND_STUDY:
        setattr(header, keyword, _valid(keyword, "\\".join(source.words(keyword))))
    for keyword in _REQUIRED:
        setattr(header, keyword, required(source, keyword))
    header.FrameOfReferenceUID = _space_uid(instances, header.SeriesInstanceUID)
    header.Modality = source.text("Modality")
    return header


def _space_uid(instances: Instances, series_uid: str) -> str:
    """Return the frame of reference of the images; if a converter left it out, one derived from their series.

    Raises:
        GeometryError: If the images state several, so that their positions cannot be compared.
    """
    stated = {header.text("FrameOfReferenceUID") for header in instances.headers.values()}
    if len(stated) > 1:
        raise GeometryError(
            f"the images of series {series_uid} state {len(stated)} frames of reference",
            hint="export the images again, or use a format other than DICOM, such as nifti",
        )
    return stated.pop() or derived_uid("frame of reference", series_uid)


def image_headers(instances: Instances) -> list[Dataset]:
    """Create a header per image for highdicom, as if every frame were a separate CT image.

    highdicom accepts a series of single-frame images, or one multi-frame image, of the classes it knows; a volume may
    also be some frames of a file, or of several files. `reference` refers to the real images.
    """
    study = study_header(instances)
    first = instances.frames[0].plane
    step = instances.geometry.lps_affine[:3, 2]
    study.SOPClassUID = CTImageStorage
    study.Columns, study.Rows = first.shape
    study.ImageOrientationPatient = [decimal_string(cosine) for cosine in first.orientation]
    study.PixelSpacing = [decimal_string(first.spacing_mm[1]), decimal_string(first.spacing_mm[0])]
    study.SliceThickness = study.SpacingBetweenSlices = decimal_string(abs(float(step @ first.normal)))
    headers = []
    for frame in instances.frames:
        header = Dataset()
        header.update(study)
        file_uid = required(instances.header_of(frame), "SOPInstanceUID")
        header.SOPInstanceUID = derived_uid(file_uid, str(frame.index))
        header.ImagePositionPatient = [decimal_string(x) for x in frame.plane.origin_mm]
        headers.append(header)
    return headers


def reference(header: Header) -> Dataset:
    """Return a reference to the object in a file (PS3.3 table 10-11)."""
    item = Dataset()
    item.ReferencedSOPClassUID = required(header, "SOPClassUID")
    item.ReferencedSOPInstanceUID = required(header, "SOPInstanceUID")
    return item


def numbered(labels: tuple[Label, ...]) -> list[tuple[int, Label]]:
    """Number labels 1, 2, 3 ... in the order of their values, as for segments.

    Raises:
        DataError: If there are none, since an object without segments is invalid, or two have the same value.
    """
    if not labels:
        raise DataError("a mask without labels cannot be described in DICOM", hint="name its values with --labels")
    if len({label.value for label in labels}) < len(labels):
        raise DataError("two labels of the mask have the same value", hint="give each label a different value")
    return list(enumerate(sorted(labels, key=lambda label: label.value), start=1))


def structure_of(label: Label) -> Structure:
    """Return the structure of a label, with its own codes or a private one."""
    return label.structure or private(label.name)


def coded(code: Code) -> CodedConcept:
    """Convert a code for highdicom."""
    return CodedConcept(code.value, code.scheme, code.meaning)


#: Kind of algorithm that created a segment (PS3.16 CID 7162).
ALGORITHM_FAMILY = codes.cid7162.ArtificialIntelligence


def algorithm(description: Description) -> AlgorithmIdentificationSequence | None:
    """Identify the algorithm of a segment (PS3.3 table 10-19): the model, volseg if unknown, none if it is manual."""
    model = description.model
    if description.origin == "MANUAL":
        return None
    if description.algorithm:
        return AlgorithmIdentificationSequence(description.algorithm, ALGORITHM_FAMILY, UNKNOWN_VERSION)
    return AlgorithmIdentificationSequence(
        name=model.name if model else MANUFACTURER,
        family=ALGORITHM_FAMILY,
        version=model.version if model else __version__,
        source=MANUFACTURER,
        parameters=algorithm_parameters(model) if model else None,
    )


def algorithm_parameters(model: ModelIdentity) -> dict[str, str]:
    """Return the version of volseg, and the hash of each file of the model."""
    return {"volseg": __version__} | {f"model {number}": name for number, name in enumerate(model.hashes, start=1)}


def contributing_equipment(model: ModelIdentity | None) -> list[ContributingEquipment]:
    """State the model in addition to the software that ran it (PS3.3 section C.12.1)."""
    if model is None:
        return []
    return [
        ContributingEquipment(
            manufacturer=MANUFACTURER,
            purpose_of_reference=codes.DCM.ProcessingEquipment,
            manufacturer_model_name=model.name,
            software_versions=model.version,
            contribution_description="the model that segmented the images",
        )
    ]


def without_own_time(dataset: Dataset, images: Dataset) -> None:
    """Replace the time of an object by that of its images, so that writing it twice gives the same file.

    If the images have no date, the time of writing remains.

    Args:
        dataset: The object from highdicom.
        images: The header from `study_header`.
    """
    for keyword in ("InstanceCreationDate", "InstanceCreationTime"):
        dataset.pop(keyword, None)
    for item in dataset.get("ContributingEquipmentSequence", ()):
        item.pop("ContributionDateTime", None)
    if images.StudyDate:
        dataset.ContentDate, dataset.ContentTime = images.StudyDate, images.StudyTime or "000000"


def _valid(keyword: str, text: str) -> str:
    """Return `text`, or an empty text if it is invalid; dates of ACR-NEMA are converted."""
    match keyword:
        case "PatientSex":
            return text if text in _SEXES else ""
        case "PatientBirthDate" | "StudyDate":
            date = text.replace(".", "") if _OLD_DATE.fullmatch(text) else text
            return date if len(date) == 8 and _is(date, "%Y%m%d") else ""
        case "StudyTime":
            clock, _, _ = text.partition(".")
            return text if _TIME.fullmatch(text) and _is(clock, "%H%M%S"[: len(clock)]) else ""
    return text


def _is(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)  # noqa: DTZ007  only asked whether it is one
    except ValueError:
        return False
    return True
