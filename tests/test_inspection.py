"""What `inspect` says of a folder is what the verbs do with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import make_case

import volseg
from volseg.errors import VolsegError
from volseg.image.geometry import Geometry
from volseg.image.volume import Mask
from volseg.io import write_mask, write_volume
from volseg.io.files import without_root

PLACES = ("masks", "other", "other/deeper")
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def flawed(dataset: Path, tmp_path: Path) -> Path:
    """Six labelled cases: one reference was shifted, one is damaged, and one image has none."""
    folder = tmp_path / "flawed"
    shutil.copytree(dataset, folder)
    image, mask = make_case(1)
    affine = image.geometry.affine.copy()
    affine[:3, 3] += 7
    write_mask(Mask(mask.array, Geometry(mask.array.shape, affine)), folder / "labels" / "case_1.nii.gz")
    (folder / "labels" / "case_2.nii.gz").write_bytes(b"damaged")
    (folder / "labels" / "case_3.nii.gz").unlink()
    return folder


def test_labelled_data_is_shown_as_training_takes_it(dataset: Path) -> None:
    found = volseg.inspect(dataset)
    assert found.readiness is not None
    assert found.readiness.verb == "train"
    assert found.readiness.usable == 6
    assert found.readiness.labels == {"label_1": 6, "label_2": 6}
    roles = {(item.case_id, item.role) for item in found}
    assert roles == {(f"case_{n}", role) for n in range(6) for role in ("image", "reference")}


def drawn(folder: Path, values: Sequence[int] = (1, 2), stated: Mapping[str, int] | None = None) -> Path:
    """A case whose reference has other values than its ball and its box, and says what they are called."""
    image, mask = make_case(len(folder.name))
    write_volume(image, folder / "img.nii.gz")
    write_mask(Mask(np.array([0, *values], np.uint8)[mask.array], mask.geometry), folder / "seg.nii.gz")
    if stated:
        labels = [{"value": value, "name": name} for name, value in stated.items()]
        (folder / "labels.json").write_text(json.dumps(labels))
    return folder


def some_names(root: Path) -> dict[str, object]:
    """Names that differ beside a reference without any."""
    for n in range(3):
        drawn(root / f"c{n}", stated={"liver": 1 + n % 2, "spleen": 2 - n % 2})
    drawn(root / "c3")
    return {}


def an_undeclared_value(root: Path) -> dict[str, object]:
    for n in range(4):
        drawn(root / f"c{n}", (1, 3) if n == 2 else (1, 2))
    return {"data.labels": {"a": 1, "b": 2}}


def empty_references(root: Path) -> dict[str, object]:
    for n in range(4):
        drawn(root / f"c{n}", (0, 0))
    return {}


def two_modalities(root: Path) -> dict[str, object]:
    for n in range(4):
        image, _ = make_case(0)
        drawn(root / f"c{n}")
        if n:
            array = np.where(image.array > image.array.mean(), 900, -1000).astype(np.float32)
            write_volume(type(image)(array, image.geometry), root / f"c{n}" / "img.nii.gz")
    return {}


def a_single_case(root: Path) -> dict[str, object]:
    drawn(root / "c0")
    return {}


def no_such_fold(root: Path) -> dict[str, object]:
    for n in range(4):
        drawn(root / f"c{n}")
    return {"training.fold": 4}


def a_patch_that_does_not_fit(root: Path) -> dict[str, object]:
    for n in range(4):
        drawn(root / f"c{n}")
    return {"patches.size": [17, 17, 17]}


def no_case_that_can_be_read(root: Path) -> dict[str, object]:
    for n in range(4):
        (drawn(root / f"c{n}") / "img.nii.gz").write_bytes(b"damaged")
    return {}


def one_side_of_a_pair(root: Path) -> dict[str, object]:
    rows = ["case_id,image,reference,annotated"]
    for n in range(4):
        drawn(root / f"c{n}", (1, 0) if n == 3 else (1, 2))
        rows.append(f"c{n},c{n}/img.nii.gz,c{n}/seg.nii.gz,{'kidney_left' if n == 3 else ''}")
    (root / "list.csv").write_text("\n".join(rows))
    return {"data.labels": {"kidney_left": 1, "kidney_right": 2}}


@pytest.mark.parametrize(
    "made",
    [
        some_names,
        an_undeclared_value,
        empty_references,
        two_modalities,
        a_single_case,
        no_such_fold,
        a_patch_that_does_not_fit,
        no_case_that_can_be_read,
        one_side_of_a_pair,
    ],
)
def test_what_training_refuses_as_a_whole_is_said_as_training_says_it(
    made: Callable[[Path], dict[str, object]], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    changes = made(data)
    data = data / "list.csv" if (data / "list.csv").is_file() else data
    found = volseg.inspect(data, changes=changes)
    with pytest.raises(VolsegError) as caught:
        volseg.train(data, tmp_path / "run", changes=changes)
    assert found.readiness is not None
    assert found.readiness.dataset is not None
    assert found.readiness.usable == 0
    assert found.readiness.refusal == without_root(caught.value.explanation, data)


def test_what_labels_are_called_in_references_is_known_to_inspect(tmp_path: Path) -> None:
    for n in range(4):
        drawn(tmp_path / f"c{n}", stated={"Leber": 1 + n % 2, "Milz": 2 - n % 2})
    changes = {"data.labels": {"liver": 1, "spleen": 2}, "data.segments": {"liver": ["Leber"], "spleen": ["Milz"]}}
    volseg.plan(tmp_path, changes=changes)
    found = volseg.inspect(tmp_path, changes=changes)
    assert found.readiness is not None
    assert found.readiness.usable == 4
    assert found.readiness.labels == {"liver": 4, "spleen": 4}


def test_a_whole_configuration_is_checked_without_a_plan(tmp_path: Path) -> None:
    for n in range(4):
        drawn(tmp_path / f"c{n}")
    config = volseg.plan(tmp_path).config.model_dump(mode="json")
    drawn(tmp_path / "c1", (1, 3))
    found = volseg.inspect(tmp_path, config=config)
    assert found.readiness is not None
    assert "case c1: the reference holds label value 3" in found.readiness.refusal


def test_what_training_refuses_is_named_and_is_what_it_refuses(flawed: Path) -> None:
    found = volseg.inspect(flawed)
    assert found.readiness is not None
    refused = {one.case.case_id: one.refusal for one in found.readiness.cases if one.refusal}
    assert refused.keys() == {"case_1", "case_2"}
    assert "mm" in refused["case_1"]
    lone = next(item for item in found if item.path.endswith("images/case_3.nii.gz"))
    assert "without a label" in lone.refusal
    fingerprint = len(volseg.plan(flawed).dataset.cases) if volseg.plan(flawed).dataset else 0
    assert fingerprint == len(found.readiness.cases)


def test_with_a_model_prediction_is_asked(trained_run: Path, dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "patients"
    shutil.copytree(dataset / "images", folder)
    image, _ = make_case(9)
    write_volume(type(image)(np.full_like(image.array, 3), image.geometry), folder / "flat.nii.gz")
    found = volseg.inspect(folder, model=trained_run)
    batch = volseg.load(trained_run).predict_folder(folder, tmp_path / "masks")
    assert found.readiness is not None
    assert {one.case.case_id: one.refusal for one in found.readiness.cases} == {
        case_id: case.reason for case_id, case in batch.items()
    }
    assert found.readiness.usable == batch.count("segmented") == 6


def test_patients_without_references_are_not_judged_as_training_data(dataset: Path) -> None:
    assert volseg.inspect(dataset / "images").readiness is None


def test_a_manifest_is_inspected_by_what_it_lists(dataset: Path, tmp_path: Path) -> None:
    rows = [f"{dataset}/images/case_{n}.nii.gz,{dataset}/labels/case_{n}.nii.gz" for n in range(3)]
    manifest = tmp_path / "list.csv"
    manifest.write_text("case_id,image,reference\n" + "".join(f"p{n},{row}\n" for n, row in enumerate(rows)))
    found = volseg.inspect(manifest)
    assert len(found) == 6
    assert {item.case_id for item in found} == {"p0", "p1", "p2"}


def test_channels_in_one_file_are_usable(tmp_path: Path) -> None:
    for seed in range(3):
        image, mask = make_case(seed)
        two = type(image)(np.concatenate([image.array, image.array + 1]), image.geometry)
        write_volume(two, tmp_path / "imagesTr" / f"c{seed}.nii.gz")
        write_mask(mask, tmp_path / "labelsTr" / f"c{seed}.nii.gz")
    listed = [{"image": f"imagesTr/c{n}.nii.gz", "label": f"labelsTr/c{n}.nii.gz"} for n in range(3)]
    content = {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "b", "1": "ball", "2": "box"}, "training": listed}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    images = [item for item in volseg.inspect(tmp_path) if "imagesTr" in item.path]
    assert {(item.status, item.role) for item in images} == {("ok", "t1, t2")}


def test_text_fits_eighty_columns_and_ends_with_totals(volseg: Cli, flawed: Path, tmp_path: Path) -> None:
    deep = tmp_path / "flawed" / "images" / ("a_long_name_of_an_image_" * 4 + ".nii.gz")
    shutil.copy(flawed / "images" / "case_0.nii.gz", deep)
    code, out, _ = volseg("inspect", flawed)
    assert code == 0
    lines = out.splitlines()
    assert max(len(line) for line in lines if deep.name not in line) <= 80
    assert "12 found" in out
    assert "train would use 3 of 5 cases" in out
    assert "layout: images and labels with equal names" in out
    assert "case_1: " in out.split("train would use")[1]


def test_the_command_line_takes_a_model(volseg: Cli, trained_run: Path, dataset: Path) -> None:
    code, out, _ = volseg("inspect", dataset / "images", "--model", trained_run)
    assert code == 0
    assert "predict would use 6 of 6 cases" in out


def test_masks_per_structure_are_shown_with_their_case(tmp_path: Path) -> None:
    scan, reference = make_case(0)
    for n in range(2):
        write_volume(scan, tmp_path / f"s{n}" / "ct.nii.gz")
        for value, name in enumerate(("liver", "spleen"), start=1):
            marked = Mask((reference.array == value).astype(np.uint8), reference.geometry)
            write_mask(marked, tmp_path / f"s{n}" / "segmentations" / f"{name}.nii.gz")
    rows = ["case_id,image,reference", *(f"s{n},s{n}/ct.nii.gz,s{n}/segmentations" for n in range(2))]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    for path in (tmp_path, tmp_path / "list.csv"):
        items = volseg.inspect(path)
        assert [item.case_id for item in items] == ["s0"] * 3 + ["s1"] * 3
        assert {item.status for item in items} == {"ok"}
        assert [item.role for item in items[1:3]] == ["reference"] * 2


def listed_wrongly(root: Path) -> Path:
    """A list of four cases, of which some entries name nothing."""
    entries: list[object] = []
    for n in range(4):
        image, mask = make_case(n)
        write_volume(image, root / "imagesTr" / f"p{n}.nii.gz")
        write_mask(mask, root / "labelsTr" / f"p{n}.nii.gz")
        entries.append({"image": f"imagesTr/p{n}.nii.gz", "label": f"labelsTr/p{n}.nii.gz"})
    entries += [{"image": "imagesTr/zz.nii.gz", "label": "labelsTr/zz.nii.gz"}, entries[1], {"foo": 1}, None]
    shutil.copytree(root / "imagesTr", root / "imagesTs")
    shutil.copytree(root / "labelsTr", root / "other")
    shutil.copy(root / "imagesTr" / "p0.nii.gz", root / "imagesTr" / "p9.nii.gz")
    (root / "dataset.json").write_text(json.dumps({"training": entries, "test": ["imagesTs/p0.nii.gz"]}))
    return root


def masks_beside(root: Path) -> Path:
    """Folders of images and labels, and others beside them."""
    for n in range(3):
        image, mask = make_case(n)
        for place in ("images", "other", "other/deeper"):
            write_volume(image, root / place / f"p{n}.nii.gz")
        for place in ("labels", "masks"):
            write_mask(mask, root / place / f"p{n}.nii.gz")
    write_volume(image, root / "loose.nii.gz")
    return root


def rows_that_name_nothing(root: Path) -> Path:
    """A manifest, in tabs, of which some rows cannot be used."""
    masks_beside(root)
    rows = [[f"p{n}", f"images/p{n}.nii.gz", f"labels/p{n}.nii.gz"] for n in range(3)]
    rows += [["p8", "gone.nii.gz", "labels/p0.nii.gz"], ["again", *rows[0][1:]], ["p7", "loose.nii.gz", ""]]
    lines = ["\t".join(row) for row in [["case_id", "image", "reference"], *rows]]
    (root / "train.tsv").write_text("\n".join(lines))
    return root / "train.tsv"


@pytest.mark.parametrize("made", [listed_wrongly, masks_beside, rows_that_name_nothing])
def test_nothing_disappears_without_a_reason(made: Callable[[Path], Path], tmp_path: Path) -> None:
    path = made(tmp_path)
    found = volseg.inspect(path)
    assert found.readiness is not None
    assert found.readiness.dataset is not None
    assert all(item.case_id or item.refusal or item.remark for item in found)
    said = [reason for item in found for reason in (item.refusal, item.remark) if reason]
    set_aside = found.readiness.dataset.set_aside
    assert len(set_aside) >= 3
    assert all(any(without_root(item.reason, path) in text for text in said) for item in set_aside)


def test_what_lies_beside_a_layout_is_told_with_its_reason(tmp_path: Path) -> None:
    said = {item.path: item.refusal for item in volseg.inspect(masks_beside(tmp_path / "a")) if not item.case_id}
    assert set(said) == {"loose.nii.gz", *(f"{place}/p{n}.nii.gz" for place in PLACES for n in range(3))}
    assert set(said.values()) == {"it lies in neither images/ nor labels/"}
    said = {item.path: item.refusal for item in volseg.inspect(listed_wrongly(tmp_path / "b")) if not item.case_id}
    assert said["imagesTs/p0.nii.gz"] == "an image for testing"
    assert said["imagesTs/p1.nii.gz"] == said["other/p1.nii.gz"] == "dataset.json does not list it"
    assert "not listed in dataset.json" in said["imagesTr/p9.nii.gz"]


def test_what_volseg_wrote_beside_a_layout_is_nobodys_input(trained_run: Path, dataset: Path, tmp_path: Path) -> None:
    data = shutil.copytree(dataset, tmp_path / "data")
    volseg.load(trained_run).predict_folder(data / "images", data / "predicted")
    found = volseg.inspect(data)
    assert found.readiness is not None
    assert found.readiness.dataset is not None
    assert found.readiness.dataset.set_aside == ()
    assert [item.status for item in found if not item.case_id] == ["result"]


def a_list(root: Path) -> Path:
    listed_wrongly(root)
    (root / "dataset.json").rename(root / "list.json")
    return root / "list.json"


def structures_beside_images(root: Path) -> Path:
    for n in range(4):
        image, mask = make_case(n)
        write_volume(image, root / f"p{n}" / "ct.nii.gz")
        for value, name in enumerate(("Liver", "spleen"), start=1):
            write_mask(Mask((mask.array == value).astype(np.uint8), mask.geometry), root / f"p{n}" / f"{name}.nii.gz")
    return root


@pytest.mark.parametrize("made", [a_list, rows_that_name_nothing, structures_beside_images, listed_wrongly])
def test_what_plan_takes_as_labelled_is_shown_so(made: Callable[[Path], Path], tmp_path: Path) -> None:
    path = made(tmp_path)
    planned = volseg.plan(path).dataset
    found = volseg.inspect(path)
    assert planned is not None
    assert found.readiness is not None
    assert found.readiness.dataset is not None
    assert found.readiness.dataset.layout == planned.layout
    assert found.readiness.usable == len(planned.cases)
    assert {item.case_id for item in found} - {""} == {case.case_id for case in planned.cases}
