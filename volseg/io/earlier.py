"""Outputs of version 0.1.0, which kept no record: recognised by the tables beside them.

This describes the past and does not follow what is written today. Only file names can be known, so a mask that was
changed after the table of its batch counts as the user's.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

_MASK_SUFFIXES = (
    ".nii.gz",
    ".nrrd",
    ".mha",
    ".seg.nrrd",
    ".seg.dcm",
    ".rtstruct.dcm",
    ".sr.dcm",
    ".glb",
    ".png",
    ".probabilities.nii.gz",
)
_MESH_SUFFIXES = (".stl", ".ply")
BATCH_TABLE, _EVALUATION_TABLE, _COMPARISON_TABLE, _RUN_CONFIG = (
    "cases.csv",
    "metrics.csv",
    "comparison.csv",
    "config.yaml",
)
_PAGE = ("about.json", "report.html")
#: Written before the masks: changed later, they are the user's.
_SIDECARS = ("labels.json", "itksnap_labels.txt", "niivue_colormap.json")
_OF_BATCH = (
    *("labels.json", "itksnap_labels.txt", "niivue_colormap.json", "review.csv", "volseg.log"),
    *(BATCH_TABLE, *_PAGE),
)
_OF_EVALUATION = (_EVALUATION_TABLE, "summary.csv", "statistics.csv", *_PAGE)
_OF_RUN = (
    *(_RUN_CONFIG, "last.pt", "model.pt", "splits.json", "not_used.csv", "history.csv", "validation.csv"),
    *_PAGE,
)
_PREPARED = re.compile(r".+-[0-9a-f]{16}\.(image\.npy|labels\.npy|places\.npz)")
#: The columns that distinguish these tables from others of the same name.
_BATCH_COLUMNS = {"case_id", "status", "reason", "seconds", "windows", "key"}
_EVALUATION_COLUMNS = {"case_id", "label", "value", "status", "dice", "reason"}
_COMPARISON_COLUMNS = {"label", "metric", "first_mean", "second_mean", "difference_mean", "p_value"}
#: A batch wrote its table after its masks; a copy of the folder may have mixed their times.
_SLACK_SECONDS = 60.0
_LONGEST_MESH_NAME = 50


def is_batch_table(path: Path) -> bool:
    """Return whether a file is the cases.csv of a batch, and not a user's table of that name."""
    return _columns(path) >= _BATCH_COLUMNS


def is_old_batch_table(path: Path) -> bool:
    """Return whether it is that of version 0.1.0; a later one lies beside a record, or was moved away from it."""
    return is_batch_table(path) and "source" not in _columns(path)


def names_in(folder: Path, is_table: Callable[[Path], bool] = is_old_batch_table) -> set[str]:
    """Return the names of files in a folder that version 0.1.0 must have written; empty if it wrote nothing there.

    Args:
        folder: Their folder.
        is_table: Returns whether a cases.csv lists them.
    """
    names: set[str] = set()
    table = folder / BATCH_TABLE
    if is_table(table):
        masks = (f"{case_id}{suffix}" for case_id in _segmented(table) for suffix in _MASK_SUFFIXES)
        names |= {*_OF_BATCH, *_older(folder, masks, table)} - ({*_SIDECARS} - _older(folder, _SIDECARS, table))
    if _is_evaluation(folder):
        names |= {*_OF_EVALUATION}
    if _columns(folder / _COMPARISON_TABLE) >= _COMPARISON_COLUMNS:
        names |= {_COMPARISON_TABLE, "differences.csv"}
    if _is_run(folder):
        names |= {*_OF_RUN}
    return names


def names_below(parent: Path, name: str) -> set[str]:
    """Return the names of files in `parent / name` that version 0.1.0 must have written, by the tables of `parent`."""
    folder, table = parent / name, parent / BATCH_TABLE
    if name == "pictures" and (is_batch_table(table) or _is_evaluation(parent)):
        tables = (table, parent / _EVALUATION_TABLE)
        return {f"{case_id}.json" for path in tables for case_id in _case_ids(path, lambda _: True)}
    if _is_run(parent):
        if name.startswith("fold_"):
            return set(_OF_RUN)
        if name == "cache":
            return {path.name for path in folder.glob("*") if _PREPARED.fullmatch(path.name)}
    if is_batch_table(table) and name in _segmented(table):
        return _older(folder, _mesh_names(parent), table)
    return set()


def folders_below(parent: Path) -> list[str]:
    """Return the names of folders in `parent` that version 0.1.0 may have written into."""
    table = parent / BATCH_TABLE
    cases = _segmented(table) if is_batch_table(table) else set()
    names = {"pictures", *cases, *({"cache", *(f"fold_{n}" for n in range(100))} if _is_run(parent) else ())}
    return sorted(name for name in names if (parent / name).is_dir())


def _is_evaluation(folder: Path) -> bool:
    return _columns(folder / _EVALUATION_TABLE) >= _EVALUATION_COLUMNS


def _is_run(folder: Path) -> bool:
    """Return whether a folder holds a run: its configuration, and splits in a form that no other program writes."""
    try:
        splits = json.loads((folder / "splits.json").read_text(encoding="utf-8"))
        return (folder / _RUN_CONFIG).is_file() and all(split.keys() == {"train", "val"} for split in splits)
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _columns(path: Path) -> set[str]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return set(next(csv.reader(file), []))
    except (OSError, ValueError, csv.Error):
        return set()


def _segmented(table: Path) -> set[str]:
    return _case_ids(table, lambda row: row.get("status") == "segmented")


def _case_ids(table: Path, wanted: Callable[[dict[str, str]], bool]) -> set[str]:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return {row["case_id"] for row in csv.DictReader(file) if wanted(row)}
    except (OSError, ValueError, KeyError, csv.Error):
        return set()


def _mesh_names(parent: Path) -> list[str]:
    """Return the names of the meshes of a batch's labels."""
    try:
        labels = json.loads((parent / "labels.json").read_text(encoding="utf-8"))
        stems = {(re.sub(r"[^\w.-]+", "_", label["name"]).strip("._"), label["value"]) for label in labels}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    short = {(stem[:_LONGEST_MESH_NAME] or f"label_{value}", value) for stem, value in stems}
    names = {name for stem, value in short for name in (stem, f"{stem}_{value}")}
    return [f"{name}{suffix}" for name in names for suffix in _MESH_SUFFIXES]


def _older(folder: Path, names: Iterable[str], table: Path) -> set[str]:
    """Return the files that were not changed after the table of their batch was written."""
    latest = table.stat().st_mtime + _SLACK_SECONDS
    return {name for name in names if (folder / name).is_file() and (folder / name).stat().st_mtime <= latest}
