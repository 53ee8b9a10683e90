"""Surfaces of labels as small triangle meshes for a page."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from volseg.image.box import Box

#: Of so many triangles, thinning out takes too long.
_TOO_MANY_FACES = 300_000
#: Corners of a surface are counted in 16 bits.
_MOST_CORNERS = 2**16
#: fast_simplification 0.2 keeps the mesh it works on in one place for all threads.
_SIMPLIFYING = Lock()

Triangles = tuple[NDArray[np.float32], NDArray[np.integer]]


def surface_of(marked: NDArray[np.bool_], spacing_mm: tuple[float, float, float], most_faces: int) -> Triangles | None:
    """Compute the surface of a mask by marching cubes, simplified to few triangles.

    What has too many all the same, because it is ragged, is looked at from further away.

    Args:
        marked: (I, J, K).
        spacing_mm: Of its voxels.
        most_faces: Triangles that are wanted; twice as many are still taken.

    Returns:
        (N, 3) corners in mm from the corner of the first voxel, and (M, 3) triangles; None where nothing is marked.
    """
    box = Box.around(marked)
    if box is None:
        return None
    step = 1
    corners_mm, faces = _mesh(marked[box], spacing_mm, step, most_faces)
    while len(faces) > 2 * most_faces or len(corners_mm) > _MOST_CORNERS:
        step *= 2
        corners_mm, faces = _mesh(marked[box], spacing_mm, step, most_faces)
    return corners_mm + np.array(box.origin, np.float32) * np.array(spacing_mm, np.float32), faces


def _mesh(marked: NDArray[np.bool_], spacing_mm: tuple[float, float, float], step: int, most_faces: int) -> Triangles:
    """Compute the mesh of a mask in blocks of `step` voxels."""
    import fast_simplification
    import zmesh
    from skimage.measure import block_reduce

    blocks = np.pad(block_reduce(marked, step, np.max), 1).astype(np.uint8)
    size_mm = np.array(spacing_mm, np.float32) * step
    mesher = zmesh.Mesher(size_mm.tolist())
    mesher.mesh(blocks)
    mesh = mesher.get(1, normals=False, reduction_factor=0, voxel_centered=True)
    corners_mm, faces = mesh.vertices.astype(np.float32) - size_mm, mesh.faces.astype(np.int32)
    if not most_faces < len(faces) <= _TOO_MANY_FACES:
        return corners_mm, faces
    with _SIMPLIFYING:
        return fast_simplification.simplify(corners_mm, faces, target_count=most_faces)
