"""One HTML file that a person wants to look at.

`picture` draws a case, `page` puts tables and pictures into a page; `page.html`, `page.css` and `page.js` are what a
browser sees of it. Charts are Plotly's.
"""

from __future__ import annotations

from volseg.report.page import REPORT_FILE, Number, Report, Tile, render, write_report
from volseg.report.picture import Picture, Slice, Surface, draw

__all__ = [
    "REPORT_FILE",
    "Number",
    "Picture",
    "Report",
    "Slice",
    "Surface",
    "Tile",
    "draw",
    "render",
    "write_report",
]
