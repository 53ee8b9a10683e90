"""Short names: on one line, limited in length, and unique."""

from __future__ import annotations

import hashlib
from functools import cache

#: Longest text of the value representation LO (PS3.5 section 6.2). Some readers count the bytes of UTF-8, so it is kept
#: in these.
LONGEST_NAME = 64
_HASH_DIGITS = 8


@cache
def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Shorten a name to one line, without backslashes, of at most `longest` bytes of UTF-8.

    A longer one ends with a hash of the whole name, so that two long names never become equal; so does one of control
    characters alone.
    """
    text = _one_line(name)
    is_lost = not text and name.strip()
    return marked_name(name, longest) if is_lost or len(text.encode()) > longest else text


@cache
def marked_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Return the beginning of a name and a hash of the whole, at most `longest` bytes of UTF-8."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    begin = _one_line(name).encode()[: longest - _HASH_DIGITS - 1].decode(errors="ignore").rstrip()
    return f"{begin}~{digest}"


def cut_name(name: str, longest: int = LONGEST_NAME) -> str:
    """Truncate a name as volseg 0.1.0 and other programs do: two long names may become equal."""
    return _one_line(name).encode()[:longest].decode(errors="ignore").rstrip()


def _one_line(name: str) -> str:
    """Replace backslashes, and control characters, which LO excludes, by characters that it takes."""
    plain = "".join(character if character.isprintable() else " " for character in name)
    return " ".join(plain.replace("\\", "/").split())
