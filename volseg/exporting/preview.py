"""A preview picture of a mask on its image: axial, coronal and sagittal slices in radiological orientation."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from volseg.errors import GeometryError
from volseg.exporting.overlay import painted
from volseg.image.views import VIEWS, fullest_planes, grey_levels
from volseg.image.volume import Mask, Volume
from volseg.io.files import atomic_path

#: Length of the longest side of the volume in pixels.
LONGEST_SIDE = 384
#: Black pixels between the slices.
GAP = 8
_Scalar = TypeVar("_Scalar", bound=np.generic)
_LETTER_PIXELS = 14
_LETTER_COLOR = (255, 255, 160)


def write_preview(mask: Mask, image: Volume, path: Path) -> None:
    """Write a PNG of three slices side by side: axial, coronal, sagittal.

    The patient's right is on the left of the axial and the coronal slice, anterior at the top of the axial and on the
    left of the sagittal slice, superior at the top; letters at the edges state this. Oblique volumes are sliced along
    their own axes, those closest to the anatomical ones. Each slice is the one with the most labelled voxels (or the
    middle one, if there are none). Lengths are to scale within and between the slices; the longest side of the volume
    has `LONGEST_SIDE` pixels. Labels are half-transparent with an outline. The file holds only pixels: no metadata, and
    no text but the letters.

    Args:
        mask: The mask to show, without values that have no label.
        image: Its image, of which the first channel is shown.
        path: The .png file.

    Raises:
        GeometryError: If the image and the mask are not on the same grid.
        OutputError: If it cannot be written.
    """
    if not mask.geometry.matches(image.geometry):
        raise GeometryError(
            mask.geometry.mismatch(image.geometry, "the mask", "the image"),
            hint="give the image that the mask belongs to",
        )
    order = mask.geometry.to_canonical
    labels, greys = order.apply(mask.array), order.apply(grey_levels(image.array[0]))
    lengths_mm = np.array(labels.shape) * mask.geometry.reordered(order).spacing_mm
    sides = np.maximum(1, np.round(lengths_mm * LONGEST_SIDE / lengths_mm.max())).astype(int)
    position = fullest_planes(labels != 0)
    cuts = []
    for view in VIEWS:
        size = int(sides[view.across]), int(sides[view.up])
        grey = _resized(view.cut(greys, position[view.through]), size, Image.Resampling.BILINEAR)
        values = _resized(view.cut(labels, position[view.through]).astype(np.int32), size, Image.Resampling.NEAREST)
        greys_of_cut = np.repeat(np.round(grey)[..., np.newaxis], 3, axis=2)
        cut = Image.fromarray(painted(greys_of_cut, values, mask.labels))
        cuts.append(_lettered(cut, view.letters))
    with atomic_path(path) as temporary:
        _side_by_side(cuts).save(temporary, format="PNG")


def _resized(plane: NDArray[_Scalar], size: tuple[int, int], how: Image.Resampling) -> NDArray[_Scalar]:
    return np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, how))


def _lettered(picture: Image.Image, letters: str) -> Image.Image:
    """Draw the letters of the anatomical directions in the middle of the left, right, top and bottom edge."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_LETTER_PIXELS)
    width, height = picture.size
    places = {"lm": (2, height / 2), "rm": (width - 3, height / 2), "mt": (width / 2, 2), "mb": (width / 2, height - 3)}
    for letter, (anchor, place) in zip(letters, places.items(), strict=True):
        draw.text(place, letter, fill=_LETTER_COLOR, font=font, anchor=anchor, stroke_width=1, stroke_fill=(0, 0, 0))
    return picture


def _side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Put pictures side by side on black, vertically centred."""
    height = max(picture.height for picture in pictures)
    sheet = Image.new("RGB", (sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1), height))
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, (height - picture.height) // 2))
        left += picture.width + GAP
    return sheet
