"""Which labels state a side of the body, by the words of their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LEFT = {"left", "l", "lt", "lh", "sinister", "sin"}
_RIGHT = {"right", "r", "rt", "rh", "dexter", "dex"}


def lateral_pairs(names: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """Find labels that name a side.

    Args:
        names: Label names.

    Returns:
        Pairs of (left, right) names that differ in the side alone, and names that state a side but have no partner.
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


def _side(name: str) -> str:
    words = set(_words(name))
    if words & _LEFT and not words & _RIGHT:
        return "left"
    return "right" if words & _RIGHT and not words & _LEFT else ""


def _sideless(name: str) -> tuple[str, ...]:
    return tuple(word for word in _words(name) if word not in _LEFT | _RIGHT)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
