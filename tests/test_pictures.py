"""Flat pictures: what files of every kind hold, on which grid, and what masks of them mean."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from png import png

from volseg.cases import find_dataset, find_inputs, read_images, read_reference
from volseg.config import FileRules, MinMax, Percentiles, ReadingRules, Unchanged, ZScore
from volseg.errors import DataError, GeometryError
from volseg.image.geometry import Geometry
from volseg.image.histogram import Histogram
from volseg.image.volume import Label, Mask, Volume
from volseg.io import FileSource, discover, read_channels, read_mask, read_shown, read_volume, write_mask, write_volume
from volseg.io.pictures import read_array
from volseg.io.pictures.streamed import streamed
from volseg.transforms import normalize, of_whole_numbers

RNG = np.random.default_rng(0)
#: (rows, columns, 3): no two axes alike, so that none can be taken for another.
COLORS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREYS = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)


def refused(read: Callable[[], object], path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        read()
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value


def saved(array: NDArray[np.generic], path: Path, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)  # type: ignore[arg-type]
    return path


def pixels(path: Path, rules: FileRules | None = None) -> NDArray[np.generic]:
    """(rows, columns, channels) as volseg reads them."""
    array, _ = read_array(path, rules or FileRules())
    return array[..., 0].transpose(2, 1, 0)


# What is read


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_colours_are_three_channels_in_their_places(suffix: str, tmp_path: Path) -> None:
    path = saved(COLORS, tmp_path / f"a{suffix}")
    assert np.array_equal(pixels(path), COLORS)
    channels = read_channels([FileSource(path, frame) for frame in range(3)])
    for number, channel in enumerate(channels):
        assert channel.array.shape == (1, 7, 5, 1)
        assert np.array_equal(channel.array[0, ..., 0].T, COLORS[..., number])
        assert channel.geometry.unit == "px"
        assert str(channel.geometry) == "7x5 pixels"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_grey_is_one_channel(suffix: str, tmp_path: Path) -> None:
    path = saved(GREYS, tmp_path / f"a{suffix}")
    assert np.array_equal(read_volume(FileSource(path)).array[0, ..., 0].T, GREYS)


@pytest.mark.parametrize(
    ("name", "array"),
    [("a.png", DEEP), ("a.tif", DEEP), ("b.tif", DEEP.astype(np.float32) / 7), ("c.tif", DEEP.astype(np.int32) - 9)],
)
def test_deep_grey_keeps_every_bit(name: str, array: NDArray[np.generic], tmp_path: Path) -> None:
    path = saved(array, tmp_path / name)
    assert np.array_equal(pixels(path)[..., 0], array)


def test_transparency_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    solid = np.dstack([COLORS, np.full((5, 7), 255, np.uint8)])
    assert np.array_equal(pixels(saved(solid, tmp_path / "solid.png")), COLORS)
    assert not caplog.records  # nothing is lost
    clear = np.dstack([COLORS, GREYS])
    for name in ("clear.png", "clear.tif"):
        path = tmp_path / name
        saved(clear, path)
        assert np.array_equal(pixels(path), COLORS)
        assert caplog.messages[-1] == f"{path}: its transparency is ignored"


def test_a_palette_of_an_image_is_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(COLORS).quantize(16)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), np.asarray(picture.convert("RGB")))
    grey = Image.fromarray(GREYS).quantize(16)
    grey.save(tmp_path / "grey.png")
    assert np.array_equal(pixels(tmp_path / "grey.png")[..., 0], np.asarray(grey.convert("L")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_pictures_are_turned_as_their_tag_says(orientation: int, name: str, tmp_path: Path) -> None:
    from PIL import ImageOps

    path = tmp_path / name
    exif = Image.Exif()
    exif[0x0112] = orientation
    if name.endswith(".tif"):
        tifffile.imwrite(path, COLORS, photometric="rgb", extratags=[(274, "H", 1, orientation, False)])
    else:
        saved(COLORS, path, exif=exif)
    tagged = Image.fromarray(COLORS)
    tagged.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(tagged))
    assert np.array_equal(pixels(path), expected)


def test_a_jpeg_is_read_as_pillow_reads_it(tmp_path: Path) -> None:
    path = saved(COLORS, tmp_path / "a.jpg", quality=95)
    with Image.open(path) as picture:
        assert np.array_equal(pixels(path), np.asarray(picture))


def test_brightness_runs_the_other_way_where_zero_is_white(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREYS, photometric="miniswhite")
    assert np.array_equal(pixels(tmp_path / "a.tif")[..., 0], 255 - GREYS)


# Pages


def test_pages_are_what_is_stated(tmp_path: Path) -> None:
    stack = RNG.integers(0, 256, (4, 5, 7), dtype=np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, stack, photometric="minisblack")
    why = refused(lambda: read_volume(FileSource(path)), path)
    assert "4 pictures" in str(why)
    assert "data.pages" in why.hint
    volume = read_volume(FileSource(path, rules=FileRules(pages="slices")))
    assert np.array_equal(volume.array[0], stack.transpose(2, 1, 0))
    channels = FileRules(pages="channels")
    for number in range(4):
        assert np.array_equal(read_volume(FileSource(path, number, rules=channels)).array[0, ..., 0].T, stack[number])


def test_pages_that_a_tiff_names_need_no_statement(tmp_path: Path) -> None:
    stack = RNG.integers(0, 256, (4, 5, 7), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "z.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    assert np.array_equal(read_volume(FileSource(tmp_path / "z.tif")).array[0], stack.transpose(2, 1, 0))
    tifffile.imwrite(tmp_path / "t.tif", stack, imagej=True, metadata={"axes": "TYX"})
    refused(lambda: read_volume(FileSource(tmp_path / "t.tif")), tmp_path / "t.tif")


def test_an_animation_is_refused_unless_its_frames_mean_something(tmp_path: Path) -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (5, 7), dtype=np.uint8)) for _ in range(3)]
    path = tmp_path / "a.gif"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    refused(lambda: read_volume(FileSource(path)), path)
    shown = read_shown(FileSource(path, rules=FileRules(pages="slices")))
    assert shown.geometry.shape == (7, 5, 3)
    plain = [np.full((5, 7, 3), color, np.uint8) for color in ((200, 0, 0), (0, 0, 200))]
    first, second = (Image.fromarray(each) for each in plain)
    first.save(tmp_path / "b.gif", save_all=True, append_images=[second])
    colored = read_shown(FileSource(tmp_path / "b.gif", rules=FileRules(pages="slices")))
    assert np.array_equal(colored.array.transpose(3, 2, 1, 0), np.stack(plain))


# The grid


def test_a_picture_lies_as_itk_places_it(tmp_path: Path) -> None:
    import SimpleITK as sitk  # noqa: N813

    path = saved(COLORS, tmp_path / "a.png")
    image = sitk.ReadImage(str(path))
    _, grid = read_array(path)
    assert grid.shape[:2] == image.GetSize()
    assert np.allclose(grid.lps_affine[:2, :2], np.reshape(image.GetDirection(), (2, 2)))
    assert grid.unit == "px"


def test_millimetres_are_given_or_stated_but_never_assumed(tmp_path: Path) -> None:
    path = saved(GREYS, tmp_path / "a.png", dpi=(254, 127))
    assert read_array(path)[1].unit == "px"
    stated = read_array(path, FileRules(pixel_mm="stated"))[1]
    assert stated.unit == "mm"
    assert stated.spacing_mm[:2] == pytest.approx((0.1, 0.2), rel=1e-3)
    assert read_array(path, FileRules(pixel_mm=0.5))[1].spacing_mm[:2] == (0.5, 0.5)
    silent = saved(GREYS, tmp_path / "b.png")
    with pytest.raises(GeometryError, match="states no resolution"):
        read_array(silent, FileRules(pixel_mm="stated"))
    tifffile.imwrite(tmp_path / "c.tif", GREYS, imagej=True, resolution=(2.0, 4.0), metadata={"unit": "mm"})
    assert read_array(tmp_path / "c.tif", FileRules(pixel_mm="stated"))[1].spacing_mm[:2] == pytest.approx((0.5, 0.25))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(GREYS, tmp_path / "d.png", dpi=(254, 127), exif=exif)
    assert read_array(turned, FileRules(pixel_mm="stated"))[1].spacing_mm[:2] == pytest.approx((0.2, 0.1), rel=1e-3)


def test_parts_and_orders_of_a_grid_keep_its_unit() -> None:
    grid = Geometry.of_picture(7, 5)
    assert grid.is_flat
    assert grid.reordered(grid.to_canonical).unit == "px"
    assert grid.part((slice(1, 3), slice(0, 5), slice(0, 1))).unit == "px"
    assert grid.respaced((2.0, 2.0, 1.0)).unit == "px"
    assert Geometry.of_picture(7, 5, (0.5, 0.5)).unit == "mm"


# Odd files


def huge(path: Path, side: int) -> Path:
    """A black PNG that is small only as a file."""
    pressed = zlib.compressobj(9)
    row = b"\0" * (side + 1)
    content = b"".join([*(pressed.compress(row) for _ in range(side)), pressed.flush()])
    path.write_bytes(png((side, side, 8, 0), b""))
    head = path.read_bytes()[: 8 + 25]
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    data = struct.pack(">I", len(content)) + b"IDAT" + content + struct.pack(">I", zlib.crc32(b"IDAT" + content))
    path.write_bytes(head + data + end)
    return path


def test_a_picture_larger_than_memory_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = huge(tmp_path / "a.png", 5000)
    assert read_volume(FileSource(path)).geometry.shape == (5000, 5000, 1)
    monkeypatch.setattr("volseg.io.pictures.decode.total_gb", lambda: 0.15)
    assert "too large" in str(refused(lambda: read_volume(FileSource(path)), path))


def test_a_picture_beyond_the_limit_of_pillow_is_read(tmp_path: Path) -> None:
    path = huge(tmp_path / "a.png", 14_000)  # 196 million pixels, more than twice what Pillow warns of
    assert read_volume(FileSource(path)).geometry.shape == (14_000, 14_000, 1)


def damaged(folder: Path) -> dict[str, Path]:
    """Files that are no pictures, or not whole."""
    jpeg = io.BytesIO()
    Image.fromarray(COLORS.repeat(40, axis=0).repeat(40, axis=1)).save(jpeg, "JPEG")
    whole = io.BytesIO()
    Image.fromarray(COLORS).save(whole, "PNG")
    deflated = io.BytesIO()
    Image.fromarray(COLORS).save(deflated, "TIFF")
    contents = {
        "empty.png": b"",
        "text.png": b"no picture",
        "page.jpg": b"<!DOCTYPE html><html></html>",
        "truncated.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "truncated.png": whole.getvalue()[:-30],
        "truncated.tif": deflated.getvalue()[:60],
        "nothing.png": png((0, 0, 8, 2), b""),
    }
    paths = {name: folder / name for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    Image.fromarray(COLORS).convert("CMYK").save(folder / "inks.jpg")
    return {**paths, "inks.jpg": folder / "inks.jpg"}


def test_what_is_no_whole_picture_is_one_clear_line(tmp_path: Path) -> None:
    for path in damaged(tmp_path).values():
        refused(partial(read_volume, FileSource(path)), path)
        refused(partial(read_mask, FileSource(path)), path)
    assert "CMYK" in str(refused(lambda: read_volume(FileSource(tmp_path / "inks.jpg")), tmp_path / "inks.jpg"))


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    path = saved(np.array([[7]], np.uint8), tmp_path / "a.png")
    assert read_volume(FileSource(path)).array.tolist() == [[[[7.0]]]]


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLORS).save(path, "PNG")
    assert np.array_equal(pixels(path), COLORS)


# Masks


def test_black_and_white_is_no_and_yes(tmp_path: Path) -> None:
    drawn = GREYS > 127
    white = saved((drawn * 255).astype(np.uint8), tmp_path / "white.png")
    ones = saved(drawn.astype(np.uint8), tmp_path / "ones.png")
    bits = saved(drawn, tmp_path / "bits.png")
    for path in (white, ones, bits):
        assert np.array_equal(read_mask(FileSource(path)).array[..., 0].T, drawn)
    stated = read_mask(FileSource(white), [Label(255, "white")])
    assert sorted(np.unique(stated.array).tolist()) == [0, 255]


def test_numbers_of_a_palette_are_values_and_not_its_colours(tmp_path: Path) -> None:
    values = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
    picture = Image.fromarray(values, mode="P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_mask(FileSource(tmp_path / "a.png")).array[..., 0].T, values)
    labels = [Label(5, "green", (0, 255, 0)), Label(2, "red", (255, 0, 0)), Label(9, "grey", (9, 9, 9))]
    meant = read_mask(FileSource(tmp_path / "a.png", rules=FileRules(values="colors")), labels)
    assert np.array_equal(meant.array[..., 0].T, np.array([0, 2, 5, 9])[values])


def test_colours_mean_what_is_stated_and_nothing_else(tmp_path: Path) -> None:
    drawn = np.zeros((5, 7, 3), np.uint8)
    drawn[1:3, 2:5] = (255, 0, 0)
    drawn[4, 0] = (0, 0, 255)
    path = saved(drawn, tmp_path / "a.png")
    why = refused(lambda: read_mask(FileSource(path)), path)
    assert "[255, 0, 0]" in str(why)
    assert "data.colors" in why.hint
    coloured = FileSource(path, rules=FileRules(values="colors"))
    labels = [Label(1, "red", (255, 0, 0)), Label(2, "blue", (0, 0, 255))]
    mask = read_mask(coloured, labels)
    assert mask.array[2:5, 1:3, 0].tolist() == [[1, 1]] * 3
    assert mask.array[0, 4, 0] == 2
    assert int(np.count_nonzero(mask.array)) == 7
    why = refused(lambda: read_mask(coloured, labels[:1]), path)
    assert "1 pixels" in str(why)
    assert "[0, 0, 255]" in str(why)


def test_objects_are_all_of_the_one_label(tmp_path: Path) -> None:
    numbers = RNG.integers(0, 2000, (5, 7), dtype=np.uint16)
    path = saved(numbers, tmp_path / "a.png")
    source = FileSource(path, rules=FileRules(values="objects"))
    assert np.array_equal(read_mask(source).array[..., 0].T, numbers > 0)
    assert set(np.unique(read_mask(source, [Label(3, "nucleus")]).array).tolist()) <= {0, 3}
    with pytest.raises(DataError, match="of a single label"):
        read_mask(source, [Label(1, "a"), Label(2, "b")])


def test_a_jpeg_is_no_mask(tmp_path: Path) -> None:
    path = saved(((GREYS > 127) * 255).astype(np.uint8), tmp_path / "a.jpg")
    assert "JPEG" in str(refused(lambda: read_mask(FileSource(path)), path))


# What is written


@given(values=arrays.arrays(np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_a_written_mask_is_read_back(values: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("masks")
    grid = Geometry.of_picture(*values.shape)
    labels = tuple(Label(int(value), f"label_{value}") for value in np.unique(values) if value)
    write_mask(Mask(values[..., np.newaxis], grid, labels), folder / "a.png")
    back = read_mask(FileSource(folder / "a.png"), labels)
    assert np.array_equal(back.array[..., 0], values)
    assert back.geometry.matches(grid)
    with Image.open(folder / "a.png") as picture:
        assert picture.size == values.shape
        shown = np.asarray(picture.convert("RGB"))
    for label in labels:
        assert (shown[label.value == values.T] == label.display_color).all()


def test_values_beyond_a_byte_and_millimetres_are_kept(tmp_path: Path) -> None:
    values = np.array([[0, 700], [3, 65535]], np.uint16)
    grid = Geometry.of_picture(2, 2, (0.25, 0.25))
    write_mask(Mask(values[..., np.newaxis], grid), tmp_path / "a.png")
    back = read_mask(FileSource(tmp_path / "a.png", rules=FileRules(pixel_mm="stated")))
    assert np.array_equal(back.array[..., 0], values)
    assert back.geometry.spacing_mm[:2] == pytest.approx((0.25, 0.25), rel=1e-3)


def test_images_are_written_as_they_are_or_not_at_all(tmp_path: Path) -> None:
    colours = COLORS.transpose(2, 1, 0)[..., np.newaxis].astype(np.float32)
    write_volume(Volume(colours, Geometry.of_picture(7, 5)), tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), COLORS)
    with pytest.raises(DataError, match="whole numbers"):
        write_volume(Volume((colours / 3).astype(np.float32), Geometry.of_picture(7, 5)), tmp_path / "b.png")
    with pytest.raises(DataError, match="one slice"):
        write_mask(Mask(np.zeros((2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4))), tmp_path / "c.png")


# Folders


def data_set(root: Path, names: tuple[str, ...] = ("p1", "p2"), suffix: str = ".png") -> Path:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for name in names:
        saved(COLORS, root / "images" / f"{name}{suffix}")
        saved((GREYS > 127).astype(np.uint8), root / "labels" / f"{name}.png")
    return root


def test_a_folder_of_pictures_is_a_data_set_of_three_channels(tmp_path: Path) -> None:
    dataset = find_dataset(data_set(tmp_path, suffix=".jpg"))
    assert dataset.channels == ("red", "green", "blue")
    assert [case.case_id for case in dataset.cases] == ["p1", "p2"]
    case = dataset.cases[0]
    image = read_images(case, dataset.channels)
    assert image.array.shape == (3, 7, 5, 1)
    assert np.array_equal(read_reference(case, image, ()).array[..., 0].T, GREYS > 127)


def test_grey_pictures_are_one_channel_and_go_with_colours(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    saved(GREYS, root / "images" / "p1.png")
    saved(GREYS, root / "images" / "p2.png")
    assert find_dataset(root).channels == ("image",)
    saved(COLORS, root / "images" / "p2.png")
    dataset = find_dataset(root)
    assert dataset.channels == ("red", "green", "blue")
    grey = read_images(dataset.cases[0], dataset.channels)
    assert all(np.array_equal(channel[..., 0].T, GREYS) for channel in grey.array)


def test_colours_of_a_grey_picture_are_one_channel_for_a_model_of_one(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    saved(np.dstack([GREYS] * 3), tmp_path / "in" / "grey.png")
    saved(COLORS, tmp_path / "in" / "coloured.png")
    coloured, grey = find_inputs(tmp_path / "in", ("image",)).cases
    assert np.array_equal(read_images(grey, ("image",)).array[0, ..., 0].T, GREYS)
    with pytest.raises(DataError, match="colour picture"):
        read_images(coloured, ("image",))


@pytest.mark.parametrize("pair", [("p1.png", "p1_mask.png"), ("p1/image.png", "p1/image_mask.png")])
def test_a_mask_beside_its_picture_is_its_reference(pair: tuple[str, str], tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        image, mask = (tmp_path / path.replace("p1", name) for path in pair)
        image.parent.mkdir(exist_ok=True)
        saved(COLORS, image)
        saved((GREYS > 99).astype(np.uint8), mask)
    assert len(find_dataset(tmp_path).cases) == 2


def test_pictures_beside_volumes_are_no_images(tmp_path: Path) -> None:
    write_volume(Volume(np.ones((1, 4, 4, 4), np.float32), Geometry((4, 4, 4), np.eye(4))), tmp_path / "ct.nii.gz")
    saved(COLORS, tmp_path / "preview.png")
    found = discover(tmp_path)
    assert [source.place.name for source in found.sources] == ["ct.nii.gz"]
    assert found.ignored == 1


def test_a_mask_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    saved(np.zeros((6, 7), np.uint8), root / "labels" / "p1.png")
    dataset = find_dataset(root)
    image = read_images(dataset.cases[0], dataset.channels)
    with pytest.raises(GeometryError, match=r"p1.*7x6 pixels.*7x5 pixels"):
        read_reference(dataset.cases[0], image, ())


def test_a_picture_without_anything_to_see_is_refused(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    saved(np.zeros((5, 7, 3), np.uint8), root / "images" / "p1.png")
    one_colour = COLORS.copy()
    one_colour[..., 2] = 0
    saved(one_colour, root / "images" / "p2.png")
    dataset = find_dataset(root)
    with pytest.raises(DataError, match="same value everywhere"):
        read_images(dataset.cases[0], dataset.channels)
    assert read_images(dataset.cases[1], dataset.channels).array.shape == (3, 7, 5, 1)


def test_rules_of_a_data_set_reach_its_files(tmp_path: Path) -> None:
    root = data_set(tmp_path)
    (source, *_) = discover(root / "images", rules=ReadingRules(pixel_mm=0.5)).sources
    assert isinstance(source, FileSource)
    assert read_shown(source).geometry.unit == "mm"


@given(st.integers(1, 9), st.integers(1, 9))
def test_a_grid_in_pixels_counts_pixels(columns: int, rows: int) -> None:
    mask = Mask(np.ones((columns, rows, 1), np.uint8), Geometry.of_picture(columns, rows), (Label(1, "all"),))
    assert mask.volumes_ml["all"] * 1000 == pytest.approx(columns * rows)


# Large pictures


TIFFS: dict[str, dict[str, object]] = {
    "tiles": {"tile": (64, 96)},
    "strips": {"rowsperstrip": 17},
    "one strip": {},
    "deflated tiles": {"tile": (64, 64), "compression": "zlib"},
    "differences": {"rowsperstrip": 31, "compression": "zlib", "predictor": True},
    "planes of tiles": {"planarconfig": "separate", "tile": (64, 64)},
    "planes of strips": {"planarconfig": "separate", "rowsperstrip": 9},
}


@pytest.mark.parametrize("kind", TIFFS)
def test_parts_of_a_tiff_are_those_of_the_whole(kind: str, tmp_path: Path) -> None:
    array = RNG.integers(0, 256, (203, 317, 3), dtype=np.uint8)
    stored = array.transpose(2, 0, 1) if kind.startswith("planes") else array
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **TIFFS[kind])  # type: ignore[arg-type]
    picture = streamed(tmp_path / "a.tif", FileRules())
    assert picture is not None
    whole, grid = read_array(tmp_path / "a.tif")
    assert picture.geometry.matches(grid)
    for columns, rows in (
        (slice(0, 317), slice(0, 203)),
        (slice(50, 301), slice(33, 77)),
        (slice(96, 97), slice(202, 203)),
    ):
        assert np.array_equal(picture.read(columns, rows), whole[:, columns, rows])
    for histogram, channel in zip(picture.histograms, whole, strict=True):
        assert histogram.mean == pytest.approx(channel.mean())
        assert histogram.deviation == pytest.approx(channel.std())
        assert (histogram.low, histogram.high) == (channel.min(), channel.max())
        for share in (0, 0.5, 37.3, 99, 100):
            assert histogram.percentile(share) == pytest.approx(np.percentile(channel, share))


def test_what_cannot_be_read_in_parts_is_read_as_a_whole(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "float.tif", DEEP.astype(np.float32))
    tifffile.imwrite(tmp_path / "white.tif", GREYS, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "turned.tif", GREYS, extratags=[(274, "H", 1, 6, False)])
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([GREYS] * 3), photometric="minisblack")
    saved(COLORS, tmp_path / "a.png")
    for path in tmp_path.iterdir():
        assert streamed(path, FileRules()) is None, path.name


def test_normalisation_by_a_histogram_is_that_by_all_values() -> None:
    channel = RNG.integers(3, 200, (1, 40, 50, 1)).astype(np.float32)
    histogram = Histogram(np.bincount(channel.astype(int).ravel(), minlength=256))
    for normalization in (ZScore(nonzero=False), Percentiles(), MinMax(), MinMax(low=-1, high=1), Unchanged()):
        expected, got = channel.copy(), channel.copy()
        fixed = of_whole_numbers(normalization, histogram)
        assert fixed is not None
        normalize(expected, [normalization])
        normalize(got, [fixed])
        assert np.allclose(expected, got, atol=1e-5), normalization
    assert of_whole_numbers(ZScore(nonzero=True), histogram) is None
