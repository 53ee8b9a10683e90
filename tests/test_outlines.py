"""Flat masks as outlines, and back: GeoJSON, COCO and SVG."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import shape  # type: ignore[import-untyped]

from volseg.cases import find_dataset, find_inputs, find_references, read_images, read_reference
from volseg.config import DicomRules
from volseg.errors import DataError, GeometryError
from volseg.exporting.outlines import write_coco, write_geojson, write_svg
from volseg.image.geometry import Geometry
from volseg.image.outlines import areas_of
from volseg.image.volume import Label, Mask
from volseg.io import SegmentsSource, discover, read_mask
from volseg.io.outlines import outlines_in

LABELS = (Label(1, "cell"), Label(7, "nucleus"))


def mask_of(values: NDArray[np.integer]) -> Mask:
    """(columns, rows) -> a mask of a picture."""
    array = np.array([0, 1, 7], np.uint8)[values % 3]
    return Mask(array[..., np.newaxis], Geometry.of_picture(*values.shape), LABELS)


MASKS = arrays.arrays(
    np.uint8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2), fill=st.nothing()
).map(mask_of)


@given(mask=MASKS)
def test_outlines_are_read_back_pixel_by_pixel(mask: Mask, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("outlines")
    write_geojson(mask, folder / "a.geojson")
    write_coco(mask, "a.png", folder / "a.coco.json")
    for name in ("a.geojson", "a.coco.json"):
        source = outlines_in(folder / name)
        if not mask.array.any() and name == "a.geojson":
            assert not source.names
            continue
        assert set(source.names) <= {"cell", "nucleus"}
        back = read_mask(source, LABELS, on=mask.geometry)
        assert np.array_equal(back.array, mask.array), name
        assert np.array_equal(read_mask(source, on=mask.geometry).array, mask.array), name  # values are stated, too


@given(mask=MASKS)
def test_areas_are_those_of_an_independent_library(mask: Mask, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("geojson") / "a.geojson"
    write_geojson(mask, path)
    features = json.loads(path.read_text())["features"]
    for label in LABELS:
        polygons = [shape(each["geometry"]) for each in features if each["properties"]["name"] == label.name]
        assert all(polygon.is_valid for polygon in polygons)
        assert sum(polygon.area for polygon in polygons) == np.count_nonzero(mask.array == label.value)


def test_a_pixel_is_the_square_between_its_corners(tmp_path: Path) -> None:
    values = np.zeros((4, 3), np.uint8)
    values[2, 1] = 1  # the third column, the second row
    mask = mask_of(values)
    (area,) = areas_of(mask)
    assert sorted(map(tuple, area.rings[0].tolist())) == [(2, 1), (2, 2), (3, 1), (3, 2)]
    write_coco(mask, "p.png", tmp_path / "a.coco.json")
    content = json.loads((tmp_path / "a.coco.json").read_text())
    assert content["images"] == [{"id": 1, "file_name": "p.png", "width": 4, "height": 3}]
    (annotation,) = content["annotations"]
    assert (annotation["bbox"], annotation["area"], annotation["category_id"]) == ([2, 1, 1, 1], 1, 1)


def test_svg_paths_enclose_the_pixels_of_each_label(tmp_path: Path) -> None:
    values = np.zeros((9, 8), np.uint8)
    values[1:6, 1:7] = 1
    values[3, 3] = 0  # a hole
    values[7, 2] = 2
    write_svg(mask_of(values), tmp_path / "a.svg")
    root = ET.fromstring((tmp_path / "a.svg").read_text())
    assert (root.get("width"), root.get("height"), root.get("viewBox")) == ("9", "8", "0 0 9 8")
    first, second = root
    assert first.get("id") == "cell"
    assert first.get("d", "").count("M") == 2  # the outer ring and the hole
    assert second.get("d") == "M7 2L8 2L8 3L7 3Z"


def test_run_lengths_of_coco_are_read(tmp_path: Path) -> None:
    # Columns first: of 3 rows and 4 columns, pixels 4 to 6 are the second column from its second row on, and one more.
    def annotated(counts: object) -> Path:
        content = {
            "images": [{"id": 5, "file_name": "p.png", "width": 4, "height": 3}],
            "categories": [{"id": 2, "name": "cell"}],
            "annotations": [
                {"id": 1, "image_id": 5, "category_id": 2, "segmentation": {"counts": counts, "size": [3, 4]}}
            ],
        }
        (tmp_path / "a.coco.json").write_text(json.dumps(content))
        return tmp_path / "a.coco.json"

    expected = np.zeros((4, 3), bool)
    expected.ravel()[4:7] = True
    for counts in ([4, 3, 5], "435"):  # as characters, each is a digit above "0"
        mask = read_mask(outlines_in(annotated(counts)), on=Geometry.of_picture(4, 3))
        assert np.array_equal(mask.array[..., 0] == 2, expected)
    with pytest.raises(GeometryError, match="4x3 pixels"):
        read_mask(outlines_in(annotated([4, 3, 5])), on=Geometry.of_picture(5, 3))


@pytest.mark.parametrize(
    "content", ["", "[]x", '{"features": [{"geometry": {"type": "Point", "coordinates": [1, 2]}}]}', '{"features": 3}']
)
def test_what_is_no_outline_is_one_clear_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        outlines_in(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_outlines_of_qupath_are_references(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "images" / "p1.png")
    ring = [[1, 1], [5, 1], [5, 4], [1, 4], [1, 1]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
    }
    (tmp_path / "labels" / "p1.geojson").write_text(json.dumps([feature]))
    dataset = find_dataset(tmp_path)
    (case,) = dataset.cases
    assert isinstance(case.reference, SegmentsSource)
    image = read_images(case, dataset.channels)
    mask = read_reference(case, image, [Label(3, "tumor")])
    expected = np.zeros((8, 6), bool)
    expected[1:5, 1:4] = True
    assert np.array_equal(mask.array[..., 0] == 3, expected)
    assert [source.place.name for source in discover(tmp_path / "images").sources] == ["p1.png"]


def test_outlines_are_of_one_slice(tmp_path: Path) -> None:
    volume = Mask(np.zeros((2, 2, 2), np.uint8), Geometry((2, 2, 2), np.eye(4)), LABELS)
    for write in (write_geojson, write_svg):
        with pytest.raises(DataError, match="one slice"):
            write(volume, tmp_path / "a")


# One file for all pictures of a data set


SQUARE = [[[2, 2], [8, 2], [8, 8], [2, 8], [2, 2]]]


def annotated(root: Path, where: str, pictures: str) -> Path:
    """Two pictures with a rectangle each, and one with nothing."""
    sizes = {"p1": (12, 10), "p2": (9, 11), "p3": (8, 8)}
    for name, (columns, rows) in sizes.items():
        path = root / pictures / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((columns, rows)).convert("RGB").save(path)
    corners = {1: [[2, 2, 6, 2, 6, 6, 2, 6]], 2: [[1, 3, 5, 3, 5, 8, 1, 8]]}
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.jpg", "width": columns, "height": rows}
            for number, (name, (columns, rows)) in enumerate(sizes.items(), start=1)
        ],
        "categories": [{"id": 0, "name": "cells"}, {"id": 7, "name": "nucleus"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 7, "segmentation": drawn}
            for number, drawn in corners.items()
        ],
    }
    (root / where).parent.mkdir(parents=True, exist_ok=True)
    (root / where).write_text(json.dumps(content))
    return root / where


@pytest.mark.parametrize(
    ("where", "pictures"),
    [
        ("annotations/instances_default.json", "images"),
        ("annotations/instances_default.json", "train"),
        ("_annotations.coco.json", ""),
        ("result.json", "images"),
    ],
    ids=["cvat", "coco", "roboflow", "label studio"],
)
def test_one_file_annotates_a_data_set(where: str, pictures: str, tmp_path: Path) -> None:
    listed = annotated(tmp_path / "data", where, pictures)
    for path in (listed, tmp_path / "data"):
        found = find_dataset(path)
        assert len(found.cases) == 3
        assert not [item for item in found.set_aside if item.is_fault]
        assert found.labels == {"nucleus": 7}  # nothing is a cell
        masks = []
        for case in found.cases:
            image = read_images(case, found.channels)
            masks.append(read_reference(case, image, [Label(1, "nucleus")]).array[..., 0].T)
        assert [int(mask.sum()) for mask in masks] == [16, 20, 0]
        assert masks[0][2:6, 2:6].all()
    inputs = find_inputs(tmp_path / "data", found.channels)
    assert [case.case_id for case in inputs.cases] == [case.case_id for case in found.cases]
    assert list(find_references(tmp_path / "data")) == [case.case_id for case in found.cases]


def test_pictures_that_are_not_there_or_of_another_size_are_said(tmp_path: Path) -> None:
    listed = annotated(tmp_path, "coco.json", "images")
    (tmp_path / "images" / "p1.jpg").unlink()
    Image.linear_gradient("L").resize((5, 5)).save(tmp_path / "images" / "p2.jpg")
    found = find_dataset(listed)
    assert [item.reason for item in found.set_aside] == ["it annotates 'p1.jpg', which is not beside it"]
    p2 = found.cases[0]
    with pytest.raises(GeometryError, match="drawn in 9x11 pixels, the picture has 5x5"):
        read_reference(p2, read_images(p2, found.channels), [Label(1, "nucleus")])


def test_boxes_are_no_outlines(tmp_path: Path) -> None:
    listed = annotated(tmp_path, "coco.json", "images")
    content = json.loads(listed.read_text())
    content["annotations"][0]["segmentation"] = []
    listed.write_text(json.dumps(content))
    with pytest.raises(DataError, match="a box without an outline"):
        find_dataset(listed)


def test_of_several_files_of_annotations_one_is_to_be_named(tmp_path: Path) -> None:
    annotated(tmp_path, "annotations/instances_train.json", "images")
    one = annotated(tmp_path, "annotations/instances_val.json", "images")
    with pytest.raises(DataError, match=r"several annotation files: instances_train.json, instances_val.json"):
        find_dataset(tmp_path)
    assert len(find_dataset(one).cases) == 3


def test_of_a_divided_data_set_a_part_is_to_be_named(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        annotated(tmp_path, f"{part}/_annotations.coco.json", part)
    with pytest.raises(DataError, match="is divided into train, valid") as caught:
        find_dataset(tmp_path)
    assert str(tmp_path / "train") in caught.value.hint
    assert len(find_dataset(tmp_path / "train").cases) == 3


def broken(root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    listed = annotated(root, "coco.json", "images")
    content = json.loads(listed.read_text())
    change(content)
    listed.write_text(json.dumps(content))
    return listed


def drawn(content: dict[str, Any], **keys: Any) -> None:
    content["annotations"][0].update(keys)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda content: drawn(content, image_id=99), "of picture 99, category 7: one of them is not listed"),
        (lambda content: drawn(content, category_id=99), "of picture 1, category 99: one of them is not listed"),
        (lambda content: content["images"][1].update(id=1), "two of its pictures have the same id"),
        (lambda content: content["images"][1].update(file_name="p1.jpg"), "two of its pictures have the same name"),
        (lambda content: content["categories"][0].update(id=7), "two of its categories have the same id"),
        (lambda content: content.update(images=[]), "lists no pictures"),
        (lambda content: drawn(content, segmentation={"counts": None, "size": [10, 12]}), "no COCO annotations"),
        (lambda content: drawn(content, segmentation={"counts": ["5"], "size": [10, 12]}), "not whole numbers"),
        (lambda content: drawn(content, segmentation=[[1, 2, 3, 4]]), "a polygon has 2 corners"),
        (lambda content: drawn(content, segmentation=[[1, 2, 3]]), "an odd number of coordinates"),
    ],
)
def test_annotations_that_say_nothing_sure_are_refused(
    change: Callable[[dict[str, Any]], None], why: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=why) as caught:
        find_dataset(broken(tmp_path, change))
    assert "coco.json" in str(caught.value)
    assert caught.value.hint


def test_ids_may_be_numbers_here_and_text_there(tmp_path: Path) -> None:
    found = find_dataset(
        broken(tmp_path, lambda content: [image.update(id=str(image["id"])) for image in content["images"]])
    )
    masks = [read_reference(case, read_images(case, found.channels), [Label(1, "nucleus")]) for case in found.cases]
    assert [int(mask.array.sum()) for mask in masks] == [16, 20, 0]


def test_paths_of_annotations_lead_to_pictures_of_the_data_set_alone(tmp_path: Path) -> None:
    listed = annotated(tmp_path / "data", "annotations/all.json", "images")
    for name in ("roi", "masks"):
        (tmp_path / "data" / name).mkdir()
        Image.new("L", (12, 10), 255).save(tmp_path / "data" / name / "p1.jpg")
    assert [case.case_id for case in find_dataset(listed, DicomRules(roi="roi")).cases] == ["p1"]
    assert len(find_dataset(listed).cases) == 2  # p1 lies in images/ and in roi/
    content = json.loads(listed.read_text())
    for image in content["images"]:
        image["file_name"] = f"../images/{image['file_name']}"  # as seen from annotations/
    listed.write_text(json.dumps(content))
    assert len(find_dataset(listed).cases) == 3


@pytest.mark.parametrize(
    ("feature", "why"),
    [
        ({"geometry": {"type": "Point", "coordinates": [1, 2]}}, "a Point marks no area"),
        ({"geometry": {"type": "GeometryCollection", "geometries": []}}, "a GeometryCollection marks no area"),
        ({"geometry": None}, "has no geometry"),
    ],
)
def test_what_marks_no_area_is_refused_by_name(feature: dict[str, Any], why: str, tmp_path: Path) -> None:
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    with pytest.raises(DataError, match=why):
        outlines_in(tmp_path / "a.geojson")


@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": {"names": ["Immune cells", "CD3"]}}, "Immune cells: CD3"),
        ({"classification": {"name": "Stroma"}}, "Stroma"),
        ({"name": "gland"}, "gland"),
        ({"classification": None}, "foreground"),
        (None, "foreground"),
    ],
)
def test_outlines_are_called_as_their_programs_say(
    properties: dict[str, Any] | None, name: str, tmp_path: Path
) -> None:
    square = {"type": "Polygon", "coordinates": [[[0, 0], [4, 0], [4, 4], [0, 4]]]}
    (tmp_path / "a.geojson").write_text(json.dumps([{"type": "Feature", "properties": properties, "geometry": square}]))
    assert outlines_in(tmp_path / "a.geojson").names == (name,)


def test_outlines_of_another_picture_are_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def square(at: int) -> dict[str, Any]:
        corners = [[at, 0], [at + 4, 0], [at + 4, 4], [at, 4]]
        return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [corners]}}

    grid = Geometry.of_picture(20, 10)
    (tmp_path / "a.geojson").write_text(json.dumps([square(100), square(200)]))
    with pytest.raises(GeometryError, match="none of its 2 outlines marks a pixel of the 20x10"):
        read_mask(outlines_in(tmp_path / "a.geojson"), on=grid)
    (tmp_path / "b.geojson").write_text(json.dumps([square(2), square(200)]))
    assert int(read_mask(outlines_in(tmp_path / "b.geojson"), on=grid).array.sum()) == 16
    assert "outline 2 of 2 marks no pixel" in caplog.text


@pytest.mark.parametrize("suffix", [".geojson", ".coco.json"])
def test_outlines_beside_their_pictures_are_references(suffix: str, tmp_path: Path) -> None:
    for name in ("p1", "p2"):
        Image.linear_gradient("L").resize((12, 10)).save(tmp_path / f"{name}.png")
        values = np.zeros((12, 10), np.uint8)
        values[2:6, 3:7] = 1
        if suffix == ".geojson":
            write_geojson(mask_of(values), tmp_path / f"{name}{suffix}")
        else:
            write_coco(mask_of(values), f"{name}.png", tmp_path / f"{name}{suffix}")
    found = find_dataset(tmp_path)
    assert [case.case_id for case in found.cases] == ["p1", "p2"]
    image = read_images(found.cases[0], found.channels)
    assert int(read_reference(found.cases[0], image, [Label(1, "cell")]).array.sum()) == 16


@pytest.mark.parametrize(
    ("features", "why"),
    [
        ([("a", 1, SQUARE), ("b", 1, SQUARE)], "have the same value"),
        ([("a", 1, [[[0, 0], [1e308, 0], [1e308, 1e308]]])], "not a list of x and y"),
    ],
    ids=["values", "corners"],
)
def test_outlines_that_contradict_themselves_are_refused(
    features: list[tuple[str, int, list[Any]]], why: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.geojson"
    drawn = [
        {
            "type": "Feature",
            "properties": {"name": name, "value": value},
            "geometry": {"type": "Polygon", "coordinates": rings},
        }
        for name, value, rings in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": drawn}))
    with pytest.raises(DataError, match=why):
        outlines_in(path)
