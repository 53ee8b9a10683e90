"""Outlines in pictures, as references: GeoJSON, and annotations in the format of COCO."""

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
#: How files of outlines are called.
SUFFIXES: Mapping[str, Literal["geojson", "coco"]] = {".geojson": "geojson", ".coco.json": "coco"}


def outline_suffix(path: Path) -> str:
    """The suffix that makes a path a file of outlines; empty when there is none."""
    name = path.name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def outlines_in(path: Path) -> SegmentsSource:
    """A file of outlines, and what they are called.

    Raises:
        DataError: If it is damaged, or no such file.
    """
    kind = SUFFIXES[outline_suffix(path)]
    return _source(path, kind, tuple(_of_geojson(path) if kind == "geojson" else read_annotations(path).segments))


def outlines_of(path: Path) -> dict[str, SegmentsSource]:
    """The pictures of a data set that a file of COCO annotates, by their names, and their outlines.

    Raises:
        DataError: If it is damaged, or no such file.
    """
    annotations = read_annotations(path)
    return {name: _source(path, "coco", annotations.segments, name) for name in annotations.drawn}


def _source(
    path: Path, kind: Literal["geojson", "coco"], segments: Sequence[Segment], picture: str = ""
) -> SegmentsSource:
    names, values = tuple(segment.name for segment in segments), tuple(segment.number for segment in segments)
    return SegmentsSource(path, kind, names=names, values=values, picture=picture)


def read_outlines(source: SegmentsSource, geometry: Geometry) -> Iterator[Marked]:
    """The labels that a file outlines, on the grid of a picture.

    Args:
        source: Of a picture.
        geometry: Of the picture, in its storage order.

    Yields:
        Each label, whose pixels are looked at when they are asked for.

    Raises:
        DataError: If the file is damaged, or is of several pictures and nothing says which is meant.
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
    return read_json(path, _parsed, "is no GeoJSON of polygons", "export the outlines again, as polygons")


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
        raise ValueError(f"two of {', '.join(stated)} have one value")
    free = iter(number for number in range(1, len(by_name) + len(stated) + 1) if number not in stated.values())
    return {Segment(stated.get(name) or next(free), name): shapes for name, shapes in by_name.items()}


def _name_in(properties: Mapping[str, Any]) -> str:
    """What is outlined, as QuPath says it: by one name, or by the names of a class and of those below it."""
    match properties.get("classification"):
        case {"names": [*names]}:
            return ": ".join(map(str, names))
        case {"name": str(name)} | str(name) if name:
            return name
    return str(properties.get("name") or "foreground")
