"""CSV tables as spreadsheets and other programs write them, with any separator, encoding and line end."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from volseg.errors import DataError

_SEPARATORS = ",;\t|"
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        line: Its line number, from 1.
        cells: Column -> its text, stripped; empty if the row is too short.
        surplus: Text behind the last column.
    """

    line: int
    cells: Mapping[str, str]
    surplus: str = ""


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Read a table whose first line names its columns.

    Cells are separated by commas, semicolons, tabs or bars: whichever is most frequent in the first line, or what a
    line `sep=;` of Excel says. Blanks around cells, trailing empty columns and empty lines are ignored. Bytes that are
    neither UTF-8 nor UTF-16 are read as Latin-1, as on Windows.

    Returns:
        The columns, and the rows that hold anything.

    Raises:
        DataError: If the file cannot be read, or is not such a table.
    """
    try:
        text = _text(path.read_bytes())
        separator, skipped = _separator(text)
        lines = text.splitlines(keepends=True)[skipped:]
        reader = csv.reader(
            io.StringIO("".join(lines), newline=""), delimiter=separator, strict=True, skipinitialspace=True
        )
        table = [(reader.line_num + skipped, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}", hint="save it as CSV in UTF-8") from error
    filled = [(line, cells) for line, cells in table if any(cells)]
    if not filled:
        return [], []
    _, columns = filled[0]
    while columns and not columns[-1]:
        columns = columns[:-1]
    rows = []
    for line, cells in filled[1:]:
        padded = [*cells, *[""] * len(columns)]
        named = dict(zip(columns, padded, strict=False))
        rows.append(Row(line, named, "; ".join(cell for cell in cells[len(columns) :] if cell)))
    return columns, rows


def _text(content: bytes) -> str:
    """Decode the bytes of a text file."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    if b"\0" in content[:200]:  # UTF-16 without its mark: every other byte of an ASCII character is zero
        return content.decode("utf-16-be" if content[:1] == b"\0" else "utf-16-le")
    for encoding in ("utf-8", "cp1252"):
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode(encoding)
    return content.decode("latin-1")


def _separator(text: str) -> tuple[str, int]:
    """Return the cell separator, and the number of lines at the head that only state it."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if first.lower().startswith("sep=") and len(first) > 4:
        return first[4], text.splitlines().index(first) + 1
    outside = "".join(part for number, part in enumerate(first.split('"')) if number % 2 == 0)
    return max(_SEPARATORS, key=lambda separator: (outside.count(separator), -_SEPARATORS.index(separator))), 0
