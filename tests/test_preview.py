from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import STORAGE_ORDERS, rotation
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from volseg.errors import GeometryError
from volseg.exporting.preview import GAP, LONGEST_SIDE, write_preview
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.volume import Label, Mask, Volume

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
LABELS = (Label(1, "right", RED), Label(2, "anterior", GREEN), Label(3, "superior", BLUE))
SPACING = (2.0, 1.0, 3.0)
#: R, A, S: 80 x 60 x 96 mm, so 320 x 240 x 384 pixels, four to the millimetre.
SHAPE = (40, 60, 32)
SIZE_R, SIZE_A, SIZE_S = 320, 240, 384


def make_case(direction: np.ndarray | None = None) -> tuple[Mask, Volume]:
    """Boxes 20 mm and less to the right, in front and above of the middle, all of them in the middle planes."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if direction is None else direction) * np.asarray(SPACING)
    affine[:3, 3] = (-31.0, 15.0, 200.0)
    geometry = Geometry(SHAPE, affine)
    array = np.zeros(SHAPE, np.uint8)
    array[28:36, 28:33, 14:19] = 1
    array[18:23, 42:54, 14:19] = 2
    array[18:23, 28:33, 22:30] = 3
    return Mask(array, geometry, LABELS), Volume(np.zeros((1, *SHAPE), np.float32), geometry)


def stored(mask: Mask, image: Volume, order: AxisOrder) -> tuple[Mask, Volume]:
    geometry = mask.geometry.reordered(order)
    array = np.ascontiguousarray(order.apply(mask.array))
    return Mask(array, geometry, mask.labels), Volume(np.ascontiguousarray(order.apply(image.array)), geometry)


def picture(path: Path) -> Image.Image:
    with Image.open(path) as file:
        file.load()
        return file


def cuts(mask: Mask, image: Volume, folder: Path) -> list[NDArray[np.uint8]]:
    """The axial, the coronal and the sagittal cut, (rows, columns, 3), without the black above and below."""
    write_preview(mask, image, folder / "preview.png")
    sheet = np.array(picture(folder / "preview.png"))
    assert sheet.shape == (SIZE_S, 2 * SIZE_R + SIZE_A + 2 * GAP, 3)
    left, found = 0, []
    for width, height in ((SIZE_R, SIZE_A), (SIZE_R, SIZE_S), (SIZE_A, SIZE_S)):
        top = (SIZE_S - height) // 2
        found.append(sheet[top : top + height, left : left + width])
        left += width + GAP
    return found


def box(cut: NDArray[np.uint8], color: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """First and last column, first and last row of a colour's outline."""
    rows, columns = np.nonzero((cut == color).all(axis=-1))
    return (columns.min(), columns.max(), rows.min(), rows.max()) if len(rows) else None


def test_the_patient_lies_as_radiologists_hang_pictures(tmp_path: Path) -> None:
    axial, coronal, sagittal = cuts(*make_case(), tmp_path)
    # 4 pixels to the mm. Box "right": i 28 to 35, 56 to 72 mm from the left end, so 8 to 24 mm from the right one.
    assert box(axial, RED) == (32, 95, 108, 127)
    assert box(coronal, RED) == (32, 95, 156, 215)
    # Box "anterior": j 42 to 53, 6 to 18 mm from the front.
    assert box(axial, GREEN) == (136, 175, 24, 71)
    assert box(sagittal, GREEN) == (24, 71, 156, 215)
    # Box "superior": k 22 to 29, 6 to 30 mm from the top.
    assert box(coronal, BLUE) == (136, 175, 24, 119)
    assert box(sagittal, BLUE) == (108, 127, 24, 119)
    # What does not lie in a plane is not in its cut.
    assert box(axial, BLUE) is box(coronal, GREEN) is box(sagittal, RED) is None


def test_the_letters_stand_at_their_edges(tmp_path: Path) -> None:
    mask, image = make_case()
    for cut in cuts(Mask(np.zeros_like(mask.array), mask.geometry, LABELS), image, tmp_path):
        rows, columns = np.nonzero(cut.any(axis=-1))
        height, width = cut.shape[:2]
        near = [columns < 20, columns >= width - 20, rows < 20, rows >= height - 20]
        assert np.all(np.sum(near, axis=0) == 1)  # four letters, each at one edge, and nothing else
        assert all(10 < np.count_nonzero(edge) < 200 for edge in near)


def letter_at(cut: NDArray[np.uint8], edge: str) -> str:
    """Which of the six letters looks most like what stands at an edge."""
    height, width = cut.shape[:2]
    rows, columns = slice(height // 2 - 12, height // 2 + 12), slice(width // 2 - 12, width // 2 + 12)
    places = {"left": (rows, slice(20)), "right": (rows, slice(-20, None))}
    places |= {"top": (slice(20), columns), "bottom": (slice(-20, None), columns)}
    seen = cut[places[edge]].max(axis=-1)
    return min("RLAPSI", key=lambda letter: np.abs(cropped(seen) - cropped(drawn(letter))).mean())


def drawn(letter: str) -> NDArray[np.uint8]:
    canvas = Image.new("L", (40, 40))
    ImageDraw.Draw(canvas).text((20, 20), letter, fill=255, font=ImageFont.load_default(14), anchor="mm")
    return np.array(canvas)


def cropped(glyph: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The bright part on a canvas of 16 x 16, its centre in the middle."""
    rows, columns = np.nonzero(glyph > 128)
    part = glyph[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    canvas = np.zeros((16, 16))
    top, left = (16 - part.shape[0]) // 2, (16 - part.shape[1]) // 2
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
    return canvas


def test_the_letters_name_their_edges(tmp_path: Path) -> None:
    mask, image = make_case()
    found = [
        "".join(letter_at(cut, edge) for edge in ("left", "right", "top", "bottom"))
        for cut in cuts(Mask(np.zeros_like(mask.array), mask.geometry), image, tmp_path)
    ]
    assert found == ["RLAP", "RLSI", "APSI"]


@pytest.mark.parametrize("direction", [None, rotation(2, 20) @ rotation(0, -30) @ rotation(1, 8)])
def test_the_picture_does_not_depend_on_how_voxels_are_stored(direction: np.ndarray | None, tmp_path: Path) -> None:
    mask, image = make_case(direction)
    image = Volume(np.random.default_rng(0).normal(size=image.array.shape).astype(np.float32), image.geometry)
    write_preview(mask, image, tmp_path / "first.png")
    for number, order in enumerate(STORAGE_ORDERS[::5]):
        write_preview(*stored(mask, image, order), tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes() == (tmp_path / "first.png").read_bytes()


def test_grey_levels_span_the_image_and_do_not_heed_a_few_bright_voxels(tmp_path: Path) -> None:
    mask, image = make_case()
    ramp = np.broadcast_to(np.linspace(-1000, 1000, SHAPE[0], dtype=np.float32)[:, None, None], SHAPE).copy()
    ramp[0, 0, 0], ramp[1, 0, 0], ramp[2, 0, 0] = np.nan, np.inf, 1e9
    axial, *_ = cuts(mask, Volume(ramp[np.newaxis], image.geometry), tmp_path)
    row = axial[SIZE_A - 40].astype(int)
    assert (row[:, 0] == row[:, 1]).all()
    assert row[0, 0] >= 250  # the patient's right is at the left, and bright
    assert row[-1, 0] <= 5
    assert np.diff(row[:, 0]).max() <= 0


def test_labels_are_half_transparent_with_an_outline(tmp_path: Path) -> None:
    mask, image = make_case()
    bright = np.full((1, *SHAPE), 100.0, np.float32)
    bright[0, 0] = 0.0  # so that there are two grey levels
    axial, *_ = cuts(mask, Volume(bright, image.geometry), tmp_path)
    assert axial[108, 60].tolist() == [255, 0, 0]
    red, green, blue = axial[118, 60].tolist()
    assert (red, green) == (255, blue)
    assert 100 < green < 200


def test_cuts_go_through_the_planes_with_most_voxels(tmp_path: Path) -> None:
    mask, image = make_case()
    array = np.zeros_like(mask.array)
    array[3:6, 5, 2] = 1  # a small part
    array[30:38, 50:58, 25:31] = 2
    axial, coronal, sagittal = cuts(Mask(array, mask.geometry, LABELS), image, tmp_path)
    assert all(box(cut, GREEN) is not None for cut in (axial, coronal, sagittal))
    assert all(box(cut, RED) is None for cut in (axial, coronal, sagittal))


def test_aspect_is_that_of_millimetres(tmp_path: Path) -> None:
    for spacing, width, height in (((1.0, 1.0, 1.0), 40, 10), ((0.5, 2.0, 6.0), 20, 60)):
        geometry = Geometry((40, 20, 10), np.diag([*spacing, 1.0]))
        image = Volume(np.zeros((1, 40, 20, 10), np.float32), geometry)
        mask = Mask(np.zeros((40, 20, 10), np.uint8), geometry)
        write_preview(mask, image, tmp_path / "preview.png")
        depth = 20 * spacing[1]
        scale = LONGEST_SIDE / max(width, height, depth)
        sheet = picture(tmp_path / "preview.png")
        assert sheet.width == round(width * scale) * 2 + round(depth * scale) + 2 * GAP
        assert sheet.height == round(max(depth, height) * scale)


def test_the_file_holds_pixels_alone(tmp_path: Path) -> None:
    write_preview(*make_case(), tmp_path / "preview.png")
    data = (tmp_path / "preview.png").read_bytes()
    place, chunks = 8, []
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append(data[place + 4 : place + 8])
        place += length + 12
    assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
    assert picture(tmp_path / "preview.png").info == {}


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan])
def test_an_image_without_contrast_and_one_voxel_are_pictures(value: float, tmp_path: Path) -> None:
    geometry = Geometry((1, 1, 1), np.eye(4))
    image = Volume(np.full((2, 1, 1, 1), value, np.float32), geometry)
    write_preview(Mask(np.ones((1, 1, 1), np.uint8), geometry, LABELS), image, tmp_path / "preview.png")
    assert picture(tmp_path / "preview.png").size == (3 * LONGEST_SIDE + 2 * GAP, LONGEST_SIDE)


def test_a_mask_of_another_grid_is_refused(tmp_path: Path) -> None:
    mask, image = make_case()
    moved = image.geometry.affine.copy()
    moved[0, 3] += 1
    with pytest.raises(GeometryError, match="grid"):
        write_preview(mask, Volume(image.array, Geometry(SHAPE, moved)), tmp_path / "preview.png")
    assert not list(tmp_path.iterdir())
