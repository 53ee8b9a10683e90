"""A DICOM header that knows its file, so that errors name the file and the element."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from volseg.errors import DataError, GeometryError
from volseg.io.readable import COPY_AGAIN

#: Hint for a header that lacks a required value, or has an invalid one.
EXPORT_AGAIN = "export it again from where it was made: an anonymiser or a converter may have changed its header"

#: Exceptions of pydicom and its decoders for bytes that break the standard.
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

#: A decimal string (PS3.5 section 6.2), and the padding allowed around it.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_PADDING = " \0\t\r\n"
#: One comma as the decimal point; with three digits after it, it might separate thousands.
_DECIMAL_COMMA = re.compile(r"[+-]?(0,\d+|\d+,(\d{1,2}|\d{4,}))")


@dataclass(frozen=True, eq=False, slots=True)
class Header:
    """A data set, or an item of one of its sequences.

    Attributes:
        dataset: The pydicom data set.
        path: Its file, for errors.
    """

    dataset: Dataset
    path: Path

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.dataset

    def value(self, keyword: str) -> Any:
        """Return the value of an element, None if it is absent or empty.

        Raises:
            DataError: If its bytes are not a valid value of its type.
        """
        try:
            value = self.dataset.get(keyword)
        except BROKEN as error:
            raise DataError(f"{keyword} of {self.path} cannot be read: {one_line(error)}", hint=COPY_AGAIN) from error
        return None if value is None or (isinstance(value, str | bytes | MultiValue) and not value) else value

    def words(self, keyword: str) -> tuple[str, ...]:
        """Return the texts of an element, none if it is absent."""
        value = self.value(keyword)
        return () if value is None else tuple(str(word).strip() for word in _parts(value))

    def text(self, keyword: str) -> str:
        """Return the text of a single-valued element, empty if it is absent."""
        return "".join(self.words(keyword))

    def count(self, keyword: str) -> int | None:
        """Return a non-negative integer, None if the element is absent or empty.

        Raises:
            DataError: If it is something else.
        """
        value = self.value(keyword)
        if value is None:
            return None
        if not isinstance(value, int) or value < 0:
            raise DataError(
                f"{keyword} of {self.path} must be a whole number, it is {_shown(value)}", hint=EXPORT_AGAIN
            )
        return int(value)

    def numbers(self, keyword: str, size: int) -> tuple[float, ...]:
        """Return the `size` finite numbers of an element that states where the image lies.

        Raises:
            GeometryError: If it is absent, empty, or not that many numbers.
        """
        try:
            numbers = tuple(self._numbers(keyword))
        except (DataError, *BROKEN) as error:
            raise GeometryError(f"{keyword} of {self.path} does not consist of numbers", hint=EXPORT_AGAIN) from error
        if not numbers:
            raise GeometryError(f"{self.path} does not state {keyword}", hint=EXPORT_AGAIN)
        if len(numbers) != size or not all(math.isfinite(number) for number in numbers):
            shown = "\\".join(f"{number:g}" for number in numbers)
            raise GeometryError(
                f"{keyword} of {self.path} must be {size} finite numbers, it is {shown}", hint=EXPORT_AGAIN
            )
        return numbers

    def items(self, keyword: str) -> tuple[Header, ...]:
        """Return the items of a sequence, none if it is absent or empty.

        Raises:
            DataError: If it is not a sequence.
        """
        value = self.value(keyword)
        if value is None:
            return ()
        if not isinstance(value, pydicom.Sequence | list) or not all(isinstance(item, Dataset) for item in value):
            raise DataError(f"{keyword} of {self.path} is not a sequence", hint=COPY_AGAIN)
        return tuple(Header(item, self.path) for item in value)

    def first_item(self, keyword: str) -> Header:
        """Return the first item of a sequence; an empty one if it is absent or empty.

        Raises:
            DataError: If it is not a sequence.
        """
        return next(iter(self.items(keyword)), Header(Dataset(), self.path))

    def functional_group(self, keyword: str, shared: Header) -> Header | None:
        """Return a functional group of the frame that this item describes (PS3.3 section C.7.6.16).

        Args:
            keyword: The sequence that holds it.
            shared: The groups shared by all frames, used if the frame has none of its own.

        Returns:
            None if there is none.

        Raises:
            DataError: If it is not a sequence.
        """
        items = self.items(keyword) or shared.items(keyword)
        return items[0] if items else None

    def _numbers(self, keyword: str) -> list[float]:
        if keyword not in self.dataset:
            return []
        element = self.dataset.get_item(keyword)
        if isinstance(element, RawDataElement) and dictionary_VR(element.tag) in {"DS", "IS"}:
            return parse_numbers(element.value or b"")
        value = self.value(keyword)
        return [] if value is None else [float(part) for part in _parts(value)]


def parse_numbers(raw: bytes) -> list[float]:
    """Parse a stored decimal or integer string, also where it breaks the standard without being ambiguous.

    Accepted are blanks and zero bytes around a number, more than 16 characters, and a comma as the decimal point (but
    not "1,250", which might be thousands).

    Raises:
        ValueError: If a part is not a number.
    """
    text = raw.decode("ascii").strip(_PADDING)
    return [_parse_number(part.strip(_PADDING)) for part in text.split("\\")] if text else []


def one_line(error: BaseException) -> str:
    """Return the message of a pydicom error without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def _parse_number(text: str) -> float:
    if _DECIMAL_COMMA.fullmatch(text):
        text = text.replace(",", ".")
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def _parts(value: Any) -> Sequence[Any]:
    return value if isinstance(value, MultiValue) else [value]


def _shown(value: Any) -> str:
    return "\\".join(str(part) for part in _parts(value))
