"""Self-contained HTML pages made of tables and pictures, which open without a network."""

from __future__ import annotations

import base64
import html
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from volseg.io.files import write_text
from volseg.reporting.picture import Picture
from volseg.version import __version__

if TYPE_CHECKING:
    import pandas as pd

#: The page, and the table of what somebody should look at in a batch.
REPORT_FILE, REVIEW_FILE = "report.html", "review.csv"
#: What runs in the page, in this order.
_SCRIPTS = ("page.data.js", "page.charts.js", "page.slices.js", "page.cases.js", "page.case.js", "page.js")


@dataclass(frozen=True)
class Tile:
    """A number at the top of a page.

    Attributes:
        name: What it is.
        value: As it is shown.
        alarm: Whether somebody should look into it.
    """

    name: str
    value: str
    alarm: bool = False


@dataclass(frozen=True)
class Number:
    """A column of the table of cases.

    Attributes:
        name: As in the CSV.
        definition: In a sentence.
        better: higher, lower, zero or neither.
    """

    name: str
    definition: str
    better: str = "neither"


def _no_rows() -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True, eq=False)
class Report:
    """The content of a page.

    Attributes:
        kind: What it is a report of.
        title: Its headline.
        tiles: What is seen first.
        facts: What was run, in pairs of name and value.
        rows: A row per case and label: case_id, label, status, the numbers, and perhaps a reason.
        numbers: What the columns of `rows` are.
        table: The numbers that the table of cases shows.
        sort: By which column the table is sorted at first, the worst on top.
        summary: A row per label, with counts and means; may be empty.
        means: The columns of `summary` that are shown.
        policy: How missing structures count.
        history: A row per epoch and network, which the column `fold` names; may be empty.
        colors: Label -> the colour it is shown in, as "#dd8265".
        pictures: Case id -> what was drawn of it.
        no_pictures: Why a case has none.
    """

    kind: str
    title: str
    tiles: tuple[Tile, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    rows: pd.DataFrame = field(default_factory=_no_rows)
    numbers: tuple[Number, ...] = ()
    table: tuple[str, ...] = ()
    sort: str = "case_id"
    summary: pd.DataFrame = field(default_factory=_no_rows)
    means: tuple[str, ...] = ()
    policy: str = ""
    history: pd.DataFrame = field(default_factory=_no_rows)
    colors: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    no_pictures: str = "Nothing was drawn of this case."


def counted(count: int, word: str) -> str:
    """Return a number and a word: "1 label", "2 labels"."""
    return f"{count} {word}{'s' * (count != 1)}"


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.html` atomically.

    Returns:
        The file.

    Raises:
        OutputError: If it cannot be written.
    """
    path = folder / REPORT_FILE
    write_text(path, render(report))
    return path


def render(report: Report) -> str:
    """Render a page as one HTML text, with its data, the chart library and the scripts.

    A page asks nothing of a network; its content security policy would not let it.
    """
    return Template(_resource("page.html")).substitute(
        title=html.escape(f"{report.title} - volseg"),
        style=_resource("page.css"),
        plotly=_plotly(),
        script="\n".join(_resource(name) for name in _SCRIPTS),
        data=_embedded(_content(report)),
    )


def _content(report: Report) -> dict[str, Any]:
    """Return the data that the scripts of the page read."""
    directions = {number.name: number.better for number in report.numbers}
    return {
        "kind": report.kind,
        "title": report.title,
        "headline": [asdict(tile) for tile in report.tiles],
        "facts": report.facts,
        "rows": _columns(report.rows),
        "columns": [asdict(number) for number in report.numbers],
        "table_metrics": report.table,
        "sort": report.sort,
        "descending": directions.get(report.sort) == "lower",
        "summary": _with_intervals(_records(report.summary), report.means),
        "summary_metrics": report.means,
        "policy": report.policy,
        "history": _records(report.history),
        "colors": dict(report.colors),
        "pictures": {case_id: asdict(picture) for case_id, picture in report.pictures.items()},
        "no_pictures": report.no_pictures,
        "footer": f"Made by volseg {__version__}, a research tool and no medical device.",
    }


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return column -> values, which is shorter than repeating column names in each row."""
    known = table.astype(object).where(table.notna(), None)
    return {str(name): [_plain(value) for value in known[name]] for name in known}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as plain values, with None for missing ones."""
    known = table.astype(object).where(table.notna(), None)
    return [{str(name): _plain(value) for name, value in row.items()} for row in known.to_dict("records")]


def _plain(value: Any) -> Any:
    """Return a value for JSON: numbers with six digits, as in the tables, and None if not finite."""
    if value is None or isinstance(value, str | bool):
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else float(f"{number:.6g}")


def _with_intervals(rows: list[dict[str, Any]], means: tuple[str, ...]) -> list[dict[str, Any]]:
    """Add the confidence interval of each mean as a pair, if the table has one."""
    for row in rows:
        for name in means:
            stem = name.removesuffix("_mean")
            low, high = row.get(f"{stem}_ci95_low"), row.get(f"{stem}_ci95_high")
            if low is not None and high is not None:
                row[f"{name}_ci95"] = [low, high]
    return rows


def _embedded(content: dict[str, Any]) -> str:
    """Return JSON that cannot end its HTML element, whatever a label is called."""
    return json.dumps(content, separators=(",", ":"), ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")


@cache
def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """Return the chart library, compressed to a third; the page decompresses it."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(zlib.compress(get_plotlyjs().encode("utf-8"), 9)).decode("ascii")
