"""Paths in a list of cases: a CSV manifest or a datalist in JSON."""

from __future__ import annotations

from pathlib import Path

from volseg.cases.mask_names import masks_of_folder
from volseg.config import DicomRules
from volseg.errors import DataError
from volseg.io import Source, file_source, image_suffix, single_source
from volseg.io.readable import check_there


def listed_source(folder: Path, entry: str, rules: DicomRules) -> Source:
    """Return the only volume at a path of a list.

    Args:
        folder: The folder that paths are relative to.
        entry: As listed; may be absolute.
        rules: How DICOM is read.

    Raises:
        DataError: If there is none, or more than one.
    """
    path = listed_path(folder, entry)
    check_there(path)
    if path.is_file() and image_suffix(path):
        return file_source(path, rules)
    return single_source(path, rules=rules)


def listed_reference(folder: Path, entry: str, rules: DicomRules) -> Source:
    """Return the reference at a path of a list: one volume, or a folder with a mask per structure."""
    path = listed_path(folder, entry)
    masks = masks_of_folder(path, rules) if path.is_dir() else None
    return masks or listed_source(folder, entry, rules)


def listed_path(folder: Path, entry: str) -> Path:
    """Resolve a listed path; backslashes are separators unless a file has one in its name.

    Raises:
        DataError: If no path can have this name.
    """
    if "\0" in entry:
        raise DataError(f"{entry!r} is not a path", hint="correct it in the list")
    path = folder / entry
    if "\\" not in entry:
        return path
    slashed = folder / entry.replace("\\", "/")
    return path if path.exists() and not slashed.exists() else slashed
