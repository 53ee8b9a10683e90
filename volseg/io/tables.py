"""CSV tables: writing and reading."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import DataError
from volseg.io.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd

#: Text columns, even if every cell looks like a number or is empty; all others hold numbers.
_TEXTS = dict.fromkeys(
    [
        *("case_id", "label", "metric", "status", "first_status", "second_status", "reason", "path", "key", "source"),
        *("series_uid", "input_hash", "model", "policy", "definition", "better", "worst_cases"),
    ],
    str,
)
_HINT = "name a folder that volseg wrote"


def write_table(
    rows: pd.DataFrame | Sequence[Any],
    path: Path,
    columns: list[str] | None = None,
    *,
    float_format: str = "%.6g",
) -> None:
    """Write a CSV, whole or not at all; missing values are empty cells.

    Args:
        rows: A table, or a mapping or dataclass per row.
        path: The file.
        columns: The columns, in order; by default all that the rows have. Required for a header if there are no rows.
        float_format: Of numbers that are not integers.

    Raises:
        OutputError: If it cannot be written.
    """
    import pandas as pd

    with atomic_path(path) as temporary:
        table = pd.DataFrame(rows, columns=columns)
        table.to_csv(temporary, index=False, float_format=float_format, errors="backslashreplace")


def as_csv(rows: Iterable[Sequence[str]], columns: Sequence[str]) -> str:
    """Format rows of strings as the text of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    return text.getvalue()


def read_table(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV that volseg wrote; only empty cells are NaN, "NA" and the like are names.

    Args:
        path: The file.
        columns: Required columns.

    Raises:
        DataError: If it is not such a table.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=_TEXTS, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a table of results: {error}", hint=_HINT) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(f"{path} is not a table of results: it has no column {missing[0]}", hint=_HINT)
    return table


def read_cells(path: Path) -> list[dict[str, str]]:
    """Read a CSV as text: a mapping per row, every cell unparsed.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: cell or "" for name, cell in row.items() if name} for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} is not a table of results: {error}", hint=_HINT) from error
