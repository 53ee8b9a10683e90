"""A CSV manifest that says which files make a case."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from volseg.cases.case import Case, Dataset
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.io import SetAside, Source, file_source, image_suffix, single_source

#: Columns of a manifest that are not channels.
_NO_CHANNELS = frozenset({"case_id", "reference", "annotated"})


def from_manifest(path: Path, rules: DicomRules = NO_RULES) -> Dataset:
    """Read a CSV of `case_id,image[,image_2...],reference[,annotated]`; paths are relative to it.

    In the column `annotated` stand, separated by semicolons, the labels that were looked for in a reference; where it
    is empty or missing, all were.

    Raises:
        DataError: If it is no such CSV, or a case id is used twice or unsafe.
    """
    columns, rows = _read_csv(path)
    channels = tuple(column for column in columns if column not in _NO_CHANNELS)
    if "case_id" not in columns or not channels or len(set(columns)) < len(columns):
        raise DataError(
            f"{path} is no manifest: its columns are {', '.join(columns)}",
            hint="case_id,image[,image_2...],reference[,annotated]",
        )
    twice = [case_id for case_id, count in Counter(row["case_id"] for row in rows).items() if count > 1]
    if twice:
        raise DataError(f"{path} lists case {twice[0]!r} twice", hint="give each case an id of its own")
    cases: dict[str, Case] = {}
    set_aside: list[SetAside] = []
    for row in rows:
        try:
            images = {channel: _manifest_source(path, row[channel], rules) for channel in channels}
            reference = _manifest_source(path, row["reference"], rules) if row.get("reference") else None
        except DataError as error:
            set_aside.append(SetAside(path.parent / row["case_id"], error.explanation))
        else:
            cases[row["case_id"]] = Case(row["case_id"], images, reference, _annotated(row.get("annotated", "")))
    return Dataset("manifest", tuple(cases.values()), channels, set_aside=tuple(set_aside))


def _annotated(entry: str) -> frozenset[str] | None:
    return frozenset(name.strip() for name in entry.split(";") if name.strip()) or None


def with_references(dataset: Dataset) -> Dataset:
    """What of a manifest can be trained on: the cases that have a reference."""
    cases = tuple(case for case in dataset.cases if case.reference is not None)
    without = [case for case in dataset.cases if case.reference is None]
    set_aside = [
        SetAside(source.place, f"an image without a label: the manifest gives case {case.case_id} no reference")
        for case in without
        for source in case.images.values()
    ]
    return Dataset(dataset.layout, cases, dataset.channels, set_aside=(*dataset.set_aside, *set_aside))


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [{key.strip(): (value or "").strip() for key, value in row.items() if key} for row in reader]
            return [name.strip() for name in reader.fieldnames or () if name], rows
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}", hint="save it as CSV in UTF-8") from error


def _manifest_source(manifest: Path, entry: str, rules: DicomRules) -> Source:
    """The one source at a path of a manifest."""
    if not entry:
        raise DataError(f"{manifest.name} leaves a path empty", hint="fill it in, or take the row out")
    path = manifest.parent / entry
    if path.is_file() and image_suffix(path):
        return file_source(path)
    return single_source(path, fill_gaps=rules.allow_gaps)
