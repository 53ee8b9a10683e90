"""File signatures: detect DICOM by the head of a file, without pydicom, since most files are not DICOM."""

from __future__ import annotations

import struct
from pathlib import Path

from volseg.errors import DataError
from volseg.io.archives import read_head

#: Bytes of a file to read for its header.
HEAD_BYTES = 6_144

_SUFFIXES = (".dcm", ".dicom", ".ima")
_BYTES_OF_TWO_ELEMENTS = 512
_GROUPS_OF_A_FIRST_ELEMENT = (0x0002, 0x0008)
_GROUPS_OF_A_SECOND_ELEMENT = (0x0002, 0x0008, 0x0010, 0x0018, 0x0020)


def is_dicom(path: Path) -> bool:
    """Return whether a file is DICOM, by its content; also if gzipped or in a .zip.

    Returns:
        True also for a file that may not be opened: `scan_dicom` sets it aside with the reason, so it does not vanish.
    """
    if path.is_dir():
        return False
    try:
        return looks_like_dicom(read_head(path, _BYTES_OF_TWO_ELEMENTS))
    except FileNotFoundError:
        return False
    except (OSError, DataError):
        return True


def looks_like_dicom(head: bytes) -> bool:
    """Return whether a file with these first bytes is DICOM.

    That is the prefix "DICM" after 128 bytes (PS3.10 section 7.1), or, for files stored without preamble and file meta
    information, a plausible start of a little-endian data set.
    """
    return head[128:132] == b"DICM" or _starts_a_dataset(head)


def was_dicom(path: Path, head: bytes) -> bool:
    """Return whether a file that does not look like DICOM has a DICOM name, or begins with the zeros of a preamble."""
    return path.suffix.lower() in _SUFFIXES or (bool(head) and not head.strip(b"\0"))


def stands_in_for(path: Path) -> DataError | None:
    """Detect placeholders of images that were never fetched or stored: an empty file, a pointer, a web page.

    Returns:
        An error for the user; None if the file is none of these.
    """
    try:
        head = read_head(path, _BYTES_OF_TWO_ELEMENTS)
    except (OSError, DataError):
        return None
    if not head:
        return DataError(f"{path} is empty", hint="copy it again; was the download complete?")
    if head.startswith(b"version https://git-lfs"):
        return DataError(f"{path} is a Git LFS pointer, not the image", hint="`git lfs pull` fetches the image")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return DataError(f"{path} is a web page, not the image", hint="download it again, perhaps after logging in")
    return None


def concerns_dicom(path: Path) -> bool:
    """Return whether `scan_dicom` reports anything about a file besides that it is not DICOM."""
    try:
        head = read_head(path, HEAD_BYTES)
    except (OSError, DataError):
        return True
    return looks_like_dicom(head) or was_dicom(path, head)


def _starts_a_dataset(head: bytes) -> bool:
    """Return whether two elements follow each other as in a data set that starts without file meta information."""
    if len(head) < 16:
        return False
    group, element, length = struct.unpack_from("<HHL", head)
    tag = group << 16 | element
    if group not in _GROUPS_OF_A_FIRST_ELEMENT:
        return False
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    if not dictionary_has_tag(tag):
        return False
    if head[4:6] == dictionary_VR(tag).encode():
        length = struct.unpack_from("<H", head, 6)[0]
    if length % 2 or 8 + length + 4 > len(head):
        return False
    next_group, next_element = struct.unpack_from("<HH", head, 8 + length)
    return next_group in _GROUPS_OF_A_SECOND_ELEMENT and (group, element) < (next_group, next_element)
