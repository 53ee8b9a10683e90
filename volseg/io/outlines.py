"""Outlines in pictures, as references: GeoJSON, and annotations in the format of COCO."""

from __future__ import annotations

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
    for shape in shapes:
        try:
            marked |= shape((columns, rows))
        except ValueError as error:
            raise GeometryError(f"{name}: {error}", hint="were they drawn in this picture?") from error
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
        name = str((properties.get("classification") or {}).get("name") or properties.get("name") or "foreground")
        if isinstance(properties.get("value"), int):
            stated[name] = properties["value"]
        shape = feature["geometry"]
        polygons = {"Polygon": lambda one: [one], "MultiPolygon": list}[shape["type"]](shape["coordinates"])
        by_name.setdefault(name, []).extend(polygon(rings) for rings in polygons)
    free = iter(number for number in range(1, len(by_name) + len(stated) + 1) if number not in stated.values())
    return {Segment(stated.get(name) or next(free), name): shapes for name, shapes in by_name.items()}
