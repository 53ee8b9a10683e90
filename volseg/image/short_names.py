"""Names as they are stated where there is little room: on one line, short, and never two alike."""

from __future__ import annotations

import hashlib
from functools import cache

#: Longest text of the value representation LO (PS3.5 section 6.2). Some readers count the bytes of UTF-8, so it is kept
#: in these.
LONGEST_NAME = 64
_HASH_DIGITS = 8


@cache
def short_name(name: str, longest: int = LONGEST_NAME) -> str:
    """A name on one line, without backslashes, of at most so many bytes of UTF-8.

    A longer one ends with a hash of the whole, so that two long names never become one.
    """
    text = _one_line(name)
    return text if len(text.encode()) <= longest else marked_name(name, longest)


@cache
def marked_name(name: str, longest: int = LONGEST_NAME) -> str:
    """The beginning of a name and a hash of the whole, of at most so many bytes of UTF-8."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    begin = _one_line(name).encode()[: longest - _HASH_DIGITS - 1].decode(errors="ignore").rstrip()
    return f"{begin}~{digest}"


def cut_name(name: str, longest: int = LONGEST_NAME) -> str:
    """A name as volseg 0.1.0 and others cut it: two long ones may become one."""
    return _one_line(name).encode()[:longest].decode(errors="ignore").rstrip()


def _one_line(name: str) -> str:
    return " ".join(name.replace("\\", "/").split())
