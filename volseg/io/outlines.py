"""Outlines in pictures, as references: GeoJSON, and annotations in the format of COCO."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from volseg.errors import DataError, GeometryError
from volseg.image.contours import Polygon
from volseg.image.geometry import Geometry
from volseg.image.outlines import filled
from volseg.io.json_files import read_json
from volseg.io.segments import Marked, Segment
from volseg.io.source import SegmentsSource

#: How files of outlines are called.
SUFFIXES: Mapping[str, Literal["geojson", "coco"]] = {".geojson": "geojson", ".coco.json": "coco"}
_HINT = "export the outlines again, as polygons"


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
    found = _segments(path, kind)
    values = tuple(segment.number for segment in found)
    return SegmentsSource(path, kind, names=tuple(segment.name for segment in found), values=values)


def read_outlines(path: Path, kind: Literal["geojson", "coco"], geometry: Geometry) -> Iterator[Marked]:
    """The labels that a file outlines, on the grid of a picture.

    Args:
        path: The file.
        kind: Its format.
        geometry: Of the picture, in its storage order.

    Yields:
        Each label, whose pixels are looked at when they are asked for.

    Raises:
        DataError: If it is damaged.
    """
    shapes = _shapes(path, kind)
    for segment, own in shapes.items():
        yield Marked(segment, partial(_pixels, own, geometry, f"{path.name}: {segment.name}"))


#: What is marked in a grid of so many columns and rows.
_Shape = Callable[[tuple[int, int]], NDArray[np.bool_]]


def _pixels(shapes: Sequence[_Shape], geometry: Geometry, name: str) -> NDArray[np.bool_]:
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


def _segments(path: Path, kind: Literal["geojson", "coco"]) -> list[Segment]:
    return list(_shapes(path, kind))


def _shapes(path: Path, kind: Literal["geojson", "coco"]) -> dict[Segment, list[_Shape]]:
    match kind:
        case "geojson":
            return read_json(path, _of_geojson, "is no GeoJSON of polygons", _HINT)
        case "coco":
            return read_json(path, _of_coco, "holds no annotations of COCO", _HINT)


def _of_geojson(content: Any) -> dict[Segment, list[_Shape]]:
    features = content["features"] if isinstance(content, dict) and "features" in content else content
    features = [features] if isinstance(features, dict) else features
    by_name: dict[str, list[_Shape]] = {}
    stated: dict[str, int] = {}
    for feature in features:
        properties = feature.get("properties") or {}
        name = str((properties.get("classification") or {}).get("name") or properties.get("name") or "foreground")
        if isinstance(properties.get("value"), int):
            stated[name] = properties["value"]
        shape = feature["geometry"]
        polygons = {"Polygon": lambda one: [one], "MultiPolygon": list}[shape["type"]](shape["coordinates"])
        for rings in polygons:
            by_name.setdefault(name, []).append(partial(_filled, [_polygon(ring) for ring in rings]))
    free = iter(number for number in range(1, len(by_name) + len(stated) + 1) if number not in stated.values())
    return {Segment(stated.get(name) or next(free), name): shapes for name, shapes in by_name.items()}


def _of_coco(content: Any) -> dict[Segment, list[_Shape]]:
    if len(content["images"]) > 1:
        raise DataError(f"it is of {len(content['images'])} pictures", hint="keep one file for each picture")
    names = {each["id"]: str(each["name"]) for each in content["categories"]}
    free = iter(number for number in range(1, len(names) + 1) if number not in names)
    # A category 0 is none of background, which COCO does not outline.
    segments = {number: Segment(int(number) or next(free), name) for number, name in names.items()}
    shapes: dict[Segment, list[_Shape]] = {segment: [] for segment in segments.values()}
    for annotation in content["annotations"]:
        drawn = annotation["segmentation"]
        own = shapes[segments[annotation["category_id"]]]
        if isinstance(drawn, dict):
            own.append(partial(_run_lengths, drawn["counts"], (int(drawn["size"][1]), int(drawn["size"][0]))))
        else:
            own += [partial(_filled, [_polygon(np.reshape(flat, (-1, 2)))]) for flat in drawn]
    return shapes


def _polygon(corners: Any) -> Polygon:
    polygon = np.asarray(corners, np.float64)
    if polygon.ndim != 2 or polygon.shape[1] < 2 or not np.isfinite(polygon).all():
        raise ValueError("a polygon is no list of x and y")
    return polygon[:, :2]


def _filled(polygons: list[Polygon], size: tuple[int, int]) -> NDArray[np.bool_]:
    return filled(polygons, size)


def _run_lengths(counts: str | list[int], stated: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels as runs, column by column, of those that are not marked and those that are, in turns."""
    if stated != size:
        raise ValueError(f"it was drawn in {stated[0]}x{stated[1]} pixels, the picture has {size[0]}x{size[1]}")
    runs = _unpacked(counts) if isinstance(counts, str) else list(counts)
    if sum(runs) != size[0] * size[1] or min(runs, default=0) < 0:
        raise ValueError("its runs are not as long as the picture")
    marked = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return marked.reshape(size)


def _unpacked(text: str) -> list[int]:
    """Run lengths of COCO's text: five bits a character, the lowest first, each the difference to the last but one.

    The format is that of `rleToString` in the API of COCO (maskApi.c).
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
