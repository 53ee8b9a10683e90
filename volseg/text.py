"""Words that every file and every console can take."""

from __future__ import annotations


def readable(text: str) -> str:
    r"""A text in one line: bytes of a file name that are no text (`\udcfc`), and what nobody sees, are escaped.

    A line break in the name of a file would begin a line of its own in a log, a character of direction turns the rest.
    """
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
