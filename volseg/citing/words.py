"""Formatting of numbers and names in sentences."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from volseg.config.section import Axis
from volseg.reporting.record import ValidationDice
from volseg.text import listed

_SPECIAL = re.compile(r"([\\`*\[\]<>@|#~^$])")
_ORDINALS = ("first", "second", "third")
_SMALL = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def axes_words(axes: Iterable[Axis], *, flat: bool) -> str:
    """Return "left-right and first axis": axes of the body by name, those of files by place.

    Args:
        axes: As the configuration has them.
        flat: Whether the first of three is one that images lack.
    """
    places: dict[Axis, int] = {"i": 0, "j": 1, "k": 2}
    return listed([f"{_ORDINALS[places[axis] - flat]} axis" if axis in places else axis for axis in axes])


def named(name: str) -> str:
    """Escape the special characters of Markdown and Pandoc in the name of a label or channel."""
    return _SPECIAL.sub(r"\\\1", " ".join(name.split()))


def sizes(lengths: Iterable[float]) -> str:
    """Return "32 x 48 x 32"."""
    return " x ".join(f"{length:g}" for length in lengths)


def count(number: int, word: str) -> str:
    """Return "one case" or "12 cases", with numbers up to ten in words."""
    return f"{_SMALL[number] if number < len(_SMALL) else f'{number:,}'} {word}{'s' * (number != 1)}"


def between(numbers: Iterable[int]) -> str:
    """Return "133" for equal numbers, and "133 to 134" for others."""
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def ranged(numbers: Iterable[int], word: str) -> str:
    """Return "1 epoch" or "133 to 134 cases"."""
    found = sorted(set(numbers))
    return f"{between(found)} {word}{'s' * (found != [1])}"


def percent(share: float) -> str:
    """Return "15 %"."""
    return f"{100 * share:g} %"


def duration(seconds: float) -> str:
    """Return a duration in the most readable unit."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def dice_words(dice: ValidationDice) -> str:
    """Return "0.889 (95 % confidence interval 0.881 to 0.896)"; without an interval if there is none."""
    return brief_dice(dice).replace("(", "(95 % confidence interval ")


def brief_dice(dice: ValidationDice) -> str:
    """Return "0.889 (0.881 to 0.896)", for a sentence that has already named the interval."""
    interval = "" if math.isnan(dice.low) else f" ({dice.low:.3f} to {dice.high:.3f})"
    return f"{dice.mean:.3f}{interval}"
