"""Names that files state of their values, and what training makes of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_case
from numpy.typing import NDArray

import volseg
from volseg.cases import find_dataset, read_images, read_reference
from volseg.cases.case import check_label_values
from volseg.cases.stated_names import of_masks, of_references, united
from volseg.errors import ConfigError, DataError
from volseg.exporting import write
from volseg.image.geometry import Geometry
from volseg.image.naming import label_called, matched, plain_name, short_names, values_by_name
from volseg.image.short_names import short_name
from volseg.image.terminology import Code
from volseg.image.volume import Label, Mask
from volseg.io import (
    FileSource,
    SegmentsSource,
    discover,
    read_mask,
    read_volume,
    single_source,
    write_mask,
    write_volume,
)
from volseg.io.dicom import write_series
from volseg.io.label_maps import named_mask
from volseg.io.labels import read_labels
from volseg.io.references import is_called
from volseg.io.segments import Segment
from volseg.metrics import score_masks

Segments = Sequence[tuple[str, int, int]]


def stated(folder: Path, names: Mapping[str, int] | None) -> None:
    """Write labels.json into a folder of label maps."""
    if names is not None:
        entries = [{"value": value, "name": name} for name, value in names.items()]
        (folder / "labels.json").write_text(json.dumps(entries))


def write_layers(
    path: Path, layers: NDArray[np.unsignedinteger], segments: Segments, geometry: Geometry, *, more: str = ""
) -> None:
    """A segmentation as 3D Slicer writes it: (L, I, J, K), and name, layer and value of each segment."""
    lps = geometry.lps_affine
    many = len(layers) > 1
    vectors = ["(" + ",".join(f"{x:.17g}" for x in lps[:3, axis]) + ")" for axis in range(4)]
    sizes = layers.shape if many else layers.shape[1:]
    head = [
        "NRRD0004",
        f"type: {'unsigned char' if layers.dtype == np.uint8 else 'unsigned short'}",
        f"dimension: {len(sizes)}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, sizes))}",
        f"space directions: {'none ' if many else ''}{' '.join(vectors[:3])}",
        f"kinds: {'list ' if many else ''}domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vectors[3]}",
    ]
    for number, (name, layer, value) in enumerate(segments):
        head += [f"Segment{number}_Name:={name}", f"Segment{number}_Layer:={layer}"]
        head += [f"Segment{number}_LabelValue:={value}", f"Segment{number}_ID:=Segment_{number}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    data = layers if many else layers[0]
    text = "\n".join([*head, *([more] if more else [])]) + "\n\n"
    path.write_bytes(text.encode() + gzip.compress(data.tobytes(order="F")))


@pytest.fixture
def data_set(tmp_path: Path):
    """Labelled cases whose references are written by the test."""

    def make(count: int = 3) -> list[Mask]:
        masks = []
        for seed in range(count):
            image, mask = make_case(seed)
            write_volume(image, tmp_path / "images" / f"c{seed}.nii.gz")
            masks.append(mask)
        return masks

    return make


def swapped(mask: Mask) -> Mask:
    return Mask(np.array([0, 2, 1], np.uint8)[mask.array], mask.geometry)


def references(folder: Path, labels: Mapping[str, int]) -> list[NDArray[np.unsignedinteger]]:
    """The references of a data set as training reads them."""
    known = tuple(Label(value, name) for name, value in labels.items())
    dataset = find_dataset(folder)
    return [read_reference(case, read_images(case, dataset.channels), known).array for case in dataset.cases]


# A segmentation of 3D Slicer


def test_three_layers_are_read_by_name(tmp_path: Path) -> None:
    """Two segments share a layer, and one value stands in all of three layers."""
    geometry = make_case(0)[1].geometry
    layers = np.zeros((3, *geometry.shape), np.uint8)
    layers[0, 2:6], layers[0, 8:10], layers[1, 4:8], layers[2, 5:6] = 1, 2, 1, 1
    segments = [("lung", 0, 1), ("trachea", 0, 2), ("nodule", 1, 1), ("Kalk", 2, 1)]
    write_layers(tmp_path / "a.seg.nrrd", layers, segments, geometry)
    source = single_source(tmp_path / "a.seg.nrrd")
    labels = [Label(5, "Nodule"), Label(300, "LUNG"), Label(7, "kalk"), Label(6, "trachea")]
    mask = read_mask(source, labels)
    assert mask.geometry.matches(geometry)
    expected = np.zeros(geometry.shape, int)
    expected[4:8], expected[5:6], expected[8:10], expected[2:6] = 5, 7, 6, 300  # the larger value covers the others
    assert (mask.array == expected).all()


def test_layers_without_numbers_are_those_of_old_versions(tmp_path: Path) -> None:
    geometry = make_case(0)[1].geometry
    layers = np.zeros((2, *geometry.shape), np.uint8)
    layers[0, :3], layers[1, 5:] = 1, 1
    names = "Segment0_Name:=left ventricle\nSegment1_Name:=aorta"
    write_layers(tmp_path / "a.seg.nrrd", layers, [], geometry, more=names)
    mask = read_mask(single_source(tmp_path / "a.seg.nrrd"))
    assert [(label.value, label.name) for label in mask.labels] == [(1, "left ventricle"), (2, "aorta")]
    assert (mask.array[:3] == 1).all()
    assert (mask.array[5:] == 2).all()


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([("a", 0, 1), ("b", 0, 1)], "two of its segments the same value in one layer"),
        ([("a", 0, 0)], "segment 'a' has value 0 in layer 0"),
        ([("a", 0, 1), ("b", 4, 1)], "but segment 'b' is in layer 4"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(segments: Segments, message: str, tmp_path: Path) -> None:
    mask = make_case(0)[1]
    write_layers(tmp_path / "a.seg.nrrd", mask.array[np.newaxis], segments, mask.geometry)
    (item,) = volseg.inspect(tmp_path)
    assert message in item.remark


def test_any_nrrd_whose_header_names_segments_is_a_segmentation(tmp_path: Path) -> None:
    mask = make_case(0)[1]
    write_layers(tmp_path / "ct.nrrd", mask.array[np.newaxis], [("Rippe", 0, 1)], mask.geometry)
    write_layers(tmp_path / "plain.seg.nrrd", mask.array[np.newaxis], [], mask.geometry)
    found = discover(tmp_path)
    assert [source.path.name for source in found.segments] == ["ct.nrrd"]
    assert found.segments[0].names == ("Rippe",)
    assert [source.place.name for source in found.sources] == ["plain.seg.nrrd"]
    kinds = {item.path: (item.status, item.shape) for item in volseg.inspect(tmp_path)}
    assert kinds["ct.nrrd"] == ("reference", mask.geometry.shape)


def test_voxels_that_no_segment_names_are_background_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mask = make_case(0)[1]
    write_layers(tmp_path / "a.nrrd", mask.array[np.newaxis], [("ball", 0, 1)], mask.geometry)
    source = single_source(tmp_path / "a.nrrd")
    assert (read_mask(source, [Label(4, "Ball")]).array == 4 * (mask.array == 1)).all()
    assert "value 2 is not a label and stays background" in caplog.text
    assert (read_mask(source).array == mask.array).all()  # as any other reader sees it


def test_many_segments_are_all_named(tmp_path: Path) -> None:
    geometry = Geometry((20, 20, 5), np.diag([-1.0, -1, 2, 1]))
    array = np.arange(2000, dtype=np.uint16).reshape(geometry.shape) % 701
    segments = [(f"Zahn {value}", 0, value) for value in range(1, 701)]
    write_layers(tmp_path / "a.seg.nrrd", array[np.newaxis], segments, geometry)
    mask = read_mask(single_source(tmp_path / "a.seg.nrrd"), [Label(701 - n, f"zahn_{n}") for n in range(1, 701)])
    assert (mask.array == np.where(array, 701 - array, 0)).all()


# Training


def test_each_file_is_read_by_its_own_names(data_set, tmp_path: Path) -> None:
    masks = data_set()
    write_layers(
        tmp_path / "labels/c0.seg.nrrd", masks[0].array[None], [("ball", 0, 1), ("box", 0, 2)], masks[0].geometry
    )
    turned = swapped(masks[1])
    write_layers(tmp_path / "labels/c1.seg.nrrd", turned.array[None], [("Box", 0, 1), ("Ball", 0, 2)], turned.geometry)
    layers = np.stack([masks[2].array == 2, masks[2].array == 1]).astype(np.uint8)
    write_layers(tmp_path / "labels/c2.seg.nrrd", layers, [("box", 0, 1), ("ball", 1, 1)], masks[2].geometry)
    dataset = find_dataset(tmp_path)
    assert dataset.labels == {"ball": 1, "box": 2}
    for array, mask in zip(references(tmp_path, dataset.labels), masks, strict=True):
        assert (array == mask.array).all()


def test_segmentations_in_dicom_are_read_by_their_own_names(tmp_path: Path) -> None:
    """Each numbers its segments in its own order; blanks, case and long ends of names do not matter."""
    long = "the part of the box that nobody has ever seen and that is therefore called by a very long name, "
    masks = []
    for seed, names in enumerate([("Big ball", long + "A"), (long + "A", "big_ball"), ("BIG  BALL", long + "A")]):
        image, mask = make_case(seed)
        write_series(image, tmp_path / f"p{seed}" / "ct")
        (series,) = discover(tmp_path / f"p{seed}" / "ct").sources
        turned = swapped(mask) if seed == 1 else mask
        labels = tuple(Label(value, name) for value, name in enumerate(names, start=1))
        grid = read_volume(series).geometry
        seg = tmp_path / f"p{seed}" / "marked.seg.dcm"
        write(Mask(turned.on(grid).array, grid, labels), series, seg, "dicom-seg")
        masks.append(mask.on(grid).array)
    for array, mask in zip(references(tmp_path, {long + "A": 2, "big ball": 1}), masks, strict=True):
        assert (array == mask).all()


def test_lists_beside_the_references_rule(data_set, tmp_path: Path) -> None:
    """Two observers, each with a folder, numbers and names of their own."""
    masks = data_set()
    for seed, (folder, names) in enumerate([("a", {"ball": 1, "box": 2}), ("b", {"BOX": 1, "Ball": 2}), ("a", None)]):
        mask = swapped(masks[seed]) if folder == "b" else masks[seed]
        (tmp_path / "images" / folder).mkdir(exist_ok=True)
        (tmp_path / "images" / f"c{seed}.nii.gz").rename(tmp_path / "images" / folder / f"c{seed}.nii.gz")
        write_mask(mask, tmp_path / "labels" / folder / f"c{seed}.nii.gz")
        stated(tmp_path / "labels" / folder, names)
    dataset = find_dataset(tmp_path)
    assert dataset.labels == {"ball": 1, "box": 2}
    order = {case.case_id: seed for case in dataset.cases for seed in range(3) if str(seed) in case.case_id}
    for case, array in zip(dataset.cases, references(tmp_path, dataset.labels), strict=True):
        assert (array == masks[order[case.case_id]].array).all()


def test_the_list_of_a_data_set_names_its_labels(data_set, tmp_path: Path) -> None:
    for seed, mask in enumerate(data_set()):
        write_mask(mask, tmp_path / "labels" / f"c{seed}.nii.gz")
    stated(tmp_path, {"ball": 1, "box": 2})
    assert find_dataset(tmp_path).labels == {"ball": 1, "box": 2}


def test_stated_labels_are_those_of_the_names_not_of_the_numbers(
    data_set, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masks = data_set()
    for seed, mask in enumerate(masks):
        write_mask(mask, tmp_path / "labels" / f"c{seed}.nii.gz")
    stated(tmp_path / "labels", {"ball": 1, "box": 2})
    for array, mask in zip(references(tmp_path, {"Box": 1, "Ball": 2}), masks, strict=True):
        assert (array == swapped(mask).array).all()
    volseg.plan(tmp_path, changes={"data.labels": {"Box": 1, "Ball": 2}})
    assert (
        "3 references number their labels differently: labels are matched by the names in the files (c0: ball is 1"
        in caplog.text
    )


def test_names_that_are_no_label_are_refused_with_the_way_out(data_set, tmp_path: Path) -> None:
    masks = data_set()
    for seed, mask in enumerate(masks):
        write_mask(mask, tmp_path / "labels" / f"c{seed}.nii.gz")
    stated(tmp_path / "labels", {"Kugel": 1, "box": 2})
    with pytest.raises(ConfigError, match="the reference marks Kugel, which ") as caught:
        volseg.plan(tmp_path, changes={"data.labels": {"ball": 1, "box": 2}})
    assert "data.segments" in caught.value.hint
    changes = {"data.labels": {"ball": 2, "box": 1}, "data.segments": {"ball": ["kugel"]}}
    assert volseg.plan(tmp_path, changes=changes).config.data.labels == {"ball": 2, "box": 1}


def test_numbers_without_names_among_names_that_differ_are_refused(data_set, tmp_path: Path) -> None:
    masks = data_set()
    write_layers(
        tmp_path / "labels/c0.seg.nrrd", masks[0].array[None], [("ball", 0, 1), ("box", 0, 2)], masks[0].geometry
    )
    turned = swapped(masks[1])
    write_layers(tmp_path / "labels/c1.seg.nrrd", turned.array[None], [("box", 0, 1), ("ball", 0, 2)], turned.geometry)
    write_mask(masks[2], tmp_path / "labels/c2.nii.gz")
    with pytest.raises(DataError, match=r"the values in 1 references is not stated, such as c2: 1 is box in c1"):
        volseg.plan(tmp_path)
    assert volseg.plan(tmp_path, changes={"data.labels": {"ball": 1, "box": 2}}).config.data.labels["box"] == 2


def test_two_values_of_one_name_cost_the_case(data_set, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for seed, mask in enumerate(data_set()):
        write_mask(mask, tmp_path / "labels" / f"c{seed}.nii.gz")
    stated(tmp_path / "labels", {"ball": 1, "Ball": 2})
    with pytest.raises(DataError, match="no case could be read"):
        volseg.plan(tmp_path)
    assert "the values 1 and 2 have the same name" in caplog.text


def test_a_prepared_case_depends_on_its_names() -> None:
    from volseg.io.source import _part

    one, other = (FileSource(Path("a.nii"), labels=(Label(1, name),)) for name in ("ball", "box"))
    assert _part(one) != _part(other) != _part(FileSource(Path("a.nii")))


# Names


def test_the_ways_to_write_one_name() -> None:
    assert plain_name("Left_Kidney") == plain_name("left  KIDNEY") == "left kidney"
    assert plain_name("La\u0308sion") == plain_name("l\u00e4sion")


def test_a_structure_is_known_by_any_of_its_names() -> None:
    wanted = [Label(1, "gallbladder"), Label(2, "kidney_left")]
    found = matched([Label(7, "Gall bladder"), Label(8, "Left kidney"), Label(9, "stone")], wanted)
    assert {value: label.name for value, label in found.items()} == {7: "gallbladder", 8: "kidney_left"}


def test_labels_without_names_go_by_value() -> None:
    wanted = [Label(1, "label_1"), Label(2, "uterus")]
    assert values_by_name([Label(1, "ovary"), Label(2, "label_2")], wanted, [1, 2]) == {1: 1, 2: 2}
    assert values_by_name([Label(1, "uterus"), Label(2, "ovary")], [Label(2, "uterus")], [1, 2]) == {1: 2, 2: 65535}
    assert values_by_name([Label(5, "ovary")], [Label(2, "uterus")], [5]) == {5: 5}


def test_a_value_without_a_name_is_told_by_the_number_in_its_file() -> None:
    array = np.zeros((3, 3, 3), np.uint8)
    array[0, 0] = [1, 2, 3]
    stated = Mask(array, Geometry((3, 3, 3), np.eye(4)), (Label(1, "uterus"), Label(3, "ovary")))
    mask = named_mask(stated, [Label(2, "uterus"), Label(3, "bladder")])
    with pytest.raises(ConfigError, match="marks ovary, which"):
        check_label_values("a", mask, [Label(2, "uterus"), Label(3, "bladder")])
    mask = named_mask(replace(stated, labels=(Label(1, "uterus"),)), [Label(2, "uterus"), Label(3, "bladder")])
    with pytest.raises(ConfigError, match=r"holds label values 3 \(unnamed\), 2 \(unnamed\), which"):
        check_label_values("a", mask, [Label(2, "uterus"), Label(3, "bladder")])
    empty = Mask(np.zeros_like(mask.array), mask.geometry)
    with pytest.raises(
        DataError, match=r"the reference holds 3 \(unnamed\), 2 \(unnamed\), which is not among the labels"
    ):
        score_masks(empty, mask, [Label(2, "uterus"), Label(3, "bladder")])


def test_a_label_that_is_called_so_to_the_letter_comes_first() -> None:
    labels = [Label(1, "Nidus", aliases=("nest",)), Label(2, "nidus")]
    assert [label_called(name, labels).value for name in ("nidus", "NIDUS", "Nest")] == [2, 1, 1]  # type: ignore[union-attr]
    assert label_called("core", labels) is None


@pytest.mark.parametrize("begin", ["x" * 80, "Ä" * 40, "網膜" * 20, "e\u0301" * 40])
def test_long_names_that_begin_alike_stay_apart(begin: str) -> None:
    names = [begin + end for end in ("left", "right", "")]
    short = [short_name(name) for name in names]
    assert len(set(short)) == 3
    assert all(len(name.encode()) <= 64 for name in short)
    labels = [Label(value, name) for value, name in enumerate(names, start=1)]
    assert [label_called(name, labels).value for name in short] == [1, 2, 3]  # type: ignore[union-attr]


def test_a_name_that_was_cut_off_is_known_where_only_one_begins_so() -> None:
    long = [Label(1, "Ö" * 40 + "one"), Label(2, "Ö" * 30 + "other")]
    assert label_called("Ö" * 32, long) == long[0]
    assert label_called("Ö" * 32, [*long, Label(3, "Ö" * 50)]) is None


def test_names_that_become_alike_are_marked() -> None:
    labels = [Label(1, "a/b"), Label(2, "a\\b"), Label(3, "c")]
    short = short_names(labels)
    assert len(set(short.values())) == 3
    assert short[3] == "c"
    assert {label_called(short[label.value], labels).value for label in labels} == {1, 2, 3}  # type: ignore[union-attr]


def test_what_files_say_together() -> None:
    def source(name: str, **labels: int) -> FileSource:
        return FileSource(Path(name), labels=tuple(Label(value, label) for label, value in labels.items()))

    together = united([source("a", liver=3, spleen=1), source("b", Liver=3), FileSource(Path("c"))])
    assert together.agreed
    assert [(label.value, label.name) for label in together.labels] == [(1, "spleen"), (3, "liver")]
    clash = united([source("a", liver=3), source("b", liver=4)])
    assert not clash.agreed
    assert clash.clash


def test_names_of_one_structure_are_one_label_where_no_file_has_both() -> None:
    def source(*names: str) -> SegmentsSource:
        return SegmentsSource(Path("a"), "seg", names=names)

    found = united([source("gall bladder", "Prostate"), source("Gallbladder"), source("bladder")])
    assert [label.name for label in found.labels] == ["gall bladder", "Prostate", "bladder"]
    apart = united([source("gall bladder", "gallbladder"), source("Gallbladder")])
    assert [label.name for label in apart.labels] == ["gall bladder", "gallbladder"]


def test_a_segment_whose_name_says_otherwise_is_not_taken_by_its_code() -> None:
    """3D Slicer gives every new segment the code of tissue, whatever it is called."""
    tissue, lung = Code("85756007", "SCT", "Tissue"), Code("39607008", "SCT", "Lung")
    assert is_called(Label(1, "lung"), Segment(1, "region 4", lung))
    assert is_called(Label(1, "gallbladder"), Segment(1, "Gall-bladder", tissue))
    assert not is_called(Label(1, "lung"), Segment(1, "liver", lung))


# labels.json


@pytest.mark.parametrize(
    "content",
    [
        [{"value": 0, "name": "background"}, {"value": 4, "name": "spleen"}],
        {"4": "spleen", "0": "background"},
        {"spleen": 4, "background": 0},
        {"labels": {"spleen": 4}},
    ],
)
def test_a_list_of_values_and_names_finds_its_codes(content: object, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps(content))
    (label,) = read_labels(tmp_path / "labels.json")
    assert (label.value, label.name) == (4, "spleen")
    assert label.structure is not None
    assert label.structure.type.meaning == "Spleen"


def test_one_value_has_one_name(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('[{"value": 1, "name": "a"}, {"value": 1, "name": "b"}]')
    with pytest.raises(DataError, match="value 1 is a and b"):
        read_labels(tmp_path / "labels.json")


# dataset.json


def test_every_entry_beside_regions_is_an_output() -> None:
    from volseg.cases.dataset_json import stated_labels

    stated = {"background": 0, "whole": [1, 2, 4], "nothing": [0], "cyst": 4, "ignore": 9, "core": [2, 4]}
    labels, regions = stated_labels({"labels": stated})
    assert labels == {"cyst": 4, "ignore": 9, "label_1": 1, "label_2": 2}
    assert list(regions.items()) == [("whole", (1, 2, 4)), ("cyst", (4,)), ("core", (2, 4))]
    assert stated_labels({"labels": {"background": 0, "cyst": 4}, "regions_class_order": [1]}) == ({"cyst": 4}, {})


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"whole": [0, 1]}, "region 'whole' includes 0"),
        ({"1": "liver", "2": "liver"}, "gives 2 values the same name, 'liver'"),
        ({"liver": 1, "spleen": 1}, "gives 'liver' and 'spleen' the same value, 1"),
    ],
)
def test_labels_that_contradict_themselves_are_refused(stated: object, message: str) -> None:
    from volseg.cases.dataset_json import stated_labels

    with pytest.raises(DataError, match=message):
        stated_labels({"labels": stated})


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"liver": 0, "spleen": 1}, "the value 0 is background, so 'liver' would be lost"),
        ({"0": "liver", "1": "spleen"}, "the value 0 is background, so 'liver' would be lost"),
        ({"spleen": 1, "background": 2}, "'background' has the value 2, but background is 0"),
        ({"1": "spleen", "2": "Background"}, "'Background' has the value 2, but background is 0"),
    ],
)
def test_zero_is_background_and_nothing_else_is(stated: Mapping[str, object], message: str, tmp_path: Path) -> None:
    from volseg.cases.dataset_json import stated_labels
    from volseg.cases.layouts.bids_names import _read_table

    pairs = [(int(key), value) if key.isdecimal() else (value, key) for key, value in stated.items()]
    (tmp_path / "labels.json").write_text(json.dumps([{"value": value, "name": name} for value, name in pairs]))
    (tmp_path / "dseg.tsv").write_text("index\tname\n" + "".join(f"{value}\t{name}\n" for value, name in pairs))
    for read in (
        lambda: stated_labels({"labels": stated}),
        lambda: read_labels(tmp_path / "labels.json"),
        lambda: _read_table(tmp_path / "dseg.tsv"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            read()
        assert "background" in caught.value.hint


@pytest.mark.parametrize("nothing", ["background", "Background (air)", "Clear Label", "unlabelled", "other", ""])
def test_zero_may_be_called_whatever_means_nothing(nothing: str) -> None:
    from volseg.cases.dataset_json import stated_labels

    assert stated_labels({"labels": {"0": nothing, "1": "liver"}}) == ({"liver": 1}, {})


@pytest.mark.parametrize("spelling", ["Ignore", "IGNORE"])
def test_what_nobody_looked_at_is_known_in_any_letter_case(spelling: str, data_set, tmp_path: Path) -> None:
    from volseg.cases.dataset_json import stated_labels

    for seed, mask in enumerate(data_set()):
        write_mask(mask, tmp_path / "labels" / f"c{seed}.nii.gz")
    stated(tmp_path / "labels", {"ball": 1, spelling: 2})
    config = volseg.plan(tmp_path).config
    assert (config.data.ignored_value, [label.name for label in config.data.output_labels]) == (2, ["ball"])
    assert stated_labels({"labels": {"whole": [1, 2], spelling: 9}})[1] == {"whole": (1, 2)}


def test_a_list_above_the_folder_of_references_rules(tmp_path: Path) -> None:
    (tmp_path / "Masks").mkdir()
    (tmp_path / "labels.json").write_text('{"1": "liver"}')
    assert [label.name for label in of_references(tmp_path / "Masks")] == ["liver"]
    assert [label.name for label in of_masks(tmp_path / "Masks")] == ["liver"]  # a second reader's, judged like masks
    (tmp_path / "ward").mkdir()
    assert of_references(tmp_path / "ward") == ()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('[{"value": -1, "name": "liver"}]', "has value -1"),
        ('[{"value": true, "name": "liver"}]', "value True"),
        ('[{"value": 1, "name": " "}]', "has no name"),
        ('[{"value": 1, "name": "liver", "color": [1, 2, 900]}]', "not of 0 to 255"),
        ('["liver"]', "no values and names"),
        ("null", "no values and names"),
        ('{"labels": 3}', "no values and names"),
    ],
)
def test_a_list_of_labels_that_is_none_is_named_with_its_form(content: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(DataError, match=fault) as refused:
        read_labels(path)
    assert str(path) in str(refused.value)
    assert '{"value": 1, "name": "liver"}' in refused.value.hint
