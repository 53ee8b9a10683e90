"""Check the header of a NRRD or MetaImage file before ITK reads it.

ITK ignores what it cannot parse: it guesses a position, leaves voxels uninitialised, or crashes the process. It also
opens any file that a header names.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from volseg.errors import DataError, GeometryError
from volseg.io.readable import check_file, special_kind, unreadable

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
#: Hint for a header that leaves the position undefined.
OPEN_POSITION = "export it again from a tool that writes the patient space"

_NRRD_SUFFIXES = (".nrrd", ".nhdr")
#: More bytes than the header of a thousand segments needs.
_LONGEST_HEADER = 16_000_000
#: Characters of a line shown in an error, since a line may be endless if the file is not a header.
_SHOWN = 80
#: NRRD key/value pairs, which are not fields, are separated by ":=".
_NRRD_SEPARATOR, _META_SEPARATOR = re.compile(":(?!=)"), re.compile("[=:]")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"

#: The patient spaces that ITK's NRRD reader turns into LPS; it takes any other as if it were LPS.
_NRRD_SPACES = {"left-posterior-superior", "lps", "right-anterior-superior", "ras", "left-anterior-superior", "las"}
#: What a NRRD header must state for the position not to be a default, and of how many vectors it is made.
_NRRD_VECTORS = (("space directions", 3), ("space origin", 1))
_VECTOR = re.compile(rf"\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)")

#: Names of one field of a MetaImage header; ITK ignores keys in another case. ElementSize is the extent of a voxel,
#: not the way to the next one, and may differ from ElementSpacing.
_SPACING = ("ElementSpacing", "ElementSize")
_MATRIX = ("TransformMatrix", "Orientation", "Rotation")
_POSITION = ("Offset", "Position", "Origin")
_AXES, _SIZES = "NDims", "DimSize"
#: What a MetaImage header must state, each under one of its names.
_META_FIELDS = ((_AXES,), (_SIZES,), _SPACING, _MATRIX, _POSITION)
#: Fields with one number per axis.
_META_VECTORS = (*_SPACING, *_POSITION, _SIZES, "CenterOfRotation")
#: "?" is MetaImage's own word for a unit that is not known.
_MM = ("", "?", "mm")

#: Fields that name the files of the voxels.
_NRRD_FILES = ("data file", "datafile")
_META_FILES = ("ElementDataFile",)
_WITHIN = ("LOCAL", "Local", "local")
#: The following lines are file names, each of a part with all axes except the last, or as many as the number states.
_LIST = re.compile(r"LIST(?:\s+(\d+))?")
#: A name pattern with a number in it, then the first number, the last one and the step.
_PATTERN = re.compile(
    r"(?P<name>[^%\s]*%0?\d?d[^%\s]*)\s+(?P<first>-?\d{1,9})\s+(?P<last>-?\d{1,9})\s+(?P<step>-?\d{1,9})(?P<axes>\s+\d)?"
)
#: What only the header of a file has that names other ones.
_END_OF_NRRD, _NRRD_FILE = re.compile(rb"\n\r?\n"), re.compile(rb"data ?file", re.IGNORECASE)
_META_FILE = re.compile(rb"ElementDataFile[ \t]*[=:]?([^\r\n]{0,4096})")
_BESIDE = "put all its voxel files beside it"
_ONE_FILE = "write it again as a single file"


@dataclass(frozen=True)
class ItkHeader:
    """The text at the head of a NRRD or MetaImage file.

    Attributes:
        path: The file.
        is_nrrd: Whether it is NRRD.
        fields: Name and value of each line, in order; names are in lower case for NRRD, which is case-insensitive.
        listed: The lines after the field that announces a list of file names.
    """

    path: Path
    is_nrrd: bool
    fields: tuple[tuple[str, str], ...]
    listed: tuple[str, ...] = ()

    def value(self, *names: str) -> str | None:
        """Return the last value stated under one of some names; None if there is none."""
        return next((value for name, value in reversed(self.fields) if name in names), None)


def is_nrrd(path: Path) -> bool:
    """Return whether a file is NRRD rather than MetaImage, by its name."""
    return path.suffix.lower() in _NRRD_SUFFIXES


def read_header(path: Path) -> ItkHeader:
    """Read the text at the head of a file; for other formats the result is meaningless.

    Raises:
        DataError: If it cannot be opened.
    """
    nrrd = is_nrrd(path)
    separator, file_fields = (_NRRD_SEPARATOR, _NRRD_FILES) if nrrd else (_META_SEPARATOR, _META_FILES)
    fields: list[tuple[str, str]] = []
    listed = ""
    try:
        with path.open("rb") as file:
            while file.tell() < _LONGEST_HEADER and (raw := file.readline(_LONGEST_HEADER)):
                line = raw.decode("latin-1").strip()
                name, *values = (part.strip() for part in separator.split(line, maxsplit=1))
                name = name.lower() if nrrd else name
                fields += [(name, value) for value in values]
                if name in file_fields and any(map(_LIST.match, values)):
                    listed = file.read(_LONGEST_HEADER).decode("latin-1").rstrip("\r\n")
                # NRRD ends its header with an empty line, MetaImage with the place of the voxels.
                if not line if nrrd else name in file_fields:
                    break
    except OSError as error:
        raise unreadable(path, error) from error
    return ItkHeader(path, nrrd, tuple(fields), tuple(name.rstrip("\r") for name in listed.split("\n") if listed))


def voxel_files(header: ItkHeader) -> Iterator[Path]:
    """Yield the files beside a header that hold its voxels.

    Raises:
        DataError: If it names none, or in a way that ITK does not understand.
    """
    stated = header.value(*(_NRRD_FILES if header.is_nrrd else _META_FILES))
    if stated is None and not header.is_nrrd:
        raise DataError(f"{header.path} does not state where its voxels are: no 'ElementDataFile'", hint=_ONE_FILE)
    if stated is None or (stated in _WITHIN and not header.is_nrrd):
        names: Iterable[str] = ()
    elif stated.startswith("LIST"):
        names = _listed(header, stated)
    else:
        names = _numbered(header, stated) if "%" in stated else [stated]
    return (header.path.parent / os.fsdecode(name.encode("latin-1")) for name in names)


def files_beside(path: Path) -> tuple[Path, ...]:
    """Return the existing files that the header of a NRRD or MetaImage file names; none if it cannot be read."""
    if not path.name.lower().endswith(SUFFIXES) or special_kind(path):
        return ()
    try:
        return tuple(takewhile(Path.is_file, voxel_files(read_header(path))))
    except DataError:  # reading it reports why that is impossible
        return ()


def check_voxel_files(header: ItkHeader) -> None:
    """Check that a header names regular files only; ITK would open anything.

    Raises:
        DataError: If not; says which, and what it is.
    """
    for path in voxel_files(header):
        try:
            check_file(path)
        except DataError as error:
            raise DataError(f"{header.path} cannot be read: {error}", hint=_BESIDE) from error


def check_alone(path: Path) -> None:
    """Check that a file of a stranger holds its own voxels: ITK opens whatever a header names.

    Every byte is searched, since programs disagree on where lines and headers end.

    Raises:
        DataError: If it names another file, or its header does not end.
    """
    if not path.name.lower().endswith(SUFFIXES) or not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if is_nrrd(path):
            end = _END_OF_NRRD.search(content)
            is_alone = end is not None and _NRRD_FILE.search(content, 0, end.start()) is None
        else:
            is_alone = all(found[1].strip().decode("latin-1") in _WITHIN for found in _META_FILE.finditer(content))
    if not is_alone:
        raise DataError(f"{path.name} has its voxels in another file", hint=_ONE_FILE)


def check_position(header: ItkHeader) -> None:
    """Check that a header states where its voxels lie, in a way that ITK understands.

    Raises:
        GeometryError: If not; says which field is missing, invalid, or contradicts another one.
    """
    if header.is_nrrd:
        _check_nrrd(header)
    else:
        _check_meta(header)


def _listed(header: ItkHeader, stated: str) -> Sequence[str]:
    """Return the file names behind a field. Those of NRRD are counted by its library."""
    form = _LIST.fullmatch(stated)
    if form is None or form[1] == "0":
        raise _not_understood(header, stated)
    if not header.is_nrrd:
        _check_count(header, len(header.listed), int(form[1] or 0))
    return header.listed


def _numbered(header: ItkHeader, stated: str) -> Iterator[str]:
    """Yield the file names that a pattern with numbers stands for. Only NRRD counts backwards."""
    form = _PATTERN.fullmatch(stated)
    step = int(form["step"]) if form else 0
    if form is None or step == 0 or (not header.is_nrrd and (step < 0 or form["axes"])):
        raise _not_understood(header, stated)
    numbers = range(int(form["first"]), int(form["last"]) + (1 if step > 0 else -1), step)
    if not header.is_nrrd:
        _check_count(header, len(numbers))
    return (form["name"] % number for number in numbers)


def _check_count(header: ItkHeader, files: int, axes: int = 0) -> None:
    """Check that a MetaImage lists as many files as its voxels fill, each with its first axes."""
    sizes = _finite(header.value(_SIZES) or "")
    needed = math.prod(sizes[axes or len(sizes) - 1 :])
    if not axes < len(sizes) or files != needed:
        raise DataError(
            f"{header.path} names {files} files for its voxels, but its sizes need {needed:g}",
            hint="name a file for each slice, or write it again as a single file",
        )
    if (header.value("CompressedData") or "").lower().startswith(("t", "1")):
        raise DataError(f"{header.path} names several files of packed voxels, which ITK cannot unpack", hint=_ONE_FILE)


def _not_understood(header: ItkHeader, stated: str) -> DataError:
    return DataError(
        f"{header.path} names the files of its voxels as {stated[:_SHOWN]!r}, which is neither a list nor a pattern",
        hint="a pattern is a name with one %d or %03d, the first number, the last one and the step",
    )


def _check_meta(header: ItkHeader) -> None:
    """Check that a MetaImage header states its position, and does not contradict itself."""
    for names in _META_FIELDS:
        given = [(name, value) for name, value in header.fields if name in names]
        if not given:
            raise _open_position(header.path, names[0])
        (first, value), *others = [each for each in given if each[0] != "ElementSize"] or given
        for other, its_value in others:
            if its_value.split() != value.split():
                raise GeometryError(
                    f"{header.path} contradicts itself: {first!r} is {value!r}, but {other!r} is {its_value!r}",
                    hint="find out which is correct, and remove the other line",
                )
    axes = header.value(_AXES) or ""
    if not re.fullmatch(r"[1-9]\d?", axes):
        raise _no_numbers(header.path, _AXES, axes, 1)
    for name, value in header.fields:
        count = _numbers_of(name, int(axes))
        if count and len(_finite(value)) != count:
            raise _no_numbers(header.path, name, value, count)
        if name == "DistanceUnits" and value not in _MM:
            raise _other_unit(header.path, value)


def _numbers_of(name: str, axes: int) -> int:
    """Return how many numbers a field of a MetaImage must have; 0 for a field that does not concern the position."""
    if name in _MATRIX:
        return axes * axes
    return axes if name in _META_VECTORS else 0


def _finite(value: str) -> list[float]:
    """Return the numbers of a value; empty if one of them is invalid for ITK, or not finite."""
    parts = value.split()
    numbers = [float(part) for part in parts if re.fullmatch(_NUMBER, part)]
    return numbers if len(numbers) == len(parts) and all(map(math.isfinite, numbers)) else []


def _check_nrrd(header: ItkHeader) -> None:
    """Check that a NRRD header states its position, in a space and a unit that ITK does not ignore."""
    space = header.value("space") or "not stated"
    if space.lower() not in _NRRD_SPACES:
        raise GeometryError(
            f"{header.path} is not in a patient space: 'space' is {space!r}",
            hint="left-posterior-superior or right-anterior-superior can be read",
        )
    for name, count in _NRRD_VECTORS:
        value = header.value(name)
        if value is None:
            raise _open_position(header.path, name)
        rest = set(_VECTOR.sub(" ", value).split())
        if len(_VECTOR.findall(value)) != count or rest - {"none"}:  # "none" is the vector of an axis of components
            raise GeometryError(
                f"{header.path} does not state where its voxels lie: {name!r} is {value[:_SHOWN]!r}, "
                f"not {count} vectors of three finite numbers",
                hint=OPEN_POSITION,
            )
    if units := set(re.findall(r'"([^"]*)"', header.value("space units") or "")) - {"", "mm"}:
        raise _other_unit(header.path, min(units))


def _open_position(path: Path, field: str) -> GeometryError:
    return GeometryError(f"{path} does not state where its voxels lie: no {field!r} in its header", hint=OPEN_POSITION)


def _no_numbers(path: Path, name: str, value: str, count: int) -> GeometryError:
    line = f"{name} = {value}"[:_SHOWN]
    return GeometryError(
        f"{path} does not state where its voxels lie: its line {line!r} must have {count} finite numbers",
        hint="write them with blanks between them, or export it again",
    )


def _other_unit(path: Path, unit: str) -> GeometryError:
    return GeometryError(f"{path} states its positions in {unit}, volseg takes mm", hint="convert it to mm")
