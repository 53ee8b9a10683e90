"""What in a heap of files speaks against a series being whole.

A damaged slice in the middle of a series leaves a gap. A first or last one leaves nothing but a volume that is shorter
than it was, unless what became of it is looked for: a file that cannot be read, or one whose series, matrix, spacing or
orientation is now another, but which still lies exactly where the next slice would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.io.dicom.classify import Unused
from volseg.io.dicom.stack import EVEN_TOLERANCE, EVEN_TOLERANCE_MM
from volseg.io.dicom.volumes import Image, Part, plane_of


def doubts_of(parts: Sequence[Part], unused: Iterable[Unused]) -> list[str]:
    """Why each of some volumes cannot be trusted to be whole; empty where nothing speaks against it.

    Args:
        parts: All volumes that were found.
        unused: All DICOM files that are in none of them.
    """
    suspects = [item for item in unused if item.suspect]
    by_series = {item.series_uid: item for item in suspects if item.series_uid}
    nameless = _alone_with_a_series(parts, [item for item in suspects if not item.series_uid])
    single = _single_images(parts)
    return [
        _because_of(by_series.get(part.images[0].series_uid))
        or _because_of(nameless.get(number))
        or _because_next_to(part, single)
        for number, part in enumerate(parts)
    ]


def _because_of(item: Unused | None) -> str:
    return f"{item.path.name} may be one of its slices, but cannot be used: {item.reason}" if item else ""


def _alone_with_a_series(parts: Sequence[Part], suspects: Sequence[Unused]) -> dict[int, Unused]:
    """Number of a part -> a file of which nothing is known but that its folder holds nothing but that part."""
    if not suspects:
        return {}
    folders: defaultdict[Path, set[int]] = defaultdict(set)
    for number, part in enumerate(parts):
        for image in part.images:
            folders[image.path.parent].add(number)
    return {next(iter(folders[s.path.parent])): s for s in suspects if len(folders.get(s.path.parent, ())) == 1}


def _single_images(parts: Sequence[Part]) -> dict[tuple[str, int | None], list[Image]]:
    """Images that are alone in their volume, by study and series number: no natural series."""
    found: defaultdict[tuple[str, int | None], list[Image]] = defaultdict(list)
    for part in parts:
        if len(part.images) == 1 and part.images[0].plane and not part.images[0].per_file:
            found[_group(part.images[0])].append(part.images[0])
    return found


def _group(image: Image) -> tuple[str, int | None]:
    return image.traits.study_uid, image.traits.number


def _because_next_to(part: Part, single: dict[tuple[str, int | None], list[Image]]) -> str:
    others = [image for image in single.get(_group(part.images[0]), ()) if image not in part.images]
    placed = [image for image in part.images if image.plane]
    if not others or len(placed) < 2:
        return ""
    placed.sort(key=lambda image: plane_of(image).depth_mm)
    positions = np.array([plane_of(image).origin_mm for image in placed])
    stray = next((image for image in others if _continues(positions, np.array(plane_of(image).origin_mm))), None)
    return (
        f"{stray.path.name} lies where its next slice would, but differs in series, matrix, spacing or orientation"
        if stray
        else ""
    )


def _continues(positions: NDArray[np.float64], position: NDArray[np.float64]) -> bool:
    """Whether a position lies one step before the first or after the last of a row of them, or in a gap."""
    steps = np.diff(positions, axis=0)
    step = steps[np.argsort(np.linalg.norm(steps, axis=1))[(len(steps) - 1) // 2]]
    step_mm = float(np.linalg.norm(step))
    if step_mm == 0:
        return False
    number = round(float((position - positions[0]) @ step) / step_mm**2)
    off_mm = float(np.linalg.norm(position - positions[0] - number * step))
    return -1 <= number <= len(positions) + 1 and off_mm <= max(EVEN_TOLERANCE_MM, EVEN_TOLERANCE * step_mm) * 2
