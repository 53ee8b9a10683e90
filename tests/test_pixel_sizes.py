"""The size of pixels, in PNG and JPEG, that states it in ways of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import volseg
from volseg.config.reading import FileRules
from volseg.errors import GeometryError
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.io import FileSource, read_mask, write_mask
from volseg.io.pictures import read_array

STATED = FileRules(pixel_mm="stated")
DRAWN = np.zeros((40, 30, 1), np.uint8)
DRAWN[5:20, 8:18] = 1


def drawn(sizes_mm: tuple[float, float] | None) -> Mask:
    return Mask(DRAWN, Geometry.of_picture(40, 30, sizes_mm), (Label(1, "disc"),))


@pytest.mark.parametrize("sizes_mm", [(0.139, 0.139), (0.7, 0.3), (300.0, 300.0), (0.00025, 0.0005), (1 / 3, 25.4)])
def test_a_mask_in_png_keeps_the_size_of_its_pixels(sizes_mm: tuple[float, float], tmp_path: Path) -> None:
    """Whole pixels per metre, in which a PNG counts, would move the far corner of a radiograph."""
    mask = drawn(sizes_mm)
    write_mask(mask, tmp_path / "a.png")
    back = read_mask(FileSource(tmp_path / "a.png", rules=STATED))
    assert back.geometry.spacing_mm[:2] == mask.geometry.spacing_mm[:2]
    assert back.geometry.matches(mask.geometry)


def test_a_size_that_the_resolution_contradicts_does_not_count(tmp_path: Path) -> None:
    """Programs that resize a picture keep texts that they do not know."""
    text = PngInfo()
    for words, expected in (("0.25 0.25", 0.5), ("0.5002 0.5002", 0.5002), ("many", 0.5), ("0.5", 0.5), ("-1 0", 0.5)):
        text = PngInfo()
        text.add_text("pixel_mm", words)
        Image.fromarray(DRAWN[..., 0]).save(tmp_path / "a.png", dpi=(50.8, 50.8), pnginfo=text)
        grid = read_array(tmp_path / "a.png", STATED)[1]
        assert grid.spacing_mm[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("stated", [True, False])
def test_masks_are_judged_by_references_that_state_their_size_or_none(tmp_path: Path, *, stated: bool) -> None:
    write_mask(drawn((0.139, 0.139)), tmp_path / "masks" / "a.png")
    (tmp_path / "references").mkdir()
    size = {"resolution": (10 / 0.139, 10 / 0.139), "resolutionunit": "CENTIMETER"} if stated else {}
    tifffile.imwrite(tmp_path / "references" / "a.tif", DRAWN[..., 0].T, **size)
    found = volseg.evaluate(tmp_path / "masks", tmp_path / "references", changes={"data.pixel_mm": "stated"})
    row = found.metrics.iloc[0]
    assert row["dice"] == 1
    assert row["hd95_mm" if stated else "hd95_px"] == 0


def test_a_turned_volume_is_no_drawing_on_a_picture() -> None:
    """Voxels of another order are not taken for pixels."""
    as_nifti = Mask(DRAWN, Geometry(DRAWN.shape, np.diag([0.5, 0.5, 1.0, 1.0])))
    with pytest.raises(GeometryError):
        as_nifti.on(Geometry.of_picture(40, 30))


def test_soft_masks_that_state_no_size_lie_on_their_pictures(tmp_path: Path) -> None:
    Image.fromarray((200 * DRAWN[..., 0].T).astype(np.uint8)).save(tmp_path / "a.png")
    rules = FileRules(pixel_mm="stated", threshold=0.5)
    mask = read_mask(FileSource(tmp_path / "a.png", rules=rules))
    assert mask.geometry.unit == "px"
    np.testing.assert_array_equal(mask.array, DRAWN)


def test_a_jpeg_states_what_its_headers_state(tmp_path: Path) -> None:
    """Where EXIF says how it is turned and not how large pixels are, Pillow would say 72 to the inch."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8))
    turned, sized = Image.Exif(), Image.Exif()
    turned[0x0112] = 6
    sized[0x011A], sized[0x011B], sized[0x0128] = 254.0, 254.0, 2
    picture.save(tmp_path / "turned.jpg", exif=turned)
    picture.save(tmp_path / "sized.jpg", exif=sized)
    picture.save(tmp_path / "jfif.jpg", dpi=(254, 254))
    with pytest.raises(GeometryError, match="states no resolution"):
        read_array(tmp_path / "turned.jpg", STATED)
    for name in ("sized", "jfif"):
        assert read_array(tmp_path / f"{name}.jpg", STATED)[1].spacing_mm[:2] == pytest.approx((0.1, 0.1))
