"""The picture of a case: its voxels with both masks, and a surface per label, small enough for an e-mail."""

from __future__ import annotations

import base64
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from volseg.errors import GeometryError
from volseg.image.box import Box
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.terminology import lookup
from volseg.image.views import fullest_planes, grey_levels
from volseg.image.volume import Label, Mask, Volume
from volseg.reporting.surface import surface_of

#: What is around the structures is shown as far as this.
_MARGIN_MM = 20.0
#: Of WebP, the best first: noise takes more room than there is.
_QUALITIES = (55, 35, 20, 8)
#: What most voxels of the structures have, as percentiles, and how far around that range is still grey, as a share.
_STRUCTURES, _AROUND = (1.0, 99.0), 0.75
#: The longest axis that is shown: a WebP has 16,383 pixels at most.
_LONGEST_AXIS = 4096
#: Triangles of one surface; with fewer, nothing is round.
_MOST_FACES, _FEWEST_FACES = 2500, 160

Side = Literal["reference", "prediction"]
Labels = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Detail:
    """The level of detail of a picture.

    Attributes:
        voxels: At most; where there are more, the finest axes are shown coarser.
        faces: Triangles of all surfaces of a mask, about.
        image_bytes: Of the image, which is coded more coarsely where it takes more.
    """

    voxels: int = 1_500_000
    faces: int = 5000
    image_bytes: int = 500_000


@dataclass(frozen=True)
class DrawnLabel:
    """A label in one of the masks of a picture.

    Attributes:
        name: Its name.
        color: As masks are exported in: "#dd8265".
        position: The voxel of the picture (x, y, z) where its error is thickest, or else where there is most of it.
    """

    name: str
    color: str
    position: tuple[int, int, int]


@dataclass(frozen=True)
class Surface:
    """One label of one mask as triangles.

    Attributes:
        side: Which mask.
        label: Its place among the labels of the picture.
        corners: (N, 3) int16, tenths of a millimetre from the centre of what is shown, towards R, A, S; `packed`.
        faces: (M, 3) uint16, `packed`.
    """

    side: Side
    label: int
    corners: str
    faces: str


@dataclass(frozen=True)
class Picture:
    """The picture of a case in a report.

    Its axes are those of somebody who looks at the patient from the feet: x from left to right, which is from the
    patient's right to the left; y from top to bottom, from the front to the back; z from the head to the feet.

    Attributes:
        shape: Voxels along x, y, z.
        voxel_mm: Their sizes.
        first: For each axis the first voxel of the image that is shown, counted from the patient's left, back or feet.
        size: How many voxels of the image are shown along each axis.
        is_flat: Whether it is a picture, which has no directions.
        image: Axial slices side by side, in rows of `columns`, as WebP in base64; empty where there is no image.
        columns: See there.
        reference: (z, y, x), the place of each voxel's label among `labels`, from 1, 0 for none; `packed`. uint8, or
            uint16 where there are more than 255 labels. Empty where there is no reference.
        prediction: Likewise.
        labels: Those that there are.
        position: Where an error is thickest, or else where there is most of all labels.
        surfaces: Of each label in each mask.
    """

    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]
    first: tuple[int, int, int]
    size: tuple[int, int, int]
    is_flat: bool
    image: str
    columns: int
    reference: str
    prediction: str
    labels: tuple[DrawnLabel, ...]
    position: tuple[int, int, int]
    surfaces: tuple[Surface, ...]


def draw(
    reference: Mask | None, prediction: Mask | None, image: Volume | None, detail: Detail | None = None
) -> Picture:
    """Draw a case: the box around everything marked, as finely as there is room for.

    Args:
        reference: What is held to be right, if anything is.
        prediction: What a model made of the case, if it did.
        image: What it was made from. Three channels are colours; otherwise the first one is shown.
        detail: How much of it is shown.

    Returns:
        The picture. It holds voxels, names of labels, and nothing else of the case.

    Raises:
        GeometryError: If the three do not lie on one grid.
        ValueError: If there is neither reference nor prediction.
    """
    detail = detail or Detail()
    known = [mask for mask in (reference, prediction) if mask is not None]
    if not known:
        raise ValueError("a picture needs a mask")
    grid = known[0].geometry
    _check_grids(grid, [*known, image])
    order = grid.to_canonical
    spacing_mm = grid.reordered(order).spacing_mm
    arrays = [None if mask is None else order.apply(mask.array) for mask in (reference, prediction)]
    box = Box.whole(grid.reordered(order).shape) if grid.is_flat else _surroundings(arrays, spacing_mm)
    shape = _shown_shape(box.shape, spacing_mm, detail.voxels)
    places = _places(box, shape)
    cuts = [None if array is None else array[np.ix_(*places)] for array in arrays]
    labels = _labels_in(cuts, known)
    wanted, made = (None if cut is None else _numbered(cut, labels) for cut in cuts)
    x, y, z = (size_mm * size / shown for size_mm, size, shown in zip(spacing_mm, box.shape, shape, strict=True))
    voxel_mm = (x, y, z)
    mosaic = None if image is None else _mosaic(_seen(image, order, box, arrays), shape)
    return Picture(
        shape=shape,
        voxel_mm=voxel_mm,
        first=box.origin,
        size=box.shape,
        is_flat=grid.is_flat,
        image="" if mosaic is None else _webp(mosaic, detail.image_bytes),
        columns=_columns(shape),
        reference="" if wanted is None else packed(wanted.T),
        prediction="" if made is None else packed(made.T),
        labels=tuple(_drawn(label, n, wanted, made, voxel_mm) for n, label in enumerate(labels, start=1)),
        position=_position(wanted, made, voxel_mm),
        surfaces=() if grid.is_flat else tuple(_surfaces(wanted, made, len(labels), voxel_mm, detail.faces)),
    )


def packed(array: NDArray[np.generic]) -> str:
    """Return the bytes of an array in C order, compressed (zlib) and in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 9)).decode("ascii")


def display_color(label: Label) -> str:
    """Return the colour of a label as "#dd8265": its own, or that of the structure its name stands for."""
    structure = label.structure or lookup(label.name)
    red, green, blue = replace(label, structure=structure).display_color
    return f"#{red:02x}{green:02x}{blue:02x}"


def _check_grids(grid: Geometry, others: Sequence[Mask | Volume | None]) -> None:
    if not all(other is None or grid.matches(other.geometry) for other in others):
        raise GeometryError(
            f"a picture needs masks and image on one grid, {grid}", hint="name the image they were made from"
        )


def _surroundings(sides: Sequence[Labels | None], spacing_mm: Sequence[float]) -> Box:
    """Return the box around everything marked in either mask, with a margin; the whole volume if nothing is."""
    arrays = [side for side in sides if side is not None]
    shape = arrays[0].shape
    first, *others = [box for side in arrays if (box := Box.around(side))] or [Box.whole(shape)]
    return first.union(*others).grown([round(_MARGIN_MM / size_mm) for size_mm in spacing_mm], shape)


def _shown_shape(size: Sequence[int], spacing_mm: Sequence[float], most: int) -> tuple[int, int, int]:
    """Return the largest shape within the limit, coarsening the finest axes first."""
    finest_mm = min(spacing_mm)
    while True:
        i, j, k = (
            max(1, math.ceil(count * min(1.0, size_mm / finest_mm)))
            for count, size_mm in zip(size, spacing_mm, strict=True)
        )
        if i * j * k <= most and max(i, j, k) <= _LONGEST_AXIS:
            return i, j, k
        finest_mm *= 1.02


def _places(box: Box, shape: Sequence[int]) -> list[NDArray[np.intp]]:
    """Return the displayed voxels along each axis, from left to right, top to bottom, and head to feet."""
    middles = (
        part.start + np.floor((np.arange(shown) + 0.5) * (part.stop - part.start) / shown)
        for part, shown in zip(box, shape, strict=True)
    )
    return [middle[::-1].astype(np.intp) for middle in middles]


def _labels_in(cuts: Sequence[Labels | None], masks: Sequence[Mask]) -> list[Label]:
    """Return the displayed labels by value; a value without a name is named by its number."""
    named = {label.value: label for mask in reversed(masks) for label in mask.labels}
    values = np.unique(np.concatenate([np.unique(cut) for cut in cuts if cut is not None])).tolist()
    return [named.get(value) or Label(value, f"label_{value}") for value in values if value]


def _numbered(cut: Labels, labels: Sequence[Label]) -> Labels:
    """Return the position of each voxel's label in the list, from 1."""
    numbers = np.zeros(int(cut.max(initial=0)) + 1, np.uint8 if len(labels) < 256 else np.dtype("<u2"))
    for place, label in enumerate(labels, start=1):
        if label.value < len(numbers):
            numbers[label.value] = place
    return numbers[cut]


def _drawn(
    label: Label, number: int, wanted: Labels | None, made: Labels | None, voxel_mm: tuple[float, float, float]
) -> DrawnLabel:
    right, found = (None if side is None else np.equal(side, number).view(np.uint8) for side in (wanted, made))
    return DrawnLabel(label.name, display_color(label), _position(right, found, voxel_mm))


def _position(wanted: Labels | None, made: Labels | None, voxel_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    """Choose the voxel where the slices meet: in the thickest error, or else where most is marked."""
    import edt

    marked = next(side for side in (made, wanted) if side is not None)
    if wanted is None or made is None or np.array_equal(wanted, made):
        return fullest_planes(marked > 0)
    box = Box.around(wanted != made) or Box.whole(marked.shape)
    edges = [min(1, size - 1) for size in marked.shape]  # what is flat has no thickness along its single slice
    wrong = np.pad((wanted != made)[box], [(edge, edge) for edge in edges]).view(np.uint8)
    thickness = edt.edtsq(wrong, anisotropy=voxel_mm)[tuple(slice(edge, -edge or None) for edge in edges)]
    x, y, z = np.unravel_index(int(thickness.argmax()), thickness.shape)
    return int(x) + box.i.start, int(y) + box.j.start, int(z) + box.k.start


def _surfaces(
    wanted: Labels | None, made: Labels | None, labels: int, voxel_mm: tuple[float, float, float], most_faces: int
) -> Iterator[Surface]:
    each = min(_MOST_FACES, max(_FEWEST_FACES, most_faces // max(1, labels)))
    sides: tuple[tuple[Side, Labels | None], ...] = (("reference", wanted), ("prediction", made))
    for side, array in sides:
        if array is None:
            continue
        for number in range(labels):
            # The axes of a picture run against those of the patient.
            found = surface_of(np.equal(array, number + 1)[::-1, ::-1, ::-1], voxel_mm, each)
            if found is None:
                continue
            corners_mm, faces = found
            center_mm = np.array(array.shape) * voxel_mm / 2
            tenths = np.rint((corners_mm - center_mm) * 10).clip(-32768, 32767).astype("<i2")
            yield Surface(side, number, packed(tenths), packed(faces.astype("<u2")))


def _seen(image: Volume, order: AxisOrder, box: Box, sides: Sequence[Labels | None]) -> list[NDArray[np.float32]]:
    """Return the displayed channels, scaled to 0 to 255 by the displayed part of the image."""
    channels = image.array if len(image.array) == 3 else image.array[:1]
    shown = [order.apply(channel)[box] for channel in channels]
    if image.geometry.is_flat or len(shown) > 1:
        return [grey_levels(channel) for channel in shown]
    return [_grey_around(channel, [None if side is None else side[box] for side in sides]) for channel in shown]


def _grey_around(channel: NDArray[np.float32], sides: Sequence[Labels | None]) -> NDArray[np.float32]:
    """Scale intensities to 0 to 255 by those in the structures, since air and metal would leave no contrast there."""
    marked = np.logical_or.reduce([side > 0 for side in sides if side is not None])
    inside = channel[marked & np.isfinite(channel)]
    if not inside.size:
        return grey_levels(channel)
    low, high = np.percentile(inside, _STRUCTURES)
    margin = _AROUND * (high - low)
    if not margin:
        return grey_levels(channel)
    finite = channel[np.isfinite(channel)]
    low, high = max(low - margin, finite.min()), min(high + margin, finite.max())
    shown = (np.nan_to_num(channel, nan=low) - low) * (255.0 / (high - low))
    return np.clip(shown, 0.0, 255.0).astype(np.float32)


def _columns(shape: tuple[int, int, int]) -> int:
    """Return the number of slices per row of the mosaic that makes it about as wide as high."""
    width, height, slices = shape
    return min(slices, max(1, round(math.sqrt(slices * height / width))))


def _mosaic(channels: Sequence[NDArray[np.float32]], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Arrange the slices in a mosaic: (rows, columns) or (rows, columns, 3), of values from 0 to 255."""
    width, height, slices = shape
    columns = _columns(shape)
    rows = math.ceil(slices / columns)
    mosaic = np.zeros((rows, height, columns, width, len(channels)), np.uint8)
    planes = _places(Box.whole(channels[0].shape), (1, 1, slices))[2]
    for n, grey in enumerate(channels):
        for z, plane in enumerate(planes):
            shown = _resized(grey[::-1, ::-1, plane].T, width, height)
            mosaic[z // columns, :, z % columns, :, n] = shown.round().clip(0, 255)
    pixels = mosaic.reshape(rows * height, columns * width, len(channels))
    return pixels if len(channels) == 3 else pixels[..., 0]


def _resized(plane: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Shrink a slice by averaging pixels."""
    from PIL import Image

    if plane.shape == (height, width):
        return plane
    picture = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX))


def _webp(pixels: NDArray[np.uint8], most_bytes: int) -> str:
    """Encode pixels as WebP, as well as there is room for."""
    from PIL import Image

    picture, coded = Image.fromarray(np.ascontiguousarray(pixels)), b""
    for quality in _QUALITIES:
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=quality, method=4)
        coded = file.getvalue()
        if len(coded) <= most_bytes:
            break
    return base64.b64encode(coded).decode("ascii")
