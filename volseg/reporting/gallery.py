"""What is kept of a folder of results for its page: pictures of cases, beside the tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from volseg.errors import DataError
from volseg.io.files import make_folder, write_text
from volseg.report import Picture, Slice, Surface

PICTURES_FOLDER = "pictures"
#: The cases that need it most are drawn, so that a page of many cases still fits into a mail.
MOST_PICTURES = 60


def keep_picture(picture: Picture, folder: Path, case_id: str) -> None:
    """Write a picture beside the results, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    make_folder(folder / PICTURES_FOLDER)
    write_text(_file(folder, case_id), json.dumps(asdict(picture), separators=(",", ":")))


def forget_pictures(folder: Path) -> None:
    """Remove what was drawn of earlier results: a page must not show a mask that is no more."""
    for file in (folder / PICTURES_FOLDER).glob("*.json"):
        file.unlink()


def kept_pictures(folder: Path, case_ids: Sequence[str]) -> dict[str, Picture]:
    """The pictures that were kept, by case id.

    Raises:
        DataError: If one is damaged.
    """
    files = {case_id: _file(folder, case_id) for case_id in case_ids}
    return {case_id: _picture(file) for case_id, file in files.items() if file.is_file()}


def read_table(path: Path) -> pd.DataFrame:
    """A CSV that volseg wrote.

    Raises:
        DataError: If it is none.
    """
    try:
        return pd.read_csv(path, dtype={"case_id": str, "label": str, "reason": str})
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no table of results: {error}") from error


def _file(folder: Path, case_id: str) -> Path:
    return folder / PICTURES_FOLDER / f"{case_id}.json"


def _picture(path: Path) -> Picture:
    try:
        tree = json.loads(path.read_text("utf-8"))
        slices = tuple(Slice(**cut) for cut in tree["slices"])
        surfaces = (None if tree[side] is None else Surface(**tree[side]) for side in ("reference", "prediction"))
        return Picture(slices, *surfaces)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error!r}", hint="delete it, or evaluate again") from error
