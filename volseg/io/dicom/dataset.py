"""The edge to pydicom: files and elements in; values, or an error that names the file and the element, out."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.valuerep import format_number_as_ds

from volseg.errors import DataError, GeometryError
from volseg.io.archives import open_file, read_head

#: What pydicom and its decoders raise on bytes that are not what the standard says.
BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    pydicom.errors.BytesLengthException,
    pydicom.errors.InvalidDicomError,
)

_HEAD_BYTES = 512
_GROUPS_OF_A_FIRST_ELEMENT = (0x0002, 0x0008)
_GROUPS_OF_A_SECOND_ELEMENT = (0x0002, 0x0008, 0x0010, 0x0018, 0x0020)
#: A decimal string (PS3.5 section 6.2), and what may stand around it.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_PADDING = " \0\t\r\n"
#: One comma in the place of the point; three digits behind it might as well be thousands.
_DECIMAL_COMMA = re.compile(r"[+-]?(0,\d+|\d+,(\d{1,2}|\d{4,}))")

_quiet_lock = threading.RLock()


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Let pydicom neither warn nor log while it reads: real files bend the standard in many harmless ways.

    What is not harmless is found by our own checks and raised. The settings are global to the process, so one thread
    reads at a time.
    """
    logger = logging.getLogger("pydicom")
    with _quiet_lock, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its content; packed by gzip or in a .zip, too.

    Returns:
        True also for a file that may not be opened: `scan_dicom` sets it aside with the reason, so it does not vanish.
    """
    if path.is_dir():
        return False
    try:
        return looks_like_dicom(read_head(path, _HEAD_BYTES))
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


def read_header(path: Path, tags: Sequence[int] | None = None) -> Dataset:
    """Read everything before the pixels, or of it only `tags`.

    Raises:
        DataError: If pydicom cannot parse the file.
    """
    return _read(path, stop_before_pixels=True, specific_tags=None if tags is None else list(tags))


def read_dataset(path: Path) -> Dataset:
    """Read everything, pixels included but not decoded.

    Raises:
        DataError: If pydicom cannot parse the file.
    """
    return _read(path)


def parse_dataset(content: bytes, path: Path) -> Dataset:
    """Understand the content of a whole file, pixels included but not decoded.

    Args:
        content: All bytes.
        path: The file, to be named in errors.

    Raises:
        DataError: If pydicom cannot parse it.
    """
    try:
        return pydicom.dcmread(io.BytesIO(content), force=True)
    except BROKEN as error:
        raise DataError(f"{path} is damaged: {one_line(error)}") from error


def raw_dataset(elements: Mapping[int, bytes]) -> Dataset:
    """Raw little-endian elements as pydicom holds them before it understands them.

    Args:
        elements: Tag -> value as it is stored.
    """
    return Dataset(
        {
            Tag(tag): RawDataElement(Tag(tag), dictionary_VR(tag), len(value), value, 0, True, True)
            for tag, value in elements.items()
        }
    )


def value_of(dataset: Dataset, keyword: str, path: Path) -> Any:
    """The value of an element, None when it is absent or empty.

    Raises:
        DataError: If its bytes are no value of its type.
    """
    try:
        value = dataset.get(keyword)
    except BROKEN as error:
        raise DataError(f"{keyword} of {path} cannot be read: {one_line(error)}") from error
    return None if value is None or (isinstance(value, str | bytes | MultiValue) and not value) else value


def items_of(dataset: Dataset, keyword: str, path: Path) -> Sequence[Dataset]:
    """The items of a sequence, none when it is absent or empty.

    Raises:
        DataError: If it is no sequence.
    """
    value = value_of(dataset, keyword, path)
    if value is None:
        return ()
    if not isinstance(value, pydicom.Sequence | list) or not all(isinstance(item, Dataset) for item in value):
        raise DataError(f"{keyword} of {path} is no sequence")
    return list(value)


def words_of(dataset: Dataset, keyword: str, path: Path) -> tuple[str, ...]:
    """The texts of an element, none when it is absent."""
    value = value_of(dataset, keyword, path)
    return () if value is None else tuple(str(word).strip() for word in _parts(value))


def count_of(dataset: Dataset, keyword: str, path: Path) -> int | None:
    """A whole number that is not negative, None when the element is absent or empty.

    Raises:
        DataError: If it is something else.
    """
    value = value_of(dataset, keyword, path)
    if value is None:
        return None
    if not isinstance(value, int) or value < 0:
        raise DataError(f"{keyword} of {path} must be a whole number, it is {_shown(value)}")
    return int(value)


def numbers_of(dataset: Dataset, keyword: str, size: int, path: Path) -> tuple[float, ...]:
    """The `size` finite numbers of an element that says where the image lies.

    Raises:
        GeometryError: If it is absent, empty, or not that many numbers.
    """
    try:
        numbers = tuple(_numbers(dataset, keyword, path))
    except (DataError, *BROKEN) as error:
        raise GeometryError(f"{keyword} of {path} is not made of numbers") from error
    if not numbers:
        raise GeometryError(f"{path} does not state {keyword}")
    if len(numbers) != size or not all(math.isfinite(number) for number in numbers):
        shown = "\\".join(f"{number:g}" for number in numbers)
        raise GeometryError(f"{keyword} of {path} must be {size} finite numbers, it is {shown}")
    return numbers


def parse_numbers(raw: bytes) -> list[float]:
    """The numbers of a decimal or integer string as it is stored, where they are clear beyond what the standard allows.

    Blanks and zero bytes around a number, more than 16 characters, and a comma in the place of the decimal point (not
    "1,250", which might be thousands) leave no doubt about a number.

    Raises:
        ValueError: If a part is no number.
    """
    text = raw.decode("ascii").strip(_PADDING)
    return [_parse_number(part.strip(_PADDING)) for part in text.split("\\")] if text else []


def _parse_number(text: str) -> float:
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _numbers(dataset: Dataset, keyword: str, path: Path) -> list[float]:
    if keyword not in dataset:
        return []
    element = dataset.get_item(keyword)
    if isinstance(element, RawDataElement) and dictionary_VR(element.tag) in {"DS", "IS"}:
        return parse_numbers(element.value or b"")
    value = value_of(dataset, keyword, path)
    return [] if value is None else [float(part) for part in _parts(value)]


def decimal_string(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 section 6.2), as close to `value` as they allow."""
    return str(format_number_as_ds(float(value)))


def functional_group(keyword: str, own: Dataset, shared: Dataset, path: Path) -> Dataset | None:
    """A functional group of a frame (PS3.3 section C.7.6.16): its own, or the one all frames share; None without.

    Raises:
        DataError: If it is no sequence.
    """
    items = items_of(own, keyword, path) or items_of(shared, keyword, path)
    return items[0] if items else None


def one_line(error: BaseException) -> str:
    """What an error of pydicom says, without its line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _read(path: Path, **options: Any) -> Dataset:
    try:
        with open_file(path) as file:
            # is_dicom has looked; force is for files that were stored without file meta information.
            return pydicom.dcmread(file, force=True, **options)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except BROKEN as error:
        raise DataError(f"{path} is damaged: {one_line(error)}") from error


def _starts_a_dataset(head: bytes) -> bool:
    """Whether two elements follow each other as in a data set that starts without file meta information."""
    if len(head) < 16:
        return False
    group, element, length = struct.unpack_from("<HHL", head)
    tag = group << 16 | element
    if group not in _GROUPS_OF_A_FIRST_ELEMENT or not dictionary_has_tag(tag):
        return False
    if head[4:6] == dictionary_VR(tag).encode():
        length = struct.unpack_from("<H", head, 6)[0]
    if length % 2 or 8 + length + 4 > len(head):
        return False
    next_group, next_element = struct.unpack_from("<HH", head, 8 + length)
    return next_group in _GROUPS_OF_A_SECOND_ELEMENT and (group, element) < (next_group, next_element)


def _parts(value: Any) -> Sequence[Any]:
    return value if isinstance(value, MultiValue) else [value]


def _shown(value: Any) -> str:
    return "\\".join(str(part) for part in _parts(value))
