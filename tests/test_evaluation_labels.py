"""Which label of a mask is which label of a reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_case
from numpy.typing import NDArray
from test_stated_names import stated, write_layers

import volseg
from volseg.errors import DataError
from volseg.image.volume import Label, Mask
from volseg.io import FileSource, read_mask, write_mask
from volseg.io.dicom import write_series

ORGANS = {"pancreas": 1, "duodenum": 2}
TURNED = {"Duodenum": 1, "Pancreas": 2}


def turned(array: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """The same structures under each other's numbers."""
    return np.array([0, 2, 1], np.uint8)[array]


def dice(result: volseg.Evaluation) -> dict[str, float]:
    """Label -> mean Dice."""
    return dict(result.metrics.groupby("label", sort=False)["dice"].mean().round(3))


@pytest.fixture
def folders(tmp_path: Path):
    """Two folders of the same structures, each with its own numbers and names."""

    def make(
        masks: Mapping[str, int] | None, references: Mapping[str, int] | None, *, turn: bool = False
    ) -> tuple[Path, Path]:
        for folder, names, turn_it in (("masks", masks, turn), ("references", references, False)):
            for seed in range(2):
                _, mask = make_case(seed)
                array = turned(mask.array) if turn_it else mask.array
                write_mask(Mask(array, mask.geometry), tmp_path / folder / f"c{seed}.nii.gz")
            stated(tmp_path / folder, names)
        return tmp_path / "masks", tmp_path / "references"

    return make


def test_values_are_matched_by_their_names_and_it_is_told(folders) -> None:
    result = volseg.evaluate(*folders(TURNED, ORGANS, turn=True))
    assert dice(result) == {"Pancreas": 1, "Duodenum": 1}
    assert list(result.metrics["value"][:2]) == [1, 2]  # the numbers are those of the references
    told = "labels are matched by their names: Duodenum is 1 in the masks, 2 in the references, Pancreas is 2"
    assert result.remarks[0].startswith(told)


def test_what_is_named_swapped_is_scored_swapped(folders) -> None:
    """The names are believed: equal numbers do not make up for them."""
    assert dice(volseg.evaluate(*folders(TURNED, ORGANS))) == {"Pancreas": 0, "Duodenum": 0}


@pytest.mark.parametrize(("masks", "references"), [(None, ORGANS), (ORGANS, None), (None, None)])
def test_a_side_without_names_is_taken_by_value(masks, references, folders) -> None:
    result = volseg.evaluate(*folders(masks, references))
    assert list(dice(result)) == (list(ORGANS) if masks or references else ["label_1", "label_2"])
    assert set(dice(result).values()) == {1}
    assert not result.remarks


def test_other_names_of_a_label_are_listed_with_it(folders) -> None:
    """A label of the masks may unite two of the references."""
    masks, wanted = folders(None, {"Bauchspeichel": 1, "Zwölffinger": 2})
    for path in masks.glob("*.nii.gz"):
        mask = read_mask(FileSource(path))
        write_mask(Mask((mask.array > 0).astype(np.uint8), mask.geometry), path)
    entry = {"value": 1, "name": "belly", "aliases": ["zwölffinger", "BAUCHSPEICHEL"]}
    (masks / "labels.json").write_text(json.dumps([entry]))
    result = volseg.evaluate(masks, wanted)
    assert dice(result) == {"belly": 1}


def test_made_up_names_are_none(folders) -> None:
    assert dice(volseg.evaluate(*folders({"label_1": 1, "label_2": 2}, ORGANS))) == {"pancreas": 1, "duodenum": 1}


def test_names_with_nothing_in_common_are_refused_with_both_readings(folders) -> None:
    with pytest.raises(DataError, match=r"the masks have Milz \(1\), Leber \(2\), the references pancreas \(1\)"):
        volseg.evaluate(*folders({"Milz": 1, "Leber": 2}, ORGANS))


def test_two_values_of_one_name_are_refused(folders) -> None:
    masks, references = folders(None, ORGANS)
    (masks / "labels.json").write_text(json.dumps({"1": "pancreas", "2": "Pancreas"}))
    with pytest.raises(DataError, match="the values 1 and 2 have the same name"):
        volseg.evaluate(masks, references)


def test_a_name_of_one_side_is_a_label_that_the_other_lacks(folders) -> None:
    result = volseg.evaluate(*folders({"pancreas": 1, "bowel": 2}, ORGANS))
    assert dice(result) == {"pancreas": 1, "duodenum": 0, "bowel": 0}
    status = dict(zip(result.metrics["label"], result.metrics["status"], strict=True))
    assert status == {"pancreas": "ok", "duodenum": "missed", "bowel": "false_alarm"}
    assert "the references have no label bowel" in result.remarks[0]
    assert "the masks have no label duodenum" in result.remarks[1]


def test_names_of_a_data_set_are_those_of_its_references(folders, tmp_path: Path) -> None:
    masks, references = folders(TURNED, None, turn=True)
    references.rename(tmp_path / "labelsTs")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"labels": {"0": "background", "1": "pancreas", "2": "duodenum"}})
    )
    assert set(dice(volseg.evaluate(masks, tmp_path / "labelsTs")).values()) == {1}


def test_masks_of_nnunet_are_named_by_the_dataset_json_among_them(folders) -> None:
    masks, references = folders(None, ORGANS, turn=True)
    (masks / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "duodenum": 1, "pancreas": 2}}))
    assert set(dice(volseg.evaluate(masks, references)).values()) == {1}


def test_what_references_call_ignore_does_not_count(folders) -> None:
    result = volseg.evaluate(*folders({"pancreas": 1, "bowel": 3}, {"pancreas": 1, "ignore": 2}))
    assert dice(result)["pancreas"] == 1
    assert "ignore" not in dice(result)


def test_segments_and_label_maps_are_matched_by_name(folders, tmp_path: Path) -> None:
    masks, _ = folders(TURNED, None, turn=True)
    for seed in range(2):
        _, mask = make_case(seed)
        segments = [("PANCREAS", 0, 1), ("duodenum", 1, 1)]
        layers = np.stack([mask.array == 1, mask.array == 2]).astype(np.uint8)
        write_layers(tmp_path / "slicer" / f"c{seed}.seg.nrrd", layers, segments, mask.geometry)
    assert dice(volseg.evaluate(masks, tmp_path / "slicer")) == {"Duodenum": 1, "Pancreas": 1}
    (masks / "labels.json").unlink()
    with pytest.raises(DataError, match="it is unknown which DICOM structure"):
        volseg.evaluate(masks, tmp_path / "slicer")


def test_what_a_dicom_object_marks_besides_is_told_and_not_scored(folders, tmp_path: Path) -> None:
    """A structure set has the couch and the body, too."""
    from volseg.exporting import write
    from volseg.io import read_volume, single_source

    wanted = tmp_path / "wanted"
    masks, _ = folders(ORGANS, None)
    for seed in range(2):
        image, mask = make_case(seed)
        write_series(image, wanted / f"c{seed}" / "ct")
        series = single_source(wanted / f"c{seed}" / "ct")
        grid = read_volume(series).geometry
        array = mask.on(grid).array.copy()
        array[0, 0, 0] = 3
        labels = tuple(Label(value, name) for value, name in enumerate(("Pancreas", "Duodenum", "couch"), start=1))
        write(Mask(array, grid, labels), series, wanted / f"c{seed}" / "c.seg.dcm", "dicom-seg")
    result = volseg.evaluate(masks, wanted)
    assert dice(result) == {"pancreas": 1, "duodenum": 1}
    assert result.remarks == ("the masks have no label couch, so it is not scored",)


def test_segments_that_number_alike_say_what_values_without_names_mean(folders, tmp_path: Path) -> None:
    masks, _ = folders(None, None)
    numbers = [{"pancreas": 1, "duodenum": 2}, {"duodenum": 2, "pancreas": 1}]
    for seed, names in enumerate(numbers):
        _, mask = make_case(seed)
        segments = [(name, 0, value) for name, value in names.items()]
        write_layers(tmp_path / "slicer" / f"c{seed}.seg.nrrd", mask.array[np.newaxis], segments, mask.geometry)
    assert dice(volseg.evaluate(masks, tmp_path / "slicer")) == {"pancreas": 1, "duodenum": 1}
    _, mask = make_case(1)
    segments = [("duodenum", 0, 1), ("pancreas", 0, 2)]
    write_layers(tmp_path / "slicer" / "c1.seg.nrrd", turned(mask.array)[np.newaxis], segments, mask.geometry)
    with pytest.raises(DataError, match="the meaning of the values of the masks is unknown: 1 is duodenum in c1"):
        volseg.evaluate(masks, tmp_path / "slicer")


def test_regions_are_made_of_the_values_of_references(folders, tmp_path: Path) -> None:
    masks, wanted = folders(None, {"core": 2})
    entries = [{"value": 1, "name": "whole", "labels": [1, 2]}, {"value": 2, "name": "core", "labels": [2]}]
    (masks / "labels.json").write_text(json.dumps(entries))
    assert set(dice(volseg.evaluate(masks, wanted)).values()) == {1}
    stated(wanted, {"core": 1})
    with pytest.raises(
        DataError, match="region core consists of values 1, unlike in the masks, and the values of region"
    ):
        volseg.evaluate(masks, wanted)


def test_regions_of_references_are_those_that_their_data_set_states(folders) -> None:
    """A model of other numbers draws the same regions."""
    masks, wanted = folders(None, None)
    entries = [{"value": 1, "name": "whole", "labels": [1, 2, 4]}, {"value": 2, "name": "core", "labels": [4]}]
    (masks / "labels.json").write_text(json.dumps(entries))
    (wanted / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "whole": [1, 2], "core": 2}}))
    result = volseg.evaluate(masks, wanted)
    assert dice(result) == {"whole": 1, "core": 1}
    assert "region core consists of values 2, as the references state" in result.remarks


def test_labels_are_those_found_where_nothing_names_any(folders) -> None:
    masks, references = folders(None, None)
    with pytest.raises(DataError, match="the order of the probabilities is unknown"):
        volseg.evaluate(masks, references, probabilities=True)


def test_a_label_that_the_masks_lack_has_no_probability(folders) -> None:
    """The probabilities have the order of labels.json beside the masks; what only references name is nowhere likely."""
    from volseg.io import write_probabilities

    masks, references = folders({"duodenum": 2}, {"pancreas": 1, "duodenum": 2})
    for seed in range(2):
        _, mask = make_case(seed)
        shares = np.where(mask.array == 2, 255, 0).astype(np.uint8)[..., np.newaxis]
        write_probabilities(shares, mask.geometry, masks / f"c{seed}.probabilities.nii.gz")
        write_mask(Mask(np.where(mask.array == 2, 2, 0).astype(np.uint8), mask.geometry), masks / f"c{seed}.nii.gz")
    metrics: pd.DataFrame = volseg.evaluate(masks, references, probabilities=True).metrics
    assert metrics[metrics["label"] == "duodenum"]["brier"].tolist() == [0, 0]
    assert metrics[metrics["label"] == "pancreas"]["brier"].min() > 0


def compared(first: Path, second: Path, output: Path) -> dict[str, float]:
    """Label -> mean difference of Dice."""
    table = volseg.compare(first, second, output).table
    rows = table[(table["metric"] == "dice") & (table["label"] != "mean")]
    return dict(zip(rows["label"], rows["difference_mean"], strict=True))


@pytest.fixture
def scores(folders, tmp_path: Path):
    """Score masks that are called so, against the same references, which are without names."""

    def score(name: str, names: Mapping[str, int] | None, references: Mapping[str, int] | None = None) -> Path:
        masks, wanted = folders(names, references)
        volseg.evaluate(masks, wanted, tmp_path / name)
        (masks / "labels.json").unlink(missing_ok=True)
        (wanted / "labels.json").unlink(missing_ok=True)
        return tmp_path / name

    return score


def test_evaluations_of_one_set_of_references_match_with_names_and_without(scores, tmp_path: Path) -> None:
    nameless, named = scores("a", None), scores("b", ORGANS)
    assert compared(nameless, named, tmp_path / "out") == {"pancreas": 0, "duodenum": 0}
    assert compared(named, nameless, tmp_path / "out") == {"pancreas": 0, "duodenum": 0}


def test_evaluations_match_by_name_where_both_have_names(scores, tmp_path: Path) -> None:
    """The second model numbers its labels otherwise; what it calls pancreas is compared with the pancreas."""
    first, second = scores("a", ORGANS, ORGANS), scores("b", {"DUODENUM": 1, "Pancreas": 2}, ORGANS)
    assert compared(first, second, tmp_path / "out") == {"pancreas": -1, "duodenum": -1}


def test_values_of_other_references_are_not_compared(scores, tmp_path: Path) -> None:
    first = scores("a", None)
    _, mask = make_case(3)
    write_mask(mask, tmp_path / "references" / "c0.nii.gz")
    write_mask(mask, tmp_path / "masks" / "c0.nii.gz")
    second = tmp_path / "b"
    stated(tmp_path / "masks", ORGANS)
    volseg.evaluate(tmp_path / "masks", tmp_path / "references", second)
    with pytest.raises(DataError, match="the references are other files"):
        volseg.compare(first, second, tmp_path / "out")


def test_evaluations_that_do_not_say_which_references_are_held_to_their_volumes(scores, tmp_path: Path) -> None:
    first, second = scores("a", None), scores("b", ORGANS)
    (first / "about.json").unlink()
    assert compared(first, second, tmp_path / "out") == {"pancreas": 0, "duodenum": 0}
    table = pd.read_csv(first / "metrics.csv")
    table["reference_ml"] *= 1.5
    table.to_csv(first / "metrics.csv", index=False)
    with pytest.raises(DataError, match="ml in the reference of one evaluation"):
        volseg.compare(first, second, tmp_path / "out")


def test_names_that_only_one_evaluation_has_are_refused(scores, tmp_path: Path) -> None:
    first, second = scores("a", ORGANS), scores("b", {"pancreas": 1, "bowel": 2})
    with pytest.raises(DataError, match=r"only one of the evaluations has label (bowel|duodenum) of case c0"):
        volseg.compare(first, second, tmp_path / "out")
