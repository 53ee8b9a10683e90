"""Folders of images where masks belong, and of masks where images do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import make_case
from numpy.typing import NDArray

import volseg
from volseg.cases.content import VoxelValues, refuse_label_maps
from volseg.cases.inputs import find_inputs
from volseg.errors import DataError
from volseg.io import write_mask, write_volume
from volseg.io.dicom import write_series

NOISE = np.random.default_rng(0)


def head() -> NDArray[np.bool_]:
    """A ball in a box, of which it fills a third."""
    i, j, k = np.indices((40, 40, 40))
    return (i - 20) ** 2 + (j - 20) ** 2 + (k - 20) ** 2 < 17**2


IMAGES = {
    "CT": NOISE.normal(0, 300, (40, 40, 40)).round(),
    "MR": NOISE.normal(100, 20, (40, 40, 40)),
    "12 bits": NOISE.integers(0, 4096, (40, 40, 40)),
    "8 bits without skull": head() * NOISE.integers(1, 256, (40, 40, 40)),
    "counts": head() * NOISE.poisson(12, (40, 40, 40)),
    "smooth ramp": head() * np.indices((40, 40, 40)).sum(axis=0),
    "scaled to one": head() * NOISE.random((40, 40, 40)),
}
LABEL_MAPS = {
    "one structure": head(),
    "an atlas": head() * (1 + np.indices((40, 40, 40))[0] // 8 + 5 * (np.indices((40, 40, 40))[1] // 8)),
    "scattered lesions": NOISE.random((40, 40, 40)) < 0.001,
    "one value of 255": 255 * head(),
    "stored as floats": head().astype(np.float64) * 3,
}


@pytest.mark.parametrize("name", IMAGES)
def test_no_image_is_taken_for_a_label_map(name: str) -> None:
    assert not VoxelValues.of(np.asarray(IMAGES[name], np.float32)).are_labels


@pytest.mark.parametrize("name", LABEL_MAPS)
def test_label_maps_are_known(name: str) -> None:
    values = VoxelValues.of(np.asarray(LABEL_MAPS[name], np.float32))
    assert values.are_labels
    assert not values.why_no_labels


@pytest.mark.parametrize("name", ["CT", "MR", "12 bits", "8 bits without skull", "scaled to one"])
def test_images_are_known(name: str) -> None:
    assert VoxelValues.of(np.asarray(IMAGES[name], np.float32)).why_no_labels


def folder_of(path: Path, arrays: list[NDArray[np.generic]], name: str = "c{}.nii.gz") -> Path:
    path.mkdir(parents=True)
    for number, array in enumerate(arrays):
        nib.save(nib.Nifti1Image(np.asarray(array, np.float32), np.diag([1.0, 1, 2, 1])), path / name.format(number))
    return path


def test_a_folder_of_label_maps_is_refused_once_with_the_way_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "annotations", [head(), 2 * head(), head()])
    with pytest.raises(DataError, match=r"not images: c0\.nii\.gz has 2 whole values") as caught:
        refuse_label_maps(find_inputs(folder, ("image",)), folder)
    assert "CSV manifest" in caught.value.hint
    refuse_label_maps(find_inputs(folder / "c0.nii.gz", ("image",)), folder / "c0.nii.gz")
    (tmp_path / "cases.csv").write_text("case_id,image\nc0,annotations/c0.nii.gz\n")
    refuse_label_maps(find_inputs(tmp_path / "cases.csv", ("image",)), tmp_path / "cases.csv")


def test_one_image_among_masks_is_segmented_with_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "a", [head(), IMAGES["MR"], head()])
    refuse_label_maps(find_inputs(folder, ("image",)), folder)


@pytest.mark.parametrize("suffix", ["dseg", "label-GM_probseg", "desc-brain_mask", "labelmap", "space-MNI_dseg"])
def test_derivatives_of_bids_are_no_images(suffix: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "sub-01", [IMAGES["MR"]], f"sub-0{{}}_{suffix}.nii.gz")
    with pytest.raises(DataError, match="holds masks, not images: 1 files are named like masks"):
        refuse_label_maps(find_inputs(folder, ("image",)), folder)
    folder_of(tmp_path / "sub-02", [IMAGES["MR"]], "sub-0{}_T1w.nii.gz")
    dataset = find_inputs(tmp_path, ("image",))
    assert len(dataset.cases) == len(dataset.set_aside) == 1
    refuse_label_maps(dataset, tmp_path)


@pytest.mark.parametrize("wrong", ["masks", "references"])
@pytest.mark.parametrize("dicom", [False, True])
def test_images_are_not_scored(wrong: str, dicom: bool, tmp_path: Path) -> None:
    for seed in range(3):
        image, mask = make_case(seed)
        for folder in ("masks", "references"):
            if folder != wrong:
                write_mask(mask, tmp_path / folder / f"c{seed}.nii.gz")
            elif dicom:
                write_series(image, tmp_path / folder / f"c{seed}")
            else:
                write_volume(image, tmp_path / folder / f"c{seed}.nii.gz")
    with pytest.raises(DataError, match=f"{wrong} holds images, not {wrong}: c0"):
        volseg.evaluate(tmp_path / "masks", tmp_path / "references")


def test_images_are_no_regions_of_interest(tmp_path: Path) -> None:
    image, mask = make_case(0)
    write_mask(mask, tmp_path / "masks" / "c0.nii.gz")
    write_volume(image, tmp_path / "within" / "c0.nii.gz")
    with pytest.raises(DataError, match="within holds images, not regions of interest: c0"):
        volseg.evaluate(tmp_path / "masks", tmp_path / "masks", within=tmp_path / "within")


@pytest.mark.parametrize("form", ["nifti", "seg-nrrd"])
def test_an_image_is_not_exported_as_a_mask(form: str, tmp_path: Path) -> None:
    image, _ = make_case(0)
    noise = np.random.default_rng(0).integers(0, 900, image.geometry.shape).astype(np.float32)
    path = tmp_path / "image.nii.gz"
    write_volume(replace(image, array=noise[np.newaxis]), path)
    output = tmp_path / f"made.{'nii.gz' if form == 'nifti' else 'seg.nrrd'}"
    with pytest.raises(DataError, match=r"holds an image, not a mask: it has 89\d values") as caught:
        volseg.export(path, path, output, format=form)
    assert "--reference" in caught.value.hint
    assert not output.exists()


def test_one_image_among_references_fails_alone(tmp_path: Path) -> None:
    for seed in range(3):
        image, mask = make_case(seed)
        write_mask(mask, tmp_path / "masks" / f"c{seed}.nii.gz")
        write_mask(mask, tmp_path / "references" / f"c{seed}.nii.gz")
    write_volume(image, tmp_path / "references" / "c0.nii.gz")
    result = volseg.evaluate(tmp_path / "masks", tmp_path / "references")
    assert [failure.case_id for failure in result.failures] == ["c0"]
