"""What received DICOM objects state."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.datadict import keyword_dict, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from volseg.errors import ConfigError, DataError
from volseg.io.dicom.header import BROKEN, one_line
from volseg.io.dicom.quiet import quiet_dicom
from volseg.serving.store.cases import Description, Place

#: Pixels that are results, and doses: nothing that a model segments.
_NO_IMAGES = frozenset({"SEG", "RTDOSE"})
_DESCRIPTION = ("PatientName", "PatientID", "StudyDescription", "StudyDate", "SeriesDescription")
#: Largest object that was deflated; a thousandth of it may arrive.
_LARGEST_INFLATED, _CHUNK = 2**30, 2**20
#: What every object is asked for: ASCII, whatever the character set of the rest.
_PLACE = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "Rows")
_PLACE_TAGS = [tag for keyword in _PLACE if (tag := tag_for_keyword(keyword)) is not None]
_PLACE_ENDS = max(_PLACE_TAGS)


def read_place(file: BinaryIO | Path) -> Place:
    """Read where an object belongs; a file of hundreds per second, so that nothing else is decoded.

    Args:
        file: A whole DICOM file (PS3.10).

    Raises:
        DataError: If it cannot be read, or does not state its study, series and instance.
    """
    return _place(_header(file, "the object", _PLACE))


def place_of(dataset: bytes | bytearray, syntax: UID) -> Place:
    """Read where an object belongs that arrives without a file around it; up to what is asked for, and no further.

    Args:
        dataset: Its data set.
        syntax: The transfer syntax that it is encoded in.

    Raises:
        DataError: If it cannot be read, or does not state its study, series and instance.
    """
    file = BytesIO(dataset)
    try:
        with quiet_dicom():
            if syntax == DeflatedExplicitVRLittleEndian:
                file = BytesIO(b"".join(_inflate(file, "the object")))
            found = read_dataset(
                file,
                is_implicit_VR=syntax == ImplicitVRLittleEndian,
                is_little_endian=syntax != ExplicitVRBigEndian,
                stop_when=lambda tag, *_: int(tag) > _PLACE_ENDS,
                specific_tags=_PLACE_TAGS,
            )
    except BROKEN as error:
        raise DataError(f"the object cannot be read: {one_line(error)}", hint="send it again") from error
    return _place(found)


def _place(dataset: Dataset) -> Place:
    sop_uid, study_uid, series_uid, modality = (_ascii(dataset, name) for name in _PLACE[:-1])
    if not (sop_uid and study_uid and series_uid):
        raise DataError("it does not state its study, series and instance", hint="export it again")
    is_image = "Rows" in dataset and modality not in _NO_IMAGES
    return Place(sop_uid, study_uid, series_uid, modality, is_image)


def read_description(file: BinaryIO | Path) -> Description:
    """Read whose study an object belongs to, and what it is called.

    Raises:
        DataError: If it cannot be read.
    """
    dataset = _header(file, "the object", _DESCRIPTION)
    return Description(
        patient=_text(dataset, "PatientName").replace("^", " ").strip(),
        patient_id=_text(dataset, "PatientID"),
        study=_text(dataset, "StudyDescription"),
        date=_text(dataset, "StudyDate"),
        series=_text(dataset, "SeriesDescription"),
    )


def read_sender(file: Path) -> str:
    """Return the AE title of who sent an object, as its file states it.

    Raises:
        DataError: If it cannot be read.
    """
    return str(_header(file, file.name, ()).file_meta.get("SourceApplicationEntityTitle", ""))


def read_tags(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """Read elements of a file by their keywords; those of several values are joined by backslashes, as DICOM does.

    Raises:
        DataError: If it cannot be read.
    """
    dataset = _header(path, path.name, keywords)
    return {keyword: _text(dataset, keyword) for keyword in keywords}


def check_keywords(keywords: Iterable[str]) -> None:
    """Check the names of DICOM elements.

    Raises:
        ConfigError: If there is none of that name.
    """
    for keyword in keywords:
        if tag_for_keyword(keyword) is None:
            alike = get_close_matches(keyword, keyword_dict, 1)
            hint = f"did you mean {alike[0]}?" if alike else "such as StudyDescription"
            raise ConfigError(f"DICOM has no element {keyword!r}", hint=hint)


def is_dicom(path: Path) -> bool:
    """Return whether something is a DICOM file (PS3.10 section 7.1)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return begins_like_dicom(file)


def begins_like_dicom(file: BinaryIO) -> bool:
    """Return whether an open file is a DICOM file, and go back to its beginning."""
    file.seek(0)
    head = file.read(132)
    file.seek(0)
    return head[128:] == b"DICM"


def _header(file: BinaryIO | Path, name: str, keywords: Sequence[str]) -> Dataset:
    try:
        with quiet_dicom():
            _check_deflated(file, name)
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*keywords, "SpecificCharacterSet"])
    except BROKEN as error:
        raise DataError(f"{name} cannot be read: {one_line(error)}", hint="send it again") from error


def _check_deflated(file: BinaryIO | Path, name: str) -> None:
    """Check that an object does not unpack to more than the memory holds.

    Raises:
        DataError: If it does.
    """
    if isinstance(file, Path):
        return  # it was checked before it was kept
    file.seek(0)
    read_preamble(file, force=False)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=lambda tag, *_: tag >> 16 != 2)
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        for _ in _inflate(file, name):
            pass
    file.seek(0)


def _inflate(file: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield the pieces of a data set that was deflated (PS3.5 section A.5).

    Raises:
        DataError: If it is larger than the memory holds.
    """
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while not inflater.eof and (deflated := inflater.unconsumed_tail or file.read(_CHUNK)):
        piece = inflater.decompress(deflated, _CHUNK)
        size += len(piece)
        if size > _LARGEST_INFLATED:
            raise DataError(f"{name} unpacks to more than 1 GB", hint="send it without deflation")
        yield piece


def _ascii(dataset: Dataset, keyword: str) -> str:
    tag = tag_for_keyword(keyword)
    element = dataset.get_item(tag) if tag is not None else None
    value = b"" if element is None else element.value
    return value.decode("ascii", "replace").strip(" \0") if isinstance(value, bytes) else str(value or "")


def _text(dataset: Dataset, keyword: str) -> str:
    try:
        with quiet_dicom():
            value = dataset.get(keyword)
    except BROKEN:  # of a value that breaks the standard
        return ""
    return "\\".join(map(str, value)) if isinstance(value, MultiValue) else str(value or "").strip()
