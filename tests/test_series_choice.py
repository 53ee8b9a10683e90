"""Which series of a study is meant, and what the structures in a reference are called."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import STORAGE_ORDERS
from numpy.typing import NDArray
from pydantic import ValidationError
from test_dicom import SAGITTAL, edit, make_volume

from volseg import inspect
from volseg.cases import Case, Dataset, find_dataset, find_inputs, read_images, read_reference
from volseg.cases.series import choose_series, fault_of, studies_of
from volseg.config import DicomRules, SeriesRule
from volseg.errors import DataError, GeometryError
from volseg.exporting.rtstruct import write_rtstruct
from volseg.exporting.seg import write_seg
from volseg.image.geometry import Geometry
from volseg.image.terminology import Code, Structure
from volseg.image.volume import Label, Mask, Volume
from volseg.io import SeriesSource, discover, single_source, write_mask
from volseg.io.dicom import read_instances, write_series
from volseg.io.source import SeriesTraits

STUDY, SPACE = "1.2.3", "1.2.3.4"
SHAPE = (9, 8, 7)
GRID = make_volume(shape=SHAPE).geometry


def source(number: int | None = 1, volume: str = "", doubt: str = "", **traits: Any) -> SeriesSource:
    """A series of plain properties, thin and original unless something else is said."""
    stated: dict[str, Any] = {
        "modality": "CT",
        "number": number,
        "description": "Abdomen 1.0 B30f",
        "image_type": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "orientation": "axial",
        "slices": 100,
        "spacing_mm": (0.7, 0.7, 1.0),
        "study_uid": STUDY,
    }
    name = f"{number}{volume}"
    return SeriesSource(Path(name), (Path(name, "1"),), name, (), volume, SeriesTraits(**stated | traits), doubt)


def rules(**channels: Any) -> DicomRules:
    return DicomRules(series={channel: SeriesRule(**rule) for channel, rule in channels.items()})


# Preference


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        (source(2), source(1, doubt="a slice may be missing"), "nothing speaks against its being whole"),
        (source(2), source(1, image_type=("DERIVED", "SECONDARY", "AXIAL")), "it is original, not derived"),
        (source(2), source(1, image_type=("ORIGINAL", "PRIMARY", "MPR")), "it is original, not derived"),
        (source(2, slices=5), source(1, slices=4), "it has 5 slices or more"),
        (source(2, spacing_mm=(0.7, 0.7, 2.0)), source(1, spacing_mm=(0.7, 0.7, 5.0)), "its slices are thinner"),
        (source(2), source(1, spacing_mm=None), "its slices are thinner"),
        (source(2, slices=101), source(1, spacing_mm=(0.7, 0.7, 0.5)), "it has more slices"),  # below 1 mm all are thin
        (source(2), source(3), "its number is smaller"),
        (source(2), source(None), "its number is smaller"),
        (source(2, "echo1"), source(2, "echo2"), "it is the first"),
        (source(2, "time9"), source(2, "time10"), "it is the first"),
    ],
)
def test_the_better_series_is_taken_and_it_is_said_why(better: SeriesSource, worse: SeriesSource, why: str) -> None:
    for pair in ([better, worse], [worse, better]):
        choice = choose_series(pair, ["image"], DicomRules())
        assert choice.chosen == {"image": better}
        assert choice.reasons[better] == f"chosen for channel image: {why}"
        assert choice.reasons[worse].endswith(f"is preferred: {why}")


def test_criteria_come_in_order() -> None:
    """A doubted thin original loses to a derived thick one that is whole, and so on down the line."""
    ladder = [
        source(9, spacing_mm=(1, 1, 5.0), slices=30),
        source(8, spacing_mm=(1, 1, 6.0), slices=90),
        source(7, slices=4),
        source(6, image_type=("DERIVED", "SECONDARY")),
        source(5, doubt="something"),
    ]
    for n in range(len(ladder)):
        assert choose_series(ladder[n:][::-1], ["image"], DicomRules()).chosen["image"] == ladder[n]


def test_every_series_gets_a_reason() -> None:
    series = [source(n, modality=modality) for n, modality in enumerate(("CT", "MR", "CT", "PT"))]
    choice = choose_series(series, ["ct", "pet"], rules(ct={"modality": "CT"}, pet={"modality": "PT"}))
    assert set(choice.reasons) == set(series)
    assert choice.chosen == {"ct": series[0], "pet": series[3]}
    assert (
        choice.reasons[series[1]]
        == "not chosen for channel pet: modality is MR; not chosen for channel ct: modality is MR"
    )


def test_one_series_is_not_two_channels() -> None:
    assert list(choose_series([source(1)], ["a", "b"], rules(a={}, b={})).chosen) == ["a"]
    choice = choose_series([source(1), source(2)], ["free", "ruled"], rules(ruled={"description": "abdomen"}))
    assert {channel: found.traits.number for channel, found in choice.chosen.items()} == {"ruled": 1, "free": 2}


def test_a_rule_that_only_one_series_fits_gets_it() -> None:
    """`t1` fits both series, `t1c` only the first: both channels can be had."""
    series = [source(1, description="t1 post gd"), source(2, description="t1")]
    choice = choose_series(series, ["t1", "t1c"], rules(t1={"description": "t1"}, t1c={"description": "t1.*gd"}))
    assert {channel: found.traits.number for channel, found in choice.chosen.items()} == {"t1c": 1, "t1": 2}


# Rules


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ({}, ""),
        ({"modality": "CT"}, ""),
        ({"modality": "MR"}, "modality is CT"),
        ({"description": "abdomen.*b3"}, ""),
        ({"description": "^b30"}, "its description is another"),
        ({"image_type": ["axial", "PRIMARY"]}, ""),
        ({"image_type": ["PRIMARY", "HELIX"]}, "ImageType is ORIGINAL/PRIMARY/AXIAL"),
        ({"not_image_type": ["MPR"]}, ""),
        ({"not_image_type": ["axial"]}, "ImageType is ORIGINAL/PRIMARY/AXIAL"),
        ({"orientation": "axial"}, ""),
        ({"orientation": "sagittal"}, "it is axial"),
        ({"pixel_spacing_mm": [0.7, 0.7]}, ""),
        ({"pixel_spacing_mm": [0, 0.5]}, "pixels are 0.7 mm apart"),
        ({"slice_spacing_mm": [0.5, 1]}, ""),
        ({"slice_spacing_mm": [2, 5]}, "slices are 1 mm apart"),
        ({"slices": [50, 100]}, ""),
        ({"slices": [101, 400]}, "it has 100 slices"),
        ({"modality": "CT", "slices": [1, 3]}, "it has 100 slices"),
    ],
)
def test_what_of_a_rule_does_not_fit(rule: dict[str, Any], fault: str) -> None:
    assert fault_of(source(), SeriesRule(**rule)) == fault


def test_what_is_not_known_does_not_fit() -> None:
    unknown = source(modality="", orientation="", spacing_mm=None, image_type=())
    assert fault_of(unknown, SeriesRule(modality="CT")) == "modality is not stated"
    assert fault_of(unknown, SeriesRule(orientation="axial")) == "it is of no known orientation"
    assert fault_of(unknown, SeriesRule(slice_spacing_mm=(0, 99))) == "slices are an unknown distance apart"
    assert fault_of(unknown, SeriesRule(image_type=("ORIGINAL",))) == "ImageType is not stated"


@pytest.mark.parametrize("rule", [{"description": "("}, {"orientation": "oblique"}, {"slices": [1]}, {"colour": "red"}])
def test_rules_that_make_no_sense_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SeriesRule(**rule)


@pytest.mark.parametrize("rule", [{"slices": [10, 5]}, {"slice_spacing_mm": [3, 1]}])
def test_ranges_that_nothing_fits_are_refused(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SeriesRule(**rule)


def test_studies_are_apart() -> None:
    series = [source(1), source(2), source(3, study_uid="9"), source(4, study_uid=""), source(5, study_uid="")]
    numbers = [[member.traits.number for member in study] for study in studies_of(series)]
    assert numbers == [[1, 2], [3], [4], [5]]


# Studies on disk


def write_study(
    folder: Path, *series: tuple[Volume, Mapping[str, Any]], study: str = STUDY, space: str = SPACE
) -> None:
    for number, (volume, elements) in enumerate(series, start=1):
        stated = {"StudyInstanceUID": study, "FrameOfReferenceUID": space, "SeriesNumber": number, **elements}
        stated = {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], **stated}
        for path in write_series(volume, folder / f"s{number}", series_description=stated.pop("SeriesDescription", "")):
            edit(path, **stated)


def accounted(dataset: Dataset) -> list[Path]:
    return sorted(
        [s.place for case in dataset.cases for s in case.images.values()] + [i.path for i in dataset.set_aside]
    )


def test_one_series_of_each_study_is_segmented(tmp_path: Path) -> None:
    thick, thin = make_volume(shape=(9, 8, 5), spacing_mm=(1, 1, 5)), make_volume(shape=(9, 8, 9))
    for name in ("anna", "berta"):
        write_study(tmp_path / name, (thick, {}), (thin, {}), study=f"1.2.{len(name)}")
    dataset = find_inputs(tmp_path, ("image",))
    assert [case.case_id for case in dataset.cases] == ["anna_s2", "berta_s2"]
    assert [item.reason for item in dataset.set_aside] == [
        "not chosen: series 2 is preferred: its slices are thinner"
    ] * 2
    assert accounted(dataset) == sorted(tmp_path / name / s for name in ("anna", "berta") for s in ("s1", "s2"))


def test_rules_choose_among_the_series_of_a_study(tmp_path: Path) -> None:
    thick, thin = make_volume(shape=(9, 8, 5), spacing_mm=(1, 1, 5)), make_volume(shape=(9, 8, 9))
    write_study(tmp_path, (thick, {"SeriesDescription": "portal venous"}), (thin, {"SeriesDescription": "native"}))
    dataset = find_inputs(tmp_path, ("image",), rules(image={"description": "venous"}))
    assert [case.images["image"].traits.number for case in dataset.cases] == [1]  # type: ignore[union-attr]
    assert [item.reason for item in dataset.set_aside] == ["not chosen for channel image: its description is another"]
    nothing = find_inputs(tmp_path, ("image",), rules(image={"description": "arterial"}))
    assert not nothing.cases
    assert len(nothing.set_aside) == 2


def test_equal_headers_in_several_folders_are_no_choice(tmp_path: Path) -> None:
    """One study UID for several patients, as careless anonymisation leaves it."""
    for name in ("a", "b"):
        write_study(tmp_path / name, (make_volume(shape=SHAPE, seed=len(name)), {}))
    assert len(find_inputs(tmp_path, ("image",)).cases) == 2


CHANNELS = rules(t1={"description": "^t1"}, t2={"description": "^t2"})


def both(folder: Path, second: Volume, **elements: Any) -> Case:
    write_study(
        folder,
        (make_volume(shape=SHAPE), {"SeriesDescription": "t1"}),
        (second, {"SeriesDescription": "t2", **elements}),
    )
    (case,) = find_inputs(folder, ("t1", "t2"), CHANNELS).cases
    return case


def linear(shape: tuple[int, int, int], **options: Any) -> Volume:
    """Values that a linear interpolation gives exactly: 10 x + 20 y + 30 z, of LPS millimetres, shifted and halved."""
    geometry = make_volume(shape=shape, **options).geometry
    lps = (
        np.moveaxis(np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")), 0, -1) @ geometry.lps_affine[:3, :3].T
    )
    values = (lps + geometry.lps_affine[:3, 3]) @ [10.0, 20.0, 30.0]
    return Volume(np.rint(values).astype(np.float32)[np.newaxis], geometry)


def test_channels_of_one_grid_are_stacked(tmp_path: Path) -> None:
    second = make_volume(shape=SHAPE, seed=1)
    case = both(tmp_path, second)
    stacked = read_images(case, ("t1", "t2"))
    np.testing.assert_array_equal(stacked.array[1], second.array[0])
    assert case.case_id == tmp_path.name


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (12, 12, 12), "spacing_mm": (0.9, 0.9, 2.0), "origin_mm": (-122.0, 32.0, -814.0)},
        {
            "directions": SAGITTAL,
            "shape": (14, 14, 14),
            "spacing_mm": (2.0, 2.0, 1.0),
            "origin_mm": (-122.0, 30.0, -790.0),
        },
    ],
    ids=["finer", "sagittal"],
)
def test_channels_of_one_space_are_brought_onto_the_first_grid(options: dict[str, Any], tmp_path: Path) -> None:
    case = both(tmp_path, linear(**options))
    stacked = read_images(case, ("t1", "t2"))
    assert stacked.geometry.matches(GRID)
    expected = linear(SHAPE).array[0]
    known = np.isfinite(stacked.array[1])
    assert known.mean() > 0.3
    np.testing.assert_allclose(stacked.array[1][known], expected[known], atol=1.5)  # stored values are rounded


@pytest.mark.parametrize("space", ["1.2.3.9", ""])
def test_channels_of_other_spaces_are_refused(space: str, tmp_path: Path) -> None:
    case = both(tmp_path, linear(shape=(12, 12, 12)), FrameOfReferenceUID=space)
    with pytest.raises(GeometryError, match=r"channel t2 has .*, but t1 has"):
        read_images(case, ("t1", "t2"))


def test_a_missing_channel_is_said(tmp_path: Path) -> None:
    write_study(tmp_path, (make_volume(shape=SHAPE), {"SeriesDescription": "t1"}), (make_volume(shape=SHAPE), {}))
    dataset = find_inputs(tmp_path, ("t1", "t2"), CHANNELS)
    assert not dataset.cases
    assert accounted(dataset) == [tmp_path / "s1", tmp_path / "s2"]
    assert any("needs channel t2 as well" in item.reason for item in dataset.set_aside)


# What inspect says


def test_inspect_says_all_of_it_in_json(volseg: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write_study(
        tmp_path,
        (make_volume(shape=(9, 8, 5), spacing_mm=(1, 1, 5)), {"SeriesDescription": "native", "Modality": "CT"}),
        (
            make_volume(SAGITTAL, shape=(9, 8, 6)),
            {"SeriesDescription": "spine", "ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        ),
        (make_volume(shape=(9, 8, 1)), {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    )
    (tmp_path / "s1" / "0003.dcm").rename(tmp_path / "s1" / "0003.txt")
    code, out, err = volseg("inspect", tmp_path, "--json")
    assert code == 0, err
    found = {entry["path"]: entry for entry in json.loads(out)}
    assert sorted(found) == ["s1", "s2", "s3/0001.dcm"]
    first = found["s1"]
    assert first["kind"] == "DICOM series of 5 files"
    assert first["status"] == "ok"
    assert first["shape"] == [9, 8, 5]
    assert first["spacing_mm"] == pytest.approx([1, 1, 5])
    assert (first["modality"], first["number"], first["description"]) == ("CT", 1, "native")
    assert (first["image_type"], first["orientation"]) == ("ORIGINAL/PRIMARY/AXIAL", "axial")
    assert first["taken"] == "chosen for channel image: it is original, not derived"
    assert found["s2"]["orientation"] == "sagittal"
    assert found["s2"]["taken"] == "not chosen: series 1 is preferred: it is original, not derived"
    assert found["s3/0001.dcm"]["status"] == "set aside"
    assert "a localizer" in found["s3/0001.dcm"]["remark"]


def test_inspect_says_what_predict_does(tmp_path: Path) -> None:
    for n in range(3):
        write_study(tmp_path / f"p{n}", *((make_volume(shape=(9, 8, 5 + k)), {}) for k in range(n + 1)), study=f"1.{n}")
    taken = {finding.path for finding in inspect(tmp_path) if finding.taken.startswith("chosen")}
    cases = find_inputs(tmp_path, ("image",)).cases
    assert taken == {str(case.images["image"].place.relative_to(tmp_path)) for case in cases}
    assert len(taken) == 3


def test_inspect_takes_rules_and_gaps(volseg: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write_study(tmp_path, (make_volume(shape=SHAPE), {"SeriesDescription": "t1"}), (make_volume(shape=SHAPE), {}))
    (tmp_path / "s1" / "0003.dcm").unlink()
    config = tmp_path.with_suffix(".yaml")
    config.write_text("data:\n  channels: [t1]\n  series:\n    t1: {description: ^T1}\n")
    statuses = {}
    for words in ((), ("--allow-gaps",)):
        code, out, err = volseg("inspect", tmp_path, "--json", "--config", config, *words)
        assert code == 0, err
        entries = {entry["path"]: entry for entry in json.loads(out)}
        assert entries["s1"]["taken"] == "chosen for channel t1"
        assert entries["s2"]["taken"] == "not chosen for channel t1: its description is another"
        statuses[words] = entries["s1"]["status"]
    assert statuses == {(): "unusable", ("--allow-gaps",): "odd"}


def test_inspect_of_nothing_says_nothing_about_a_patient(tmp_path: Path) -> None:
    write_study(tmp_path, (make_volume(shape=SHAPE), {"PatientName": "Secret^Person", "PatientID": "4711"}))
    assert not any(word in str(inspect(tmp_path)) for word in ("Secret", "4711"))


# References

LIVER = Structure(Code("123037004", "SCT", "Anatomical Structure"), Code("10200004", "SCT", "Liver"))
LABELS = (Label(1, "liver"), Label(2, "lesion"))
KINDS = ("seg", "labelmap", "rtstruct", "series", "nifti")


def box(geometry: Any = GRID) -> NDArray[np.uint8]:
    array = np.zeros(geometry.shape, np.uint8)
    array[2:6, 3:7, 2:5] = 1
    array[6:8, 1:4, 1:4] = 2
    return array


def write_reference(kind: str, images: Path, folder: Path, name: str = "", labels: tuple[Label, ...] = LABELS) -> None:
    """The boxes as some kind of reference: objects and files by name, series in a folder."""
    series = single_source(images)
    assert isinstance(series, SeriesSource)
    mask = Mask(box(), read_instances(series).geometry, labels)
    folder.mkdir(parents=True, exist_ok=True)
    match kind:
        case "seg":
            write_seg(mask, read_instances(series), folder / f"{name or 'x'}.dcm")
        case "labelmap":
            write_seg(mask, read_instances(series), folder / f"{name or 'x'}.dcm", "labelmap")
        case "rtstruct":
            write_rtstruct(mask, read_instances(series), folder / f"{name or 'x'}.dcm")
        case "series":
            write_series(Volume(mask.array[np.newaxis].astype(np.float32), mask.geometry), folder / (name or "mask"))
        case "nifti":
            order = STORAGE_ORDERS[29]
            reordered = np.ascontiguousarray(order.apply(mask.array))
            write_mask(Mask(reordered, mask.geometry.reordered(order)), folder / f"{name or 'mask'}.nii.gz")


def reference_of(dataset: Dataset, labels: tuple[Label, ...] = LABELS) -> list[NDArray[Any]]:
    masks = []
    for case in dataset.cases:
        image = read_images(case, dataset.channels)
        mask = read_reference(case, image, labels)
        assert mask.geometry.matches(image.geometry)
        masks.append(mask.array)
    return masks


@pytest.mark.parametrize("kind", KINDS)
def test_references_in_case_folders(kind: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_series(make_volume(shape=SHAPE), tmp_path / name / "ct")
        write_reference(kind, tmp_path / name / "ct", tmp_path / name)
    dataset = find_dataset(tmp_path)
    assert [case.case_id for case in dataset.cases] == ["a", "b"]
    assert not dataset.set_aside
    for array in reference_of(dataset):
        np.testing.assert_array_equal(array, box())


@pytest.mark.parametrize(
    ("kind", "deep"),
    [*((kind, False) for kind in KINDS), ("seg", True), ("labelmap", True), ("rtstruct", True)],
)
def test_references_in_a_folder_of_labels(kind: str, deep: bool, tmp_path: Path) -> None:
    """Equal names; a lone object takes the name of its folder."""
    for name in ("a", "b"):
        write_series(make_volume(shape=SHAPE), tmp_path / "images" / name)
        folder = tmp_path / "labels" / name if deep else tmp_path / "labels"
        write_reference(kind, tmp_path / "images" / name, folder, "" if deep else name)
    dataset = find_dataset(tmp_path)
    assert [case.case_id for case in dataset.cases] == ["a", "b"]
    assert not dataset.set_aside
    for array in reference_of(dataset):
        np.testing.assert_array_equal(array, box())


@pytest.mark.parametrize(
    "kind",
    [
        "seg",
        "labelmap",
        "rtstruct",
    ],
)
def test_labels_are_numbered_as_their_names_are_met(kind: str, tmp_path: Path) -> None:
    write_series(make_volume(shape=SHAPE), tmp_path / "a" / "ct")
    write_reference(kind, tmp_path / "a" / "ct", tmp_path / "a")
    assert find_dataset(tmp_path).labels == {"liver": 1, "lesion": 2}


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("LIVER", Label(7, "liver")),
        ("Left_Kidney ", Label(7, "left kidney")),
        ("Leber", Label(7, "liver", aliases=("leber",))),
        ("GTV-1", Label(7, "tumour", aliases=("gtv-2", "gtv-1"))),
    ],
    ids=["case", "separators", "alias", "aliases"],
)
def test_segments_are_matched_by_name(kind: str, written: str, wanted: Label, tmp_path: Path) -> None:
    write_series(make_volume(shape=SHAPE), tmp_path / "a" / "ct")
    write_reference(kind, tmp_path / "a" / "ct", tmp_path / "a", labels=(Label(1, written), Label(2, "other")))
    (array,) = reference_of(find_dataset(tmp_path), (wanted, Label(9, "other")))
    np.testing.assert_array_equal(array, np.array([0, 7, 9])[box()])


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
@pytest.mark.parametrize(
    "wanted", [Label(7, "liver"), Label(7, "organ", aliases=("SCT:10200004",))], ids=["table", "alias"]
)
def test_segments_are_matched_by_code(kind: str, wanted: Label, tmp_path: Path) -> None:
    write_series(make_volume(shape=SHAPE), tmp_path / "a" / "ct")
    labels = (Label(1, "Segment 1", structure=LIVER), Label(2, "other"))
    write_reference(kind, tmp_path / "a" / "ct", tmp_path / "a", labels=labels)
    (array,) = reference_of(find_dataset(tmp_path), (wanted, Label(9, "other")))
    np.testing.assert_array_equal(array, np.array([0, 7, 9])[box()])


@pytest.mark.parametrize("kind", ["seg", "labelmap", "rtstruct"])
def test_segments_of_no_label_stay_background_aloud(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_series(make_volume(shape=SHAPE), tmp_path / "a" / "ct")
    write_reference(kind, tmp_path / "a" / "ct", tmp_path / "a")
    with caplog.at_level(logging.WARNING, logger="volseg"):
        (array,) = reference_of(find_dataset(tmp_path), (Label(5, "liver"),))
    np.testing.assert_array_equal(array, 5 * (box() == 1))
    assert "lesion is not a label and stays background" in caplog.text
    with pytest.raises(DataError, match=r"no segment of .* matches a label: it has liver, lesion"):
        reference_of(find_dataset(tmp_path), (Label(5, "spleen"),))


def test_two_segments_of_one_label_are_united(tmp_path: Path) -> None:
    write_series(make_volume(shape=SHAPE), tmp_path / "a" / "ct")
    write_reference("seg", tmp_path / "a" / "ct", tmp_path / "a")
    (array,) = reference_of(find_dataset(tmp_path), (Label(3, "all", aliases=("liver", "lesion")),))
    np.testing.assert_array_equal(array, 3 * (box() > 0))


def test_an_exact_name_wins_over_a_code(tmp_path: Path) -> None:
    """A segment called lesion, coded as liver: it is the lesion."""
    write_series(make_volume(shape=SHAPE), tmp_path / "a" / "ct")
    labels = (Label(1, "other"), Label(2, "lesion", structure=LIVER))
    write_reference("seg", tmp_path / "a" / "ct", tmp_path / "a", labels=labels)
    (array,) = reference_of(find_dataset(tmp_path), (Label(1, "liver"), Label(2, "lesion")))
    np.testing.assert_array_equal(array, 2 * (box() == 2))


def test_channels_that_nowhere_meet_are_refused(tmp_path: Path) -> None:
    here = make_volume(shape=SHAPE)
    affine = here.geometry.affine.copy()
    affine[:3, 3] += 500
    write_study(tmp_path, (here, {}), (Volume(here.array, Geometry(SHAPE, affine)), {}))
    images = dict(zip(("head", "foot"), sorted(discover(tmp_path).sources, key=str), strict=True))
    with pytest.raises(GeometryError, match="channel foot lies beside head: they do not overlap"):
        read_images(Case("a", images, None), ("head", "foot"))


def test_the_reference_says_which_series_it_is_about(tmp_path: Path) -> None:
    other, meant = make_volume(shape=SHAPE, seed=1), make_volume(shape=SHAPE, seed=2)
    write_study(tmp_path / "a", (other, {}), (meant, {}))
    write_reference("seg", tmp_path / "a" / "s2", tmp_path / "a")
    dataset = find_dataset(tmp_path)
    (case,) = dataset.cases
    np.testing.assert_array_equal(read_images(case, dataset.channels).array, meant.array)
    assert [item.reason for item in dataset.set_aside] == ["the reference refers to another series"]


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_a_reference_of_another_space_is_refused(kind: str, tmp_path: Path) -> None:
    """The same numbers in another frame of reference are other places: the reference of another patient, say."""
    for name in ("mine", "others"):
        write_series(make_volume(shape=SHAPE), tmp_path / name / name)
    images = tmp_path / "data" / "images"
    images.mkdir(parents=True)
    (tmp_path / "mine" / "mine").rename(images / "a")
    write_reference(kind, tmp_path / "others" / "others", tmp_path / "data" / "labels", "a")
    with pytest.raises(GeometryError):
        reference_of(find_dataset(tmp_path / "data"))


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_a_manifest_may_name_objects(kind: str, tmp_path: Path) -> None:
    write_series(make_volume(shape=SHAPE), tmp_path / "ct")
    write_reference(kind, tmp_path / "ct", tmp_path / "refs", "r")
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case_id", "image", "reference"), ("a", "ct", "refs/r.dcm")])
    (array,) = reference_of(find_dataset(tmp_path / "cases.csv"))
    np.testing.assert_array_equal(array, box())


def test_several_references_are_no_choice(tmp_path: Path) -> None:
    write_series(make_volume(shape=SHAPE), tmp_path / "a" / "ct")
    for name in ("x", "y"):
        write_reference("seg", tmp_path / "a" / "ct", tmp_path / "a", name)
    with pytest.raises(DataError, match="has 2 references: keep one") as caught:
        find_dataset(tmp_path)
    assert "keep one reference of each case" in caught.value.hint
    (tmp_path / "a" / "y.dcm").unlink()
    assert len(find_dataset(tmp_path).cases) == 1


def test_rules_and_references_in_case_folders(tmp_path: Path) -> None:
    """Two channels by rule on other grids, the reference on that of the first."""
    write_study(
        tmp_path / "a",
        (make_volume(shape=SHAPE), {"SeriesDescription": "t1"}),
        (linear((12, 12, 12), spacing_mm=(0.9, 0.9, 2.0)), {"SeriesDescription": "t2"}),
    )
    write_reference("seg", tmp_path / "a" / "s1", tmp_path / "a")
    dataset = find_dataset(tmp_path, CHANNELS)
    assert dataset.channels == ("t1", "t2")
    (array,) = reference_of(dataset)
    np.testing.assert_array_equal(array, box())
