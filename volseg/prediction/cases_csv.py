"""What became of each case of a batch: cases.csv, and the files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from volseg.config import DataConfig
from volseg.errors import DataError
from volseg.io.tables import read_table, write_table

CASES_FILE = "cases.csv"
#: What the name of a file of probabilities has behind the case id.
PROBABILITIES = ".probabilities"


class CaseStatus(StrEnum):
    """What became of a discovered case."""

    SEGMENTED = "segmented"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True)
class Effort:
    """What a case took. Cases overlap, so that their seconds add up to more than the batch takes.

    Attributes:
        read_seconds: Reading and preparing it.
        network_seconds: In the networks.
        restore_seconds: From their answers to a mask on the grid of the case.
        write_seconds: Post-processing and writing.
        windows: Patches that the networks looked at.
        peak_memory_mb: Largest memory of the process while the networks worked on it.
    """

    read_seconds: float = 0.0
    network_seconds: float = 0.0
    restore_seconds: float = 0.0
    write_seconds: float = 0.0
    windows: int = 0
    peak_memory_mb: float = 0.0

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.read_seconds + self.network_seconds + self.restore_seconds + self.write_seconds

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s (read {self.read_seconds:.1f}, network {self.network_seconds:.1f}, "
            f"restore {self.restore_seconds:.1f}, write {self.write_seconds:.1f}), {self.windows} windows, "
            f"{self.peak_memory_mb:,.0f} MB"
        )


@dataclass(frozen=True)
class CaseResult:
    """One row of cases.csv.

    Attributes:
        case_id: The case, or a name made from the path of something that is no case.
        status: What became of it.
        reason: Why it was skipped or failed; of a segmented case a warning, where there is one.
        effort: What it took.
        volumes_ml: Label name -> volume in the mask.
        key: Hash of the input, the models and the formats, by which a continued batch knows that a mask is up to date.
    """

    case_id: str
    status: CaseStatus
    reason: str = ""
    effort: Effort = field(default_factory=Effort)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    key: str = ""


def probability_file(output: Path, case_id: str) -> Path:
    """Where the probabilities of a case lie, if they were asked for."""
    return output / f"{case_id}{PROBABILITIES}.nii.gz"


def write_results(results: Sequence[CaseResult], data: DataConfig, path: Path) -> None:
    """Write cases.csv, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    rows = [
        {
            "case_id": result.case_id,
            "status": str(result.status),
            "reason": result.reason,
            "seconds": round(result.effort.seconds, 2),
            "read_seconds": round(result.effort.read_seconds, 2),
            "network_seconds": round(result.effort.network_seconds, 2),
            "restore_seconds": round(result.effort.restore_seconds, 2),
            "write_seconds": round(result.effort.write_seconds, 2),
            "windows": result.effort.windows,
            "peak_memory_mb": round(result.effort.peak_memory_mb),
            **{f"{label.name}_ml": result.volumes_ml.get(label.name) for label in data.output_labels},
            "key": result.key,
        }
        for result in sorted(results, key=lambda result: result.case_id)
    ]
    write_table(rows, path)


def read_results(path: Path, data: DataConfig) -> dict[str, CaseResult]:
    """The segmented cases of an earlier, interrupted batch; none if the file is not one of this model."""
    try:
        table = read_table(path)
        segmented = table[table["status"] == CaseStatus.SEGMENTED]
        return {str(row["case_id"]): _result(row, data) for row in segmented.to_dict("records")}
    except (DataError, ValueError, KeyError):
        return {}


def segmented_cases(path: Path) -> list[str]:
    """The ids of the cases that a cases.csv says are segmented.

    Raises:
        DataError: If it is not of that form.
    """
    table = read_table(path, ["case_id", "status"])
    return list(table.loc[table["status"] == CaseStatus.SEGMENTED, "case_id"])


def _result(row: dict[Any, Any], data: DataConfig) -> CaseResult:
    effort = Effort(
        float(row["read_seconds"]),
        float(row["network_seconds"]),
        float(row["restore_seconds"]),
        float(row["write_seconds"]),
        int(row["windows"]),
        float(row["peak_memory_mb"]),
    )
    volumes = {label.name: float(row[f"{label.name}_ml"]) for label in data.output_labels}
    warning = row["reason"] if isinstance(row["reason"], str) else ""  # an empty cell is NaN
    return CaseResult(row["case_id"], CaseStatus.SEGMENTED, warning, effort, volumes, row["key"])
