"""Surface meshes of labels, for 3D printing, planning and web viewers: STL, PLY and glTF in patient coordinates."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cc3d
import fastremap
import numpy as np
import trimesh
import zmesh
from numpy.typing import NDArray
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.ply import export_ply
from trimesh.exchange.stl import export_stl
from trimesh.util import append_faces
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from volseg.cases.case_ids import case_id_of
from volseg.errors import OutputExistsError
from volseg.image.volume import Label, Mask
from volseg.io.files import atomic_path
from volseg.io.written import NO_INPUTS, Inputs, claim, is_result

Form = Literal["stl", "ply"]
#: (V, 3) vertices and (F, 3) indices of vertices.
_Part = tuple[NDArray[np.float64], NDArray[np.int64]]

#: 3D Slicer looks for this in the header of an STL file and in the comments of a PLY file (vtkMRMLModelStorageNode).
_SPACE = b"SPACE=LPS"
_STL_HEADER_BYTES = 80
#: Longest file name, with room for a suffix, a number and the mark of an unfinished file, in any encoding.
_LONGEST_FILE_NAME = 50
#: Name of the root node of the glTF scene, which has no transformation.
_ROOT = "patient (LPS, metres)"
#: The volume of a mesh is a cubic polynomial of the displacement of its vertices: four points determine it.
_PUSHES = np.linspace(0.0, 1.0, 4)
#: Enough to smooth the steps between slices, few enough to tell a thin part from the organ it is attached to.
_SMOOTHINGS = 4


@dataclass(frozen=True, eq=False)
class LabelSurface:
    """The closed surface of one label.

    Attributes:
        label: The label it encloses.
        vertices: (V, 3) float64.
        faces: (F, 3) int64 rows of `vertices`, counter-clockwise seen from outside.
    """

    label: Label
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def write_meshes(mask: Mask, folder: Path, form: Form) -> list[Path]:
    """Write the surface of each label as a separate file, `<label name>.<form>`.

    Coordinates are LPS millimetres, as in 3D Slicer and DICOM, which both formats state in their header. STL is binary;
    PLY is binary with the label's colour at its vertices. Neither format can be empty: a label without voxels has no
    file. Characters that file systems refuse are replaced in names; if two labels then have the same name, the value of
    the later one is appended.

    Args:
        mask: The mask to write. Values without a label are left out.
        folder: Folder for the files, created if missing.
        form: "stl" or "ply".

    Returns:
        The files written, in the order of the mask's labels.

    Raises:
        OutputError: If one cannot be written.
    """
    encode: Callable[[LabelSurface], bytes] = _stl if form == "stl" else _ply
    files = _mesh_files(mask.labels, folder, form)
    paths = []
    for surface in _surfaces(mask):
        path = files[surface.label]
        with atomic_path(path) as temporary:
            temporary.write_bytes(encode(surface))
        paths.append(path)
    return paths


def claim_meshes(
    labels: Sequence[Label], folder: Path, form: Form, inputs: Inputs = NO_INPUTS, *, overwrite: bool = False
) -> None:
    """Check that the meshes of a mask can be written, with no other meshes among them.

    Raises:
        OutputExistsError: If the folder is a file, or holds meshes that volseg did not write or were changed since.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise OutputExistsError(
            f"{folder} must be a folder for the meshes, but is not one", hint="choose another --output"
        )
    claim(_mesh_files(labels, folder, form).values(), inputs, overwrite=overwrite)
    strange = [path for path in sorted(folder.glob(f"*.{form}")) if not is_result(path)]
    if strange and not overwrite:
        raise OutputExistsError(
            f"{folder} already holds meshes that volseg did not write, such as {strange[0].name}",
            hint="choose another --output, or add to them with --overwrite",
        )


def _mesh_files(labels: Sequence[Label], folder: Path, form: Form) -> dict[Label, Path]:
    """Return label -> the file of its surface."""
    names = _distinct([_file_name(label) for label in labels], labels)
    return {label: folder / f"{name}.{form}" for label, name in zip(labels, names, strict=True)}


def write_glb(mask: Mask, path: Path) -> None:
    """Write the surfaces of all labels as one binary glTF 2.0 file, each as a node with a coloured material.

    The unit of glTF is the metre and its axes are right-handed, like LPS. Coordinates are therefore simply LPS / 1000:
    no node turns the patient upright (glTF viewers show +y, here posterior, as up), so that every coordinate in the
    file is a patient coordinate. The scene's `extras` state space and unit. A mask without voxels is a valid scene
    without meshes.

    Args:
        mask: The mask to write. Values without a label, and labels without voxels, are left out.
        path: The .glb file.

    Raises:
        OutputError: If it cannot be written.
    """
    scene = trimesh.Scene(base_frame=_ROOT, metadata={"space": "LPS", "unit": "m"})
    names = dict(zip(mask.labels, _distinct([label.name for label in mask.labels], mask.labels), strict=True))
    for surface in _surfaces(mask):
        name = names[surface.label]
        look = TextureVisuals(material=_material(surface.label))
        mesh = trimesh.Trimesh(surface.vertices / 1000.0, surface.faces, process=False, visual=look)
        scene.add_geometry(mesh, node_name=name, geom_name=name)
    with atomic_path(path) as temporary:
        temporary.write_bytes(export_glb(scene))


def _stl(surface: LabelSurface) -> bytes:
    header = b"volseg, coordinates in mm, " + _SPACE  # must not begin with "solid", which marks a text file
    body = export_stl(trimesh.Trimesh(surface.vertices, surface.faces, process=False))[_STL_HEADER_BYTES:]
    return header.ljust(_STL_HEADER_BYTES) + body


def _ply(surface: LabelSurface) -> bytes:
    look = ColorVisuals(vertex_colors=np.tile([*surface.label.display_color, 255], (len(surface.vertices), 1)))
    mesh = trimesh.Trimesh(surface.vertices, surface.faces, process=False, visual=look)
    magic, encoding, rest = export_ply(mesh, vertex_normal=False).split(b"\n", 2)
    return b"\n".join([magic, encoding, b"comment coordinates in mm", b"comment " + _SPACE, rest])


def _material(label: Label) -> PBRMaterial:
    """Return a matt material in the label's colour."""
    coded = np.array(label.display_color) / 255.0
    # glTF expects linear intensities, not sRGB (glTF 2.0 section 3.9.2; the curve is that of IEC 61966-2-1).
    light = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    return PBRMaterial(name=label.name, baseColorFactor=[*light, 1.0], metallicFactor=0.0, roughnessFactor=0.8)


def _surfaces(mask: Mask) -> Iterator[LabelSurface]:
    """Yield the surfaces of the labels that have voxels, in LPS mm, in the order of the labels."""
    affine = mask.geometry.lps_affine
    parts = _parts(mask)
    for label in mask.labels:
        if label.value not in parts:
            continue
        vertices, faces = append_faces(*zip(*parts[label.value], strict=True))
        if np.linalg.det(affine[:3, :3]) < 0:
            faces = faces[:, ::-1]
        yield LabelSurface(label, vertices @ affine[:3, :3].T + affine[:3, 3], faces)


def _parts(mask: Mask) -> dict[int, list[_Part]]:
    """Return for each value the closed surfaces of its connected components: vertices in voxel indices, and faces.

    Components are meshed and corrected one by one. The volume of a speck is thus corrected at the speck itself, and an
    organ with the same label stays in place.
    """
    padded = np.pad(mask.array, 1)  # so that a label at the border of the volume is closed there
    components = cc3d.connected_components(padded, connectivity=6)
    voxels = cc3d.statistics(components)
    mesher = zmesh.Mesher((1.0, 1.0, 1.0))
    mesher.mesh(components)
    parts: dict[int, list[_Part]] = {}
    owners = fastremap.component_map(components, padded)
    for component in sorted(owners.keys() - {0}):
        found = mesher.get(component)
        faces = found.faces.astype(np.int64)
        volume, centroid = int(voxels["voxel_counts"][component]), voxels["centroids"][component]
        vertices = _filled_out(found.vertices.astype(np.float64), faces, volume, centroid) - 1.0
        parts.setdefault(owners[component], []).append((vertices, faces))
    return parts


def _filled_out(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], volume: int, centroid: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Correct a closed surface from marching cubes to the volume and centroid of the connected voxels it encloses.

    Marching cubes puts the surface half-way between voxel centres. This is right on a plane, but cuts off edges and
    corners: a single voxel keeps a sixth of its volume, a vessel one voxel wide half of it, and the centroid moves away
    from the thinner side of a shape. Each vertex is therefore moved outwards where the surface is convex and inwards
    where it is concave, by a common factor that corrects the volume: a tenth of a voxel on organs, 0.4 voxels for a
    single voxel. The remaining difference in centroids, hundredths of a voxel, is removed by a translation. The
    topology does not change: the surface stays closed, and no thin part is lost.

    Args:
        vertices: (V, 3) voxel indices. Volumes and centroids follow any affine map, so voxels may have any shape.
        faces: (F, 3), counter-clockwise from outside.
        volume: Number of voxels.
        centroid: (3,) mean index of the voxels.

    Returns:
        (V, 3) the corrected vertices.
    """
    bulges = _bulges(vertices, faces)
    excess = [_moments(vertices + push * bulges, faces)[0] - volume for push in _PUSHES]
    roots = np.polynomial.Polynomial.fit(_PUSHES, excess, 3).roots()
    push = np.clip(min(roots[np.abs(roots.imag) < 1e-9].real, key=abs), 0.0, 1.0)
    pushed = vertices + push * bulges
    return pushed + centroid - _moments(pushed, faces)[1]


def _bulges(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (V, 3) displacement of each vertex from its neighbours along the outward normal."""
    one, two, three = (vertices[faces[:, corner]] for corner in range(3))
    normals = _sums(np.tile(np.cross(two - one, three - one), (3, 1)), faces.T.ravel(), len(vertices))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    heights = np.einsum("ij,ij->i", vertices - _ring_means(vertices, faces), normals)[:, np.newaxis]
    # Steps between slices are alternately convex and concave; their mean is the curvature of the shape itself.
    for _ in range(_SMOOTHINGS):
        heights = (heights + _ring_means(heights, faces)) / 2
    return heights * normals


def _ring_means(values: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (V, D) means over the neighbours of each vertex; an edge occurs once in each direction."""
    starts, ends = faces.ravel(), faces[:, [1, 2, 0]].ravel()
    counts = np.bincount(starts, minlength=len(values))
    return _sums(values[ends], starts, len(values)) / counts[:, np.newaxis]


def _sums(rows: NDArray[np.float64], places: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """Return (count, D) sums of the rows with the same index."""
    return np.stack([np.bincount(places, column, count) for column in rows.T], axis=1)


def _moments(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    """Return volume and centroid of a closed surface from the tetrahedra over its triangles (divergence theorem)."""
    middle = vertices.mean(axis=0)  # an apex near the surface keeps the tetrahedra small and the sum precise
    one, two, three = (vertices[faces[:, corner]] - middle for corner in range(3))
    volumes = np.einsum("ij,ij->i", one, np.cross(two, three)) / 6.0
    total = float(volumes.sum())
    return total, middle + volumes @ (one + two + three) / (4.0 * total)


def _file_name(label: Label) -> str:
    """Turn the name of a label into a file name that every system accepts, as for cases."""
    name = re.sub(r"[^\w.-]+", "_", label.name).strip("._")[:_LONGEST_FILE_NAME]
    return case_id_of(name) if name else f"label_{label.value}"


def _distinct(names: Sequence[str], labels: Sequence[Label]) -> Iterator[str]:
    """Make names unique by appending values, ignoring letter case, as many file systems do."""
    taken: set[str] = set()
    for name, label in zip(names, labels, strict=True):
        free = name
        while free.casefold() in taken:
            free = f"{free}_{label.value}"
        taken.add(free.casefold())
        yield free
