"""cases.csv: the outcome of each case of a batch, and the files beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from volseg.about import Hardware
from volseg.cases.case import stem
from volseg.config import DataConfig
from volseg.errors import DataError, OutputError
from volseg.exporting.description import ModelIdentity
from volseg.image.units import Units
from volseg.image.volume import Label
from volseg.io.earlier import is_batch_table
from volseg.io.files import file_name, locked_folder
from volseg.io.labels import LABELS_FILE, read_labels
from volseg.io.tables import read_cells, read_table, write_table
from volseg.io.written import is_unchanged

CASES_FILE = "cases.csv"
#: Holds rows that are not yet in the table; see `rows`.
ROWS_FOLDER = "rows"
#: Column -> cell.
Row = dict[str, str]
#: Suffix of files with probabilities, after the case id.
PROBABILITIES = ".probabilities"


class CaseStatus(StrEnum):
    """The outcome of a discovered case."""

    SEGMENTED = "segmented"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Effort:
    """The time and memory a case took. Cases overlap, so their seconds add up to more than the batch takes.

    Attributes:
        read_seconds: Reading and preparing it.
        network_seconds: In the networks.
        restore_seconds: From their logits to a mask on the grid of the case.
        write_seconds: Post-processing and writing.
        windows: Patches that the networks saw.
        peak_memory_mb: Peak memory of the process while the networks processed it.
    """

    read_seconds: float = 0.0
    network_seconds: float = 0.0
    restore_seconds: float = 0.0
    write_seconds: float = 0.0
    windows: int = 0
    peak_memory_mb: float = 0.0

    @property
    def seconds(self) -> float:
        """Their total."""
        return self.read_seconds + self.network_seconds + self.restore_seconds + self.write_seconds

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s (read {self.read_seconds:.1f}, network {self.network_seconds:.1f}, "
            f"restore {self.restore_seconds:.1f}, write {self.write_seconds:.1f}), {self.windows} windows, "
            f"{self.peak_memory_mb:,.0f} MB"
        )


@dataclass(frozen=True)
class Origin:
    """The origin of a case.

    Attributes:
        source: Path of its first channel below the input; empty if unknown.
        series_uid: SeriesInstanceUID, for a DICOM series.
        input_hash: Hash of the folder given as input.
    """

    source: str = ""
    series_uid: str = ""
    input_hash: str = ""

    def is_another_than(self, other: Origin) -> bool:
        """Return whether the two may be different patients: other series, other file names, or another input."""
        if self.series_uid and other.series_uid:
            return self.series_uid != other.series_uid
        if self.input_hash and other.input_hash and self.input_hash != other.input_hash:
            return True
        names = [PurePosixPath(origin.source) for origin in (self, other) if origin.source]
        return len({name.with_name(stem(Path(name))) for name in names}) > 1


@dataclass(frozen=True)
class CaseResult:
    """One row of cases.csv.

    Attributes:
        case_id: The case, or a name made from the path of something that is not a case.
        status: Its outcome.
        reason: Why it was skipped or failed; for a segmented case, a warning if there is one.
        effort: Time and memory it took.
        volumes_ml: Label name -> volume in the mask.
        key: Hash of the input, the models and the formats, by which a continued batch recognises an up-to-date mask.
        source: Path of its first channel below the input; empty where it must not be disclosed.
        series_uid: SeriesInstanceUID, for a DICOM series.
        input_hash: Hash of the folder given as input.
        model: Name and hashes of the model that made its mask, as `ModelIdentity` writes them; empty if not known.
        is_unchanged: Whether its mask is from an earlier batch, since nothing changed; not a column of the table.
        is_fault: Whether it was skipped although it may be an image, and needs attention; not a column either.
        machine: The hardware that segmented it, if another process did; not a column either.
    """

    case_id: str
    status: CaseStatus
    reason: str = ""
    effort: Effort = field(default_factory=Effort)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    key: str = ""
    source: str = ""
    series_uid: str = ""
    input_hash: str = ""
    model: str = ""
    is_unchanged: bool = False
    is_fault: bool = False
    machine: Hardware | None = None


def probability_file(output: Path, case_id: str) -> Path:
    """Return the path of a case's probabilities."""
    return output / file_name(f"{case_id}{PROBABILITIES}.nii.gz")


def merge_results(results: Sequence[CaseResult], data: DataConfig, path: Path) -> None:
    """Merge the results of some cases into cases.csv; rows of other cases, from this batch or another, stay.

    Several batches may write into one folder, one after the other or at the same time: each knows its own cases only.

    Args:
        results: One per row.
        data: Of the model.
        path: The table.

    Raises:
        OutputError: If it cannot be written, or a batch with other labels has begun to write into the folder.
    """
    empty = row_of(CaseResult("", CaseStatus.SKIPPED), data)  # its columns, where the table has no row yet
    merge_rows([row_of(result, data) for result in results], data.output_labels, path, list(empty))


def merge_rows(new: Sequence[Row], labels: Sequence[Label], path: Path, columns: Sequence[str] = ()) -> None:
    """Merge rows into cases.csv.

    Args:
        new: The rows; each replaces that of its case.
        labels: Of the masks.
        path: The table.
        columns: Columns that it has in any case.

    Raises:
        OutputError: If it cannot be written, or a batch with other labels has begun to write into the folder.
    """
    known = {row["case_id"] for row in new}
    with locked_folder(path.parent):
        if meant_otherwise(path.parent, labels):
            raise OutputError(
                f"another batch writes masks with other labels into {path.parent}", hint="choose another --output"
            )
        rows = [*new, *(row for row in read_rows(path) if row["case_id"] not in known)]
        all_columns = dict.fromkeys([*(name for row in rows for name in row), *columns])
        write_table(sorted(rows, key=lambda row: row["case_id"]), path, list(all_columns))


def row_of(result: CaseResult, data: DataConfig) -> Row:
    """Format a result as a row of the table."""
    effort, names = result.effort, [label.name for label in data.output_labels]
    cells = {
        "case_id": result.case_id,
        "status": str(result.status),
        "reason": result.reason,
        "seconds": round(effort.seconds, 2),
        "read_seconds": round(effort.read_seconds, 2),
        "network_seconds": round(effort.network_seconds, 2),
        "restore_seconds": round(effort.restore_seconds, 2),
        "write_seconds": round(effort.write_seconds, 2),
        "windows": effort.windows,
        "peak_memory_mb": round(effort.peak_memory_mb),
        **{_size_column(name, data): _size(result, name, data) for name in names},
        "key": result.key,
        "source": result.source,
        "series_uid": result.series_uid,
        "input_hash": result.input_hash,
        "model": result.model,
    }
    return {name: _cell(value) for name, value in cells.items()}


def _size_column(label: str, data: DataConfig) -> str:
    """Return the column of a label's volume, or of its area in pixels."""
    return f"{label}_{Units.of(data.unit).size}"


def _size(result: CaseResult, label: str, data: DataConfig) -> float | None:
    volume_ml = result.volumes_ml.get(label)
    return round(Units.of("px").per_ml * volume_ml) if data.unit == "px" and volume_ml is not None else volume_ml


def _cell(value: str | float | None) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a cases.csv as strings; none if there is no such table."""
    return list(read_cells(path)) if is_batch_table(path) else []


def results_of(rows: Iterable[Row], data: DataConfig) -> dict[str, CaseResult]:
    """Return the segmented cases of earlier batches, except those whose rows belong to another model."""
    results = {}
    for row in rows:
        if row["status"] == CaseStatus.SEGMENTED:
            with contextlib.suppress(ValueError, KeyError):
                results[row["case_id"]] = _result(row, data)
    return results


def meant_otherwise(folder: Path, labels: Sequence[Label]) -> bool:
    """Return whether an output folder has masks whose labels.json gives their values another meaning."""
    stated = folder / LABELS_FILE
    if not is_unchanged(stated) or _meanings(read_labels(stated)) == _meanings(labels):
        return False
    merged = any(row["status"] == CaseStatus.SEGMENTED for row in read_rows(folder / CASES_FILE))
    return merged or any((folder / ROWS_FOLDER).glob("*.json"))


def _meanings(labels: Sequence[Label]) -> set[tuple[int, str, tuple[int, ...]]]:
    return {(label.value, label.name, label.parts) for label in labels}


def segmented_cases(path: Path) -> dict[str, Origin]:
    """Read the ids of the cases that a cases.csv lists as segmented, with their origin as far as it is stated.

    Raises:
        DataError: If it has another form.
    """
    table = read_table(path, ["case_id", "status"])
    segmented = table[table["status"] == CaseStatus.SEGMENTED].to_dict("records")
    return {str(row["case_id"]): _origin(row) for row in segmented}


def read_origins(path: Path) -> dict[str, Origin]:
    """Read the same of an earlier batch; empty if the file is missing or not such a table."""
    try:
        return segmented_cases(path)
    except DataError:
        return {}


def origins_of(rows: Iterable[Row]) -> dict[str, Origin]:
    """Return id -> origin of the segmented cases among some rows."""
    return {row["case_id"]: _origin(row) for row in rows if row["status"] == CaseStatus.SEGMENTED}


def models_in(folder: Path) -> dict[str, ModelIdentity]:
    """Return case id -> the model that segmented it, as far as the cases.csv of a folder says so."""
    rows = [row for row in read_rows(folder / CASES_FILE) if row["status"] == CaseStatus.SEGMENTED]
    stated = {row["case_id"]: ModelIdentity.parse(row.get("model", "")) for row in rows}
    return {case_id: model for case_id, model in stated.items() if model}


def _result(row: Mapping[str, str], data: DataConfig) -> CaseResult:
    effort = Effort(
        float(row["read_seconds"]),
        float(row["network_seconds"]),
        float(row["restore_seconds"]),
        float(row["write_seconds"]),
        int(row["windows"]),
        float(row["peak_memory_mb"]),
    )
    per_ml = Units.of(data.unit).per_ml
    volumes = {label.name: float(row[_size_column(label.name, data)]) / per_ml for label in data.output_labels}
    return CaseResult(
        row["case_id"],
        CaseStatus.SEGMENTED,
        row["reason"],
        effort,
        volumes,
        row["key"],
        row.get("source", ""),
        row.get("series_uid", ""),
        row.get("input_hash", ""),
        row.get("model", ""),
    )


def _origin(row: Mapping[Any, object]) -> Origin:
    return Origin(_text(row, "source"), _text(row, "series_uid"), _text(row, "input_hash"))


def _text(row: Mapping[Any, object], column: str) -> str:
    """Return a cell as text, empty if missing: tables of 0.1.0 lack these columns."""
    value = row.get(column)
    return value if isinstance(value, str) else ""
