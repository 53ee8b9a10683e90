"""Laterality: labels that state a side of the body in their name, or have one by their position."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from volseg.config import IGNORE
from volseg.image.terminology import lookup
from volseg.planning.fingerprint import CasePrint

_LEFT = {"left", "l", "lt", "lh", "sinister", "sin"}
_RIGHT = {"right", "r", "rt", "rh", "dexter", "dex"}

#: Largest volume ratio of partners: kidneys differ by half at most, and an image may truncate one.
_LARGEST_RATIO = 2.0
#: Share of the cases with both labels that must agree on which one is on the right.
_AGREEMENT = 0.9


def lateral_pairs(names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Find labels that name a side.

    Args:
        names: Label names.

    Returns:
        Pairs of (left, right) names that differ in the side only, and names that state a side but have no partner.
    """
    sided = {name: side for name in names if (side := _side(name))}
    keys = {(_sideless(name), side): name for name, side in sided.items()}
    pairs = [
        (name, keys[_sideless(name), "right"])
        for name, side in sided.items()
        if side == "left" and (_sideless(name), "right") in keys
    ]
    paired = {name for pair in pairs for name in pair}
    return pairs, [name for name in sided if name not in paired]


def partners(labels: Mapping[str, int], cases: Sequence[CasePrint]) -> list[tuple[str, str]]:
    """Find pairs of labels without a known meaning that are positioned like a left and a right structure.

    That means in nearly every case: beside each other, always in the same order, further apart than they are thick,
    with their centre within a quarter of the image from its middle or at least that far apart (the body may be
    off-centre), and of similar volume. Parts of one structure (head and tail, core and edema) do not qualify.

    Args:
        labels: Name -> value.
        cases: Fingerprints of the cases.

    Returns:
        Pairs of (left, right) names.
    """
    nameless = [name for name in labels if name != IGNORE and lookup(name) is None and not _side(name)]
    found = []
    for one, other in combinations(nameless, 2):
        sides = list(_sides(labels[one], labels[other], cases))
        if sides and abs(sum(sides)) >= (2 * _AGREEMENT - 1) * len(sides) and _alike(labels[one], labels[other], cases):
            found.append((one, other) if sum(sides) > 0 else (other, one))
    return found


def _sides(one: int, other: int, cases: Sequence[CasePrint]) -> Iterator[int]:
    """Yield, for each case with both labels, 1 if `other` is to the right of `one`, -1 if to the left, 0 if neither."""
    for case in cases:
        if one not in case.centers_mm or other not in case.centers_mm:
            continue
        apart_mm = np.subtract(case.centers_mm[other], case.centers_mm[one])
        middle_mm = np.add(case.centers_mm[other], case.centers_mm[one])[0] / 2
        radius_mm = (max(case.label_ml[one], case.label_ml[other]) * 1000 * 3 / 4 / np.pi) ** (1 / 3)
        beside = abs(apart_mm[0]) >= max(radius_mm, float(np.hypot(*apart_mm[1:])))
        quarter_mm = case.shape[0] * case.spacing_mm[0] / 4
        about_the_middle = abs(middle_mm) <= quarter_mm or abs(apart_mm[0]) >= quarter_mm
        yield int(np.sign(apart_mm[0])) if beside and about_the_middle else 0


def _alike(one: int, other: int, cases: Sequence[CasePrint]) -> bool:
    ratios = [case.label_ml[one] / case.label_ml[other] for case in cases if {one, other} <= set(case.centers_mm)]
    return 1 / _LARGEST_RATIO <= float(np.median(ratios)) <= _LARGEST_RATIO


def _side(name: str) -> str:
    words = set(_words(name))
    if words & _LEFT and not words & _RIGHT:
        return "left"
    return "right" if words & _RIGHT and not words & _LEFT else ""


def _sideless(name: str) -> tuple[str, ...]:
    return tuple(word for word in _words(name) if word not in _LEFT | _RIGHT)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
