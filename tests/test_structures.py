"""Structures of DICOM objects, each by itself: an odd one is named and costs no other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from test_rtstruct import edit, make_mask, make_series, series_of

from volseg import inspect
from volseg.cases import find_dataset, read_images, read_reference
from volseg.cases.case import Case
from volseg.errors import DataError
from volseg.exporting.rtstruct import write_rtstruct
from volseg.exporting.seg import write_seg
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask
from volseg.io import SegmentsSource, discover, read_mask
from volseg.io.dicom import read_instances
from volseg.io.record import RECORD_FILE

ORGAN, OTHER = Label(1, "organ"), Label(2, "other")
#: The third slice of the series of `make_series`, and its neighbours.
Z_MM = -807.125
Points = list[tuple[float, float, float]]


def square(low: float, high: float, z: float = Z_MM) -> Points:
    """Corners between two voxel indices, in mm."""
    corners = [(low, low), (high, low), (high, high), (low, high)]
    return [(-120.5 + 0.7 * i, 33.25 + 0.9 * j, z) for i, j in corners]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A series in `ct` and a structure set of one organ beside it."""
    source = make_series(tmp_path / "ct", modality="CT")
    mask = make_mask(source)
    organ = Mask((mask.array == 1).astype(np.uint8), mask.geometry, (ORGAN,))
    write_rtstruct(organ, read_instances(source), tmp_path / "rt.dcm")
    return tmp_path


def add(path: Path, name: str | None, *contours: tuple[str, Points], number: int = 7) -> None:
    """One more structure: (type, points) of each contour."""

    def change(dataset: Dataset) -> None:
        roi, drawn = Dataset(), Dataset()
        roi.update(dataset.StructureSetROISequence[0])
        roi.ROINumber = drawn.ReferencedROINumber = number
        if name is None:
            del roi.ROIName
        else:
            roi.ROIName = name
        items = []
        for kind, points in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
            item.ContourData = [round(float(x), 6) for point in points for x in point]
            items.append(item)
        drawn.ContourSequence = items
        dataset.StructureSetROISequence.append(roi)
        dataset.ROIContourSequence.append(drawn)

    edit(path, change)


CLOSED = "CLOSED_PLANAR"
#: What makes a structure unusable -> (its contours, what is said of it).
UNUSABLE: dict[str, tuple[list[tuple[str, Points]], str]] = {
    "one point": ([(CLOSED, square(1, 4)[:1])], "is not a polygon"),
    "two points": ([(CLOSED, square(1, 4)[:2])], "is not a polygon"),
    "a line": ([("OPEN_PLANAR", square(1, 4))], "consists of open lines"),
    "a type nobody knows": ([("CIRCLE", square(1, 4))], "has no known meaning"),
    "between slices": ([(CLOSED, square(1, 4, Z_MM + 1.0))], "lies in no slice"),
    "across slices": ([(CLOSED, [*square(1, 4)[:3], *square(1, 4, Z_MM + 2.5)[3:]])], "lies in no slice"),
    "beside the image": ([(CLOSED, square(40, 60))], "outside the grid"),
    "above the image": ([(CLOSED, square(1, 4, Z_MM + 300))], "outside the grid"),
    "out of this world": ([(CLOSED, [*square(1, 4)[:3], (1e9, 0, Z_MM)])], "outside the grid"),
    "crossing itself twice": ([(CLOSED, square(0.5, 4.5)), (CLOSED, square(2.5, 7.5))], "in part"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_structure_costs_no_other(kind: str, study: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = read_mask(marks_in(study), [ORGAN])
    contours, reason = UNUSABLE[kind]
    add(study / "rt.dcm", "other", *contours)
    np.testing.assert_array_equal(read_mask(marks_in(study), [ORGAN]).array, before.array)
    with pytest.raises(DataError, match=rf"ROI 'other' .*{reason}") as caught:
        read_mask(marks_in(study), [ORGAN, OTHER])
    assert caught.value.hint.endswith("or leave the structure out of the labels")
    (study / RECORD_FILE).unlink()  # as if another program had written it
    (found,) = [item for item in inspect(study) if item.status == "reference"]
    assert "marks organ, other" in found.remark
    assert reason in found.remark
    assert str(study) not in found.remark


@pytest.mark.parametrize("kind", UNUSABLE)
def test_export_writes_what_can_be_used(kind: str, study: Path, volseg: Callable[..., tuple[int, str, str]]) -> None:
    before = read_mask(marks_in(study), [ORGAN])
    contours, reason = UNUSABLE[kind]
    add(study / "rt.dcm", "other", *contours)
    words = ["export", study / "rt.dcm", "--reference", study / "ct", "--output", study / "mask.nii.gz"]
    code, _, err = volseg(*words)
    assert code == 0, err
    assert "'other'" in err
    assert reason in err
    written = np.asarray(nib.load(study / "mask.nii.gz").dataobj)
    assert np.count_nonzero(written == 1) == np.count_nonzero(before.array)
    assert written.max() == 1


#: What is no fault: the structure is usable, though there is something to say -> (contours, voxels, what is said).
ODD: dict[str, tuple[list[tuple[str, Points]], int, str]] = {
    "no contours": ([], 0, "has no contours"),
    "an isocentre": ([("POINT", square(3, 4)[:1])], 0, "1 points or open lines left out"),
    "smaller than a voxel": ([(CLOSED, square(3.3, 3.4))], 0, "encloses no voxel centre"),
    "a speck beside it": ([(CLOSED, square(0.5, 4.5)), (CLOSED, square(7, 8)[:2])], 16, "fewer than three points"),
    "a point beside it": ([(CLOSED, square(0.5, 4.5)), ("POINT", square(7, 8)[:1])], 16, "left out"),
    "a couch": ([(CLOSED, square(-50.5, 99.5))], 14 * 12, "reaches beyond the image"),
    "a slice too many": ([(CLOSED, square(0.5, 4.5)), (CLOSED, square(0.5, 4.5, Z_MM + 250))], 16, "1 lie outside"),
    "repeated points": ([(CLOSED, [p for p in square(0.5, 4.5) for _ in range(3)])], 16, ""),
    "a ring": ([(CLOSED, square(0.5, 6.5)), (CLOSED, square(2.5, 4.5))], 36 - 4, ""),
    "a ring of two that exclude": ([("CLOSEDPLANAR_XOR", square(0.5, 6.5)), ("CLOSEDPLANAR_XOR", square(4.5, 8.5))],
                                   36 + 16 - 2 * 4, ""),
    "a keyhole": ([(CLOSED, [*square(0.5, 6.5), square(0.5, 6.5)[0], *square(2.5, 4.5), square(2.5, 4.5)[0]])], 32, ""),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_structure_is_used_as_far_as_it_means_something(
    kind: str, study: Path, caplog: pytest.LogCaptureFixture
) -> None:
    contours, voxels, said = ODD[kind]
    add(study / "rt.dcm", "other", *contours)
    with caplog.at_level(logging.WARNING, "volseg"):
        mask = read_mask(marks_in(study), [OTHER])
    assert np.count_nonzero(mask.array == 2) == voxels
    assert said in caplog.text
    assert not said or "other" in caplog.text


def test_clipping_is_the_same_as_drawing_within(study: Path) -> None:
    """What lies in the image does not depend on how far a structure goes on outside."""
    rng = np.random.default_rng(5)
    for n in range(10):
        low, high = sorted(rng.uniform(-30, 40, 2).round(2))
        add(study / "rt.dcm", f"square {n}", (CLOSED, square(low, high)), number=20 + n)
        label = Label(1, f"square {n}")
        inside = [np.count_nonzero((np.arange(size) > low) & (np.arange(size) <= high)) for size in (14, 12)]
        if not np.prod(inside):
            continue
        array = read_mask(marks_in(study), [label]).array
        assert abs(int(array.astype(bool).sum()) - np.prod(inside)) <= sum(inside) + 1  # centres on an edge


def test_two_of_one_name_are_united_aloud(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(study / "rt.dcm", "other", (CLOSED, square(0.5, 4.5)), number=7)
    add(study / "rt.dcm", "other", (CLOSED, square(6.5, 8.5)), number=8)
    assert np.count_nonzero(read_mask(marks_in(study), [OTHER]).array) == 16 + 4
    assert "several segments that are other" in caplog.text


def test_a_structure_without_a_name_is_named_by_its_number(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(study / "rt.dcm", None, (CLOSED, square(0.5, 4.5)))
    add(study / "rt.dcm", "", (CLOSED, square(0.5, 4.5)), number=8)
    assert read_mask(marks_in(study), [ORGAN]).array.any()
    assert "segment 7 without a name, segment 8 without a name" in caplog.text


def test_contours_that_belong_to_nobody_may_be_those_of_a_structure_without_any(study: Path) -> None:
    """A number that was damaged must not make an organ an empty one."""
    add(study / "rt.dcm", "other", (CLOSED, square(0.5, 4.5)))
    edit(study / "rt.dcm", lambda d: setattr(d.ROIContourSequence[-1], "ReferencedROINumber", 9))
    assert read_mask(marks_in(study), [ORGAN]).array.any()
    with pytest.raises(DataError, match="there are contours of an ROI 9, which it does not list"):
        read_mask(marks_in(study), [OTHER])


@pytest.mark.parametrize("damage", ["number", "twice", "same"])
def test_damage_to_the_list_concerns_whom_it_names(damage: str, study: Path) -> None:
    add(study / "rt.dcm", "other", (CLOSED, square(0.5, 4.5)))
    add(study / "rt.dcm", "third", (CLOSED, square(0.5, 4.5)), number=8)
    edit(
        study / "rt.dcm",
        {
            "number": lambda d: delattr(d.StructureSetROISequence[1], "ROINumber"),
            "twice": lambda d: d.ROIContourSequence.append(d.ROIContourSequence[1]),
            "same": lambda d: setattr(d.StructureSetROISequence[1], "ROINumber", 8),
        }[damage],
    )
    assert read_mask(marks_in(study), [ORGAN]).array.any()
    with pytest.raises(DataError, match="ROI 'other'"):
        read_mask(marks_in(study), [OTHER])


def test_a_case_is_refused_for_what_it_is_wanted_for(study: Path) -> None:
    add(study / "rt.dcm", "other", *UNUSABLE["two points"][0])
    (study / "case").mkdir()
    for name in ("ct", "rt.dcm"):
        (study / name).rename(study / "case" / name)
    dataset = find_dataset(study)
    (case,) = dataset.cases
    assert isinstance(case, Case)
    image = read_images(case, dataset.channels)
    assert read_reference(case, image, [ORGAN]).array.any()
    with pytest.raises(DataError, match="ROI 'other'"):
        read_reference(case, image, [ORGAN, OTHER])


def marks_in(study: Path) -> SegmentsSource:
    (source,) = discover(study).segments
    return source


# Segmentations


def write_two(study: Path) -> None:
    (study / "rt.dcm").unlink()
    images = series_of(study / "ct")
    array = np.zeros(images.geometry.shape, np.uint8)
    array[2:6, 2:6, 1:6] = 1
    array[8:11, 2:6, 1:6] = 2
    write_seg(Mask(array, images.geometry, (ORGAN, OTHER)), images, study / "seg.dcm")


def frame_of(dataset: Dataset, segment: int, n: int) -> Dataset:
    groups = dataset.PerFrameFunctionalGroupsSequence
    return [g for g in groups if g.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment][n]


def move(dataset: Dataset, by_mm: Any) -> None:
    position = frame_of(dataset, 2, 2).PlanePositionSequence[0]
    position.ImagePositionPatient = (np.array(position.ImagePositionPatient, float) + by_mm).round(4).tolist()


SEG_DAMAGE: dict[str, Callable[[Dataset], Any]] = {
    "between voxels": lambda d: move(d, [0.3, 0, 0]),
    "between slices": lambda d: move(d, [0, 0, 1.0]),
    "on another frame": lambda d: move(d, [0, 0, 2.5]),
    "no place": lambda d: delattr(frame_of(d, 2, 1), "PlanePositionSequence"),
    "not a number": lambda d: delattr(frame_of(d, 2, 1).PlanePositionSequence[0], "ImagePositionPatient"),
}


@pytest.mark.parametrize("kind", SEG_DAMAGE)
def test_a_broken_segment_costs_no_other(kind: str, study: Path) -> None:
    write_two(study)
    before = read_mask(marks_in(study), [ORGAN, OTHER]).array
    edit(study / "seg.dcm", SEG_DAMAGE[kind])
    np.testing.assert_array_equal(read_mask(marks_in(study), [ORGAN]).array, before * (before == 1))
    with pytest.raises(DataError, match=r"seg\.dcm"):
        read_mask(marks_in(study), [ORGAN, OTHER])
    (study / RECORD_FILE).unlink()  # as if another program had written it
    (found,) = [item for item in inspect(study) if item.status == "reference"]
    assert "cannot be used" in found.remark


def test_a_grid_that_fits_nothing_is_refused_whatever_is_wanted(study: Path) -> None:
    source = marks_in(study)
    geometry = series_of(study / "ct").geometry
    affine = geometry.affine.copy()
    affine[:3, 3] += 500
    with pytest.raises(DataError, match="outside the grid"):
        read_mask(source, [ORGAN], on=Geometry(geometry.shape, affine))
    assert pydicom.dcmread(study / "rt.dcm").Modality == "RTSTRUCT"
