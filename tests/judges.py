"""What other programs find in the files that volseg writes, and what the images themselves say.

Nothing here uses volseg. All positions are LPS+ millimetres. A reader of voxels gives the centre of every marked voxel
by the name or the number of its label, a reader of surfaces and contours the volume and the centroid of what they
enclose.
"""

from __future__ import annotations

import gzip
import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel as nib
import nrrd
import numpy as np
import pydicom
import pytest
import shapely
import SimpleITK as sitk  # noqa: N813  # the library's own short name
import slicerio
import trimesh
from highdicom.spatial import PixelToReferenceTransformer
from numpy.typing import NDArray
from pydicom.dataset import Dataset

#: (N, 3) LPS+ mm.
Points = NDArray[np.float64]
#: Name of a label, or its number in a format without names -> the centres of its voxels.
Voxels = dict[str | int, Points]
VoxelReader = Callable[[Path], Voxels]

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Solid:
    """Something in the patient: `volume_mm3` about `centroid`, (3,)."""

    volume_mm3: float
    centroid: Points


def tool(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def _run(*command: object) -> None:
    result = subprocess.run(
        [str(word) for word in command], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


# The images, by their own headers


@dataclass(frozen=True, eq=False)
class Image:
    """One single-frame image: where the centre of its first pixel is, and the steps to the next column and row."""

    uid: str
    origin: Points
    steps: Points
    values: NDArray[np.float64]

    @property
    def centres(self) -> Points:
        """(rows, columns, 3) by PS3.3 equation C.7.6.2.1-1."""
        return _centres(self.origin, self.steps, self.values.shape)


def _centres(origin: Points, steps: Points, shape: tuple[int, ...]) -> Points:
    rows, columns = np.indices(shape)
    return origin + columns[..., np.newaxis] * steps[0] + rows[..., np.newaxis] * steps[1]


def _steps(orientation: Sequence[Any], spacing: Sequence[Any]) -> Points:
    """(2, 3) mm to the next column and to the next row; PixelSpacing states rows first."""
    return np.reshape(orientation, (2, 3)).astype(float) * np.array([[spacing[1]], [spacing[0]]], dtype=float)


def read_images(folder: Path) -> list[Image]:
    """All files of a folder, in the order of their positions along the normal."""
    images = []
    for path in folder.iterdir():
        header = pydicom.dcmread(path)
        values = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
        origin = np.array(header.ImagePositionPatient, dtype=float)
        steps = _steps(header.ImageOrientationPatient, header.PixelSpacing)
        images.append(Image(header.SOPInstanceUID, origin, steps, values))
    normal = np.cross(*images[0].steps)
    return sorted(images, key=lambda image: float(image.origin @ normal))


def voxel_volume_mm3(images: Sequence[Image]) -> float:
    """Shear changes neither the area of a pixel nor the distance of the planes."""
    step = (images[-1].origin - images[0].origin) / (len(images) - 1)
    return abs(float(np.linalg.det([*images[0].steps, step])))


def is_sheared(images: Sequence[Image]) -> bool:
    """Whether the line through the first pixels leaves the normal (gantry tilt)."""
    step = images[-1].origin - images[0].origin
    return bool(np.abs(images[0].steps @ step).max() > 1e-3)


# Label maps


def _marked(array: NDArray[Any], lps_affine: NDArray[np.float64]) -> Voxels:
    """Voxels of an (I, J, K) array."""
    values = (int(value) for value in np.unique(array) if value)
    return {value: np.argwhere(array == value) @ lps_affine[:3, :3].T + lps_affine[:3, 3] for value in values}


def nifti_by_nibabel(path: Path) -> Voxels:
    image = nib.load(path)
    return _marked(np.asanyarray(image.dataobj), _RAS_TO_LPS @ image.affine)


def nifti_by_hand(path: Path) -> Voxels:
    """By the layout of nifti1.h: dim, datatype, vox_offset, scl_slope, sform_code and srow."""
    data = gzip.decompress(path.read_bytes())
    shape = struct.unpack_from("<8h", data, 40)[1:4]
    dtype = {2: "<u1", 512: "<u2"}[struct.unpack_from("<h", data, 70)[0]]
    (start,) = struct.unpack_from("<f", data, 108)
    assert struct.unpack_from("<h", data, 254)[0] == 1
    sform = np.reshape(struct.unpack_from("<12f", data, 280), (3, 4))
    array = np.frombuffer(data, dtype, offset=int(start)).reshape(shape, order="F")
    return _marked(array, _RAS_TO_LPS @ np.vstack([sform, [0, 0, 0, 1]]))


def image_by_simpleitk(path: Path) -> Voxels:
    image = sitk.ReadImage(path)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return _marked(sitk.GetArrayFromImage(image).transpose(2, 1, 0), affine)


def nrrd_by_pynrrd(path: Path) -> Voxels:
    array, header = nrrd.read(str(path))
    assert header["space"] == "left-posterior-superior"
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = header["space directions"].T, header["space origin"]
    return _marked(array, affine)


def mha_by_hand(path: Path) -> Voxels:
    """By the MetaImage documentation: TransformMatrix lists the direction of the first axis, then of the others."""
    head, _, body = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    fields = dict(line.split(" = ", 1) for line in head.decode().splitlines())
    assert (fields["CompressedData"], fields["BinaryDataByteOrderMSB"]) == ("True", "False")
    dtype = {"MET_UCHAR": "<u1", "MET_USHORT": "<u2"}[fields["ElementType"]]
    shape, spacing, offset, matrix = (
        np.array(fields[name].split(), dtype=float)
        for name in ("DimSize", "ElementSpacing", "Offset", "TransformMatrix")
    )
    array = np.frombuffer(zlib.decompress(body), dtype).reshape(shape.astype(int), order="F")
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = matrix.reshape(3, 3).T * spacing, offset
    return _marked(array, affine)


def seg_nrrd_by_slicerio(path: Path) -> Voxels:
    found = slicerio.read_segmentation(str(path))
    voxels = _marked(found["voxels"], found["ijkToLPS"])
    return {segment["name"]: voxels[segment["labelValue"]] for segment in found["segments"]}


# DICOM Segmentations


def _segment_names(dataset: Dataset) -> dict[int, str]:
    return {item.SegmentNumber: str(item.SegmentLabel) for item in dataset.SegmentSequence}


def _joined(parts: Iterator[tuple[str, Points]]) -> Voxels:
    found: dict[str | int, list[Points]] = {}
    for name, points in parts:
        found.setdefault(name, []).append(points)
    return {name: np.concatenate(points) for name, points in found.items()}


def _segments_of_frame(
    dataset: Dataset, index: int, pixels: NDArray[Any]
) -> Iterator[tuple[str, tuple[NDArray[np.intp], ...]]]:
    """Name and (rows, columns) of each segment in a frame: the one it is of, or those whose numbers its pixels are."""
    names = _segment_names(dataset)
    groups = dataset.PerFrameFunctionalGroupsSequence[index]
    if "SegmentIdentificationSequence" in groups:
        pixels = pixels * groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    for number in np.unique(pixels[pixels > 0]):
        yield names[int(number)], np.nonzero(pixels == number)


def seg_by_pydicom(path: Path) -> Voxels:
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    steps = _steps(shared.PlaneOrientationSequence[0].ImageOrientationPatient, spacing)
    groups = dataset.PerFrameFunctionalGroupsSequence
    origins = [np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float) for group in groups]
    return _joined(
        (name, _centres(origins[index], steps, pixels.shape)[where])
        for index, pixels in enumerate(dataset.pixel_array)
        for name, where in _segments_of_frame(dataset, index, pixels)
    )


def seg_by_highdicom_frames(path: Path) -> Voxels:
    """Pixels, and where they are, frame by frame, which needs no grid and so knows no shear."""
    seg = hd.seg.segread(path)
    places = [PixelToReferenceTransformer.for_image(seg, index + 1) for index in range(seg.NumberOfFrames)]
    return _joined(
        (name, place(np.stack(where[::-1], axis=1)))
        for index, place in enumerate(places)
        for name, where in _segments_of_frame(seg, index, seg.get_stored_frame(index + 1))
    )


def seg_by_highdicom_volume(path: Path) -> Voxels:
    seg = hd.seg.segread(path)
    volume = seg.get_volume(combine_segments=True)
    names = _segment_names(seg)
    return {names[int(number)]: points for number, points in _marked(volume.array, volume.affine).items()}


def seg_by_dcmqi(path: Path) -> Voxels:
    command = tool("segimage2itkimage")
    folder = path.with_suffix(".dcmqi")
    folder.mkdir()
    _run(command, "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd")
    found: Voxels = {}
    segments = json.loads((folder / "meta.json").read_text())["segmentAttributes"]
    for number, members in enumerate(segments, start=1):
        voxels = image_by_simpleitk(folder / f"{number}.nrrd")
        found |= {member["SegmentLabel"]: voxels[member["labelID"]] for member in members}
    return found


# RT Structure Sets


def _contours(path: Path) -> Iterator[tuple[str, Dataset, Points]]:
    dataset = pydicom.dcmread(path)
    names = {item.ROINumber: str(item.ROIName) for item in dataset.StructureSetROISequence}
    for item in dataset.ROIContourSequence:
        for contour in item.ContourSequence:
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            yield names[item.ReferencedROINumber], contour, np.reshape(contour.ContourData, (-1, 3)).astype(float)


@dataclass(frozen=True, eq=False)
class Area:
    """What an ROI covers of one image: `shape` in mm along rows and columns from the centre of the first pixel."""

    image: Image
    shape: shapely.Geometry

    @property
    def _axes(self) -> Points:
        return self.image.steps / np.linalg.norm(self.image.steps, axis=1, keepdims=True)

    @property
    def centroid(self) -> Points:
        return self.image.origin + np.array(self.shape.centroid.coords[0]) @ self._axes

    @property
    def centres_inside(self) -> Points:
        """(N, 3) the centres of pixels in it."""
        centres = self.image.centres
        x, y = np.moveaxis((centres - self.image.origin) @ self._axes.T, -1, 0)
        shapely.prepare(self.shape)
        return centres[shapely.contains_xy(self.shape, x, y)]


def rtstruct_by_shapely(path: Path, images: Sequence[Image]) -> dict[str, list[Area]]:
    """The area on each image: the points inside an odd number of the contours that refer to it (even-odd rule)."""
    by_uid = {image.uid: image for image in images}
    shapes: dict[tuple[str, str], shapely.Geometry] = {}
    for name, contour, points in _contours(path):
        (reference,) = contour.ContourImageSequence
        key = name, str(reference.ReferencedSOPInstanceUID)
        polygon = _polygon(points, by_uid[key[1]])
        shapes[key] = shapely.symmetric_difference(shapes[key], polygon) if key in shapes else polygon
    areas: dict[str, list[Area]] = {}
    for (name, uid), shape in shapes.items():
        areas.setdefault(name, []).append(Area(by_uid[uid], shape))
    return areas


def _polygon(points: Points, image: Image) -> shapely.Geometry:
    """A contour in the plane of the image that it names, in which it must lie."""
    axes = image.steps / np.linalg.norm(image.steps, axis=1, keepdims=True)
    relative = points - image.origin
    assert np.abs(relative @ np.cross(*axes)).max() < 1e-3
    # A keyhole becomes a hole and a line; lines have no area.
    parts = shapely.get_parts(shapely.make_valid(shapely.Polygon(relative @ axes.T)))
    return shapely.union_all([part for part in parts if part.area > 0])


def solid_of_areas(areas: Sequence[Area], images: Sequence[Image]) -> Solid:
    sizes = np.array([area.shape.area for area in areas])
    pixel_mm2 = float(np.linalg.norm(np.cross(*images[0].steps)))
    centroid = np.average([area.centroid for area in areas], axis=0, weights=sizes)
    return Solid(float(sizes.sum()) / pixel_mm2 * voxel_volume_mm3(images), centroid)


def rtstruct_by_plastimatch_contours(path: Path) -> dict[str, Points]:
    """The centroids of the contours as plastimatch understands them, in space and without any image."""
    cxt = path.with_suffix(".cxt")
    _run(tool("plastimatch"), "convert", "--input", path, "--output-cxt", cxt)
    head, _, body = cxt.read_text().partition("END_OF_ROI_NAMES\n")
    rows = head.partition("ROI_NAMES\n")[2].splitlines()
    names = {number: name for number, _, name in (row.split("|", 2) for row in rows)}
    found: dict[str, list[tuple[float, Points]]] = {}
    for line in body.splitlines():
        number, *_, text = line.split("|")
        points = np.array(text.split("\\"), dtype=float).reshape(-1, 3)
        found.setdefault(names[number], []).append(_flat_moments(points))
    return {
        name: np.average([centroid for _, centroid in parts], axis=0, weights=[size for size, _ in parts])
        for name, parts in found.items()
    }


def _flat_moments(points: Points) -> tuple[float, Points]:
    """Area and centroid of a plane polygon in space: signed triangles about its first corner."""
    pairs = np.array(list(pairwise(points[1:])))
    vectors = np.cross(pairs[:, 0] - points[0], pairs[:, 1] - points[0]) / 2
    normal = vectors.sum(axis=0)
    area = float(np.linalg.norm(normal))
    centroid = (vectors @ normal / area) @ (pairs.sum(axis=1) + points[0]) / 3 / area
    return area, centroid


def rtstruct_by_plastimatch_voxels(path: Path, folder: Path) -> Voxels:
    """The voxels that plastimatch fills on the grid of the images in `folder`."""
    out = path.with_suffix(".plastimatch")
    options = ["--input", path, "--referenced-ct", folder, "--prefix-format", "nrrd", "--output-prefix", out]
    _run(tool("plastimatch"), "convert", *options)
    return {file.stem: image_by_simpleitk(file)[1] for file in out.iterdir()}


# Structured reports: name -> mm3


def volumes_by_pydicom(path: Path) -> dict[str, float]:
    found: dict[str, float] = {}
    for group in _items(pydicom.dcmread(path), "125007"):  # Measurement Group
        (name,) = _items(group, "112039")  # Tracking Identifier
        (volume,) = _items(group, "118565006")
        (value,) = volume.MeasuredValueSequence
        assert value.MeasurementUnitsCodeSequence[0].CodeValue == "mL"
        found[str(name.TextValue)] = 1000 * float(value.NumericValue)
    return found


def _items(item: Dataset, code: str) -> Iterator[Dataset]:
    """The items of a content tree whose concept has this code."""
    for child in item.get("ContentSequence", []):
        if "ConceptNameCodeSequence" in child and child.ConceptNameCodeSequence[0].CodeValue == code:
            yield child
        yield from _items(child, code)


def volumes_by_dcmqi(path: Path) -> dict[str, float]:
    file = path.with_suffix(".json")
    _run(tool("tid1500reader"), "--inputDICOM", path, "--outputMetadata", file)
    found = {}
    for group in json.loads(file.read_text())["Measurements"]:
        (item,) = [each for each in group["measurementItems"] if each["quantity"]["CodeMeaning"] == "Volume"]
        assert item["units"]["CodeValue"] == "mL"
        found[group["TrackingIdentifier"]] = 1000 * float(item["value"])
    return found


# Surfaces


def _enclosed(triangles: Points) -> Solid:
    """By the divergence theorem, of (F, 3, 3) corners; negative when triangles face inwards."""
    origin = triangles.mean(axis=(0, 1))
    volumes = np.linalg.det(triangles - origin) / 6
    total = float(volumes.sum())
    return Solid(total, origin + volumes @ (triangles - origin).sum(axis=1) / (4 * total))


def _stl(path: Path) -> Points:
    row = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("unused", "<u2")])
    return np.frombuffer(path.read_bytes(), row, offset=84)["corners"].astype(float)


def _ply(path: Path) -> Points:
    head, _, body = path.read_bytes().partition(b"end_header\n")
    counts = [int(line.split()[2]) for line in head.decode().splitlines() if line.startswith("element")]
    vertex = np.dtype([("place", "<f4", 3), ("colour", "u1", 4)])
    face = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
    places = np.frombuffer(body, vertex, counts[0])["place"].astype(float)
    return places[np.frombuffer(body, face, counts[1], counts[0] * vertex.itemsize)["corners"]]


def meshes_by_hand(folder: Path, form: str) -> dict[str, Solid]:
    read = {"stl": _stl, "ply": _ply}[form]
    return {path.stem: _enclosed(read(path)) for path in folder.glob(f"*.{form}")}


def meshes_by_trimesh(folder: Path, form: str) -> dict[str, Solid]:
    meshes = {path.stem: trimesh.load_mesh(path) for path in folder.glob(f"*.{form}")}
    return {name: Solid(mesh.volume, mesh.center_mass) for name, mesh in meshes.items()}


def glb_by_hand(path: Path) -> dict[str, Solid]:
    """By glTF 2.0 section 4.4: a chunk of JSON, a chunk of numbers. Positions are in metres."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    tree, numbers = json.loads(data[20 : 20 + length]), data[28 + length :]

    def accessed(accessor: int, dtype: str) -> NDArray[Any]:
        entry = tree["accessors"][accessor]
        start = tree["bufferViews"][entry["bufferView"]]["byteOffset"] + entry.get("byteOffset", 0)
        return np.frombuffer(numbers, dtype, 3 * entry["count"] if dtype == "<f4" else entry["count"], start)

    found = {}
    for node in tree["nodes"]:
        assert not {"matrix", "rotation", "scale", "translation"} & set(node)
        if "mesh" in node:
            (primitive,) = tree["meshes"][node["mesh"]]["primitives"]
            places = accessed(primitive["attributes"]["POSITION"], "<f4").reshape(-1, 3).astype(float) * 1000
            found[node["name"]] = _enclosed(places[accessed(primitive["indices"], "<u4").reshape(-1, 3)])
    return found


def glb_by_trimesh(path: Path) -> dict[str, Solid]:
    scene = trimesh.load_scene(path)
    found = {}
    for node in scene.graph.nodes_geometry:
        transform, geometry = scene.graph[node]
        mesh = scene.geometry[geometry].copy().apply_transform(transform).apply_scale(1000)
        found[node] = Solid(mesh.volume, mesh.center_mass)
    return found
