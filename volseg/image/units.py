"""In what lengths and sizes are measured: millimetres and millilitres, or the pixels of pictures that state no size."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from volseg.image.geometry import Unit


@dataclass(frozen=True)
class Units:
    """What lengths and sizes are measured in, as the names of columns end.

    Attributes:
        length: Of distances.
        size: Of volumes, or of the areas of what is flat.
        per_ml: So many of that size are what a grid calls a millilitre: a thousand pixels, where it counts pixels.
    """

    length: str
    size: str
    per_ml: int

    def said(self, volume_ml: float) -> str:
        """A size in words: "2.18 ml", "2180 px2"."""
        return f"{self.per_ml * volume_ml:.{3 if self.per_ml == 1 else 6}g} {self.size}"

    @classmethod
    def of(cls, unit: Unit) -> Units:
        """Those of grids of a unit."""
        return _PIXELS if unit == "px" else _MILLIMETRES

    @classmethod
    def of_columns(cls, columns: Container[str]) -> Units:
        """Those of a table: of metrics.csv, or of what was summed up of it."""
        named = any(f"hd95_{_PIXELS.length}{end}" in columns for end in ("", "_mean"))
        return _PIXELS if named else _MILLIMETRES


_MILLIMETRES, _PIXELS = Units("mm", "ml", 1), Units("px", "px2", 1000)
