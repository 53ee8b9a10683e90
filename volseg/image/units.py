"""Units of lengths and sizes: millimetres and millilitres, or pixels for pictures without a stated size."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from volseg.image.geometry import Unit


@dataclass(frozen=True)
class Units:
    """Units of lengths and sizes, as used in column names.

    Attributes:
        length: Of distances.
        size: Of volumes, or of areas in flat images.
        per_ml: Number of that size per millilitre of the grid: a thousand pixels if its unit is the pixel.
    """

    length: str
    size: str
    per_ml: int

    def said(self, volume_ml: float) -> str:
        """Format a size: "2.18 ml", "2180 px2"."""
        return f"{self.per_ml * volume_ml:.{3 if self.per_ml == 1 else 6}g} {self.size}"

    @classmethod
    def of(cls, unit: Unit) -> Units:
        """Return the units for grids of a unit."""
        return _PIXELS if unit == "px" else _MILLIMETRES

    @classmethod
    def of_columns(cls, columns: Container[str]) -> Units:
        """Return the units of a table by its columns: metrics.csv, or a summary of it."""
        named = any(f"hd95_{_PIXELS.length}{end}" in columns for end in ("", "_mean"))
        return _PIXELS if named else _MILLIMETRES


_MILLIMETRES, _PIXELS = Units("mm", "ml", 1), Units("px", "px2", 1000)
