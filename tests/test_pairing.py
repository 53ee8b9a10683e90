from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_case

from volseg.errors import DataError
from volseg.evaluation.pairing import Pairing, images_of, masks_in, pair_cases
from volseg.io import write_mask
from volseg.io.files import write_text


@pytest.fixture
def folders(tmp_path: Path):
    """Masks by the names of their files, and references by theirs, paired."""
    _, mask = make_case(0)

    def pair(masks: list[str], references: list[str], *, only_predicted: bool = False) -> Pairing:
        for folder, names in (("masks", masks), ("references", references)):
            for name in names:
                write_mask(mask, tmp_path / folder / f"{name}.nii.gz")
        return pair_cases(tmp_path / "masks", tmp_path / "references", only_predicted=only_predicted)

    return pair


def partners(pairing: Pairing) -> dict[str, str | None]:
    """Case id -> the name of its mask's file."""
    return {pair.case_id: pair.prediction and pair.prediction.place.name for pair in pairing.pairs}


def test_masks_belong_to_the_reference_of_their_name(folders) -> None:
    pairing = folders(["a", "c"], ["a", "b"])
    assert partners(pairing) == {"a": "a.nii.gz", "b": None}
    assert [remark.split(":")[-1] for remark in pairing.remarks] == [" b", " c"]
    assert partners(folders(["a", "c"], ["a", "b"], only_predicted=True)) == {"a": "a.nii.gz"}


def test_a_longer_name_belongs_to_the_only_one_it_begins_with_and_is_told(folders) -> None:
    """Masks are called by the path of an image, references by the patient."""
    pairing = folders(["p1_dicom", "p2_dicom", "p3"], ["p1", "p2", "p3"])
    assert partners(pairing) == {"p1": "p1_dicom.nii.gz", "p2": "p2_dicom.nii.gz", "p3": "p3.nii.gz"}
    told = "2 references are compared with another name: p1 with p1_dicom, p2 with p2_dicom"
    assert pairing.remarks == (told,)


def test_a_word_that_says_reference_is_no_part_of_a_name(folders) -> None:
    pairing = folders(["p1", "p2_ct", "p3", "p3_seg"], ["p1_mask", "p2_manual1", "p3_seg"])
    assert partners(pairing) == {
        "p1_mask": "p1.nii.gz",
        "p2_manual1": "p2_ct.nii.gz",
        "p3_seg": "p3_seg.nii.gz",
    }
    assert "2 references are compared with another name: p1_mask with p1, p2_manual1 with p2_ct" in pairing.remarks


def test_of_two_references_that_are_about_one_name_none_is_chosen(folders) -> None:
    pairing = folders(["p1", "p2"], ["p1_seg", "p1_mask", "p2"])
    assert partners(pairing) == {"p1_seg": None, "p1_mask": None, "p2": "p2.nii.gz"}


def test_a_longer_name_that_may_mean_two_means_none(folders) -> None:
    """It is the image `2_dicom` of p1, or the image `dicom` of p1_2."""
    assert partners(folders(["p1_2_dicom", "p3"], ["p1", "p1_2", "p3"])) == {
        "p1": None,
        "p1_2": None,
        "p3": "p3.nii.gz",
    }


def test_where_an_image_lay_says_whose_longer_name_it_is(folders, tmp_path: Path) -> None:
    columns = "case_id,status,reason,seconds,windows,key,source,series_uid"
    rows = [columns, "p1_2_dicom,segmented,,1,1,k,p1_2/dicom.nii.gz,"]
    write_text(tmp_path / "masks" / "cases.csv", "\n".join(rows))
    assert partners(folders(["p1_2_dicom"], ["p1", "p1_2"])) == {"p1": None, "p1_2": "p1_2_dicom.nii.gz"}


def test_of_several_longer_names_none_is_chosen(folders) -> None:
    pairing = folders(["p1_a", "p1_b", "p2"], ["p1", "p2"])
    assert partners(pairing) == {"p1": None, "p2": "p2.nii.gz"}


def test_a_name_goes_to_whoever_is_called_so(folders) -> None:
    pairing = folders(["a b", "a_b"], ["a_b"])
    assert partners(pairing) == {"a_b": "a_b.nii.gz"}
    assert "1 predictions have no reference and are not scored: a b" in pairing.remarks


def test_regions_and_images_may_have_longer_names_and_it_is_told(folders, tmp_path: Path) -> None:
    folders(["p1", "p2"], ["p1", "p2"])
    for name in ("p1_lung", "p2_a", "p2_b"):
        write_mask(make_case(0)[1], tmp_path / "regions" / f"{name}.nii.gz")
    pairing = pair_cases(tmp_path / "masks", tmp_path / "references", only_predicted=False, within=tmp_path / "regions")
    assert [pair.within and pair.within.place.name for pair in pairing.pairs] == ["p1_lung.nii.gz", None]
    told = "1 references are looked at within another name: p1 with p1_lung"
    assert pairing.remarks == (told,)
    images, remarks = images_of(pairing.pairs, masks_in(tmp_path / "regions"))
    assert list(images) == ["p1"]
    assert remarks == ["1 references are drawn on another name: p1 with p1_lung"]


def test_probabilities_are_found_by_the_name_of_their_mask(folders, tmp_path: Path) -> None:
    for name in ("p1_ct", "Mu\u0308ller"):
        write_mask(make_case(0)[1], tmp_path / "masks" / f"{name}.probabilities.nii.gz")
    pairs = folders(["p1_ct", "Mu\u0308ller"], ["p1", "Müller"]).pairs
    assert [pair.probabilities and pair.probabilities.name for pair in pairs] == [
        "Mu\u0308ller.probabilities.nii.gz",
        "p1_ct.probabilities.nii.gz",
    ]


def test_masks_of_one_name_are_nobodys_and_it_is_said(folders, caplog: pytest.LogCaptureFixture) -> None:
    pairing = folders(["a/b_c", "a_b/c", "d"], ["a_b_c", "d"])
    assert partners(pairing) == {"a_b_c": None, "d": "d.nii.gz"}
    assert "a/b_c.nii.gz and a_b/c.nii.gz would have the same name" in caplog.text


def test_one_case_in_several_formats_is_one_case(tmp_path: Path) -> None:
    for suffix in (".nii.gz", ".nrrd", ".mha", ".seg.nrrd"):
        write_mask(make_case(0)[1], tmp_path / f"p1{suffix}")
    assert list(masks_in(tmp_path)) == ["p1"]


def test_names_without_a_partner_are_shown(folders) -> None:
    with pytest.raises(DataError, match="has the name of a reference") as caught:
        folders(["a"], ["b"])
    assert caught.value.hint == "masks: a; references: b"


def test_a_folder_without_masks_is_told_as_such(folders, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "model.pt").write_bytes(b"")  # a run, where its predictions were meant
    with pytest.raises(DataError, match=r"there is no mask in .*masks") as caught:
        folders([], ["b"])
    assert "a folder of masks, such as `volseg predict` writes" in caught.value.hint


def test_probabilities_are_no_masks(tmp_path: Path) -> None:
    _, mask = make_case(0)
    for name in ("a", "a.probabilities"):
        write_mask(mask, tmp_path / f"{name}.nii.gz")
    assert list(masks_in(tmp_path)) == ["a"]
