"""Text that every file and every console can encode."""

from __future__ import annotations

from collections.abc import Sequence


def is_text(text: str) -> bool:
    """Return whether UTF-8 can encode a text.

    Surrogates that stand for undecodable bytes of a file name (PEP 383) cannot be encoded.
    """
    return not any("\ud800" <= char <= "\udfff" for char in text)


def listed(words: Sequence[str]) -> str:
    """Return "a", "a and b", "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def readable(text: str) -> str:
    r"""Return a text on one line, with undecodable bytes of file names (`\udcfc`) and invisible characters escaped.

    A line break in a file name would start a new line in a log, and a bidirectional control would reverse the rest.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
