"""Words that every file and every console can take."""

from __future__ import annotations


def is_text(text: str) -> bool:
    """Whether UTF-8 can hold it; what stands for a byte of a file name that is no text (PEP 383) is none."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def readable(text: str) -> str:
    r"""A text in one line: bytes of a file name that are no text (`\udcfc`), and what nobody sees, are escaped.

    A line break in the name of a file would begin a line of its own in a log, a character of direction turns the rest.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
