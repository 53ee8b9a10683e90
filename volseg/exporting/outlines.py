"""Outlines of flat masks: GeoJSON, COCO and SVG."""

from __future__ import annotations

import json
from pathlib import Path
from xml.sax.saxutils import quoteattr

from volseg.errors import DataError
from volseg.image.outlines import Area, areas_of, box_of
from volseg.image.volume import Mask
from volseg.io.files import write_text

_OPACITY = 0.4


def write_geojson(mask: Mask, path: Path) -> None:
    """Write a polygon for each area, as read by QuPath and slide viewers (RFC 7946).

    Args:
        mask: The mask, with one slice.
        path: The file.

    Raises:
        DataError: If the mask has several slices.
        OutputError: If it cannot be written.
    """
    _check(mask, path)
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [_closed(ring.tolist()) for ring in area.rings]},
            "properties": {
                "objectType": "annotation",
                "name": area.label.name,
                "value": area.label.value,
                "classification": {"name": area.label.name, "color": list(area.label.display_color)},
            },
        }
        for area in areas_of(mask)
    ]
    write_text(path, json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False) + "\n")


def write_coco(mask: Mask, image: str, path: Path) -> None:
    """Write an annotation for each area, in the format of COCO; a hole is joined to the ring around it.

    Args:
        mask: The mask, with one slice.
        image: File name of the picture.
        path: The file.

    Raises:
        DataError: If the mask has several slices.
        OutputError: If it cannot be written.
    """
    _check(mask, path)
    columns, rows, _ = mask.geometry.shape
    content = {
        "images": [{"id": 1, "file_name": image, "width": columns, "height": rows}],
        "categories": [{"id": label.value, "name": label.name} for label in mask.labels],
        "annotations": [_annotation(number, area) for number, area in enumerate(areas_of(mask), start=1)],
    }
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")


def write_svg(mask: Mask, path: Path) -> None:
    """Write the areas of each label as one path, in its colour, for browsers and drawing programs.

    Args:
        mask: The mask, with one slice.
        path: The file.

    Raises:
        DataError: If the mask has several slices.
        OutputError: If it cannot be written.
    """
    _check(mask, path)
    columns, rows, _ = mask.geometry.shape
    paths: dict[str, list[str]] = {label.name: [] for label in mask.labels}
    for area in areas_of(mask):
        paths[area.label.name] += [_svg_ring(ring.tolist()) for ring in area.rings]
    shapes = [
        f'  <path id={quoteattr(label.name)} fill="rgb{label.display_color}" fill-opacity="{_OPACITY}" '
        f'fill-rule="evenodd" stroke="rgb{label.display_color}" d="{"".join(paths[label.name])}"/>'
        for label in mask.labels
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{columns}" height="{rows}" viewBox="0 0 {columns} {rows}">'
    write_text(path, "\n".join([head, *shapes, "</svg>\n"]))


def _annotation(number: int, area: Area) -> dict[str, object]:
    box = box_of(area)
    return {
        "id": number,
        "image_id": 1,
        "category_id": area.label.value,
        "segmentation": [area.polygon.ravel().tolist()],
        "area": area.pixels,
        "bbox": [*box.origin[:2], *box.shape[:2]],
        "iscrowd": 0,
    }


def _closed(ring: list[list[float]]) -> list[list[float]]:
    return [*ring, ring[0]]


def _svg_ring(ring: list[list[float]]) -> str:
    first, *others = (f"{x:g} {y:g}" for x, y in ring)
    return f"M{first}L{'L'.join(others)}Z"


def _check(mask: Mask, path: Path) -> None:
    if not mask.geometry.is_flat:
        raise DataError(
            f"{path.name}: outlines need a mask with one slice, not {mask.geometry.shape[2]}",
            hint="use rtstruct for contours of volumes",
        )
