"""COCO annotations, of one picture or of all pictures of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from volseg.errors import DataError
from volseg.io.json_files import read_json
from volseg.io.segments import Segment
from volseg.io.shapes import Shape, polygon, run_lengths

#: Keys of every such file, whichever program wrote it.
_KEYS = {"images", "annotations", "categories"}
_HINT = "export the annotations again, with outlines"


@dataclass(frozen=True, eq=False)
class Annotations:
    """The content of an annotation file.

    Attributes:
        segments: A structure for each category that has any shape, in the order of the file.
        drawn: The name of each picture -> its size in columns and rows, if stated, and its shapes.
    """

    segments: tuple[Segment, ...]
    drawn: Mapping[str, tuple[tuple[int, int] | None, Mapping[Segment, Sequence[Shape]]]]

    def of(self, picture: str) -> Mapping[Segment, Sequence[Shape]]:
        """Return the shapes in a picture.

        Args:
            picture: Its name in the file; empty for the only one.
        """
        if not picture and len(self.drawn) > 1:
            raise DataError(f"it annotates {len(self.drawn)} pictures", hint="give the file itself as the data set")
        stated, shapes = self.drawn[picture or next(iter(self.drawn))]
        return {segment: [_of_size(shape, stated) for shape in own] for segment, own in shapes.items()}


def read_annotations(path: Path) -> Annotations:
    """Read a file; that of a data set is read once for all of its pictures.

    Raises:
        DataError: If it is damaged, or holds no such annotations.
    """
    try:
        changed = path.stat().st_mtime_ns
    except OSError as error:
        raise DataError(f"{path} holds no COCO annotations: {error}", hint=_HINT) from error
    return _read(path, changed)


def holds_annotations(path: Path) -> bool:
    """Return whether a JSON holds COCO annotations."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        found: bool = read_json(path, lambda content: isinstance(content, dict) and content.keys() >= _KEYS, "", "none")
    except DataError:  # the reader that needs it reports the error
        return False
    return found


@lru_cache(maxsize=4)
def _read(path: Path, changed: int) -> Annotations:
    del changed  # a rewritten file counts as another one
    return read_json(path, _parsed, "holds no COCO annotations", _HINT)


def _parsed(content: Any) -> Annotations:
    pictures = _by_id(content["images"], "pictures")
    categories = _by_id(content["categories"], "categories")
    used = {str(annotation["category_id"]) for annotation in content["annotations"]}
    names = {int(number): str(each["name"]) for number, each in categories.items() if number in used}
    free = iter(number for number in range(1, len(names) + 1) if number not in names)
    # Category 0 is not background, which COCO does not outline.
    segments = {str(number): Segment(number or next(free), name) for number, name in names.items()}
    drawn: dict[str, dict[Segment, list[Shape]]]
    drawn = {number: {segment: [] for segment in segments.values()} for number in pictures}
    for annotation in content["annotations"]:
        picture, category = str(annotation["image_id"]), str(annotation["category_id"])
        if picture not in drawn or category not in segments:
            number = annotation.get("id")
            raise ValueError(
                f"annotation {number} is of picture {picture}, category {category}: one of them is not listed"
            )
        drawn[picture][segments[category]] += _shapes_of(annotation)
    named = {str(each["file_name"]): (_size_of(each), drawn[number]) for number, each in pictures.items()}
    if len(named) < len(pictures):
        raise ValueError("two of its pictures have the same name")
    return Annotations(tuple(segments.values()), named)


def _by_id(listed: Sequence[Mapping[str, Any]], what: str) -> dict[str, Mapping[str, Any]]:
    """Index listed entries by the text of their ids: some programs mix numbers and text."""
    found = {str(each["id"]): each for each in listed}
    if len(found) < len(listed):
        raise ValueError(f"two of its {what} have the same id")
    if not found:
        raise ValueError(f"it lists no {what}")
    return found


def _shapes_of(annotation: Mapping[str, Any]) -> list[Shape]:
    match annotation["segmentation"]:
        case {"counts": counts, "size": [rows, columns]}:
            return [run_lengths(counts, (int(columns), int(rows)))]
        case [_, *_] as flat:
            return [polygon([_pairs(numbers)]) for numbers in flat]
    raise ValueError(f"annotation {annotation.get('id')} is a box without an outline")


def _pairs(numbers: Sequence[float]) -> list[tuple[float, float]]:
    if len(numbers) % 2:
        raise ValueError("a polygon has an odd number of coordinates")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _size_of(picture: Mapping[str, Any]) -> tuple[int, int] | None:
    return (int(picture["width"]), int(picture["height"])) if {"width", "height"} <= picture.keys() else None


def _of_size(shape: Shape, stated: tuple[int, int] | None) -> Shape:
    """Restrict a shape to pictures of the stated size."""

    def marked(size: tuple[int, int]) -> Any:
        if stated is not None and stated != size:
            raise ValueError(f"it was drawn in {stated[0]}x{stated[1]} pixels, the picture has {size[0]}x{size[1]}")
        return shape(size)

    return marked
