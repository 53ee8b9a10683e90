"""Files that belong to another one by their name."""

from __future__ import annotations

from itertools import product
from pathlib import Path


def companion(path: Path, *suffixes: str) -> Path | None:
    """What lies beside a file under its name with another suffix, in any letter case.

    Args:
        path: The file.
        suffixes: What its companion may end in, in lower case, such as ".img".

    Returns:
        The companion, first one whose suffix is in capitals or not as that of the file is; None if there is none.
    """
    for suffix in suffixes:
        like_it, unlike_it = sorted((suffix, suffix.upper()), key=lambda way: way.isupper() != path.suffix.isupper())
        mixed = ("".join(letters) for letters in product(*zip(suffix, suffix.upper(), strict=True)))
        candidates = (path.with_suffix(way) for way in dict.fromkeys((like_it, unlike_it, *mixed)))
        if found := next((candidate for candidate in candidates if candidate.exists()), None):
            return found
    return None
