"""Pictures as programs really write them: depths, kinds of colours, compressions and extra samples."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from png import png

import volseg
from volseg.cases import find_dataset, find_inputs, read_images, read_reference
from volseg.config import DicomRules, FileRules
from volseg.errors import DataError, GeometryError
from volseg.image.volume import Label
from volseg.io import FileSource, ObjectsSource, read_channels, read_mask
from volseg.io.outlines import outlines_in
from volseg.io.pictures import channel_count, read_array
from volseg.io.pictures.streamed import streamed

RNG = np.random.default_rng(1)
COLORS = RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8)
GREYS = RNG.integers(0, 256, (32, 48), dtype=np.uint8)
ORIENTATION = 274
#: What OME-XML must state of GREYS.
WHOLE = 'DimensionOrder="XYZCT" SizeX="48" SizeY="32" SizeZ="1" SizeC="1" SizeT="1" Type="uint8"'


def pixels(path: Path) -> NDArray[np.generic]:
    """(rows, columns, channels) as volseg reads them."""
    array, _ = read_array(path, FileRules())
    return array[..., 0].transpose(2, 1, 0)


def mask(path: Path, *labels: Label) -> NDArray[np.unsignedinteger]:
    """(rows, columns)"""
    return read_mask(FileSource(path), labels).array[..., 0].T


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# PNG


@pytest.mark.parametrize(("kind", "samples", "kept"), [(4, 2, 1), (2, 3, 3), (6, 4, 3)])
def test_sixteen_bits_of_several_samples_keep_every_bit(kind: int, samples: int, kept: int, tmp_path: Path) -> None:
    array = RNG.integers(0, 65536, (5, 7, samples)).astype(">u2")
    path = written(tmp_path / "a.png", png((7, 5, 16, kind), b"".join(b"\0" + row.tobytes() for row in array)))
    np.testing.assert_array_equal(pixels(path), array[..., :kept])


def test_bits_that_count_do_not_shift_deep_colours(tmp_path: Path) -> None:
    deep = RNG.integers(0, 4096, (3, 4, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    path = written(tmp_path / "a.png", png((4, 3, 16, 2), rows, sBIT=bytes([12, 12, 12])))
    np.testing.assert_array_equal(pixels(path), deep)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_of_grey_are_the_numbers_that_were_stored(bits: int, tmp_path: Path) -> None:
    numbers = np.arange(2**bits, dtype=np.uint8)
    packed = int("".join(format(number, f"0{bits}b") for number in numbers).ljust(8, "0"), 2)
    row = packed.to_bytes(-(-max(8, bits * 2**bits) // 8), "big")
    path = written(tmp_path / "a.png", png((2**bits, 1, bits, 0), b"\0" + row))
    np.testing.assert_array_equal(mask(path)[0], numbers)


def test_a_deep_picture_that_is_cut_off_is_one_line(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (30, 40, 3)).astype(">u2")
    path = written(tmp_path / "a.png", png((40, 30, 16, 2), b"".join(b"\0" + row.tobytes() for row in deep)))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"a\.png is damaged") as caught:
        pixels(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 255]], np.int32),
        np.array([[0, 255]], np.float32),
        np.array([[0, 65535]], np.uint16),
    ],
    ids=lambda values: str(values.dtype),
)
def test_black_and_white_of_any_type_is_no_and_yes(values: NDArray[np.generic], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values)
    np.testing.assert_array_equal(mask(tmp_path / "a.tif"), [[0, 1]])


def test_black_and_white_of_a_palette_is_no_and_yes(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("P")
    picture.putpalette([level for level in range(256) for _ in range(3)])
    picture.save(tmp_path / "a.png")
    np.testing.assert_array_equal(mask(tmp_path / "a.png"), [[0, 1]])
    np.testing.assert_array_equal(mask(tmp_path / "a.png", Label(255, "rim")), [[0, 255]])


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.bmp", "a.tif"])
@pytest.mark.parametrize("mostly", [False, True])
def test_a_palette_of_black_and_white_is_looked_up(name: str, mostly: bool, tmp_path: Path) -> None:
    bits = np.full((20, 30), mostly)
    bits[3:9, 4:12] = not mostly
    picture = Image.fromarray((bits * 255).astype(np.uint8)).convert("RGB").quantize(2)  # white comes first
    picture.save(tmp_path / name)
    np.testing.assert_array_equal(mask(tmp_path / name), bits)


def test_a_smoothed_mask_is_no_label_map(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:40, :40]
    sharp = (((rows - 20) ** 2 + (columns - 18) ** 2 < 160) * 255).astype(np.uint8)
    smooth = Image.fromarray(sharp).resize((60, 60), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.png")
    for labels in ((), (Label(1, "cell"),)):
        with pytest.raises(DataError, match="greys between, as of a mask that was smoothed") as caught:
            mask(tmp_path / "a.png", *labels)
        assert "data.threshold=0.5" in caught.value.hint
    halved = read_mask(FileSource(tmp_path / "a.png", rules=FileRules(threshold=0.5)))
    np.testing.assert_array_equal(halved.array[..., 0].T, np.asarray(smooth) > 127)
    classes = np.zeros((40, 40), np.uint8)
    classes[5:10], classes[10:30], classes[30:35] = 85, 255, 170
    Image.fromarray(classes).save(tmp_path / "b.png")
    np.testing.assert_array_equal(mask(tmp_path / "b.png"), classes)  # classes in greys
    np.testing.assert_array_equal(mask(tmp_path / "b.png", *(Label(n, f"l{n}") for n in (85, 170, 255))), classes)


def test_what_tifffile_writes_of_booleans_is_said_to_be_turned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREYS > 128)
    np.testing.assert_array_equal(mask(tmp_path / "a.tif"), GREYS <= 128)
    assert "0 is white (MINISWHITE): it is inverted" in caplog.text


@pytest.mark.parametrize("samples", [2, 4])
def test_colours_of_other_than_three_samples_are_refused(samples: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    many = RNG.integers(0, 2, (8, 9, samples), dtype=np.uint8)
    tifffile.imwrite(path, many, photometric="minisblack", planarconfig="contig")
    rules = FileRules(values="colors")
    with pytest.raises(DataError, match=f"has {samples} samples in a pixel, colours have 3"):
        read_mask(FileSource(path, rules=rules), [Label(1, "tumour", color=(255, 0, 0))])


def test_deep_colours_are_those_of_bytes(tmp_path: Path) -> None:
    colors = np.zeros((4, 5, 3), np.uint16)
    colors[1, 2] = 65535, 0, 257 * 128
    tifffile.imwrite(tmp_path / "a.tif", colors, photometric="rgb")
    source = FileSource(tmp_path / "a.tif", rules=FileRules(values="colors"))
    made = read_mask(source, [Label(1, "tumour", color=(255, 0, 128))])
    assert made.array[2, 1, 0] == made.array.sum() == 1


def test_a_mask_that_states_no_size_lies_on_its_picture(tmp_path: Path) -> None:
    for folder, array, options in (("images", GREYS, {"dpi": (254, 254)}), ("labels", GREYS > 99, {})):
        (tmp_path / folder).mkdir()
        Image.fromarray(array).save(tmp_path / folder / "a.png", **options)
    found = find_dataset(tmp_path, DicomRules(pixel_mm="stated"))
    image = read_images(found.cases[0], found.channels)
    assert image.geometry.spacing_mm[:2] == pytest.approx((0.1, 0.1), rel=1e-3)
    reference = read_reference(found.cases[0], image, [Label(1, "cell")])
    assert reference.geometry == image.geometry


# TIFF


@pytest.mark.parametrize("compression", ["lzw", "zstd", "packbits", "deflate", "lzma", "jpegxl"])
@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_a_compression_turns_nothing(compression: str, orientation: int, tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.tif", tmp_path / "packed.tif"
    tags = [(ORIENTATION, "H", 1, orientation, True)]
    tifffile.imwrite(plain, COLORS, extratags=tags)
    tifffile.imwrite(packed, COLORS, extratags=tags, compression=compression)
    np.testing.assert_array_equal(pixels(packed), pixels(plain))
    assert pixels(plain).shape[:2] == ((48, 32) if orientation > 4 else (32, 48))


@pytest.mark.parametrize("compression", [None, "lzw", "ccittfax4"])
def test_white_is_zero_where_the_file_says_so(compression: str | None, tmp_path: Path) -> None:
    bits = GREYS > 128
    if compression == "ccittfax4":
        Image.fromarray(bits).save(tmp_path / "a.tif", compression="group4")  # which writes black as zero
    else:
        tifffile.imwrite(tmp_path / "a.tif", ~bits, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(mask(tmp_path / "a.tif"), bits)


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_packed_samples_are_unpacked(bits: int, tmp_path: Path) -> None:
    values = RNG.integers(0, 2**bits, (6, 8)).astype(np.uint16 if bits > 8 else np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, bitspersample=bits)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[..., 0], values)


@pytest.mark.parametrize("kind", ["cielab", "ycbcr", "cfa"])
def test_colours_that_are_no_red_green_and_blue_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, COLORS, photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite({"cielab": 8, "ycbcr": 6, "cfa": 32803}[kind])
    with pytest.raises(DataError, match=f"holds colours as {kind.upper()}") as caught:
        pixels(path)
    assert caught.value.hint


def test_jpeg_within_tiff_is_turned_to_colours(tmp_path: Path) -> None:
    smooth = np.stack(np.broadcast_arrays(np.arange(0, 256, 4)[:, None], np.arange(64)[None], 90), -1).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", smooth, compression="jpeg", tile=(32, 32), photometric="rgb")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages.first.photometric == tifffile.PHOTOMETRIC.YCBCR
    assert np.abs(pixels(tmp_path / "a.tif").astype(int) - smooth).max() <= 8


@pytest.mark.parametrize(("extra", "kept"), [("unspecified", 4), ("assocalpha", 3), ("unassalpha", 3)])
def test_only_what_is_called_transparency_is_left_out(extra: str, kept: int, tmp_path: Path) -> None:
    four = RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", four, photometric="rgb", extrasamples=[extra])
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), four[..., :kept])
    part = streamed(tmp_path / "a.tif", FileRules())
    assert (part.channels if part else 4) == kept


def test_transparency_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(RNG.integers(0, 256, (5, 6, 4), dtype=np.uint8)).save(tmp_path / "a.png")
    with caplog.at_level(logging.WARNING):
        pixels(tmp_path / "a.png")
        pixels(tmp_path / "a.png")
    assert [record.message for record in caplog.records] == [f"{tmp_path / 'a.png'}: its transparency is ignored"]


def test_axes_of_one_are_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREYS[None, None, None], imagej=True, metadata={"axes": "TZCYX"})
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif")[..., 0], GREYS)
    tifffile.imwrite(tmp_path / "b.ome.tif", GREYS[None, None, None], metadata={"axes": "TCZYX"}, ome=True)
    np.testing.assert_array_equal(pixels(tmp_path / "b.ome.tif")[..., 0], GREYS)


@pytest.mark.parametrize(("unit", "mm"), [(None, 1e-3), ("µm", 1e-3), ("mm", 1.0), ("nm", 1e-6)])
def test_ome_tiff_states_the_size_of_pixels(unit: str | None, mm: float, tmp_path: Path) -> None:
    stated = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    units = {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit} if unit else {}
    tifffile.imwrite(tmp_path / "a.ome.tif", GREYS, metadata={"axes": "YX", **stated, **units}, ome=True)
    _, grid = read_array(tmp_path / "a.ome.tif", FileRules(pixel_mm="stated"))
    assert grid.spacing_mm[:2] == pytest.approx((0.5 * mm, 0.25 * mm))
    _, grid = read_array(tmp_path / "a.ome.tif", FileRules())
    assert grid.unit == "px"


def test_tiles_that_are_not_stored_are_black(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((64, 96), 7, np.uint8), tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        page = tiff.pages.first
        counts = list(page.tags["TileByteCounts"].value)
        counts[1] = 0
        page.tags["TileByteCounts"].overwrite(counts)
    part = streamed(path, FileRules())
    assert part is not None
    read = part.read(slice(0, 96), slice(0, 64))[0, ..., 0].T
    assert (read[:32, 32:64] == 0).all()
    assert (np.delete(read, slice(32, 64), axis=1) == 7).all()


def test_a_tile_that_is_damaged_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREYS, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages.first.dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(content)
    part = streamed(path, FileRules())
    assert part is not None
    with pytest.raises(DataError, match=r"a\.tif is damaged"):
        part.read(slice(0, 32), slice(0, 32))


# Masks of shares, and outlines


@pytest.mark.parametrize("kind", [np.uint8, bool])
def test_a_threshold_takes_masks_of_no_and_yes_as_they_are(kind: type, tmp_path: Path) -> None:
    bits = (GREYS > 128).astype(kind)
    tifffile.imwrite(tmp_path / "a.tif", bits, photometric="minisblack")
    read = read_mask(FileSource(tmp_path / "a.tif", rules=FileRules(threshold=0.5)))
    np.testing.assert_array_equal(read.array[..., 0].T, bits)


@pytest.mark.parametrize(
    ("kind", "brightest", "expected"),
    [(np.uint8, 1, 1.0), (np.uint8, 255, 1.0), (np.uint16, 255, 1.0), (np.uint16, 65535, 1.0)],
)
def test_soft_masks_of_a_folder_have_one_scale(kind: type, brightest: int, expected: float, tmp_path: Path) -> None:
    for folder in ("made", "references"):
        (tmp_path / folder).mkdir()
    likely = np.zeros((20, 24), kind)
    likely[4:9, 5:12] = brightest
    faint = np.zeros((20, 24), kind)
    faint[0, 0] = min(1, brightest // 2)  # alone it would be a mask of one pixel
    for name, made, wanted in (("a", faint, faint > 9), ("b", likely, likely > 0)):
        tifffile.imwrite(tmp_path / "made" / f"{name}.tif", made)
        Image.fromarray(wanted).save(tmp_path / "references" / f"{name}.png")
    found = volseg.evaluate(tmp_path / "made", tmp_path / "references", threshold=0.5)
    rows = found.metrics.set_index("case_id")
    assert rows.loc["b", "dice"] == expected
    assert rows.loc["a", "status"] == "both_empty"


def outlined(path: Path, number: int = 1) -> Path:
    """A square of 4 x 4 pixels, as an annotation of COCO of a category."""
    corners = [2, 2, 6, 2, 6, 6, 2, 6]
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "width": 12, "height": 10}],
        "categories": [{"id": number, "name": "cell"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": number, "segmentation": [corners]}],
    }
    path.write_text(json.dumps(content))
    return path


def test_outlines_as_references_are_measured_in_pixels(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "references").mkdir()
    made = np.zeros((10, 12), np.uint8)
    made[2:6, 2:7] = 1
    Image.fromarray(made).save(tmp_path / "made" / "a.png")
    outlined(tmp_path / "references" / "a.coco.json")
    volseg.evaluate(tmp_path / "made", tmp_path / "references", tmp_path / "scores")
    columns = (tmp_path / "scores" / "metrics.csv").read_text().splitlines()[0].split(",")
    assert "hd95_px" in columns
    assert "hd95_mm" not in columns


def test_outlines_are_seen_in_a_folder(tmp_path: Path) -> None:
    outlined(tmp_path / "a.coco.json")
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    found = {item.path: item for item in volseg.inspect(tmp_path).items}
    assert found["a.coco.json"].status == "reference"
    assert "cell" in found["a.coco.json"].remark


def test_a_category_of_number_0_is_a_label(tmp_path: Path) -> None:
    (number,) = outlines_in(outlined(tmp_path / "a.coco.json", number=0)).values  # noqa: PD011  no table
    assert number == 1


def test_the_grid_of_a_picture_has_no_millimetres(tmp_path: Path) -> None:
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    item = volseg.inspect(tmp_path).items[0]
    assert item.shape == (48, 32, 1)
    assert item.spacing_mm is None


# A file for each object

OBJECTS = np.array([[0, 1, 1, 0, 0, 0], [0, 1, 2, 2, 0, 0], [0, 0, 2, 2, 0, 3]], np.uint8)


def objects_apart(root: Path, *, by_case: bool) -> Path:
    """Two pictures, and each object in a file of a name that says nothing."""
    for name in ("p1", "p2"):
        image = root / name / "images" / f"{name}.png" if by_case else root / "images" / f"{name}.png"
        masks = root / name / "masks" if by_case else root / "masks" / name
        for folder in (image.parent, masks):
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (3, 6, 3), dtype=np.uint8)).save(image)
        for number in (1, 2, 3):
            Image.fromarray((number == OBJECTS).astype(np.uint8) * 255).save(masks / f"{name}f{number:06x}.png")
    return root


@pytest.mark.parametrize("by_case", [True, False])
def test_a_file_for_each_object_is_one_reference(by_case: bool, tmp_path: Path) -> None:
    root = objects_apart(tmp_path / "data", by_case=by_case)
    rules = DicomRules(values="objects")
    found = find_dataset(root, rules)
    assert [case.case_id for case in found.cases] == ["p1", "p2"]
    assert not found.set_aside
    for case in found.cases:
        assert case.reference is not None
        made = read_mask(case.reference, [Label(7, "cell")])
        np.testing.assert_array_equal(made.array[..., 0].T, 7 * (OBJECTS > 0))
    inputs = find_inputs(root, ("red", "green", "blue"), rules)
    assert [case.case_id for case in inputs.cases] == ["p1", "p2"]


def test_masks_of_objects_are_no_images(tmp_path: Path) -> None:
    root = objects_apart(tmp_path / "data", by_case=True)
    found = find_inputs(root, ("red", "green", "blue"))  # of a model that learned from masks of another kind
    assert len(found.cases) == 2
    assert len(found.set_aside) == 6


def test_masks_are_judged_by_objects_in_files(tmp_path: Path) -> None:
    root = objects_apart(tmp_path / "data", by_case=True)
    made = tmp_path / "made"
    made.mkdir()
    for name in ("p1", "p2"):
        Image.fromarray((OBJECTS > 0).astype(np.uint8)).save(made / f"{name}.png")
    volseg.evaluate(made, root, tmp_path / "scores", changes={"data.values": "objects"})
    scores = pd.read_csv(tmp_path / "scores" / "metrics.csv")
    assert scores["dice"].tolist() == [1.0, 1.0]
    assert "hd95_px" in scores


def test_a_list_may_name_folders_of_objects(tmp_path: Path) -> None:
    root = objects_apart(tmp_path / "data", by_case=True)
    table = root / "cases.csv"
    table.write_text("case_id,image,reference\na,p1/images/p1.png,p1/masks\nb,p2/images/p2.png,p2/masks\n")
    found = find_dataset(table, DicomRules(values="objects"))
    assert all(isinstance(case.reference, ObjectsSource) for case in found.cases)


# Colours and evaluation


def test_references_in_colours_are_judged(tmp_path: Path) -> None:
    for folder in ("numbers", "drawn", "references", "roi"):
        (tmp_path / folder).mkdir()
    values = np.zeros((20, 24), np.uint8)
    values[2:9, 3:10], values[11:18, 4:20] = 1, 2
    table = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    Image.fromarray(values).save(tmp_path / "numbers" / "a.png")
    for folder in ("drawn", "references"):
        Image.fromarray(table[values]).save(tmp_path / folder / "a.png")
    Image.fromarray(np.full((20, 24), 255, np.uint8)).save(tmp_path / "roi" / "a.png")
    stated = {"data.values": "colors", "data.colors": {"tumour": [255, 0, 0], "stroma": [0, 0, 255]}}
    for made in ("numbers", "drawn"):
        found = volseg.evaluate(tmp_path / made, tmp_path / "references", changes=stated, within=tmp_path / "roi")
        assert found.metrics.set_index("label")["dice"].to_dict() == {"tumour": 1.0, "stroma": 1.0}


def test_values_of_references_may_be_named(tmp_path: Path) -> None:
    for folder in ("made", "references"):
        (tmp_path / folder).mkdir()
        Image.fromarray(OBJECTS).save(tmp_path / folder / "a.png")
    stated = {"data.labels": {"one": 1, "two": 2, "three": 3}}
    found = volseg.evaluate(tmp_path / "made", tmp_path / "references", changes=stated)
    assert found.metrics["label"].tolist() == ["one", "two", "three"]


def test_a_picture_of_more_channels_than_wanted_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        RNG.integers(0, 256, (5, 20, 30), dtype=np.uint8),
        photometric="minisblack",
        metadata={"axes": "CYX"},
    )
    with pytest.raises(DataError, match="has 5 channels, of which 3 are wanted"):
        read_channels([FileSource(tmp_path / "a.tif", frame=frame) for frame in range(3)])
    assert len(read_channels([FileSource(tmp_path / "a.tif", frame=frame) for frame in range(5)])) == 5


def test_colours_in_one_file_are_the_channels_that_nnunet_names(tmp_path: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        Image.fromarray(COLORS).save(tmp_path / "imagesTr" / f"{name}_0000.png")
        Image.fromarray((GREYS > 99).astype(np.uint8)).save(tmp_path / "labelsTr" / f"{name}.png")
    (tmp_path / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "R", "1": "G", "2": "B"},
                "labels": {"background": 0, "cell": 1},
                "numTraining": 2,
                "file_ending": ".png",
            }
        )
    )
    found = find_dataset(tmp_path)
    assert found.channels == ("r", "g", "b")
    image = read_images(found.cases[0], found.channels)
    np.testing.assert_array_equal(image.array[..., 0].transpose(2, 1, 0), COLORS)


def test_further_masks_beside_the_first_are_no_images(tmp_path: Path) -> None:
    """As of BUSI, ultrasound of the breast: benign (3)_mask_1 is the second lesion of benign (3)."""
    for name in ("benign (1)", "benign (2)", "benign (3)"):
        Image.fromarray(GREYS).save(tmp_path / f"{name}.png")
        Image.fromarray((GREYS > 200).astype(np.uint8) * 255).save(tmp_path / f"{name}_mask.png")
    Image.fromarray((GREYS < 30).astype(np.uint8) * 255).save(tmp_path / "benign (3)_mask_1.png")
    found = find_dataset(tmp_path)
    assert len(found.cases) == 2
    assert [item.reason for item in found.set_aside if "keep one" in item.reason]
    united = find_dataset(tmp_path, DicomRules(values="objects"))
    assert len(united.cases) == 3
    assert isinstance(united.cases[2].reference, ObjectsSource)
    both = read_mask(united.cases[2].reference, [Label(1, "lesion")]).array[..., 0].T
    np.testing.assert_array_equal(both, (GREYS > 200) | (GREYS < 30))
    assert len(find_inputs(tmp_path, ("image",)).cases) == 3


@pytest.mark.parametrize(
    "description",
    [
        f'<OME xmlns="x"><Image><Pixels {WHOLE} PhysicalSizeX="a" PhysicalSizeY="1"><TiffData/></Pixels></Image></OME>',
        '<OME xmlns="x"><Image></OME>',
        "<OME></OME>",
        "<OME><Image/></OME>",
    ],
)
def test_what_ome_xml_does_not_state_keeps_no_picture_from_being_read(description: str, tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, GREYS, description=f'<?xml version="1.0"?>{description}', metadata=None)
    np.testing.assert_array_equal(pixels(path)[..., 0], GREYS)
    assert streamed(path, FileRules()) is not None
    with pytest.raises(GeometryError, match="states no resolution"):
        read_array(path, FileRules(pixel_mm="stated"))


def test_ome_xml_that_lacks_what_it_must_state_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    description = '<?xml version="1.0"?><OME xmlns="x"><Image><Pixels/></Image></OME>'
    tifffile.imwrite(path, GREYS, description=description, metadata=None)
    assert streamed(path, FileRules()) is None
    with pytest.raises(DataError, match="damaged"):
        read_array(path)


def test_transparency_is_left_out_of_every_page(tmp_path: Path) -> None:
    pages = RNG.integers(1, 256, (3, 20, 30, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="rgb", extrasamples=["unassalpha"])
    read = read_array(tmp_path / "a.tif", FileRules(pages="channels"))[0]
    np.testing.assert_array_equal(read[..., 0], pages[..., :3].transpose(0, 3, 2, 1).reshape(9, 30, 20))
    assert channel_count(tmp_path / "a.tif", FileRules(pages="channels")) == 9


def test_several_pictures_in_a_jpeg_are_no_mask_either(tmp_path: Path) -> None:
    """As cameras write them: Multi-Picture Format."""
    first, second = (Image.fromarray(COLORS) for _ in range(2))
    first.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[second])
    with pytest.raises(DataError, match="is a JPEG, which blurs"):
        read_mask(FileSource(tmp_path / "a.jpg"))


def test_a_list_that_names_no_picture_costs_no_other(tmp_path: Path) -> None:
    Image.fromarray(COLORS).save(tmp_path / "a.png")
    listed = outlined(tmp_path / "all.json")
    content = json.loads(listed.read_text())
    content["images"] += [{"id": 2 + n, "file_name": name} for n, name in enumerate(("", ".", "..", "/"))]
    listed.write_text(json.dumps(content))
    dataset = find_dataset(listed)
    assert [case.case_id for case in dataset.cases] == ["a"]
    assert sum("is not beside it" in item.reason for item in dataset.set_aside) == 4


def test_outlines_beside_masks_of_objects_are_not_made_one(tmp_path: Path) -> None:
    for name in "ab":
        Image.fromarray(COLORS).save(tmp_path / f"{name}.png")
        outlined(tmp_path / f"{name}.coco.json")
    Image.fromarray(np.eye(32, 48, dtype=np.uint8)).save(tmp_path / "b_mask.png")
    dataset = find_dataset(tmp_path, DicomRules(values="objects"))
    assert [case.case_id for case in dataset.cases] == ["a"]
    assert any("2 references are named b" in item.reason for item in dataset.set_aside)
