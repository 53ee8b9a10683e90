"""CSV manifests, which list the files of each case."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from volseg.cases.case import Case, Dataset
from volseg.cases.case_ids import case_id_of, same_on_any_disk
from volseg.cases.listed import listed_path, listed_reference, listed_source
from volseg.cases.manifest_csv import Row, read_rows
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.io import SetAside, Source

_COLUMNS = "case_id,image[,image_2...],reference[,annotated]"
#: Alternative names of the columns that are not channels, in lower case.
_CALLED: Mapping[str, tuple[str, ...]] = {
    "case_id": ("case_id", "caseid", "case", "id", "subject_id", "subject", "patient_id", "patient"),
    "reference": ("reference", "label", "labels", "mask", "segmentation", "seg", "ground_truth", "gt"),
    "annotated": ("annotated",),
}


def is_manifest(path: Path) -> bool:
    """Return whether a path is a manifest."""
    return path.is_file() and path.suffix.lower() in {".csv", ".tsv"}


def from_manifest(path: Path, rules: DicomRules = NO_RULES) -> Dataset:
    """Read a CSV of `case_id,image[,image_2...],reference[,annotated]`; paths are relative to it, or absolute.

    The column `annotated` lists the labels annotated in a reference, separated by semicolons or commas; if it is empty
    or missing, all were. A row that cannot be used is set aside without affecting others.

    Raises:
        DataError: If it is not such a CSV.
    """
    columns, rows = read_rows(path)
    meant = _meant(path, columns)
    channels = tuple(column for column in columns if column not in meant.values())
    if "case_id" not in meant or not channels or len(set(columns)) < len(columns):
        raise DataError(f"{path} is not a manifest: its columns are {', '.join(columns)}", hint=_COLUMNS)
    _check_channels(path, channels, rows)
    counts = Counter(same_on_any_disk(row.cells[meant["case_id"]]) for row in rows)
    cases: dict[str, Case] = {}
    set_aside: list[SetAside] = []
    for row in rows:
        case_id = unicodedata.normalize("NFC", row.cells[meant["case_id"]])
        try:
            _check_row(path, row, case_id, counts[same_on_any_disk(case_id)])
            cases[case_id] = _case(path, row, case_id, meant, channels, rules)
        except DataError as error:
            place = path.parent / case_id_of(case_id) if case_id else path
            set_aside.append(SetAside(place, f"line {row.line}: {error.explanation}", is_fault=True))
    return Dataset("manifest", tuple(cases.values()), _named(channels), set_aside=tuple(set_aside))


def with_references(dataset: Dataset) -> Dataset:
    """Keep the cases of a manifest that can be trained on: those with a reference."""
    cases = tuple(case for case in dataset.cases if case.reference is not None)
    first = {source: case for case in reversed(cases) for source in case.images.values()}
    twice = [case for case in cases if any(first[source] is not case for source in case.images.values())]
    cases = tuple(case for case in cases if case not in twice)
    without = [case for case in dataset.cases if case.reference is None]
    set_aside = [
        SetAside(source.place, f"an image without a label: the manifest gives case {case.case_id} no reference")
        for case in without
        for source in case.images.values()
    ]
    set_aside += [
        SetAside(
            case.image.place, f"case {case.case_id} shares an image with another case, so one could test the other"
        )
        for case in twice
    ]
    return Dataset(dataset.layout, cases, dataset.channels, set_aside=(*dataset.set_aside, *set_aside))


def _meant(path: Path, columns: list[str]) -> dict[str, str]:
    """Return standard column name ("reference") -> name in the file ("Mask").

    Raises:
        DataError: If two columns mean the same.
    """
    plain = {column: column.lower().replace(" ", "_").replace("-", "_") for column in columns}
    meant: dict[str, str] = {}
    for meaning, names in _CALLED.items():
        found = [column for column in columns if plain[column] in names]
        exact = [column for column in found if plain[column] == meaning]
        # An alternative name may be that of a channel only if the standard column exists as well.
        if len(exact or found) > 1 or (meaning == "reference" and len(found) > 1):
            raise DataError(
                f"{path} is not a manifest: the columns {', '.join(found)} may all be the {meaning}",
                hint=f"name the columns {_COLUMNS}",
            )
        if found:
            meant[meaning] = (exact or found)[0]
    return meant


def _check_channels(path: Path, channels: tuple[str, ...], rows: list[Row]) -> None:
    """Check that no image column is without files in every row, while another one has some.

    Raises:
        DataError: If one is; names it, since it holds something else.
    """
    existing = {
        channel: any(row.cells[channel] and listed_path(path.parent, row.cells[channel]).exists() for row in rows)
        for channel in channels
    }
    if any(existing.values()) and not all(existing.values()):
        strange = next(channel for channel, exists in existing.items() if not exists)
        raise DataError(
            f"{path} is not a manifest: every column but {', '.join(_CALLED)} is a channel, and no cell of {strange!r} "
            "names a file",
            hint=f"remove the column, or correct its paths; the columns are {_COLUMNS}",
        )


def _case(
    path: Path, row: Row, case_id: str, meant: Mapping[str, str], channels: tuple[str, ...], rules: DicomRules
) -> Case:
    images = {
        name: _source(path, row.cells[column], rules) for name, column in zip(_named(channels), channels, strict=True)
    }
    stated = {meaning: row.cells[column] for meaning, column in meant.items()}
    reference = listed_reference(path.parent, stated["reference"], rules) if stated.get("reference") else None
    return Case(case_id, images, reference, _annotated(stated.get("annotated", "")))


def _named(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the channels; a single one is the image however it is spelled."""
    return ("image",) if [channel.lower() for channel in channels] == ["image"] else channels


def _check_row(path: Path, row: Row, case_id: str, count: int) -> None:
    if row.surplus:
        raise DataError(
            f"it has more cells than there are columns: {row.surplus}", hint="put quotes around text with commas"
        )
    if count > 1:
        raise DataError(
            f"{path} lists case {case_id!r} twice, or one whose files would have the same names on some disks",
            hint="give each case its own id",
        )


def _annotated(entry: str) -> frozenset[str] | None:
    return frozenset(name.strip() for name in entry.replace(",", ";").split(";") if name.strip()) or None


def _source(manifest: Path, entry: str, rules: DicomRules) -> Source:
    """Return the only source at a path of a manifest."""
    if not entry:
        raise DataError(f"{manifest.name} leaves a path empty", hint="fill it in, or remove the row")
    return listed_source(manifest.parent, entry, rules)
