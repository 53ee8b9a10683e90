"""Outlines in pictures as references: GeoJSON and COCO annotations."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from volseg.errors import GeometryError
from volseg.image.geometry import Geometry
from volseg.io.coco import read_annotations
from volseg.io.json_files import read_json
from volseg.io.segments import Marked, Segment
from volseg.io.shapes import Shape, polygon
from volseg.io.source import SegmentsSource

logger = logging.getLogger(__name__)

_ELSEWHERE = "draw the outlines in this picture, at its size"
#: Suffixes of files with outlines.
SUFFIXES: Mapping[str, Literal["geojson", "coco"]] = {".geojson": "geojson", ".coco.json": "coco"}


def outline_suffix(path: Path) -> str:
    """Return the suffix that makes a path a file of outlines; empty if there is none."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def outlines_in(path: Path) -> SegmentsSource:
    """Return the source for a file of outlines, with their names.

    Raises:
        DataError: If it is damaged, or not such a file.
    """
    kind = SUFFIXES[outline_suffix(path)]
    return _source(path, kind, tuple(_of_geojson(path) if kind == "geojson" else read_annotations(path).segments))


def outlines_of(path: Path) -> dict[str, SegmentsSource]:
    """Return the pictures that a COCO file annotates, by name, with their outlines.

    Raises:
        DataError: If it is damaged, or not such a file.
    """
    annotations = read_annotations(path)
    return {name: _source(path, "coco", annotations.segments, name) for name in annotations.drawn}


def _source(
    path: Path, kind: Literal["geojson", "coco"], segments: Sequence[Segment], picture: str = ""
) -> SegmentsSource:
    names, values = tuple(segment.name for segment in segments), tuple(segment.number for segment in segments)
    return SegmentsSource(path, kind, names=names, values=values, picture=picture)


def read_outlines(source: SegmentsSource, geometry: Geometry) -> Iterator[Marked]:
    """Rasterise the labels outlined in a file on the grid of a picture.

    Args:
        source: Of a picture.
        geometry: Of the picture, in its storage order.

    Yields:
        Each label, whose pixels are computed on request.

    Raises:
        DataError: If the file is damaged, or covers several pictures and it is not stated which one to use.
    """
    path = source.path
    shapes = _of_geojson(path) if source.kind == "geojson" else read_annotations(path).of(source.picture)
    for segment, own in shapes.items():
        yield Marked(segment, partial(_pixels, own, geometry, f"{path.name}: {segment.name}"))


def _pixels(shapes: Sequence[Shape], geometry: Geometry, name: str) -> NDArray[np.bool_]:
    columns, rows, slices = geometry.shape
    if slices != 1:
        raise GeometryError(f"{name} is outlined in a picture, not in a volume", hint="give the picture itself")
    marked = np.zeros((columns, rows), np.bool_)
    for number, shape in enumerate(shapes, start=1):
        try:
            own = shape((columns, rows))
        except ValueError as error:
            raise GeometryError(f"{name}: {error}", hint=_ELSEWHERE) from error
        if not own.any():
            logger.warning("%s: outline %d of %d marks no pixel of the picture", name, number, len(shapes))
        marked |= own
    if shapes and not marked.any():
        raise GeometryError(
            f"{name}: none of its {len(shapes)} outlines marks a pixel of the {columns}x{rows} of the picture",
            hint=_ELSEWHERE,
        )
    return marked[..., np.newaxis]


def _of_geojson(path: Path) -> dict[Segment, list[Shape]]:
    return read_json(path, _parsed, "is not GeoJSON of polygons", "export the outlines again, as polygons")


def _parsed(content: Any) -> dict[Segment, list[Shape]]:
    features = content["features"] if isinstance(content, dict) and "features" in content else content
    features = [features] if isinstance(features, dict) else features
    by_name: dict[str, list[Shape]] = {}
    stated: dict[str, int] = {}
    for feature in features:
        properties = feature.get("properties") or {}
        name = _name_in(properties)
        value = properties.get("value")
        if isinstance(value, int) and not isinstance(value, bool):
            stated[name] = value
        match feature["geometry"]:
            case {"type": "Polygon", "coordinates": rings}:
                by_name.setdefault(name, []).append(polygon(rings))
            case {"type": "MultiPolygon", "coordinates": polygons}:
                by_name.setdefault(name, []).extend(polygon(rings) for rings in polygons)
            case {"type": other}:
                raise ValueError(f"a {other} marks no area")
            case _:
                raise ValueError("a feature has no geometry")
    if len(set(stated.values())) < len(stated):
        raise ValueError(f"two of {', '.join(stated)} have the same value")
    free = iter(number for number in range(1, len(by_name) + len(stated) + 1) if number not in stated.values())
    return {Segment(stated.get(name) or next(free), name): shapes for name, shapes in by_name.items()}


def _name_in(properties: Mapping[str, Any]) -> str:
    """Return the name of an outlined structure as in QuPath: one name, or those of a class and its subclasses."""
    match properties.get("classification"):
        case {"names": [*names]}:
            return ": ".join(map(str, names))
        case {"name": str(name)} | str(name) if name:
            return name
    return str(properties.get("name") or "foreground")
