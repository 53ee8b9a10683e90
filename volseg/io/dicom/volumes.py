"""Split the images of one series into volumes: by kind, plane and, where positions repeat, by separators."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from volseg.errors import GeometryError
from volseg.io.dicom.frames import Plane
from volseg.io.dicom.header import EXPORT_AGAIN
from volseg.io.dicom.separators import CLOCK, SEPARATORS, Separator
from volseg.io.dicom.stack import by_position
from volseg.io.source import SeriesTraits

#: Separators whose value names the volume, since a rank would hide it.
_NAMED_BY_VALUE = ("b",)
#: Stacks are volumes by definition (PS3.3 section C.7.6.16.2.2.4), whether their positions repeat or not.
_ALWAYS = ("stack",)


@dataclass(frozen=True, slots=True)
class Image:
    """One image as far as sorting needs it.

    Attributes:
        path: The file.
        index: Index of the frame of a multi-frame file, or of the tile of a mosaic, from 0.
        plane: Its position; None if the header does not state it.
        uid: SOPInstanceUID.
        kind: "" for a plain slice, "MPR" for one that was computed from others.
        number: InstanceNumber, None if not stated.
        values: Of the `SEPARATORS`, as far as stated.
        series_uid: SeriesInstanceUID.
        traits: Properties common to a series.
        patient_id: PatientID, by which series are kept apart; it is never shown.
        per_file: Whether the file is one or several whole volumes: multi-frame, or a mosaic.
    """

    path: Path
    index: int
    plane: Plane | None
    uid: str
    kind: str
    number: int | None
    values: tuple[str, ...]
    series_uid: str
    traits: SeriesTraits
    patient_id: str = ""
    per_file: bool = False


@dataclass(frozen=True)
class Part:
    """Images that belong to one volume.

    Attributes:
        name: What distinguishes it among the volumes of its series; empty if it is the only one.
        images: Its images.
        doubt: Why it may be incomplete; empty if nothing in the series suggests that.
    """

    name: str
    images: tuple[Image, ...]
    doubt: str = ""


def split(images: Sequence[Image]) -> list[Part]:
    """Split the positioned images of one series into volumes.

    Images that differ in matrix, pixel spacing, orientation or kind never share a volume. Where several images lie at
    one position, they are split by the first of `SEPARATORS` that distinguishes them, then the next, and last by their
    order in time, by InstanceNumber. What is left at one position may be copies, which only the pixels can tell. So may
    images that all state one position and differ only in time or number: they are never volumes of one slice.

    Args:
        images: With a plane each, of one SeriesInstanceUID.

    Returns:
        The parts; their names distinguish the volumes of one grid.
    """
    parts: list[Part] = []
    for group in _by_grid(images):
        originals, copies = _without_copies(group)
        volumes = [Part("", tuple(originals))]
        for number, separator in enumerate(SEPARATORS):
            volumes = [piece for part in volumes for piece in _split_by_value(part, number, separator)]
        volumes = [piece for part in volumes for piece in _split_by_number(part)]
        parts += [replace(part, images=(*part.images, *_copies_of(part.images, copies))) for part in volumes]
    return parts


def _by_grid(images: Iterable[Image]) -> list[list[Image]]:
    """Group images of one kind, matrix, spacing and orientation."""
    groups: list[tuple[Plane, str, list[Image]]] = []
    for image in images:
        if image.plane is None:
            continue
        fitting = (g for plane, kind, g in groups if kind == image.kind and plane.is_parallel_to(image.plane))
        group = next(fitting, None)
        if group is None:
            groups.append((image.plane, image.kind, [image]))
        else:
            group.append(image)
    return [group for _, _, group in groups]


def _without_copies(images: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    """Separate files that repeat an object: the same SOPInstanceUID, frame and position."""
    seen: dict[Hashable, Image] = {}
    copies: list[Image] = []
    for image in images:
        key = (image.uid, image.index, image.plane)
        if image.uid and key in seen:
            copies.append(image)
        else:
            seen[key if image.uid else (image.path, image.index)] = image
    return list(seen.values()), copies


def _copies_of(images: Iterable[Image], copies: Sequence[Image]) -> list[Image]:
    uids = {image.uid for image in images} if copies else set()
    return [copy for copy in copies if copy.uid in uids]


def _split_by_value(part: Part, number: int, separator: Separator) -> list[Part]:
    """Split by one property, if most of its values make a volume of their own."""
    word = separator.word
    groups: defaultdict[str, list[Image]] = defaultdict(list)
    for image in part.images:
        groups[image.values[number]].append(image)
    if len(groups) < 2 or not (word in _ALWAYS or _makes_volumes(part.images, groups.values())):
        return [part]
    if separator in CLOCK and len(_positions(part.images)) == 1:
        return [part]
    ordered = sorted(groups, key=_rank)
    names = [_value_name(value) if word in _NAMED_BY_VALUE else str(rank) for rank, value in enumerate(ordered, 1)]
    pieces = [_piece(part, f"{word}{name}", groups[value]) for name, value in zip(names, ordered, strict=True)]
    if word not in _ALWAYS:
        return _with_doubts(pieces)
    unstated = f"not all of its images state a {word}" if "" in groups else ""
    alone = f"it is a {word} of one image beside another {word} of its orientation"
    return [replace(piece, doubt=unstated or alone * (len(piece.images) == 1)) for piece in pieces]


def _with_doubts(pieces: list[Part]) -> list[Part]:
    """Cast doubt on volumes that have fewer slices than others of their series."""
    counts = [len(_positions(piece.images)) for piece in pieces]
    return [
        replace(piece, doubt=f"it has {count} slices where others of its series have {max(counts)}")
        if count < max(counts)
        else piece
        for piece, count in zip(pieces, counts, strict=True)
    ]


def _value_name(value: str) -> str:
    """Format a number without needless digits: "1000.0" is 1000."""
    try:
        return f"{float(value):g}"
    except ValueError:
        return value


def _split_by_number(part: Part) -> list[Part]:
    """Split images that differ in their order only: the n-th image of every position is volume n."""
    positions = _positions(part.images)
    repeats = {len(members) for members in positions}
    numbers = {image.number for image in part.images}
    if len(positions) == 1 or len(repeats) != 1 or repeats == {1} or None in numbers or len(numbers) < len(part.images):
        return [part]
    in_time = [sorted(members, key=lambda image: image.number or 0) for members in positions]
    return [_piece(part, f"time{n}", [members[n - 1] for members in in_time]) for n in range(1, repeats.pop() + 1)]


def _makes_volumes(images: Sequence[Image], groups: Iterable[Sequence[Image]]) -> bool:
    """Return whether positions repeat, and at least half of the groups cover them all; a scan may have been aborted."""
    positions = len(_positions(images))
    if positions == len(images):
        return False
    covered = [len(_positions(group)) == positions for group in groups]
    return 2 * sum(covered) >= len(covered)


def _positions(images: Sequence[Image]) -> list[list[Image]]:
    return by_position(by_depth(images), plane_of)


def by_depth(images: Sequence[Image]) -> list[Image]:
    """Sort parallel images along the normal of the first: rounded cosines may differ, which would shuffle them."""
    return sorted(images, key=lambda image: plane_of(images[0]).depth_mm(plane_of(image)))


def plane_of(image: Image) -> Plane:
    """Return the plane of an image, which must be known."""
    if image.plane is None:
        raise GeometryError(f"{image.path} does not say where it lies", hint=EXPORT_AGAIN)
    return image.plane


def _piece(part: Part, name: str, images: Iterable[Image]) -> Part:
    return Part(f"{part.name}_{name}" if part.name else name, tuple(images), part.doubt)


def _rank(value: str) -> tuple[float, str]:
    """Return a sort key: numbers by size, words alphabetically."""
    try:
        return float(value), ""
    except ValueError:
        return math.inf, value
