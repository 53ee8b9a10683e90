"""Companion files, which belong to another one by their name."""

from __future__ import annotations

from itertools import product
from pathlib import Path


def companion(path: Path, *suffixes: str) -> Path | None:
    """Find the file beside another one with the same name and another suffix, in any letter case.

    Args:
        path: The file.
        suffixes: Possible suffixes of its companion, in lower case, such as ".img".

    Returns:
        The companion, preferably one whose suffix has the letter case of the file's; None if there is none.
    """
    for suffix in suffixes:
        like_it, unlike_it = sorted((suffix, suffix.upper()), key=lambda way: way.isupper() != path.suffix.isupper())
        mixed = ("".join(letters) for letters in product(*zip(suffix, suffix.upper(), strict=True)))
        candidates = (path.with_suffix(way) for way in dict.fromkeys((like_it, unlike_it, *mixed)))
        if found := next((candidate for candidate in candidates if candidate.exists()), None):
            return found
    return None
