"""Adapter to pydicom: read files into headers, with errors that name the file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.valuerep import format_number_as_ds

from volseg.errors import DataError
from volseg.io.archives import open_file
from volseg.io.dicom.header import BROKEN, Header, one_line
from volseg.io.dicom.quiet import filter_loggers
from volseg.io.readable import COPY_AGAIN, unreadable

filter_loggers("pydicom")


def read_header(path: Path, tags: Sequence[int] | None = None) -> Header:
    """Read everything before the pixels, or only the elements `tags`.

    Raises:
        DataError: If pydicom cannot parse the file.
    """
    return _read(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))


def read_dataset(path: Path) -> Header:
    """Read everything, including pixels, which are not decoded.

    Raises:
        DataError: If pydicom cannot parse the file.
    """
    return _read(path)


def parse_dataset(content: bytes, path: Path) -> Header:
    """Parse the content of a whole file, including pixels, which are not decoded.

    Args:
        content: All bytes.
        path: The file, for errors.

    Raises:
        DataError: If pydicom cannot parse it.
    """
    try:
        return Header(pydicom.dcmread(io.BytesIO(content), force=True), path)
    except BROKEN as error:
        raise DataError(f"{path} is damaged: {one_line(error)}", hint=COPY_AGAIN) from error


def raw_dataset(elements: Mapping[int, bytes], path: Path) -> Header:
    """Build a pydicom data set of raw little-endian elements, parsed on access.

    Args:
        elements: Tag -> stored value.
        path: Their file.
    """
    raw = {
        Tag(tag): RawDataElement(Tag(tag), dictionary_VR(tag), len(value), value, 0, True, True)
        for tag, value in elements.items()
    }
    return Header(Dataset(raw), path)


def decimal_string(value: float) -> str:
    """Format a decimal string of at most 16 characters (PS3.5 section 6.2), as close to `value` as possible."""
    return str(format_number_as_ds(float(value)))


def _read(path: Path, **options: Any) -> Header:
    try:
        with open_file(path) as file:
            # is_dicom has looked; force is for files that were stored without file meta information.
            return Header(pydicom.dcmread(file, force=True, **options), path)
    except OSError as error:
        raise unreadable(path, error) from error
    except BROKEN as error:
        raise DataError(f"{path} is damaged: {one_line(error)}", hint=COPY_AGAIN) from error
