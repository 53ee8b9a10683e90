"""In what lengths and sizes are measured: millimetres and millilitres, or the pixels of pictures that state no size."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from volseg.image.geometry import Unit


@dataclass(frozen=True)
class Units:
    """The ends of the names of columns.

    Attributes:
        length: Of distances.
        size: Of volumes, or of the areas of what is flat.
    """

    length: str
    size: str

    @classmethod
    def of(cls, unit: Unit) -> Units:
        """Those of grids of a unit."""
        return _PIXELS if unit == "px" else _MILLIMETRES

    @classmethod
    def of_columns(cls, columns: Container[str]) -> Units:
        """Those of a table: of metrics.csv, or of what was summed up of it."""
        named = any(f"hd95_{_PIXELS.length}{end}" in columns for end in ("", "_mean"))
        return _PIXELS if named else _MILLIMETRES


_MILLIMETRES, _PIXELS = Units("mm", "ml"), Units("px", "px2")
#: Cubic millimetres in a millilitre: so many pixels are called one where a grid counts pixels.
PER_ML = 1000
