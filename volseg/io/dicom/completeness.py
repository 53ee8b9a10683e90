"""Evidence among all files that a series is incomplete.

A damaged slice in the middle of a series leaves a gap. A damaged first or last one just makes the volume shorter,
unless the damaged file is looked for: one that cannot be read, or whose series, matrix, spacing or orientation has
changed, but which still lies exactly where the next slice would.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError
from volseg.io.archives import open_file
from volseg.io.dicom.classify import Unused
from volseg.io.dicom.stack import EVEN_TOLERANCE, EVEN_TOLERANCE_MM, by_position, rounding_mm
from volseg.io.dicom.volumes import Image, Part, by_depth, plane_of

#: Numbers and dots (PS3.5 section 9.1).
_UID = re.compile(r"\d+(\.\d+)+")


def doubts_of(parts: Sequence[Part], unused: Iterable[Unused]) -> list[str]:
    """Return, for each volume, why it may be incomplete; empty if nothing suggests that.

    Args:
        parts: All volumes that were found.
        unused: All DICOM files that are in none of them.
    """
    known = {part.images[0].series_uid for part in parts if part.images[0].plane}
    candidates = [*(item for item in unused if item.suspect), *_placeless(parts)]
    suspects = [item for item in candidates if not _has_its_own_series(item, known)]
    series = [_series_of(item, known) for item in suspects]
    by_series = {uid: item for uid, item in zip(series, suspects, strict=True) if uid}
    nameless = _alone_with_a_series(parts, [item for uid, item in zip(series, suspects, strict=True) if not uid])
    strays = _strays(parts)
    gone_astray = {stray.path for stray in strays.values()}
    return [
        part.doubt
        or _because_of(by_series.get(part.images[0].series_uid))
        or _because_of(nameless.get(number))
        or _because_next_to(strays.get(number))
        or _because_astray(part, gone_astray)
        for number, part in enumerate(parts)
    ]


def _has_its_own_series(item: Unused, known: Collection[str]) -> bool:
    """Return whether a file states a valid series UID that no volume has: a capture, a report."""
    if item.a_slice:
        return False
    proper = _UID.fullmatch(item.series_uid) is not None and item.series_uid not in known
    return proper and not any(
        uid.startswith(item.series_uid) for uid in known
    )  # a truncated header truncates its identifiers


def _series_of(item: Unused, known: Collection[str]) -> str:
    """Return the series that a suspect states, or whose UID occurs in its bytes; empty if there is none."""
    if item.series_uid in known:
        return item.series_uid
    try:
        with open_file(item.path) as file:
            content = file.read()
    except (OSError, DataError):
        return ""
    return next((uid for uid in known if uid and uid.encode() in content), "")


def _placeless(parts: Sequence[Part]) -> list[Unused]:
    """Return the images of volumes without any position."""
    return [
        Unused(image.path, f"{image.path} does not say where it lies", image.series_uid)
        for part in parts
        if not any(image.plane for image in part.images)
        for image in part.images
    ]


def _because_of(item: Unused | None) -> str:
    return f"{item.path.name} may be one of its slices, but cannot be used: {item.reason}" if item else ""


def _because_next_to(stray: Image | None) -> str:
    if stray is None:
        return ""
    return (
        f"{stray.path.name} lies where one of its slices would, but differs in series, matrix, spacing or orientation"
    )


def _because_astray(part: Part, strays: Collection[Path]) -> str:
    return "it lies where a slice of another volume would" if part.images[0].path in strays else ""


def _alone_with_a_series(parts: Sequence[Part], suspects: Sequence[Unused]) -> dict[int, Unused]:
    """Return part number -> a suspect of unknown series in a folder that holds nothing but that part."""
    if not suspects:
        return {}
    folders: defaultdict[Path, set[int]] = defaultdict(set)
    for number, part in enumerate(parts):
        for image in part.images:
            if image.plane:
                folders[image.path.parent].add(number)
    return {next(iter(folders[s.path.parent])): s for s in suspects if len(folders.get(s.path.parent, ())) == 1}


def _strays(parts: Sequence[Part]) -> dict[int, Image]:
    """Return part number -> an image of a much smaller part whose position and UIDs suggest that it belongs to it."""
    by_name: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, part in enumerate(parts):
        if part.images[0].plane and not part.images[0].per_file:
            for name in _names(part.images[0]):
                by_name[name].append(number)
    found: dict[int, Image] = {}
    for number, part in enumerate(parts):
        near = {other for name in _names(part.images[0]) for other in by_name[name]} - {number}
        candidates = [image for other in sorted(near) for image in _smaller(parts[other], part)]
        if candidates and (stray := _stray_of(part, candidates)):
            found[number] = stray
    return found


def _names(image: Image) -> list[tuple[str, str]]:
    """Return the identifiers that images of one series share, one of which may have been damaged."""
    traits = image.traits
    named = (("series", image.series_uid), ("study", traits.study_uid), ("space", traits.frame_of_reference_uid))
    return [*((kind, uid) for kind, uid in named if uid), ("folder", str(image.path.parent))]


def _smaller(other: Part, part: Part) -> Sequence[Image]:
    """Return the images of a part that is at most half as large, if they may be of the same series."""
    if 2 * len(other.images) > len(part.images):
        return ()
    one, two = other.images[0], part.images[0]
    same = one.series_uid == two.series_uid or one.traits.number in {None, two.traits.number}
    return [image for image in other.images if image.plane] if same else ()


def _stray_of(part: Part, candidates: Iterable[Image]) -> Image | None:
    placed = by_depth([image for image in part.images if image.plane])
    positions = np.array([plane_of(members[0]).origin_mm for members in by_position(placed, plane_of)])
    if len(positions) < 2 or placed[0].per_file:
        return None
    uid = part.images[0].series_uid
    return next(
        (image for image in candidates if _continues(positions, image, same_series=image.series_uid == uid)), None
    )


def _continues(positions: NDArray[np.float64], image: Image, *, same_series: bool) -> bool:
    """Return whether an image lies on the line through a row of positions, no more than a step and a half outside.

    An image of another series that coincides with one of the positions is not a missing slice.
    """
    position = np.array(plane_of(image).origin_mm)
    whole = positions[-1] - positions[0]
    length_mm = float(np.linalg.norm(whole))
    if length_mm == 0:
        return False
    step_mm = length_mm / (len(positions) - 1)
    along_mm = float((position - positions[0]) @ whole) / length_mm
    off_mm = float(np.linalg.norm(position - positions[0] - along_mm / length_mm * whole))
    nearest_mm = float(np.linalg.norm(positions - position, axis=1).min())
    tolerance_mm = 2 * max(EVEN_TOLERANCE_MM, EVEN_TOLERANCE * step_mm, rounding_mm(positions))
    on_the_line = off_mm <= tolerance_mm and -1.5 * step_mm <= along_mm <= length_mm + 1.5 * step_mm
    return on_the_line and (same_series or nearest_mm > tolerance_mm)
