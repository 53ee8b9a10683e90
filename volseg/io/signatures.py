"""What the head of a file tells: whether it is DICOM, or was. pydicom is not needed to see that most files are not."""

from __future__ import annotations

import struct
from pathlib import Path

from volseg.errors import DataError
from volseg.io.archives import read_head

#: How much of a file is read to look at its header.
HEAD_BYTES = 6_144

_SUFFIXES = (".dcm", ".dicom", ".ima")
_BYTES_OF_TWO_ELEMENTS = 512
_GROUPS_OF_A_FIRST_ELEMENT = (0x0002, 0x0008)
_GROUPS_OF_A_SECOND_ELEMENT = (0x0002, 0x0008, 0x0010, 0x0018, 0x0020)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its content; packed by gzip or in a .zip, too.

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
    """Whether a file with these first bytes is DICOM.

    That is the prefix "DICM" after 128 bytes (PS3.10 section 7.1), or, for files that were stored without preamble and
    file meta information, a plausible start of a little-endian data set.
    """
    return head[128:132] == b"DICM" or _starts_a_dataset(head)


def was_dicom(path: Path, head: bytes) -> bool:
    """Whether a file that does not look like DICOM is called so, or begins with the zeros of a preamble."""
    return path.suffix.lower() in _SUFFIXES or (bool(head) and not head.strip(b"\0"))


def stands_in_for(path: Path) -> DataError | None:
    """What lies in the place of an image that was never fetched or stored: nothing, a pointer, a web page.

    Returns:
        What to tell the user; None when the file is none of these.
    """
    try:
        head = read_head(path, _BYTES_OF_TWO_ELEMENTS)
    except (OSError, DataError):
        return None
    if not head:
        return DataError(f"{path} is empty", hint="copy it again; was it fetched to its end?")
    if head.startswith(b"version https://git-lfs"):
        return DataError(f"{path} is a pointer of Git LFS, not the image", hint="`git lfs pull` fetches the image")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return DataError(f"{path} is a web page, not the image", hint="download it again, perhaps after logging in")
    return None


def concerns_dicom(path: Path) -> bool:
    """Whether `scan_dicom` has anything to say of a file but that it is none of its own."""
    try:
        head = read_head(path, HEAD_BYTES)
    except (OSError, DataError):
        return True
    return looks_like_dicom(head) or was_dicom(path, head)


def _starts_a_dataset(head: bytes) -> bool:
    """Whether two elements follow each other as in a data set that starts without file meta information."""
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
