"""rows/: the outcome of each case as the process that segmented it wrote it, until it is merged into cases.csv.

Many processes on many machines may segment one folder. Each writes the masks of a case, then its row into a file of
its own; one process alone merges the rows into the table. Whichever of them is killed, the table is true after the next
merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from volseg.config import DataConfig
from volseg.image.volume import Label
from volseg.io.files import file_name, locked_folder
from volseg.io.json_files import read_json, write_json
from volseg.io.record import written_names
from volseg.io.written import remove_written_files
from volseg.prediction.cases_csv import CASES_FILE, ROWS_FOLDER, CaseResult, Row, merge_rows, read_rows, row_of


def write_row(result: CaseResult, data: DataConfig, output: Path) -> None:
    """Write the row of a case into its own file.

    Args:
        result: The outcome of the case.
        data: Of the model.
        output: The folder of the masks.

    Raises:
        OutputError: If it cannot be written.
    """
    write_json(output / ROWS_FOLDER / file_name(f"{result.case_id}.json"), row_of(result, data))


def collect_rows(output: Path, labels: Sequence[Label]) -> list[Row]:
    """Merge the rows in rows/ into cases.csv, and remove them there.

    Args:
        output: The folder of the masks.
        labels: Of the masks.

    Returns:
        The rows.

    Raises:
        OutputError: If the table cannot be written, or its masks have other labels.
        DataError: If a row is damaged.
    """
    folder = output / ROWS_FOLDER
    if not folder.is_dir():
        return []
    with locked_folder(folder):  # nobody replaces a row between the reading and the removal
        rows = _waiting(folder)
        if rows:
            merge_rows(list(rows.values()), labels, output / CASES_FILE)
        remove_written_files(folder, list(rows))
    return list(rows.values())


def known_rows(output: Path) -> list[Row]:
    """Return the rows of cases.csv, as far as rows/ has none that are newer, and those.

    Raises:
        DataError: If a row is damaged.
    """
    folder = output / ROWS_FOLDER
    with locked_folder(folder) if folder.is_dir() else nullcontext():  # no merge moves a row from one to the other
        waiting = {row["case_id"]: row for row in _waiting(folder).values()}
        merged = read_rows(output / CASES_FILE)
    return [*(row for row in merged if row["case_id"] not in waiting), *waiting.values()]


def _waiting(folder: Path) -> dict[Path, Row]:
    """Read the rows that volseg wrote into a folder; none if there is no such folder."""
    names = (name for name in sorted(written_names(folder)) if name.endswith(".json"))
    paths = [folder / name for name in names if (folder / name).is_file()]
    return {path: read_json(path, _row, "is not a row of cases.csv", "delete it") for path in paths}


def _row(content: Any) -> Row:
    row = {str(name): str(cell) for name, cell in content.items()}
    if not {"case_id", "status"} <= set(row):
        raise ValueError("it names no case")
    return row
