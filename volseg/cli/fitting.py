"""Tables as lines of text, optionally fitted to the width of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

#: Of what was cut off.
_ELLIPSIS = "…"
_LEAST_WIDTH = 8


def aligned_lines(rows: Sequence[Sequence[str]], gap: int = 2) -> list[str]:
    """Align the cells of rows in columns."""
    widths = _widths(rows)
    return [(" " * gap).join(map(str.ljust, row, widths)).rstrip() for row in rows]


def fitted_lines(
    header: Sequence[str], rows: Sequence[Sequence[str]], width: int, dispensable: Sequence[str] = ()
) -> list[str]:
    """Align a table so that no line is longer than a terminal is wide.

    A table that is too wide gets headers of two lines, then loses dispensable columns of nothing but zeros, then wide
    gaps, then the other dispensable columns; in the end its widest columns are cut off.

    Args:
        header: Names of the columns, of words with underscores between them.
        rows: Their cells.
        width: Of the terminal, in characters.
        dispensable: Names of columns that may be left out, the first ones first.

    Returns:
        The lines.
    """
    lines = aligned_lines([tuple(header), *rows])
    if _width(lines) <= width:
        return lines
    for shown, gap in _ever_narrower([tuple(header), *rows], dispensable):
        broken = _with_broken_header(shown)
        lines = aligned_lines(broken, gap)
        if _width(lines) <= width:
            return lines
    return aligned_lines(_cut_off(broken, width, gap), gap)


def _ever_narrower(
    table: Sequence[Sequence[str]], dispensable: Sequence[str]
) -> Iterator[tuple[Sequence[Sequence[str]], int]]:
    """Yield a table and the gap between its columns, then narrower versions of both."""
    yield table, 2
    header, *rows = table
    zero = [name for name in dispensable if all(row[header.index(name)] == "0" for row in rows)]
    for name in zero:
        table = _without(table, name)
    yield table, 2
    yield table, 1
    for name in dispensable:
        if name not in zero:
            table = _without(table, name)
            yield table, 1


def _without(table: Sequence[Sequence[str]], name: str) -> list[Sequence[str]]:
    place = table[0].index(name)
    return [(*row[:place], *row[place + 1 :]) for row in table]


def _with_broken_header(table: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Break column names that are wider than their cells at the last underscore."""
    cells = _widths(table[1:]) if table[1:] else [0] * len(table[0])
    parts = [
        name.rsplit("_", 1) if len(name) > width and "_" in name else [name]
        for name, width in zip(table[0], cells, strict=True)
    ]
    ends = [part[1] if len(part) > 1 else "" for part in parts]
    return [[part[0] for part in parts], *([ends] if any(ends) else []), *table[1:]]


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _width(lines: Sequence[str]) -> int:
    return max(map(len, lines))


def _cut_off(table: Sequence[Sequence[str]], width: int, gap: int) -> list[list[str]]:
    """Cut off the cells of the widest columns."""
    widths = _widths(table)
    while sum(widths) + gap * (len(widths) - 1) > width and max(widths) > _LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    return [
        [cell if len(cell) <= room else cell[: room - 1] + _ELLIPSIS for cell, room in zip(row, widths, strict=True)]
        for row in table
    ]
