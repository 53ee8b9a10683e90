"""Damage one file of a DICOM series at random, read what is left, and judge it by the undamaged series.

`python tests/fuzzing.py 2000 [seed]` prints a table of what became of so many corruptions, and each that is at fault.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import pickle
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pydicom
from pydicom import uid
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from test_dicom import AXIAL, LEFT_HANDED, ROTATED, SAGITTAL, TILTED, edit, make_volume, write_enhanced

from volseg.errors import VolsegError
from volseg.exporting.rtstruct import write_rtstruct
from volseg.exporting.seg import write_seg
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.io import SeriesSource, discover, read_mask, read_volume, single_source
from volseg.io.dicom import read_instances, write_series

LIMIT_SECONDS = 5.0
SAME_MM = 1e-3


# Elements of a file, found without the library that is under test


@dataclass(frozen=True)
class Element:
    """An element in the bytes of a file: where it starts, its value and its end, and the lengths that count it in.

    Attributes:
        length_at: Where its own length is stored, and in how many bytes.
        parents: Where the lengths of the items and sequences around it are stored, 4 bytes each.
    """

    tag: int
    vr: str
    start: int
    value: int
    end: int
    length_at: tuple[int, int]
    parents: tuple[int, ...]


_LONG = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_VRS = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OW"),
    *("PN", "SH", "SL", "SQ", "SS", "ST", "TM", "UI", "UL", "UN", "US", "UT", "ZZ"),
)
_PIXELS, _ITEM, _SYNTAX = 0x7FE00010, 0xFFFEE000, 0x00020010


class Layout:
    """All elements of a file up to its pixels, those within sequences too."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.explicit, self.order = True, "<"
        self.elements: list[Element] = []
        self.header_end = len(data)
        start = 132 if data[128:132] == b"DICM" else 0
        with suppress(struct.error):
            self._walk(start, len(data), ())

    def _walk(self, at: int, end: int, parents: tuple[int, ...]) -> int:
        while at + 8 <= end:
            if not parents and self.data[at : at + 2] != b"\x02\x00":
                self._find_syntax()
            group, number = struct.unpack_from(f"{self.order}HH", self.data, at)
            tag = group << 16 | number
            vr, value, length, length_at = self._head(at, tag)
            if tag == _PIXELS:
                self.header_end = at
                return end
            undefined = length == 0xFFFFFFFF
            stop = end if undefined else value + length
            if stop > end:
                return end
            inner = parents if undefined else (*parents, length_at[0])
            if tag in {0xFFFEE00D, 0xFFFEE0DD}:
                return value
            if vr == "SQ" or tag == _ITEM or undefined:
                if vr == "SQ":
                    self.elements.append(Element(tag, vr, at, value, stop, length_at, parents))
                at = self._walk(value, stop, inner)
            else:
                self.elements.append(Element(tag, vr, at, value, stop, length_at, parents))
                at = stop
        return at

    def _head(self, at: int, tag: int) -> tuple[str, int, int, tuple[int, int]]:
        if tag >> 16 == 0xFFFE or (not self.explicit and tag >> 16 != 2):
            vr = dictionary_VR(tag)[:2] if dictionary_has_tag(tag) and tag >> 16 != 0xFFFE else "UN"
            return vr, at + 8, struct.unpack_from(f"{self.order}L", self.data, at + 4)[0], (at + 4, 4)
        vr = self.data[at + 4 : at + 6].decode("latin-1")
        if vr in _LONG:
            return vr, at + 12, struct.unpack_from(f"{self.order}L", self.data, at + 8)[0], (at + 8, 4)
        return vr, at + 8, struct.unpack_from(f"{self.order}H", self.data, at + 6)[0], (at + 6, 2)

    def _find_syntax(self) -> None:
        syntax = next((self.text(e) for e in self.elements if e.tag == _SYNTAX), "")
        self.explicit = syntax != uid.ImplicitVRLittleEndian
        self.order = ">" if syntax == uid.ExplicitVRBigEndian else "<"

    def text(self, element: Element) -> str:
        return self.data[element.value : element.end].decode("latin-1").strip(" \0")

    def with_value(self, element: Element, value: bytes) -> bytes:
        """The file with another value, and all lengths right."""
        value += (b"\0" if element.vr == "UI" else b" ") * (len(value) % 2)
        more = len(value) - (element.end - element.value)
        data = bytearray(self.data)
        at, size = element.length_at
        data[at : at + size] = struct.pack(self.order + ("H" if size == 2 else "L"), len(value))
        return self._spliced(data, element.value, element.end, value, more, element.parents)

    def without(self, element: Element) -> bytes:
        return self._spliced(
            bytearray(self.data), element.start, element.end, b"", element.start - element.end, element.parents
        )

    def _spliced(
        self, data: bytearray, start: int, end: int, value: bytes, more: int, parents: tuple[int, ...]
    ) -> bytes:
        for at in parents:
            (length,) = struct.unpack_from(f"{self.order}L", data, at)
            struct.pack_into(f"{self.order}L", data, at, length + more)
        data[start:end] = value
        return bytes(data)


# Corruptions: from the bytes of a file to other bytes, and what was done

_TELLING = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "SOPClassUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
    "ImageType",
    "InstanceNumber",
    "AcquisitionNumber",
    "EchoTime",
    "TemporalPositionIdentifier",
    "BitsAllocated",
    "SamplesPerPixel",
    "ContourData",
    "StackID",
)
_TELLING_TAGS = frozenset(tag_for_keyword(keyword) for keyword in _TELLING)
_NUMERIC = frozenset({"DS", "IS", "US", "FD"})

Damage = tuple[bytes, str]


def _name(element: Element) -> str:
    return keyword_for_tag(element.tag) or f"{element.tag:08x}"


def _any(layout: Layout, rng: random.Random, telling: float = 0.75) -> Element:
    likely = [e for e in layout.elements if e.tag in _TELLING_TAGS and e.end > e.value]
    chosen = likely if likely and rng.random() < telling else layout.elements
    return rng.choice(chosen) if chosen else Element(0, "UN", 0, 0, min(8, len(layout.data)), (0, 2), ())


def flip_header(layout: Layout, rng: random.Random) -> Damage:
    data, places = bytearray(layout.data), []
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(layout.header_end)
        data[at] ^= 1 << rng.randrange(8) if rng.random() < 0.5 else rng.randint(1, 255)
        places.append(at)
    return bytes(data), f"bytes at {places}"


def flip_telling(layout: Layout, rng: random.Random) -> Damage:
    element = _any(layout, rng, telling=1)
    data = bytearray(layout.data)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(element.value, max(element.end, element.value + 1))
        data[min(at, len(data) - 1)] = rng.choice(b"0123456789.-\\ ") if rng.random() < 0.6 else rng.randrange(256)
    return bytes(data), f"bytes in {_name(element)}"


def remove(layout: Layout, rng: random.Random) -> Damage:
    element = _any(layout, rng)
    return layout.without(element), f"{_name(element)} removed"


def empty(layout: Layout, rng: random.Random) -> Damage:
    element = _any(layout, rng)
    return layout.with_value(element, b""), f"{_name(element)} emptied"


def change_vr(layout: Layout, rng: random.Random) -> Damage:
    if not layout.explicit:
        return flip_header(layout, rng)
    element, vr = _any(layout, rng), rng.choice(_VRS)
    data = bytearray(layout.data)
    data[element.start + 4 : element.start + 6] = vr.encode()
    return bytes(data), f"VR of {_name(element)} {element.vr} -> {vr}"


def change_number(layout: Layout, rng: random.Random) -> Damage:
    numeric = [e for e in layout.elements if e.vr in _NUMERIC and e.end > e.value]
    likely = [e for e in numeric if e.tag in _TELLING_TAGS]
    if not numeric:
        return flip_header(layout, rng)
    element = rng.choice(likely if likely and rng.random() < 0.85 else numeric)
    if element.vr in {"DS", "IS"}:
        before = layout.text(element)
        after = _other_number(before, rng)
        return layout.with_value(element, after.encode("latin-1")), f"{_name(element)} {before} -> {after}"[:160]
    data = bytearray(layout.data)
    if element.vr == "US":
        (before_int,) = struct.unpack_from(f"{layout.order}H", data, element.value)
        after_int = rng.choice([before_int * 2, before_int // 2, before_int + 1, max(before_int - 1, 0), 0, 65535])
        struct.pack_into(f"{layout.order}H", data, element.value, after_int % 65536)
        return bytes(data), f"{_name(element)} {before_int} -> {after_int % 65536}"
    data[element.value + rng.randrange(8)] ^= 1 << rng.randrange(8)
    return bytes(data), f"a bit of {_name(element)}"


def _other_number(text: str, rng: random.Random) -> str:
    """Another plausible number in the place of one of several."""
    parts = text.split("\\")
    n = rng.randrange(len(parts))
    part = parts[n].strip()
    digits = [at for at, char in enumerate(part) if char.isdigit()]
    match rng.randrange(4):
        case 0 if part:
            parts[n] = part[1:] if part.startswith("-") else f"-{part}"
        case 1 if digits:
            at = rng.choice(digits)
            parts[n] = part[:at] + rng.choice([d for d in "0123456789" if d != part[at]]) + part[at + 1 :]
        case 2 if digits:
            bare = part.replace(".", "")
            at = rng.randrange(1 if bare[:1] in "+-" else 0, len(bare) + 1)
            parts[n] = bare[:at] + "." + bare[at:]
        case _:
            parts[n] = f"{float(part or 0) + rng.choice([-1, 1, 0.1, -0.5, 10]):.6g}" if digits else "1"
    return "\\".join(parts)


def truncate(layout: Layout, rng: random.Random) -> Damage:
    size = len(layout.data)
    ends = [0, rng.randrange(132), rng.randrange(layout.header_end + 1), rng.randrange(size), size - rng.randint(1, 64)]
    kept = min(max(rng.choice(ends), 0), size)
    return layout.data[:kept], f"cut to {kept} of {size} bytes"


def _block(layout: Layout, rng: random.Random) -> tuple[int, int]:
    limit = layout.header_end if rng.random() < 0.7 else len(layout.data)
    start = rng.randrange(max(limit, 1))
    return start, min(start + int(2 ** rng.uniform(0, 11)), len(layout.data))


def zero_block(layout: Layout, rng: random.Random) -> Damage:
    start, end = _block(layout, rng)
    return layout.data[:start] + bytes(end - start) + layout.data[end:], f"zeros from {start} to {end}"


def repeat_block(layout: Layout, rng: random.Random) -> Damage:
    start, end = _block(layout, rng)
    return layout.data[:end] + layout.data[start:], f"twice from {start} to {end}"


def delete_block(layout: Layout, rng: random.Random) -> Damage:
    start, end = _block(layout, rng)
    return layout.data[:start] + layout.data[end:], f"gone from {start} to {end}"


_SYNTAXES = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.JPEGBaseline8Bit,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.RLELossless,
    uid.MPEG2MPML,
    uid.UID("1.2.3.4"),
)


def change_syntax(layout: Layout, rng: random.Random) -> Damage:
    element = next((e for e in layout.elements if e.tag == _SYNTAX), None)
    if element is None:
        return flip_header(layout, rng)
    syntax = rng.choice([each for each in _SYNTAXES if each != layout.text(element)])
    return layout.with_value(element, syntax.encode()), f"transfer syntax -> {syntax.name}"


CORRUPTIONS: dict[str, Callable[[Layout, random.Random], Damage]] = {
    "header bytes": flip_header,
    "bytes of a telling tag": flip_telling,
    "tag removed": remove,
    "tag emptied": empty,
    "VR changed": change_vr,
    "number changed": change_number,
    "truncated": truncate,
    "block zeroed": zero_block,
    "block repeated": repeat_block,
    "block deleted": delete_block,
    "transfer syntax": change_syntax,
}
FILE_KINDS = ("files swapped", "file copied over another")
KINDS = (*CORRUPTIONS, *FILE_KINDS)
#: Kinds that most often change where an image lies are tried more often.
_WEIGHTS = [3 if kind in {"bytes of a telling tag", "number changed"} else 1 for kind in KINDS]


# Reading


@dataclass(frozen=True)
class Seen:
    """One volume or mask as it was read: the names of its files, its grid, and a hash of its voxels."""

    names: frozenset[str]
    geometry: Geometry
    voxels: str
    is_mask: bool = False


@dataclass(frozen=True)
class Reading:
    """What became of a folder.

    Attributes:
        seen: What was read.
        refused: Errors that say why something was not.
        aside: Reasons why files were set aside.
        notes: What was logged.
        ignored: How many files count as no DICOM.
        fault: An exception that is none of volseg's, output, or a hang; empty when there was none.
        seconds: Of the processor, which other processes do not change.
    """

    seen: tuple[Seen, ...] = ()
    refused: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ignored: int = 0
    fault: str = ""
    seconds: float = 0.0


class _TooLongError(BaseException):
    """Time is up; nothing may catch this."""


class _Notes(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def read_all(folder: Path) -> Reading:
    """Discover and read everything in a folder, as a program would."""
    notes, started = _Notes(), time.process_time()
    reading = Reading()
    with _logged(notes), _watched() as spilt:
        try:
            reading = _read_all(folder)
        except VolsegError as error:
            reading = Reading(refused=(str(error),))
        except _TooLongError:
            reading = Reading(fault=f"hang over {LIMIT_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001  any other exception is what is looked for
            reading = Reading(fault=f"{type(error).__name__}: {error} at {_place(error)}")
    fault = reading.fault or "; ".join(spilt)
    return replace(reading, notes=tuple(notes.lines), fault=fault, seconds=time.process_time() - started)


def _place(error: BaseException) -> str:
    trace, lines = error.__traceback__, []
    while trace is not None:
        lines.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return " < ".join(reversed(lines[-6:]))


def _read_all(folder: Path) -> Reading:
    found = discover(folder)
    seen: list[Seen] = []
    refused: list[str] = []
    for source in (*found.sources, *found.segments):
        is_mask = not isinstance(source, SeriesSource)
        try:
            read = read_mask(source) if is_mask else read_volume(source)
        except VolsegError as error:
            refused.append(str(error))
            continue
        voxels = hashlib.sha1(np.ascontiguousarray(read.array).tobytes(), usedforsecurity=False).hexdigest()
        names = frozenset(str(path.relative_to(folder)) for path in source.files)
        seen.append(Seen(names, read.geometry, voxels, is_mask))
    aside = tuple(f"{item.path.name}: {item.reason}" for item in found.set_aside)
    return Reading(tuple(seen), tuple(refused), aside, ignored=found.ignored)


@contextmanager
def _logged(notes: _Notes) -> Iterator[None]:
    logger = logging.getLogger("volseg")
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(notes)
    try:
        yield
    finally:
        logger.removeHandler(notes)
        logger.propagate = propagate


@contextmanager
def _watched() -> Iterator[list[str]]:
    """Collect what is printed and warned of, by libraries in C too, and end what takes too long."""
    spilt: list[str] = []
    kept = [os.dup(1), os.dup(2)]
    previous = signal.signal(signal.SIGPROF, _stop)
    with tempfile.TemporaryFile() as sink, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(sink.fileno(), 1)
        os.dup2(sink.fileno(), 2)
        signal.setitimer(signal.ITIMER_PROF, LIMIT_SECONDS)
        try:
            yield spilt
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, previous)
            sys.stdout.flush()
            sys.stderr.flush()
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            sink.seek(0)
            spilt += [f"printed {sink.read(300)!r}"] * (os.fstat(sink.fileno()).st_size > 0)
            spilt += [f"warned {each.message} at {each.filename}:{each.lineno}" for each in warned]


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _TooLongError


# Judging


@dataclass(frozen=True)
class Case:
    """One corruption and what became of it.

    Attributes:
        source: Which series.
        kind: One of `KINDS`.
        what: What exactly was changed.
        names: The damaged files.
        outcome: One of `OUTCOMES`.
        why: What kind of wrong or unnoticeable it is, or the fault.
        detail: What was read, and what speaks against it.
        seconds: How long reading took.
        number: Which corruption of the seed.
    """

    source: str
    kind: str
    what: str
    names: tuple[str, ...]
    outcome: str = ""
    why: str = ""
    detail: str = ""
    seconds: float = 0.0
    number: int = 0


CLEAN, VALUES, NEAR, REFUSED = "clean", "other values", "in tolerance", "refused"
UNNOTICEABLE, WRONG, CRASH = "unnoticeable", "WRONG", "CRASH"
OUTCOMES = (CLEAN, VALUES, NEAR, REFUSED, UNNOTICEABLE, WRONG, CRASH)

_ALONE = "a single image states another place"
_PAIR = "two images, one of which states another place"
_SHARED = "what all frames of a file share is changed"
_OVERWRITTEN = "an image is overwritten by a whole other file"
_NOTHING_LEFT = "the only file is no longer recognisable"
_CONTOUR = "a contour is changed within its slice"
#: PS3.3 section C.7.6.2.1.2: its origin is the manufacturer's choice, so only differences of it mean something.
_LOCATION = "a single image states another place, with which SliceLocation disagrees"


def judge(case: Case, clean: Reading, now: Reading, folder: Path, clean_folder: Path) -> Case:
    """The case with its outcome."""
    case = replace(case, seconds=now.seconds)
    if now.fault or now.seconds > LIMIT_SECONDS:
        return replace(case, outcome=CRASH, why=(now.fault or f"took {now.seconds:.1f} s")[:400])
    missing, strangers, changed, near = _compared(clean.seen, now.seen)
    complaints = len(now.refused) + len(now.aside) - len(clean.refused) - len(clean.aside)
    said = f"refused {now.refused[:1]} aside {now.aside[:1]} notes {now.notes}"
    if strangers:
        outcome, why = _wrong(case, strangers[0], clean, folder, clean_folder)
        return replace(case, outcome=outcome, why=why, detail=f"{_shown(strangers[0])}; {said}")
    if missing and complaints <= 0:
        outcome, why = _vanished(case, now, clean_folder)
        return replace(case, outcome=outcome, why=why, detail=f"{_shown(missing[0])}; {said}")
    if missing:
        return replace(case, outcome=REFUSED, detail=said)
    return replace(case, outcome=NEAR if near else VALUES if changed else CLEAN)


def _compared(clean: Sequence[Seen], now: Sequence[Seen]) -> tuple[list[Seen], list[Seen], int, int]:
    """What is missing, what is new, how many have other voxels, and how many lie a tolerable bit off."""
    missing, strangers, changed, near = list(clean), [], 0, 0
    for seen in now:
        twin = min(missing, key=lambda c: (_off(c, seen), c.voxels != seen.voxels, c.names != seen.names), default=None)
        same_voxels = any(_off(c, seen) < SAME_MM and c.voxels == seen.voxels for c in clean)
        if twin is None or _off(twin, seen) > _tolerance_mm(twin):
            strangers += [seen] * (not same_voxels)
            continue
        if seen.is_mask and not same_voxels:
            strangers.append(seen)
        near += _off(twin, seen) >= SAME_MM
        changed += not same_voxels
        missing.remove(twin)
    return missing, strangers, changed, near


def _off(one: Seen, other: Seen) -> float:
    if one.is_mask != other.is_mask or one.geometry.shape != other.geometry.shape:
        return math.inf
    return one.geometry.distance_mm(other.geometry)


def _tolerance_mm(seen: Seen) -> float:
    """Slices may lie a hundredth of their distance off an even grid, and then so may its ends, and a bit more."""
    return max(0.01, 0.01 * seen.geometry.spacing_mm[2]) * 2 if seen.geometry.shape[2] > 2 else SAME_MM


def _vanished(case: Case, now: Reading, clean_folder: Path) -> tuple[str, str]:
    if case.kind == "file copied over another":
        return UNNOTICEABLE, _OVERWRITTEN
    if len(list(clean_folder.iterdir())) == 1 and now.ignored:
        return UNNOTICEABLE, _NOTHING_LEFT
    return WRONG, "gone without a word"


def _wrong(case: Case, stranger: Seen, clean: Reading, folder: Path, clean_folder: Path) -> tuple[str, str]:
    """Whether anything in the folder could have told that this volume is wrong."""
    damaged = case.names[0]
    if stranger.is_mask:
        return (UNNOTICEABLE, _CONTOUR) if "rt" in damaged else (WRONG, "a mask elsewhere")
    twin = next((seen for seen in clean.seen if damaged in seen.names and not seen.is_mask), None)
    if twin is None:
        return WRONG, "what was no image is read as one"
    if case.kind == "file copied over another":
        return UNNOTICEABLE, _OVERWRITTEN
    if len(twin.names) > 2:
        stray = stranger.names <= set(case.names)
        return WRONG, "a stray slice is read by itself" if stray else "a series is read without its damaged slice"
    if why := _contradiction(stranger, folder / damaged, clean_folder / damaged):
        return WRONG, f"contradicts {why}"
    return _unnoticed(stranger, twin, folder / damaged, clean_folder / damaged)


def _unnoticed(stranger: Seen, twin: Seen, path: Path, clean_path: Path) -> tuple[str, str]:
    """What kind of damage to one or two images, or to all frames of a file at once, it is."""
    if len(twin.names) == 2:
        return UNNOTICEABLE, _PAIR
    if twin.geometry.shape[2] > 1:
        same_frames = stranger.geometry.shape[2] == twin.geometry.shape[2]
        return (UNNOTICEABLE, _SHARED) if same_frames else (WRONG, "frames of one file disagree")
    now, before = (pydicom.dcmread(each, force=True) for each in (path, clean_path))
    with suppress(Exception):
        if _location_agrees(before) and not _location_agrees(now):
            return UNNOTICEABLE, _LOCATION
    return UNNOTICEABLE, _ALONE


def _contradiction(stranger: Seen, path: Path, clean_path: Path) -> str:
    """What in one header speaks against itself or the volume that was read, but did not before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("pydicom").setLevel(100)
        now, before = (pydicom.dcmread(each, force=True) for each in (path, clean_path))
        found = _contradictions(now) - _contradictions(before)
        stated = before.get("SpacingBetweenSlices")
        if stranger.geometry.shape[2] == 2 and stated and abs(stranger.geometry.spacing_mm[2] - stated) > 0.05 * stated:
            found.add("SpacingBetweenSlices")
    return ", ".join(sorted(found))


def _contradictions(dataset: Any) -> set[str]:
    found: set[str] = set()
    checks: dict[str, Callable[[Any], bool]] = {
        "SpacingBetweenSlices": lambda d: d.SpacingBetweenSlices == d.SliceThickness,
        "NumberOfFrames": lambda d: d.NumberOfFrames == len(d.PerFrameFunctionalGroupsSequence),
        "the pixels": _pixels_agree,
    }
    for name, agrees in checks.items():
        with suppress(Exception):  # what cannot be compared contradicts nothing
            if not agrees(dataset):
                found.add(name)
    return found


def _location_agrees(dataset: Any) -> bool:
    cosines = np.array(dataset.ImageOrientationPatient, dtype=float)
    depth = float(np.cross(cosines[:3], cosines[3:]) @ np.array(dataset.ImagePositionPatient, dtype=float))
    return abs(abs(depth) - abs(float(dataset.SliceLocation))) < 0.1


def _pixels_agree(dataset: Any) -> bool:
    """Whether Rows and Columns are those of the pixels: by their length, or by the header of the compressed stream."""
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        expected = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8 * int(dataset.get("NumberOfFrames") or 1)
        return abs(len(dataset.PixelData) - expected) < 2
    pixels = dataset.PixelData
    jpeg = re.search(rb"\xff[\xc0-\xc3\xf7]..[\x08-\x10](..)(..)", pixels, re.DOTALL)
    if (at := pixels.find(b"\xff\x4f\xff\x51")) >= 0:
        columns, rows = struct.unpack_from(">LL", pixels, at + 8)
    elif jpeg and b"\xff\xd8" in pixels[:64]:
        rows, columns = (int.from_bytes(part, "big") for part in jpeg.groups())
    else:
        return True
    return (rows, columns) == (dataset.Rows, dataset.Columns)


def _shown(seen: Seen) -> str:
    what = "mask" if seen.is_mask else "volume"
    return f"{what} of {len(seen.names)} files, {seen.geometry} at {np.round(seen.geometry.affine[:3, 3], 2).tolist()}"


# What is damaged


def write_sources(folder: Path, data: Path | None) -> dict[str, Path]:
    """Folders of undamaged series: synthetic ones, and real ones where they are there."""
    sources = {path.name: path for path in _synthetic(folder)}
    if data is not None:
        sources |= {path.name: path for path in _real(folder, data)}
    return sources


def _synthetic(folder: Path) -> Iterator[Path]:
    tilted = {"CT axial": AXIAL, "MR oblique": ROTATED, "CT tilted": TILTED, "MR left": LEFT_HANDED, "MR sag": SAGITTAL}
    for seed, (name, directions) in enumerate(tilted.items()):
        volume = make_volume(directions, shape=(16, 12, 8 + seed), seed=seed)
        write_series(volume, folder / name, modality=name[:2])
        yield folder / name
    yield _described(folder / "CT described")
    yield _without_suffixes(folder / "CT no suffix")
    write_enhanced(make_volume(ROTATED, shape=(16, 12, 8)), _made(folder / "enhanced") / "IM1.dcm", order=range(8))
    yield folder / "enhanced"
    yield _marked(folder / "SEG and RTSTRUCT")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _described(folder: Path) -> Path:
    """A series with what scanners add, and a study description in front."""
    write_series(make_volume(shape=(16, 12, 9)), folder, modality="CT")
    for path in sorted(folder.iterdir()):
        z = float(pydicom.dcmread(path).ImagePositionPatient[2])
        edit(path, SliceLocation=f"{z:.3f}", PatientPosition="HFS", AcquisitionNumber="1", GantryDetectorTilt="0")
        edit(path, StudyDescription="ABDOMEN", AcquisitionTime="101500", ContentTime="101501", KVP="120")
    return folder


def _without_suffixes(folder: Path) -> Path:
    for path in write_series(make_volume(shape=(16, 12, 8)), folder, modality="CT"):
        path.rename(path.with_name(f"IM{path.stem}"))
    return folder


def _marked(folder: Path) -> Path:
    """A series with a Segmentation and a Structure Set of the same boxes."""
    write_series(make_volume(shape=(16, 12, 8)), folder / "series", modality="CT")
    source = single_source(folder / "series")
    assert isinstance(source, SeriesSource)
    geometry = read_volume(source).geometry
    array = np.zeros(geometry.shape, np.uint8)
    array[3:9, 2:8, 2:6], array[11:14, 4:10, 3:5] = 1, 2
    mask = Mask(array, geometry, (Label(1, "liver"), Label(2, "spleen")))
    write_seg(mask, read_instances(source), folder / "mask.seg.dcm")
    write_rtstruct(mask, read_instances(source), folder / "mask.rtstruct.dcm")
    return folder


_REAL_FOLDERS = {
    "CT5N": "dicom/dicomdir_study/98892001/CT5N",
    "MR1": "dicom/dicomdir_study/98892003/MR1",
    "MR2": "dicom/dicomdir_study/98892003/MR2",
    "EPI 4D": "dicom/classic_4d_ge_epi",
    "oriented": "dicom_seg_rt/rt-utils/oriented_data",
    "RTSTRUCT": "dicom_seg_rt/rt-utils/mock_data",
}
_REAL_FILES = (
    "dicom/enhanced_pydicom/eCT_Supplemental.dcm",
    *(
        f"dicom/single_files/{name}.dcm"
        for name in (
            "693_J2KI",
            "693_UNCI",
            "CT_small",
            "MR-SIEMENS-DICOM-WithOverlays",
            "MR_small",
            "MR_small_RLE",
            "MR_small_bigendian",
            "MR_small_expb",
            "MR_small_implicit",
            "MR_small_jp2klossless",
            "MR_small_jpeg_ls_lossless",
            "bad_sequence",
        )
    ),
    *(f"dicom/transfer_syntaxes_wg04/{name}/CT2_{name}" for name in ("J2KI", "J2KR", "JLSL", "JLSN", "JPLL", "RLE")),
    *(f"dicom/transfer_syntaxes_wg04/{name}/MR1_{name}" for name in ("JPLY", "J2KR", "JPLL", "RLE")),
)


def _real(folder: Path, data: Path) -> Iterator[Path]:
    for name, place in _REAL_FOLDERS.items():
        yield Path(shutil.copytree(data / place, folder / name, copy_function=shutil.copyfile))
    for place in _REAL_FILES:
        target = _made(folder / Path(place).stem)
        shutil.copyfile(data / place, target / Path(place).name)
        yield target
    target = _made(folder / "SEG")
    for name in ("ct_image.dcm", "seg_image_ct_binary_single_frame.dcm"):
        shutil.copyfile(data / "dicom_seg_rt/highdicom" / name, target / name)
    yield target


# The whole


@dataclass
class Fuzz:
    """Corruptions of the sources in a folder, each a function of the seed and its number."""

    folder: Path
    seed: int
    data: Path | None = None
    sources: dict[str, Path] = field(init=False)
    clean: dict[str, Reading] = field(init=False)

    def __post_init__(self) -> None:
        self.sources = write_sources(self.folder / "clean", self.data)
        self.clean = {name: read_all(path) for name, path in self.sources.items()}
        for name, reading in self.clean.items():
            assert reading.seen, f"{name} cannot be read: {reading}"
            assert not reading.fault, f"{name}: {reading.fault}"

    def case(self, number: int) -> Case:
        """Damage, read and judge."""
        target = self.folder / "damaged"
        try:
            case = self.planned(number)
            reading = read_all(target)
            return judge(case, self.clean[case.source], reading, target, self.sources[case.source])
        finally:
            shutil.rmtree(target)

    def planned(self, number: int) -> Case:
        """Damage a copy of a source, in the folder `damaged`."""
        rng = random.Random(f"{self.seed} {number}")
        name = rng.choice(sorted(self.sources))
        kind, what, names = self._damage(self.sources[name], self.folder / "damaged", rng)
        return Case(name, kind, what, names, number=number)

    def _damage(self, source: Path, target: Path, rng: random.Random) -> tuple[str, str, tuple[str, ...]]:
        shutil.copytree(source, target, copy_function=os.link)
        files = sorted(path for path in target.rglob("[!.]*") if path.is_file())
        kind = rng.choices(KINDS, _WEIGHTS)[0]
        if len(files) == 1 and kind in FILE_KINDS:
            kind = "number changed"
        path = rng.choice(files)
        if kind in FILE_KINDS:
            other = rng.choice([each for each in files if each != path])
            data = other.read_bytes(), path.read_bytes()
            _replace(path, data[0])
            if kind == "files swapped":
                _replace(other, data[1])
            names = tuple(str(each.relative_to(target)) for each in (path, other))
            return kind, " and ".join(names), names
        data_now, what = CORRUPTIONS[kind](Layout(path.read_bytes()), rng)
        _replace(path, data_now)
        return kind, what, (str(path.relative_to(target)),)


def _replace(path: Path, data: bytes) -> None:
    path.unlink()  # it is a link to the undamaged file
    path.write_bytes(data)


def _in_a_child(fuzz: Fuzz, number: int) -> Case:
    """A case in a process of its own, which a library in C may kill."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(outlet, "wb") as pipe:
            pipe.write(pickle.dumps(fuzz.case(number)))
            pipe.flush()
            os._exit(0)
    os.close(outlet)
    with os.fdopen(inlet, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if content:
        case: Case = pickle.loads(content)
        return case
    shutil.rmtree(fuzz.folder / "damaged", ignore_errors=True)
    case = replace(fuzz.planned(number), outcome=CRASH, why=f"killed by signal {os.WTERMSIG(status)}")
    shutil.rmtree(fuzz.folder / "damaged")
    return case


def real_data() -> Path | None:
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def _line(case: Case) -> str:
    where = f"#{case.number} {case.source} {case.names[0]}"
    return f"{case.outcome} {case.why} {where} [{case.kind}] {case.what}: {case.detail}"


def table(cases: Sequence[Case], by: Callable[[Case], str]) -> str:
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        counts[by(case)][case.outcome] += 1
        counts["all"][case.outcome] += 1
    rows = [f"{'':32}" + "".join(f"{outcome:>14}" for outcome in OUTCOMES)]
    rows += [f"{name:32}" + "".join(f"{counts[name][o]:14}" for o in OUTCOMES) for name in counts]
    return "\n".join(rows)


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    resource.setrlimit(resource.RLIMIT_AS, (16 << 30, 16 << 30))
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(Path(folder), seed, real_data())
        cases = [_in_a_child(fuzz, number) for number in range(count)]
    say = sys.stdout.write
    for case in cases:
        if case.outcome in {CRASH, WRONG, UNNOTICEABLE}:
            say(f"{_line(case)}\n")
    say(f"\n{table(cases, lambda case: case.kind)}\n\n{table(cases, lambda case: case.source)}\n")
    whys = Counter(f"{case.outcome:14}{case.why[:100]}" for case in cases if case.why)
    say("\n" + "\n".join(f"{count:5} {why}" for why, count in sorted(whys.items())) + "\n")
    slowest = max(cases, key=lambda case: case.seconds)
    say(f"\nslowest: #{slowest.number} {slowest.source} [{slowest.kind}] {slowest.seconds:.2f} s\n")


if __name__ == "__main__":
    main()
