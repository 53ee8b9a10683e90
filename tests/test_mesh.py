from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh
from conftest import rotation
from numpy.typing import NDArray

from volseg.cases.case_ids import is_case_id
from volseg.exporting.mesh import write_glb, write_meshes
from volseg.image.geometry import Geometry
from volseg.image.volume import Label, Mask

Triangles = NDArray[np.float64]

STRAIGHT = np.eye(3)
OBLIQUE = rotation(2, 25) @ rotation(0, -35) @ rotation(1, 10)
SHEARED = np.array([[1, 0, 0], [0, 1, 0.35], [0, 0, 1]])  # a gantry tilted by 19 degrees
DIRECTIONS = {
    "straight": STRAIGHT,
    "left-handed": np.diag([-1.0, 1.0, 1.0]),
    "oblique": OBLIQUE,
    "oblique left-handed": OBLIQUE[:, [1, 0, 2]],
    "sheared": OBLIQUE @ SHEARED,
}
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.9, 2.5), (0.8, 0.8, 3.0)]
LABELS = (
    Label(1, "hook", (200, 30, 90)),
    Label(2, "ball on a wire", (10, 120, 250)),
    Label(5, "corner", (0, 255, 128)),
    Label(9, "dot", (255, 255, 255)),
    Label(40, "specks"),
    Label(41, "nothing"),
)


def make_geometry(
    direction: np.ndarray = STRAIGHT,
    spacing_mm: tuple[float, float, float] = (0.7, 0.9, 2.5),
    shape: tuple[int, int, int] = (24, 22, 20),
    origin_mm: tuple[float, float, float] = (-130.5, 82.25, -412.0),
) -> Geometry:
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(spacing_mm)
    affine[:3, 3] = origin_mm
    return Geometry(shape, affine)


def make_mask(geometry: Geometry) -> Mask:
    """Shapes that marching cubes is bad at: thin, lopsided, tiny, scattered, cut off by the border."""
    i, j, k = np.indices(geometry.shape)
    array = np.zeros(geometry.shape, np.uint16)
    array[np.random.default_rng(4).random(geometry.shape) < 0.004] = 40
    array[(i - 14) ** 2 + (j - 13) ** 2 + (k - 6) ** 2 < 20] = 2
    array[14, 13, 6:19] = 2
    array[2:8, 3, 4] = 1
    array[2, 3:7, 4] = 1
    array[2:4, 3:5, 4:9] = 1
    array[19:, 17:, 15:] = 5
    array[5, 15, 12] = 9
    return Mask(array, geometry, LABELS)


def centroid_lps(mask: Mask, value: int) -> NDArray[np.float64]:
    index = np.append(np.argwhere(mask.array == value).mean(axis=0), 1.0)
    return (mask.geometry.affine @ index)[:3] * [-1, -1, 1]


def read_stl(path: Path) -> Triangles:
    """(F, 3, 3) corners of a binary STL file, by its published layout."""
    data = path.read_bytes()
    (count,) = struct.unpack_from("<I", data, 80)
    assert len(data) == 84 + 50 * count
    rows = [struct.unpack_from("<12fH", data, 84 + 50 * row) for row in range(count)]
    numbers = np.array(rows, dtype=np.float64)[:, :12].reshape(-1, 4, 3)
    normals = np.cross(numbers[:, 2] - numbers[:, 1], numbers[:, 3] - numbers[:, 1])
    assert np.all(np.einsum("ij,ij->i", normals, numbers[:, 0]) > 0)  # the stated normals are those of the winding
    return numbers[:, 1:]


def read_ply(path: Path) -> Triangles:
    """(F, 3, 3) corners of a binary PLY file, by its header."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    vertices, faces = (int(line.split()[2]) for line in lines if line.startswith("element"))
    places = [struct.unpack_from("<3f4B", body, 16 * row)[:3] for row in range(vertices)]
    corners = [struct.unpack_from("<B3i", body, 16 * vertices + 13 * row) for row in range(faces)]
    assert {corner[0] for corner in corners} == {3}
    assert len(body) == 16 * vertices + 13 * faces
    return np.array(places, dtype=np.float64)[np.array(corners)[:, 1:]]


def glb_parts(path: Path) -> tuple[dict, bytes]:
    """The JSON and the binary chunk of a GLB file (glTF 2.0 section 4.4)."""
    data = path.read_bytes()
    magic, version, length, json_length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    binary_length, kind = struct.unpack_from("<I4s", data, 20 + json_length)
    assert kind == b"BIN\0"
    binary = data[28 + json_length :]
    assert len(binary) == binary_length
    return json.loads(data[20 : 20 + json_length]), binary


def read_glb(path: Path) -> dict[str, Triangles]:
    """Per node, (F, 3, 3) corners in LPS mm."""
    tree, binary = glb_parts(path)

    def numbers(accessor: int, dtype: str, per_row: int) -> NDArray[np.generic]:
        entry = tree["accessors"][accessor]
        start = tree["bufferViews"][entry["bufferView"]]["byteOffset"] + entry.get("byteOffset", 0)
        return np.frombuffer(binary, dtype, entry["count"] * per_row, start).reshape(-1, per_row)

    found = {}
    for node in (node for node in tree["nodes"] if "mesh" in node):
        (primitive,) = tree["meshes"][node["mesh"]]["primitives"]
        places = numbers(primitive["attributes"]["POSITION"], "<f4", 3).astype(np.float64) * 1000
        found[node["name"]] = places[numbers(primitive["indices"], "<u4", 1).reshape(-1, 3)]
    return found


def moments(triangles: Triangles) -> tuple[float, NDArray[np.float64]]:
    """Volume and centroid by the divergence theorem."""
    origin = triangles.mean(axis=(0, 1))
    moved = triangles - origin
    volumes = np.linalg.det(moved) / 6
    return volumes.sum(), origin + (volumes[:, np.newaxis] * moved.sum(axis=1)).sum(axis=0) / (4 * volumes.sum())


def is_closed(triangles: Triangles) -> bool:
    """Whether each directed edge has exactly one partner that runs the other way."""
    _, corners = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    edges = corners.reshape(-1, 3)[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    forward = {tuple(edge) for edge in edges.tolist()}
    return len(forward) == len(edges) and all((end, start) in forward for start, end in forward)


def winding_numbers(triangles: Triangles, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """How often the surface goes around each point, by solid angles (Van Oosterom and Strackee 1983)."""
    one, two, three = (triangles[:, n] - points[:, np.newaxis] for n in range(3))
    lengths = [np.linalg.norm(corner, axis=-1) for corner in (one, two, three)]
    dot = [np.einsum("pfi,pfi->pf", *pair) for pair in ((one, two), (two, three), (three, one))]
    height = np.einsum("pfi,pfi->pf", one, np.cross(two, three))
    base = lengths[0] * lengths[1] * lengths[2] + dot[0] * lengths[2] + dot[1] * lengths[0] + dot[2] * lengths[1]
    return np.arctan2(height, base).sum(axis=1) / (2 * np.pi)


def check(triangles: Triangles, mask: Mask, value: int) -> None:
    volume, centroid = moments(triangles)
    voxels = np.count_nonzero(mask.array == value) * mask.geometry.voxel_volume_ml * 1000
    assert is_closed(triangles)
    assert volume == pytest.approx(voxels, rel=1e-3)  # positive: triangles face outwards
    assert np.abs(centroid - centroid_lps(mask, value)).max() < 1e-3


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize(("form", "read"), [("stl", read_stl), ("ply", read_ply)])
def test_meshes_enclose_the_voxels_of_their_label(
    form: str, read: Callable, direction: np.ndarray, spacing_mm: tuple, tmp_path: Path
) -> None:
    mask = make_mask(make_geometry(direction, spacing_mm))
    paths = write_meshes(mask, tmp_path, form)
    assert [path.stem for path in paths] == ["hook", "ball_on_a_wire", "corner", "dot", "specks"]
    assert sorted(tmp_path.glob("[!.]*")) == sorted(paths)  # no file for the label without voxels
    for path, label in zip(paths, LABELS, strict=False):
        check(read(path), mask, label.value)
        other = trimesh.load_mesh(path)
        assert other.is_watertight
        assert other.is_winding_consistent
        assert other.volume == pytest.approx(moments(read(path))[0], rel=1e-5)
        assert np.abs(other.center_mass - centroid_lps(mask, label.value)).max() < 0.01


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
def test_glb_encloses_the_voxels_of_every_label(direction: np.ndarray, spacing_mm: tuple, tmp_path: Path) -> None:
    mask = make_mask(make_geometry(direction, spacing_mm))
    write_glb(mask, tmp_path / "all.glb")
    found = read_glb(tmp_path / "all.glb")
    assert list(found) == [label.name for label in LABELS[:-1]]
    scene = trimesh.load_scene(tmp_path / "all.glb")
    for label in LABELS[:-1]:
        check(found[label.name], mask, label.value)
        transform, name = scene.graph[label.name]
        assert np.array_equal(transform, np.eye(4))
        assert scene.geometry[name].is_watertight
        assert np.abs(scene.geometry[name].center_mass * 1000 - centroid_lps(mask, label.value)).max() < 0.01


def test_glb_states_space_and_unit_and_colours_and_moves_nothing(tmp_path: Path) -> None:
    write_glb(make_mask(make_geometry()), tmp_path / "all.glb")
    tree, _ = glb_parts(tmp_path / "all.glb")
    assert tree["scenes"][tree["scene"]]["extras"] == {"space": "LPS", "unit": "m"}
    assert not any({"matrix", "rotation", "scale", "translation"} & set(node) for node in tree["nodes"])
    for node, label in zip((node for node in tree["nodes"] if "mesh" in node), LABELS[:4], strict=False):
        material = tree["materials"][tree["meshes"][node["mesh"]]["primitives"][0]["material"]]
        *light, alpha = material["pbrMetallicRoughness"]["baseColorFactor"]
        # A linear value of 0.5 is shown as the sRGB code 188, of 0.0 as 0, of 1.0 as 255.
        shown = [255 * (12.92 * x if x <= 0.0031308 else 1.055 * x ** (1 / 2.4) - 0.055) for x in light]
        assert np.abs(np.array(shown) - label.color).max() < 3
        assert alpha == 1


def test_ball_has_the_volume_of_a_ball(tmp_path: Path) -> None:
    geometry = make_geometry(OBLIQUE, (0.7, 0.9, 2.5), (60, 50, 20))
    distance_mm = np.linalg.norm((np.indices((60, 50, 20)).T - [30.2, 24.6, 9.3]) * [0.7, 0.9, 2.5], axis=-1).T
    mask = Mask((distance_mm < 18).astype(np.uint8), geometry, (Label(1, "ball"),))
    (path,) = write_meshes(mask, tmp_path, "stl")
    volume, centroid = moments(read_stl(path))
    assert volume == pytest.approx(4 / 3 * np.pi * 18**3, rel=0.01)
    assert np.abs(centroid * [-1, -1, 1] - geometry.world([30.2, 24.6, 9.3])).max() < 0.1
    # Half-way between a centre inside and one outside is at most half a voxel from the sphere.
    reach = np.linalg.norm(read_stl(path).reshape(-1, 3) - centroid, axis=1)
    assert np.abs(reach - 18).max() < 2.5 / 2


@pytest.mark.parametrize("density", [0.02, 0.2, 0.5, 0.8])
def test_voxel_centres_are_inside_exactly_where_the_label_is(density: float, tmp_path: Path) -> None:
    geometry = make_geometry(DIRECTIONS["sheared"], shape=(9, 8, 7))
    array = np.random.default_rng(11).random(geometry.shape) < density
    (path,) = write_meshes(Mask(array.astype(np.uint8), geometry, (Label(1, "noise"),)), tmp_path, "ply")
    triangles = read_ply(path)
    centres = geometry.world(np.argwhere(np.ones_like(array))) * [-1, -1, 1]
    assert is_closed(triangles)
    assert np.array_equal(np.round(winding_numbers(triangles, centres)), array.ravel())


def test_specks_elsewhere_do_not_move_an_organ(tmp_path: Path) -> None:
    geometry = make_geometry(shape=(60, 24, 20))
    array = np.zeros(geometry.shape, np.uint8)
    array[4:14, 5:17, 6:15] = 1
    (alone,) = write_meshes(Mask(array, geometry, (Label(1, "alone"),)), tmp_path, "stl")
    array[30::4, ::4, ::4] = 1
    (among,) = write_meshes(Mask(array, geometry, (Label(1, "among specks"),)), tmp_path, "stl")
    assert {*map(bytes, read_stl(alone))} < {*map(bytes, read_stl(among))}


def test_a_voxel_alone_is_a_closed_surface_of_its_volume(tmp_path: Path) -> None:
    array = np.zeros((1, 1, 1), np.uint8) + 1
    mask = Mask(array, make_geometry(shape=(1, 1, 1)), (Label(1, "voxel"),))
    (path,) = write_meshes(mask, tmp_path, "stl")
    check(read_stl(path), mask, 1)
    assert len(read_stl(path)) == 8  # an octahedron


@pytest.mark.parametrize("shape", [(1500, 2, 2), (2, 1500, 2), (2, 2, 1500)])
def test_long_volumes_keep_their_far_end(shape: tuple[int, int, int], tmp_path: Path) -> None:
    array = np.zeros(shape, np.uint8)
    array[-1, -1, -1] = 1
    mask = Mask(array, make_geometry(shape=shape, spacing_mm=(1, 1, 1)), (Label(1, "end"),))
    (path,) = write_meshes(mask, tmp_path, "stl")
    check(read_stl(path), mask, 1)


def test_single_precision_keeps_a_micrometre_far_from_the_origin(tmp_path: Path) -> None:
    mask = make_mask(make_geometry(OBLIQUE, origin_mm=(2900.0, -3100.0, 4000.0)))
    write_glb(mask, tmp_path / "all.glb")
    found = read_glb(tmp_path / "all.glb")
    assert LABELS[-1].name == "nothing"
    for path, label in zip(write_meshes(mask, tmp_path, "ply"), LABELS[:-1], strict=True):
        assert np.abs(moments(read_ply(path))[1] - centroid_lps(mask, label.value)).max() < 1e-3
        assert np.abs(moments(found[label.name])[1] - centroid_lps(mask, label.value)).max() < 1e-3


def test_headers_say_the_space_as_slicer_looks_for_it(tmp_path: Path) -> None:
    mask = make_mask(make_geometry())
    stl, ply = write_meshes(mask, tmp_path, "stl")[0], write_meshes(mask, tmp_path, "ply")[0]
    header = stl.read_bytes()[:80]
    assert b"SPACE=LPS" in header
    assert not header.startswith(b"solid")  # readers take such a file for text
    assert b"\ncomment SPACE=LPS\n" in ply.read_bytes().partition(b"end_header")[0]
    assert trimesh.load_mesh(ply).visual.vertex_colors[0].tolist() == [200, 30, 90, 255]


def test_names_that_clash_or_are_not_allowed_get_files_of_their_own(tmp_path: Path) -> None:
    names = ["a/b", "A b", "a_b_2", "..", "Längs: *?", "x" * 300, "../../etc/passwd"]
    array = np.zeros((16, 3, 3), np.uint8)
    array[2 : 2 + len(names), 1, 1] = range(1, len(names) + 1)
    labels = tuple(Label(value, name) for value, name in enumerate(names, 1))
    mask = Mask(array, make_geometry(shape=array.shape), labels)
    paths = write_meshes(mask, tmp_path / "case.1", "stl")
    assert [path.stem for path in paths] == [
        *("a_b", "A_b_2", "a_b_2_3", "label_4", "Längs", "x" * 50, "etc_passwd"),
    ]
    assert sorted((tmp_path / "case.1").glob("[!.]*")) == sorted(paths)
    for path, label in zip(paths, labels, strict=True):
        check(read_stl(path), mask, label.value)


@pytest.mark.parametrize("name", ["CON", "nul", "com1.x", "LPT9", "aux"])
def test_a_mesh_has_a_name_that_every_system_can_have(name: str, tmp_path: Path) -> None:
    array = np.zeros((5, 5, 5), np.uint8)
    array[1:4, 1:4, 1:4] = 1
    (path,) = write_meshes(Mask(array, make_geometry(shape=array.shape), (Label(1, name),)), tmp_path, "stl")
    assert is_case_id(path.stem)
    assert path.stem.startswith(f"_{name}-")  # a hash tells it from a label that is called so


def test_equal_names_are_two_nodes(tmp_path: Path) -> None:
    array = np.array([1, 0, 2], np.uint8).reshape(3, 1, 1)
    mask = Mask(array, make_geometry(shape=(3, 1, 1)), (Label(1, "node"), Label(2, "node")))
    write_glb(mask, tmp_path / "two.glb")
    found = read_glb(tmp_path / "two.glb")
    assert list(found) == ["node", "node_2"]
    check(found["node_2"], mask, 2)


def test_an_empty_mask_is_no_file_or_an_empty_scene(tmp_path: Path) -> None:
    geometry = make_geometry()
    mask = Mask(np.zeros(geometry.shape, np.uint8), geometry, LABELS)
    assert write_meshes(mask, tmp_path, "stl") == []
    write_glb(mask, tmp_path / "none.glb")
    tree, binary = glb_parts(tmp_path / "none.glb")
    assert "meshes" not in tree
    assert not binary


def test_large_values_and_values_without_a_label(tmp_path: Path) -> None:
    geometry = make_geometry(shape=(9, 4, 4))
    array = np.zeros(geometry.shape, np.uint32)
    array[1:3, 1:3, 1:3] = 4_000_000_000
    array[3:6] = 7
    mask = Mask(array, geometry, (Label(4_000_000_000, "large"),))
    (path,) = write_meshes(mask, tmp_path, "ply")
    check(read_ply(path), mask, 4_000_000_000)
