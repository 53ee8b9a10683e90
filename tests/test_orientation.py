"""Acquisitions of every kind x formats of every kind: what other programs read lies where the anatomy is.

The anatomy is painted into the pixels of the images, so that where it is follows from the images and their headers
alone. volseg reads the images, makes the mask from what it read, and writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import judges
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813  # the library's own short name
from conftest import rotation
from judges import Image, Points, Solid, VoxelReader
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from scipy.spatial import KDTree

from volseg.exporting import FORMATS, Encoding, Format, output_path, write
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask, Volume
from volseg.io import Source, read_volume, single_source
from volseg.io.dicom import write_series

Matrix = NDArray[np.float64]

LABELS = (Label(1, "shell"), Label(2, "corner"), Label(5, "dot"), Label(9, "specks"))
NAMES: dict[Any, str] = {label.value: label.name for label in LABELS}
#: A pixel shows its label times this, and a pattern below it.
STEP = 1000
ORIGIN_MM = np.array([-120.5, 33.25, -812.125])

VOXELS_MM, SHAPES_MM = 0.01, 0.1

# Acquisitions

#: How each position turns the patient: columns are the LPS directions of the scanner's axes, which are, for a patient
#: who lies supine, head first, L, P and S.
POSITIONS: dict[str, Matrix] = {
    "HFS": np.eye(3),
    "HFP": rotation(2, 180),
    "HFDL": rotation(2, -90),
    "HFDR": rotation(2, 90),
    "FFS": rotation(1, 180),
    "FFP": rotation(0, 180),
    "FFDL": rotation(1, 180) @ rotation(2, 90),
}
#: Columns are what i, j and k of an image run along, in the same axes of the scanner.
PLANES: dict[str, Matrix] = {
    "axial": np.eye(3),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
}
REVERSED = np.diag([1.0, 1, -1])
SINGLE, DOUBLE = rotation(0, 20), rotation(0, -25) @ rotation(2, 35) @ rotation(1, 10)


def tilted(degrees: float) -> Matrix:
    """Slices that lean by an angle, while the table moves along k: neighbours are shifted along j."""
    angle = np.radians(degrees)
    return np.array([[1, 0, 0], [0, np.cos(angle), 0], [0, np.sin(angle), 1]])


@dataclass(frozen=True, eq=False)
class Acquisition:
    """How images were made and stored.

    Attributes:
        directions: Columns are the LPS unit vectors of i, j and k.
        position: The PatientPosition that the headers state.
        shape: (columns, rows, slices).
        spacing_mm: Along i, j and k.
        shuffled: Whether instance numbers and names of files have nothing to do with the order of the slices.
        decimals: To how many the headers of `by_pydicom` are rounded.
        writer: What writes the files; `by_volseg` if None.
    """

    directions: Matrix
    position: str = "HFS"
    shape: tuple[int, int, int] = (24, 20, 12)
    spacing_mm: tuple[float, float, float] = (0.8, 0.8, 2.5)
    shuffled: bool = False
    decimals: int = 10
    writer: Callable[[NDArray[np.int16], Acquisition, Path], None] | None = None

    @property
    def steps_mm(self) -> Matrix:
        return self.directions * self.spacing_mm


def by_volseg(values: NDArray[np.int16], made: Acquisition, folder: Path) -> None:
    geometry = Geometry.from_lps(made.shape, ORIGIN_MM, made.directions, made.spacing_mm)
    write_series(Volume(values[np.newaxis].astype(np.float32), geometry), folder, modality="CT")


def by_pydicom(values: NDArray[np.int16], made: Acquisition, folder: Path) -> None:
    common = Dataset()
    common.SOPClassUID, common.Modality = uid.MRImageStorage, "MR"
    common.PatientName = common.PatientID = "phantom"
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(common, keyword, uid.generate_uid())
    common.Columns, common.Rows = made.shape[:2]
    common.PixelSpacing = [made.spacing_mm[1], made.spacing_mm[0]]
    common.ImageOrientationPatient = made.directions[:, :2].T.ravel().round(made.decimals).tolist()
    common.SamplesPerPixel, common.PhotometricInterpretation, common.PixelRepresentation = 1, "MONOCHROME2", 1
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.RescaleSlope, common.RescaleIntercept = 1, 0
    for k in range(made.shape[2]):
        image = Dataset()
        image.update(common)
        image.SOPInstanceUID, image.InstanceNumber = uid.generate_uid(), k + 1
        image.ImagePositionPatient = (ORIGIN_MM + k * made.steps_mm[:, 2]).round(min(made.decimals, 7)).tolist()
        image.PixelData = values[:, :, k].tobytes(order="F")
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        image.save_as(folder / f"{k:03d}", enforce_file_format=True)


def by_simpleitk(values: NDArray[np.int16], made: Acquisition, folder: Path) -> None:
    tags = {"0008|0060": "CT", "0028|1052": "0", "0028|1053": "1"}
    tags |= {tag: str(uid.generate_uid()) for tag in ("0020|000d", "0020|000e", "0020|0052")}
    tags["0020|0037"] = "\\".join(f"{cosine:.12f}" for cosine in made.directions[:, :2].T.ravel())
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for k in range(made.shape[2]):
        image = sitk.GetImageFromArray(np.ascontiguousarray(values[:, :, k].T))
        image.SetSpacing(made.spacing_mm[:2])
        place = "\\".join(f"{x:.9f}" for x in ORIGIN_MM + k * made.steps_mm[:, 2])
        own = {"0020|0013": str(k + 1), "0008|0018": str(uid.generate_uid()), "0020|0032": place}
        for tag, value in (tags | own).items():
            image.SetMetaData(tag, value)
        writer.SetFileName(folder / f"{k:03d}.dcm")
        writer.Execute(image)


def lying(plane: str, position: str, shear: Matrix = PLANES["axial"], **how: Any) -> Acquisition:
    return Acquisition(POSITIONS[position] @ PLANES[plane] @ shear, position, **how)


ACQUISITIONS: dict[str, Acquisition] = {
    f"{plane} {position}": lying(plane, position)
    for plane in PLANES
    for position in ("HFS", "HFP", "HFDL", "HFDR", "FFS")
} | {
    "axial FFP": lying("axial", "FFP"),
    "axial FFDL": lying("axial", "FFDL"),
    "single oblique": Acquisition(SINGLE),
    "single oblique sagittal HFP": Acquisition(POSITIONS["HFP"] @ rotation(2, -35) @ PLANES["sagittal"], "HFP"),
    "double oblique": Acquisition(DOUBLE),
    "double oblique coronal FFS": Acquisition(POSITIONS["FFS"] @ DOUBLE @ PLANES["coronal"], "FFS"),
    "oblique by 45 degrees": Acquisition(rotation(0, 45)),
    "tilt +20": lying("axial", "HFS", tilted(20)),
    "tilt -20": lying("axial", "HFS", tilted(-20)),
    "tilt +20 HFP": lying("axial", "HFP", tilted(20)),
    "tilt -20 FFS reversed": lying("axial", "FFS", tilted(-20) @ REVERSED),
    "tilt +20 double oblique": Acquisition(DOUBLE @ tilted(20), spacing_mm=(0.7, 0.9, 3)),
    "square matrix": lying("axial", "HFS", shape=(20, 20, 12)),
    "tall matrix sagittal HFDL": lying("sagittal", "HFDL", shape=(16, 29, 11)),
    "anisotropic pixels": lying("axial", "HFS", spacing_mm=(0.6, 1.1, 2)),
    "anisotropic pixels coronal HFDR": lying("coronal", "HFDR", spacing_mm=(1.3, 0.5, 2)),
    "anisotropic pixels double oblique": Acquisition(DOUBLE, spacing_mm=(0.9, 0.65, 1.75), shape=(19, 23, 13)),
    "thin slices": lying("axial", "HFP", spacing_mm=(1.5, 1.2, 0.4)),
    "reversed slices": lying("axial", "HFS", REVERSED),
    "reversed slices sagittal HFP": lying("sagittal", "HFP", REVERSED),
    "mirrored images": lying("axial", "HFS", np.diag([-1.0, 1, 1])),
    "left-handed double oblique": Acquisition(DOUBLE @ REVERSED, spacing_mm=(0.7, 0.9, 2.5)),
    "shuffled": lying("axial", "HFS", shuffled=True),
    "shuffled tilt": lying("axial", "HFDL", tilted(-20), shuffled=True),
    "pydicom axial HFDL": lying("axial", "HFDL", writer=by_pydicom),
    "pydicom double oblique reversed shuffled": Acquisition(DOUBLE @ REVERSED, shuffled=True, writer=by_pydicom),
    "pydicom tilt HFP": lying("axial", "HFP", tilted(20), writer=by_pydicom),
    "pydicom anisotropic coronal FFS": lying("coronal", "FFS", spacing_mm=(0.6, 1.1, 2), writer=by_pydicom),
    "pydicom rounded headers": Acquisition(DOUBLE, spacing_mm=(0.7, 0.9, 2.5), decimals=5, writer=by_pydicom),
    "pydicom rounded headers tilt": Acquisition(SINGLE @ tilted(-20), decimals=5, writer=by_pydicom),
    "SimpleITK axial HFP": lying("axial", "HFP", writer=by_simpleitk),
    "SimpleITK sagittal": lying("sagittal", "HFS", writer=by_simpleitk),
    "SimpleITK double oblique": Acquisition(DOUBLE, spacing_mm=(0.7, 0.9, 2.5), writer=by_simpleitk),
}


#: One or two of each kind; the others take longer than is worth waiting for each time.
QUICK = {
    "axial HFS", "coronal HFDL", "sagittal FFS", "single oblique", "double oblique coronal FFS", "tilt +20",
    "tilt +20 double oblique", "anisotropic pixels double oblique", "reversed slices", "left-handed double oblique",
    "shuffled tilt", "pydicom rounded headers", "SimpleITK double oblique",
}  # fmt: skip


def phantom(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """(I, J, K) label values; nothing in it is symmetric.

    A shell around a cavity, with an island of one voxel in it and an arm; a staircase that touches three borders; one
    voxel; voxels that touch along edges and at corners only.
    """
    array = np.zeros(shape, np.int16)
    array[2:11, 3:13, 2:8] = 1
    array[11:14, 4:6, 2:4] = 1
    array[4:8, 5:11, 3:7] = array[8, 6:8, 3:6] = 0
    array[5, 8, 5] = 1
    array[-3:, :3, -4:] = array[-2:, 1:7, -1] = array[-1, 0] = 2
    array[1, 14, 8] = 5
    array[[2, 3, 4, 4, 9], [14, 15, 14, 14, 14], [1, 1, 1, 2, 9]] = 9
    return array


def store(made: Acquisition, folder: Path) -> None:
    pattern = np.random.default_rng(0).integers(0, STEP, made.shape)
    (made.writer or by_volseg)((phantom(made.shape) * STEP + pattern).astype(np.int16), made, folder)
    files = sorted(folder.iterdir())
    numbers = np.arange(1, len(files) + 1)
    if made.shuffled:
        np.random.default_rng(1).shuffle(numbers)
    for path, number in zip(files, numbers.tolist(), strict=True):
        dataset = pydicom.dcmread(path)
        dataset.PatientPosition, dataset.InstanceNumber = made.position, number
        path.unlink()
        dataset.save_as(folder / f"image {number % 7} {number}")


# What is written of them


@dataclass(frozen=True, eq=False)
class Study:
    """The images of one acquisition, and the mask that volseg makes of what it reads there."""

    made: Acquisition
    folder: Path
    source: Source
    mask: Mask
    images: list[Image]

    def written(self, form: Format, encoding: Encoding = "binary") -> Path:
        path = output_path(self.folder, encoding, form)
        write(self.mask, self.source, path, form, encoding)
        return path

    @cached_property
    def is_sheared(self) -> bool:
        return judges.is_sheared(self.images)

    @cached_property
    def truth(self) -> dict[str, Points]:
        """Name of a label -> (N, 3) LPS mm, the centres of the pixels that show it, by their headers."""
        return {
            name: np.concatenate([image.centres[image.values // STEP == value] for image in self.images])
            for value, name in NAMES.items()
        }

    @property
    def solids(self) -> dict[str, Solid]:
        size = judges.voxel_volume_mm3(self.images)
        return {name: Solid(len(points) * size, points.mean(axis=0)) for name, points in self.truth.items()}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(made, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, made in ACQUISITIONS.items()
    ],
)
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("acquisition")
    images = folder / "images"
    images.mkdir()
    store(request.param, images)
    source = single_source(images)
    volume = read_volume(source)
    mask = Mask((volume.array[0] // STEP).astype(np.uint16), volume.geometry, LABELS)
    return Study(request.param, folder, source, mask, judges.read_images(images))


Record = Callable[[str, object], None]

VOXEL_READERS: dict[str, tuple[VoxelReader, ...]] = {
    "nifti": (judges.nifti_by_nibabel, judges.nifti_by_hand, judges.image_by_simpleitk),
    "nrrd": (judges.image_by_simpleitk, judges.nrrd_by_pynrrd),
    "mha": (judges.image_by_simpleitk, judges.mha_by_hand),
    "seg-nrrd": (judges.image_by_simpleitk, judges.nrrd_by_pynrrd, judges.seg_nrrd_by_slicerio),
    "dicom-seg": (
        judges.seg_by_pydicom,
        judges.seg_by_highdicom_frames,
        judges.seg_by_highdicom_volume,
        judges.seg_by_dcmqi,
    ),
}
#: Sheared grids: ITK's NIfTI reader and highdicom's volumes refuse them, dcmqi reads them as straight.
STRAIGHT_ONLY = {
    ("nifti", judges.image_by_simpleitk),
    ("dicom-seg", judges.seg_by_highdicom_volume),
    ("dicom-seg", judges.seg_by_dcmqi),
}


#: What flat pictures alone are written in; tests/test_outlines.py judges it.
FLAT = ("geojson", "coco", "svg")


def test_every_format_is_judged() -> None:
    assert {*VOXEL_READERS, "rtstruct", "dicom-sr", "stl", "ply", "glb", "png", "overlay", *FLAT} == {*FORMATS}
    assert len(ACQUISITIONS) >= 24
    assert {*ACQUISITIONS} > QUICK


def test_positions_are_those_of_the_standard() -> None:
    # PS3.3 section C.7.3.1.1.2: a patient on the left side has the left below, which is down in the image.
    down = {position: (turn @ [0, 1, 0]).round(6).tolist() for position, turn in POSITIONS.items()}
    assert down["HFS"] == down["FFS"] == [0, 1, 0]
    assert down["HFP"] == down["FFP"] == [0, -1, 0]
    assert down["HFDL"] == down["FFDL"] == [1, 0, 0]
    assert down["HFDR"] == [-1, 0, 0]
    for position, turn in POSITIONS.items():
        assert (turn @ [0, 0, 1])[2] == pytest.approx(1 if position.startswith("HF") else -1)


def test_images_are_stored_where_they_were_made(study: Study) -> None:
    """The writers of the images are judged too: what their headers say is what was asked for."""
    anatomy = phantom(study.made.shape)
    for value, name in NAMES.items():
        points = ORIGIN_MM + np.argwhere(anatomy == value) @ study.made.steps_mm.T
        assert dice(study.truth[name], points) == 1
    positions = {pydicom.dcmread(path).PatientPosition for path in (study.folder / "images").iterdir()}
    assert positions == {study.made.position}


@pytest.mark.parametrize(
    ("form", "encoding"),
    [*((form, "binary") for form in VOXEL_READERS), ("dicom-seg", "labelmap")],
    ids=[*VOXEL_READERS, "dicom-seg labelmap"],
)
def test_voxels_lie_where_the_anatomy_is(
    study: Study, form: Format, encoding: Encoding, record_property: Record
) -> None:
    path = study.written(form, encoding)
    readers = [reader for reader in VOXEL_READERS[form] if not (study.is_sheared and (form, reader) in STRAIGHT_ONLY)]
    assert len(readers) >= 2
    for reader in readers:
        found = {NAMES.get(key, key): points for key, points in reader(path).items()}
        check_voxels(found, study, reader.__name__, record_property)


def check_voxels(found: Mapping[Any, Points], study: Study, reader: str, record_property: Record) -> None:
    """The same voxels at the same places, each of them once."""
    assert found.keys() == study.truth.keys(), reader
    centroids = {name: points.mean(axis=0) for name, points in found.items()}
    check_centroids(centroids, study, VOXELS_MM, reader, record_property)
    for name, points in found.items():
        assert dice(points, study.truth[name]) == 1, (reader, name)


def check_centroids(
    found: Mapping[str, Points], study: Study, tolerance_mm: float, reader: str, record_property: Record
) -> None:
    assert found.keys() == study.truth.keys(), reader
    apart = {name: float(np.linalg.norm(found[name] - solid.centroid)) for name, solid in study.solids.items()}
    record_property(reader, max(apart.values()))
    assert max(apart.values()) <= tolerance_mm, (reader, apart)


def dice(found: Points, truth: Points) -> float:
    distances, nearest = KDTree(truth).query(found)
    common = {*nearest[distances <= VOXELS_MM].tolist()}
    return 2 * len(common) / (len(found) + len(truth))


def test_contours_enclose_the_anatomy(study: Study, record_property: Record) -> None:
    path = study.written("rtstruct")
    areas = judges.rtstruct_by_shapely(path, study.images)
    inside = {name: np.concatenate([area.centres_inside for area in members]) for name, members in areas.items()}
    check_voxels(inside, study, "shapely voxels", record_property)
    solids = {name: judges.solid_of_areas(members, study.images) for name, members in areas.items()}
    check_solids(solids, study, "shapely areas", record_property)
    centroids = judges.rtstruct_by_plastimatch_contours(path)
    check_centroids(centroids, study, SHAPES_MM, "plastimatch contours", record_property)
    if plastimatch_can(study):
        voxels = judges.rtstruct_by_plastimatch_voxels(path, study.folder / "images")
        check_voxels(voxels, study, "plastimatch voxels", record_property)


def plastimatch_can(study: Study) -> bool:
    """It takes contours that run along z for axial ones, and reads a tilted gantry as straight."""
    normal = np.cross(*study.images[0].steps)
    return not study.is_sheared and abs(normal[2]) > 0.1 * np.linalg.norm(normal)


def check_solids(found: Mapping[str, Solid], study: Study, reader: str, record_property: Record) -> None:
    check_centroids({name: s.centroid for name, s in found.items()}, study, SHAPES_MM, reader, record_property)
    for name, solid in study.solids.items():
        assert found[name].volume_mm3 == pytest.approx(solid.volume_mm3, rel=1e-3), (reader, name)


@pytest.mark.parametrize("form", ["stl", "ply"])
def test_meshes_enclose_the_anatomy(study: Study, form: Format, record_property: Record) -> None:
    folder = study.written(form)
    check_solids(judges.meshes_by_trimesh(folder, form), study, "trimesh", record_property)
    check_solids(judges.meshes_by_hand(folder, form), study, "by hand", record_property)


def test_scenes_enclose_the_anatomy(study: Study, record_property: Record) -> None:
    path = study.written("glb")
    check_solids(judges.glb_by_trimesh(path), study, "trimesh", record_property)
    check_solids(judges.glb_by_hand(path), study, "by hand", record_property)


def test_reports_state_the_volumes(study: Study) -> None:
    path = study.written("dicom-sr")
    # The report has four significant digits.
    expected = {name: pytest.approx(solid.volume_mm3, rel=6e-4) for name, solid in study.solids.items()}
    assert judges.volumes_by_pydicom(path) == expected
    assert judges.volumes_by_dcmqi(path) == expected


def test_previews_are_written(study: Study) -> None:
    assert study.written("png").read_bytes().startswith(b"\x89PNG")
