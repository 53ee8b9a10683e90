"""What made a folder of results, in words: about.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from volseg import __version__
from volseg.errors import DataError
from volseg.io.files import write_text

ABOUT_FILE = "about.json"

#: Pairs of name and value; neither names a patient or a path.
Facts = tuple[tuple[str, str], ...]


def made_now() -> Facts:
    """Version and day."""
    return (("volseg", __version__), ("made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")))


def hash_of(file: Path) -> str:
    """The first digits of a file's SHA-256, by which two models can be told apart."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def write_about(facts: Sequence[tuple[str, str]], folder: Path) -> None:
    """Write `about.json`, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(folder / ABOUT_FILE, json.dumps(facts, indent=1) + "\n")


def read_about(folder: Path) -> Facts:
    """What made the results in a folder; nothing where it does not say.

    Raises:
        DataError: If the file is damaged.
    """
    path = folder / ABOUT_FILE
    if not path.is_file():
        return ()
    try:
        return tuple((str(name), str(value)) for name, value in json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}", hint="delete it, or make the results again") from error
