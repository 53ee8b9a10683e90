"""One case to look at: three slices through its largest error, and its surfaces, small enough for a mail."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from volseg.errors import GeometryError
from volseg.image.box import Box
from volseg.image.contours import trace
from volseg.image.views import VIEWS, View, fullest_planes, grey_levels
from volseg.image.volume import Mask, Volume

#: Pixels of the longest side of a slice.
_LONGEST_SIDE = 360
_JPEG_QUALITY = 80
#: What is around the structures is shown as far as this.
_MARGIN_MM = 20.0
#: Triangles of a surface, and voxels along the longest side that it is made of.
_MOST_FACES, _FINEST = 2500, 160
#: Of so many, thinning out takes too long.
_TOO_MANY_FACES = 300_000
#: What is flat is shown as it is looked at: its columns run towards the left, its rows towards the back (`of_picture`).
_OF_A_PICTURE = replace(VIEWS[0], name="picture", letters="")
#: fast_simplification 0.2 keeps the mesh it works on in one place for all threads.
_SIMPLIFYING = Lock()


@dataclass(frozen=True)
class Slice:
    """One cut, in voxels of the picture: (0, 0) is its upper left corner.

    Attributes:
        name: axial, coronal or sagittal.
        letters: The patient's directions at the left, right, top and bottom edge.
        columns: Voxels from left to right.
        rows: Voxels from top to bottom.
        column_mm: Width of a voxel.
        row_mm: Height of a voxel.
        image: The grey levels as JPEG in base64; empty where there is no image.
        reference: Outlines as an SVG path, in half voxels.
        prediction: Likewise.
        missed: Areas that only the reference has.
        added: Areas that only the prediction has.
        mistaken: Areas that both have, as different labels.
    """

    name: str
    letters: str
    columns: int
    rows: int
    column_mm: float
    row_mm: float
    image: str
    reference: str
    prediction: str
    missed: str
    added: str
    mistaken: str


@dataclass(frozen=True)
class PackedSurface:
    """All labels of one mask as triangles.

    Attributes:
        corners: (N, 3) int16 in base64, tenths of a millimetre from the centre of what is shown, towards R, A, S.
        faces: (M, 3) uint16 in base64.
    """

    corners: str
    faces: str


@dataclass(frozen=True)
class Picture:
    """What the report shows of a case.

    Attributes:
        slices: Axial, coronal, sagittal.
        reference: Its surface, None where it is empty.
        prediction: Likewise.
    """

    slices: tuple[Slice, ...]
    reference: PackedSurface | None
    prediction: PackedSurface | None


def draw(reference: Mask | None, prediction: Mask | None, image: Volume | None) -> Picture:
    """Draw a case.

    The slices meet where the error is thickest; without a reference, or without an error, in the planes with most of
    the structures. Only their surroundings are shown.

    Args:
        reference: What is held to be right, if anything is.
        prediction: What a model made of the case, if it did.
        image: What it was made from; its first channel is shown.

    Returns:
        The picture. It holds voxels and nothing else of the case.

    Raises:
        GeometryError: If the three do not lie on one grid.
        ValueError: If there is neither reference nor prediction.
    """
    known = [mask for mask in (reference, prediction) if mask is not None]
    if not known:
        raise ValueError("a picture needs a mask")
    grid = known[0].geometry
    others = [mask.geometry for mask in known] + ([image.geometry] if image else [])
    if not all(grid.matches(other) for other in others):
        raise GeometryError(
            f"a picture needs masks and image on one grid, {grid}", hint="name the image they were made from"
        )
    order = grid.to_canonical
    spacing_mm = grid.reordered(order).spacing_mm
    marked = [order.apply(mask.array) > 0 for mask in known]
    box = Box.whole(marked[0].shape) if grid.is_flat else _surroundings(marked, spacing_mm)
    wanted, made = (None if mask is None else order.apply(mask.array)[box] for mask in (reference, prediction))
    # What is shown decides how light and dark are dealt out.
    grey = None if image is None else np.stack([grey_levels(order.apply(one)[box]) for one in image.array], axis=-1)
    position = _position(wanted, made, spacing_mm)
    views = (_OF_A_PICTURE,) if grid.is_flat else VIEWS
    slices = tuple(_slice(view, position[view.through], grey, wanted, made, spacing_mm) for view in views)
    if grid.is_flat:
        return Picture(slices, None, None)
    return Picture(slices, *(None if side is None else _surface(side, spacing_mm) for side in (wanted, made)))


def _position(
    reference: NDArray[np.unsignedinteger] | None,
    prediction: NDArray[np.unsignedinteger] | None,
    spacing_mm: tuple[float, float, float],
) -> tuple[int, int, int]:
    """Where the three slices meet."""
    import edt

    if reference is None or prediction is None or np.array_equal(reference, prediction):
        marked = prediction if reference is None else reference
        return fullest_planes(np.asarray(marked) > 0)
    thickness = edt.edtsq((reference != prediction).view(np.uint8), anisotropy=spacing_mm, black_border=True)
    r, a, s = np.unravel_index(int(thickness.argmax()), thickness.shape)
    return int(r), int(a), int(s)


def _surroundings(sides: Sequence[NDArray[np.bool_]], spacing_mm: Sequence[float]) -> Box:
    """The box around everything that either side marks, with a margin; the whole where nothing is."""
    shape = sides[0].shape
    first, *others = [box for side in sides if (box := Box.around(side))] or [Box.whole(shape)]
    return first.union(*others).grown([round(_MARGIN_MM / size_mm) for size_mm in spacing_mm], shape)


def _slice(
    view: View,
    plane: int,
    grey: NDArray[np.float32] | None,
    reference: NDArray[np.unsignedinteger] | None,
    prediction: NDArray[np.unsignedinteger] | None,
    spacing_mm: tuple[float, float, float],
) -> Slice:
    wanted, made = (None if array is None else view.cut(array, plane) for array in (reference, prediction))
    shape = next(cut.shape for cut in (wanted, made) if cut is not None)
    right, found = (np.zeros(shape, np.uint8) if cut is None else cut for cut in (wanted, made))
    compared = wanted is not None and made is not None
    size_mm = spacing_mm[view.across], spacing_mm[view.up]
    return Slice(
        name=view.name,
        letters=view.letters,
        columns=shape[1],
        rows=shape[0],
        column_mm=size_mm[0],
        row_mm=size_mm[1],
        image="" if grey is None else _jpeg([view.cut(one, plane) for one in np.moveaxis(grey, -1, 0)], size_mm),
        reference=_outlines(right),
        prediction=_outlines(found),
        missed=_path((right > 0) & (found == 0)) if compared else "",
        added=_path((right == 0) & (found > 0)) if compared else "",
        mistaken=_path((right > 0) & (found > 0) & (right != found)) if compared else "",
    )


def _outlines(labels: NDArray[np.unsignedinteger]) -> str:
    """The outlines of every label."""
    return "".join(_path(labels == value) for value in np.unique(labels) if value)


def _path(marked: NDArray[np.bool_]) -> str:
    """The boundaries of an area as an SVG path of horizontal and vertical lines, in half voxels."""
    parts = []
    for ring in trace(marked):
        corners = np.rint(2 * ring + 1).astype(int)  # (row, column), the upper left corner of the picture is (0, 0)
        row, column = corners[0].tolist()
        parts.append(f"M{column} {row}")
        for (row, column), (last_row, _) in zip(corners[1:].tolist(), corners[:-1].tolist(), strict=True):
            parts.append(f"H{column}" if row == last_row else f"V{row}")
        parts.append("Z")
    return "".join(parts)


def _jpeg(channels: Sequence[NDArray[np.float32]], size_mm: tuple[float, float]) -> str:
    """A slice with square pixels; three channels are its colours."""
    from PIL import Image

    rows, columns = channels[0].shape
    width_mm, height_mm = columns * size_mm[0], rows * size_mm[1]
    scale = _LONGEST_SIDE / max(width_mm, height_mm)
    size = max(1, round(width_mm * scale)), max(1, round(height_mm * scale))
    shown = np.round(np.stack(channels, axis=-1) if len(channels) == 3 else channels[0]).astype(np.uint8)
    picture = Image.fromarray(shown).resize(size, Image.Resampling.BILINEAR)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _surface(labels: NDArray[np.unsignedinteger], spacing_mm: tuple[float, float, float]) -> PackedSurface | None:
    """What is marked, without its labels: as marching cubes, thinned out until few triangles are left.

    What has too many all the same, because it is ragged, is looked at from further away.
    """
    if not (labels > 0).any():
        return None
    step = max(1, max(labels.shape) // _FINEST)
    corners_mm, faces = _mesh(labels > 0, spacing_mm, step)
    while len(faces) > 2 * _MOST_FACES:
        step *= 2
        corners_mm, faces = _mesh(labels > 0, spacing_mm, step)
    center_mm = np.array(labels.shape) * spacing_mm / 2
    tenths = np.rint((corners_mm - center_mm) * 10).clip(-32768, 32767).astype("<i2")
    return PackedSurface(
        *(base64.b64encode(array.tobytes()).decode("ascii") for array in (tenths, faces.astype("<u2")))
    )


def _mesh(
    marked: NDArray[np.bool_], spacing_mm: tuple[float, float, float], step: int
) -> tuple[NDArray[np.float32], NDArray[np.integer]]:
    """Corners in mm from the corner of the first voxel, and triangles, of blocks of `step` voxels that are marked."""
    import fast_simplification
    import zmesh
    from skimage.measure import block_reduce

    blocks = np.pad(block_reduce(marked, step, np.max), 1).astype(np.uint8)
    size_mm = np.array(spacing_mm, np.float32) * step
    mesher = zmesh.Mesher(size_mm.tolist())
    mesher.mesh(blocks)
    mesh = mesher.get(1, normals=False, reduction_factor=0, voxel_centered=True)
    corners_mm, faces = mesh.vertices.astype(np.float32) - size_mm, mesh.faces.astype(np.int32)
    if not _MOST_FACES < len(faces) <= _TOO_MANY_FACES:
        return corners_mm, faces
    with _SIMPLIFYING:
        return fast_simplification.simplify(corners_mm, faces, target_count=_MOST_FACES)
