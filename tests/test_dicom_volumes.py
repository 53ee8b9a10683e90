"""One series in, several volumes out: what parts them, what they are called, and what must never be parted."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from test_dicom import AXIAL, SAGITTAL, edit, item, make_volume, write_enhanced

from volseg.cases import find_inputs
from volseg.errors import DataError
from volseg.image.volume import Volume
from volseg.io import discover, read_volume
from volseg.io.dicom import read_series, scan_dicom, write_series
from volseg.io.dicom.series import read_instances
from volseg.io.source import SeriesSource

SHAPE = (4, 3, 5)
SERIES, STUDY = "1.2.3", "1.2"


def write_parts(folder: Path, *parts: Mapping[str, Any], volumes: Sequence[Volume] = ()) -> list[Volume]:
    """One series of several volumes on one grid: the same elements in all slices of each, numbered one by one."""
    volumes = volumes or [make_volume(shape=SHAPE, seed=seed) for seed in range(len(parts))]
    number = 0
    for index, (part, volume) in enumerate(zip(parts, volumes, strict=True)):
        for path in write_series(volume, folder / "written"):
            number += 1
            stated = {"SeriesInstanceUID": SERIES, "StudyInstanceUID": STUDY, "InstanceNumber": number, **part}
            edit(path, **stated)
            path.rename(folder / f"{index}_{path.name}")
    (folder / "written").rmdir()
    return list(volumes)


def scan(folder: Path) -> list[SeriesSource]:
    found = scan_dicom(sorted(path for path in folder.rglob("*") if path.is_file()))
    assert not found.set_aside
    return list(found.series)


def by_name(folder: Path) -> dict[str, Volume]:
    sources = scan(folder)
    volumes = {source.volume: read_series(source) for source in sources}
    assert len(volumes) == len(sources)  # no name twice
    return volumes


def assert_parts(folder: Path, expected: Mapping[str, Volume]) -> None:
    found = by_name(folder)
    assert sorted(found) == sorted(expected)
    for name, volume in expected.items():
        np.testing.assert_array_equal(found[name].array, volume.array)
        assert found[name].geometry.matches(volume.geometry)


# What tells classic images apart


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([{"EchoTime": "80"}, {"EchoTime": "9.2"}], ["echo2", "echo1"]),
        (
            [{"InversionTime": "50"}, {"InversionTime": "400"}, {"InversionTime": "1100"}],
            [f"inversion{n}" for n in (1, 2, 3)],
        ),
        ([{"FlipAngle": "5"}, {"FlipAngle": "26"}], ["flip1", "flip2"]),
        ([{"TemporalPositionIdentifier": n} for n in (2, 10, 1)], ["time2", "time3", "time1"]),
        ([{"TriggerTime": t} for t in ("400", "0")], ["phase2", "phase1"]),
        ([{"AcquisitionNumber": n} for n in (1, 2)], ["acquisition1", "acquisition2"]),
        ([{"AcquisitionTime": t} for t in ("101500.5", "101510")], ["time1", "time2"]),
        ([{"ContentTime": t} for t in ("101500.5", "101510")], ["time1", "time2"]),
        ([{"ConvolutionKernel": k} for k in ("B30f", "B70f")], ["kernel1", "kernel2"]),
        ([{}, {}, {}], ["time1", "time2", "time3"]),  # nothing but the order of their numbers
    ],
    ids=["echo", "inversion", "flip", "time", "phase", "acquisition", "clock", "content", "kernel", "number"],
)
def test_what_tells_images_of_one_place_apart(values: list[dict[str, Any]], names: list[str], tmp_path: Path) -> None:
    volumes = write_parts(tmp_path, *values)
    assert_parts(tmp_path, dict(zip(names, volumes, strict=True)))


def test_kinds_of_complex_images(tmp_path: Path) -> None:
    kinds = ("M", "P", "R", "I")  # magnitude, phase, real, imaginary
    volumes = write_parts(tmp_path, *({"ImageType": ["ORIGINAL", "PRIMARY", kind, "ND"]} for kind in kinds))
    # By the alphabet: I, M, P, R.
    assert_parts(tmp_path, dict(zip(["type2", "type3", "type4", "type1"], volumes, strict=True)))


def test_diffusion_is_named_by_its_b_value(tmp_path: Path) -> None:
    directions = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])
    volumes = write_parts(
        tmp_path,
        {"DiffusionBValue": 0.0},
        *({"DiffusionBValue": 1000.0, "DiffusionGradientOrientation": way} for way in directions),
    )
    found = by_name(tmp_path)
    assert sorted(found) == ["b0", "b1000_direction1", "b1000_direction2"]
    np.testing.assert_array_equal(found["b0"].array, volumes[0].array)
    arrays = [found[f"b1000_direction{n}"].array for n in (2, 1)]  # 0\1\0 before 1\0\0
    for array, volume in zip(arrays, volumes[1:], strict=True):
        np.testing.assert_array_equal(array, volume.array)


def test_two_properties_part_twice(tmp_path: Path) -> None:
    parts = [{"EchoTime": echo, "TemporalPositionIdentifier": time} for echo in ("5", "50") for time in (1, 2)]
    volumes = write_parts(tmp_path, *parts)
    assert_parts(tmp_path, dict(zip([f"echo{e}_time{t}" for e in (1, 2) for t in (1, 2)], volumes, strict=True)))


def test_times_that_differ_from_slice_to_slice_part_nothing(tmp_path: Path) -> None:
    volume = make_volume(shape=SHAPE)
    for k, path in enumerate(write_series(volume, tmp_path)):
        edit(
            path, AcquisitionTime=f"10150{k}", ContentTime=f"10150{k}.5", TriggerTime=str(100 * k), AcquisitionNumber=k
        )
    assert_parts(tmp_path, {"": volume})


def test_interleaved_time_points_without_any_index(tmp_path: Path) -> None:
    volumes = write_parts(tmp_path, {}, {}, {})
    for path in tmp_path.iterdir():  # slice by slice, all times of it, as some scanners count
        time, k = int(path.name[0]), int(path.stem[-4:]) - 1
        edit(path, InstanceNumber=3 * k + time + 1)
    assert_parts(tmp_path, {f"time{n}": volume for n, volume in enumerate(volumes, start=1)})


def test_without_numbers_nothing_is_guessed(tmp_path: Path) -> None:
    write_parts(tmp_path, {"InstanceNumber": 1}, {"InstanceNumber": 1})
    (source,) = scan(tmp_path)
    with pytest.raises(DataError, match="a 4D series: 2 images at each of 5 positions"):
        read_series(source)


#: When an image was taken, differing from slice to slice of any volume.
TIMES: dict[str, Callable[[int], dict[str, Any]]] = {
    "numbers alone": lambda n: {},
    "times": lambda n: {"AcquisitionTime": f"1015{n:02d}", "ContentTime": f"1015{n:02d}.5"},
    "acquisitions": lambda n: {"AcquisitionNumber": n},
}


@pytest.mark.parametrize("times", TIMES)
def test_slices_that_all_state_one_position_are_no_volumes_of_one_slice(times: str, tmp_path: Path) -> None:
    for n, path in enumerate(write_series(make_volume(shape=SHAPE), tmp_path), start=1):
        edit(path, ImagePositionPatient=[1, 2, 3], InstanceNumber=n, **TIMES[times](n))
    (source,) = scan(tmp_path)
    for read in (read_series, read_instances):
        with pytest.raises(DataError, match=r"all 5 images of .* state the same position") as caught:
            read(source)
        assert "position of each slice" in caught.value.hint


@pytest.mark.parametrize("keyword", ["TriggerTime", "TemporalPositionIdentifier", "EchoTime"])
def test_one_slice_whose_images_say_what_they_are_is_told_apart(keyword: str, tmp_path: Path) -> None:
    """A cine of one slice."""
    volumes = [make_volume(shape=(4, 3, 1), seed=seed) for seed in range(5)]
    write_parts(tmp_path, *({keyword: 100 * n} for n in range(5)), volumes=volumes)
    found = by_name(tmp_path)
    for n, volume in enumerate(volumes, start=1):
        (array,) = (each.array for name, each in found.items() if name.endswith(str(n)))
        np.testing.assert_array_equal(array, volume.array)


def test_names_do_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    write_parts(tmp_path, {"EchoTime": "80"}, {"EchoTime": "9.2"}, {"EchoTime": "30"})
    files = sorted(tmp_path.iterdir())
    orders = [files, files[::-1], [files[n] for n in np.random.default_rng(0).permutation(len(files))]]
    scans = [scan_dicom(order).series for order in orders]
    assert {source.volume: source.files for source in scans[0]} == {s.volume: s.files for s in scans[1]}
    assert {source.volume: source.files for source in scans[0]} == {s.volume: s.files for s in scans[2]}


# Volumes that are not whole


@pytest.mark.parametrize("gone", [[0], [4], [3, 4]], ids=["first", "last", "two"])
@pytest.mark.parametrize("keyword", ["TemporalPositionIdentifier", "EchoTime"])
def test_a_volume_that_is_shorter_than_its_siblings_is_not_read(keyword: str, gone: list[int], tmp_path: Path) -> None:
    volumes = write_parts(tmp_path, *({keyword: n} for n in (1, 2, 3)))
    for k in gone:
        (tmp_path / f"2_{k + 1:04d}.dcm").unlink()
    whole, broken = [], []
    for source in scan(tmp_path):
        (broken if len(source.files) < SHAPE[2] else whole).append(source)
    for source, volume in zip(sorted(whole, key=str), volumes, strict=False):
        np.testing.assert_array_equal(read_series(source).array, volume.array)
    assert len(whole) == 2
    assert len(broken) == 1
    with pytest.raises(DataError):
        read_series(broken[0])


def test_a_last_time_point_without_index_that_was_broken_off_is_refused(tmp_path: Path) -> None:
    write_parts(tmp_path, {}, {}, {})
    (tmp_path / "2_0005.dcm").unlink()
    (source,) = scan(tmp_path)
    with pytest.raises(DataError, match="different images of the same slice"):
        read_series(source)


@pytest.mark.parametrize("broken", [0, 1])
def test_a_slice_without_a_place_makes_no_volume_shorter(broken: int, tmp_path: Path) -> None:
    write_parts(tmp_path, {"EchoTime": "9"}, {"EchoTime": "80"})
    edit(tmp_path / f"{broken}_0005.dcm", ImagePositionPatient=None)
    sources = scan(tmp_path)
    assert len(sources) == 2  # without the slice, and with one too many
    for source in sources:
        with pytest.raises(DataError, match=f"{broken}_0005.dcm"):
            read_series(source)


# Copies


def test_copies_in_another_folder_count_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    volume = make_volume(shape=SHAPE)
    write_series(volume, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with caplog.at_level(logging.WARNING, logger="volseg"):
        assert_parts(tmp_path, {"": volume})
    assert "5 identical copies" in caplog.text


def test_copies_of_every_volume_stay_with_it(tmp_path: Path) -> None:
    volumes = write_parts(tmp_path, {"EchoTime": "9"}, {"EchoTime": "80"})
    for path in sorted(tmp_path.iterdir()):
        shutil.copy(path, tmp_path / f"copy_{path.name}")
    assert_parts(tmp_path, {"echo1": volumes[0], "echo2": volumes[1]})


def test_a_copy_with_other_pixels_is_no_copy(tmp_path: Path) -> None:
    paths = write_series(make_volume(shape=SHAPE), tmp_path)
    shutil.copy(paths[2], tmp_path / "copy")
    edit(tmp_path / "copy", lambda d: setattr(d, "PixelData", d.PixelData[::-1]))
    (source,) = scan(tmp_path)
    with pytest.raises(DataError, match=r"different images of the same slice \(0003.dcm, copy\)"):
        read_series(source)


@pytest.mark.parametrize("copied", [slice(2, 3), slice(None)], ids=["one", "all"])
def test_copies_under_new_uids_count_once(copied: slice, tmp_path: Path) -> None:
    """Some archives send an image again under another SOPInstanceUID, its number unchanged."""
    volume = make_volume(shape=SHAPE)
    for path in write_series(volume, tmp_path)[copied]:
        shutil.copy(path, tmp_path / f"copy_{path.name}")
        edit(tmp_path / f"copy_{path.name}", SOPInstanceUID=uid.generate_uid())
    assert_parts(tmp_path, {"": volume})


# Reformatted images beside what they were made from


def test_reformatted_slices_beside_the_originals(tmp_path: Path) -> None:
    original, reformatted = make_volume(shape=SHAPE, seed=1), make_volume(shape=SHAPE, seed=2)
    write_parts(
        tmp_path,
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        volumes=[original, reformatted],
    )
    sources = scan(tmp_path)
    read = {source.traits.image_type[-1]: read_series(source) for source in sources}
    np.testing.assert_array_equal(read["AXIAL"].array, original.array)
    np.testing.assert_array_equal(read["MPR"].array, reformatted.array)


def test_of_originals_and_reformatted_ones_the_originals_are_segmented(tmp_path: Path) -> None:
    original, other = make_volume(shape=SHAPE, seed=1), make_volume(SAGITTAL, shape=(4, 3, 9), seed=2)
    write_parts(
        tmp_path,
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        volumes=[original, other],
    )
    dataset = find_inputs(tmp_path, ("image",))
    (case,) = dataset.cases
    np.testing.assert_array_equal(read_volume(case.images["image"]).array, original.array)
    assert "it is original, not derived" in dataset.set_aside[0].reason


# Multi-frame files


def stacked(dataset: Dataset, **stacks: Sequence[int]) -> None:
    """State the stack of each frame."""
    for name, frames in stacks.items():
        for index in frames:
            dataset.PerFrameFunctionalGroupsSequence[index].FrameContentSequence = [item(StackID=name)]


def slope_of(volume: Volume, slices: Sequence[int]) -> np.ndarray:
    """`write_enhanced` gives slice k the slope k + 1."""
    return volume.array[..., slices] * (np.asarray(slices, dtype=np.float32) + 1)


def test_stacks_of_one_enhanced_file(tmp_path: Path) -> None:
    volume = make_volume(shape=(4, 3, 9))
    write_enhanced(volume, tmp_path / "enhanced", order=range(9))
    edit(tmp_path / "enhanced", lambda d: stacked(d, A=range(4), B=range(4, 9)))
    found = by_name(tmp_path)
    assert sorted(found) == ["stack1", "stack2"]
    np.testing.assert_array_equal(found["stack1"].array, slope_of(volume, range(4)))
    np.testing.assert_array_equal(found["stack2"].array, slope_of(volume, range(4, 9)))
    assert all(source.place == tmp_path / "enhanced" for source in scan(tmp_path))


def turn(dataset: Dataset, frames: Sequence[int], orientation: Sequence[float], positions: Sequence[Any]) -> None:
    for index, position in zip(frames, positions, strict=True):
        own = dataset.PerFrameFunctionalGroupsSequence[index]
        own.PlaneOrientationSequence = [item(ImageOrientationPatient=list(orientation))]
        own.PlanePositionSequence = [item(ImagePositionPatient=list(position))]


@pytest.mark.parametrize("named", [True, False], ids=["stacks", "no stacks"])
def test_planes_of_one_enhanced_file(named: bool, tmp_path: Path) -> None:
    """A three-plane scan in one file: every orientation is a volume of its own."""
    volume = make_volume(AXIAL, shape=(4, 4, 6), origin_mm=(0, 0, 0))
    write_enhanced(volume, tmp_path / "enhanced", order=range(6))
    edit(tmp_path / "enhanced", lambda d: turn(d, (3, 4, 5), (0, 1, 0, 0, 0, -1), [(5 * n, 0, 0) for n in range(3)]))
    if named:
        edit(tmp_path / "enhanced", lambda d: stacked(d, A=range(3), B=range(3, 6)))
    read = {source.traits.orientation: read_series(source) for source in scan(tmp_path)}
    assert sorted(read) == ["axial", "sagittal"]
    np.testing.assert_array_equal(read["axial"].array, slope_of(volume, range(3)))
    # (0, 1, 0) x (0, 0, -1) = (-1, 0, 0): slices are ordered towards -x.
    np.testing.assert_array_equal(read["sagittal"].array, slope_of(volume, (5, 4, 3)))
    assert read["sagittal"].geometry.spacing_mm[2] == pytest.approx(5)


def test_volumes_of_one_enhanced_file_are_named_like_classic_ones(tmp_path: Path) -> None:
    volume = make_volume(shape=SHAPE)
    write_enhanced(volume, tmp_path / "enhanced", order=[*range(5), *range(5)])

    def describe(dataset: Dataset) -> None:
        for index, own in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            own.MRDiffusionSequence = [item(DiffusionBValue=0.0 if index < 5 else 800.0)]
            own.PixelValueTransformationSequence[0].RescaleSlope = 1 if index < 5 else 2

    edit(tmp_path / "enhanced", describe)
    assert_parts(tmp_path, {"b0": volume, "b800": Volume(volume.array * 2, volume.geometry)})


def test_a_computed_kind_in_an_enhanced_file_is_apart(tmp_path: Path) -> None:
    volume = make_volume(shape=(4, 3, 8))
    write_enhanced(volume, tmp_path / "enhanced", order=range(8))

    def describe(dataset: Dataset) -> None:
        for index, own in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            kind = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"] if index < 5 else ["DERIVED", "SECONDARY", "MPR", "NONE"]
            own.MRImageFrameTypeSequence = [item(FrameType=kind)]

    edit(tmp_path / "enhanced", describe)
    arrays = [read_series(source).array for source in scan(tmp_path)]
    assert sorted(array.shape[-1] for array in arrays) == [3, 5]


def test_every_multi_frame_file_is_a_volume(tmp_path: Path) -> None:
    volumes = [make_volume(shape=SHAPE, seed=seed) for seed in range(3)]
    for n, volume in enumerate(volumes):
        write_enhanced(volume, tmp_path / f"enhanced{n}", order=range(5))
        edit(tmp_path / f"enhanced{n}", SeriesInstanceUID=SERIES, StudyInstanceUID=STUDY, InstanceNumber=n + 1)
    sources = scan(tmp_path)
    assert [source.files[0].name for source in sources] == ["enhanced0", "enhanced1", "enhanced2"]
    for source, volume in zip(sources, volumes, strict=True):
        np.testing.assert_array_equal(read_series(source).array, slope_of(volume, range(5)))


def test_several_multi_frame_files_are_told_apart_by_where_they_lie(tmp_path: Path) -> None:
    for n in range(2):
        write_enhanced(make_volume(shape=SHAPE, seed=n), tmp_path / f"enhanced{n}", order=range(5))
        edit(tmp_path / f"enhanced{n}", SeriesInstanceUID=SERIES, StudyInstanceUID=STUDY, SeriesNumber=4)
    assert len({(source.place, source.volume) for source in scan(tmp_path)}) == 2
    dataset = find_inputs(tmp_path, ("image",))
    assert len(dataset.cases) + len({item.path for item in dataset.set_aside}) == 2


# What discover and predict call them


def test_what_volumes_are_called(tmp_path: Path) -> None:
    write_parts(tmp_path / "patient_1" / "dwi", {"DiffusionBValue": 0.0}, {"DiffusionBValue": 1000.0})
    write_series(make_volume(shape=SHAPE), tmp_path / "patient_2" / "t1")
    sources = discover(tmp_path).sources
    assert [str(source) for source in sources] == [
        f"{tmp_path}/patient_1/dwi (DICOM series of 5 files, b0)",
        f"{tmp_path}/patient_1/dwi (DICOM series of 5 files, b1000)",
        f"{tmp_path}/patient_2/t1 (DICOM series of 5 files)",
    ]
    dataset = find_inputs(tmp_path, ("image",))
    assert [case.case_id for case in dataset.cases] == ["patient_1_dwi_b0", "patient_2_t1"]
    (left,) = dataset.set_aside
    assert left.path == tmp_path / "patient_1" / "dwi"
    assert "(b0) is preferred: it is the first" in left.reason


def test_many_volumes_are_in_order_of_their_number(tmp_path: Path) -> None:
    write_parts(tmp_path, *({"TemporalPositionIdentifier": n} for n in range(1, 12)))
    assert find_inputs(tmp_path, ("image",)).cases[0].images["image"].volume == "time1"  # type: ignore[union-attr]


@pytest.mark.real_data
def test_the_real_time_points(real_data: Path) -> None:
    sources = scan_dicom(sorted((real_data / "dicom/classic_4d_ge_epi").iterdir())).series
    assert [source.volume for source in sources] == ["time1", "time2", "time3"]
    for n, source in enumerate(sources):
        numbers = sorted(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber for path in source.files)
        assert numbers == list(range(15 * n + 1, 15 * n + 16))


def test_two_patients_with_one_series_uid_are_two_series(tmp_path: Path) -> None:
    """Anonymised badly: adjoining or equal positions must not make one volume of two people."""
    for n, name in enumerate(("p1", "p2")):
        for path in write_series(make_volume(seed=n), tmp_path / name):
            edit(path, SeriesInstanceUID="1.2.3", PatientID=name)
    series = scan_dicom(sorted(tmp_path.rglob("*.dcm"))).series
    assert sorted(source.folder.name for source in series) == ["p1", "p2"]
    assert [len(source.files) for source in series] == [6, 6]
