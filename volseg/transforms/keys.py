"""Keys of a sample, the dictionary that MONAI's transforms pass on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

#: "case" is a `Case`, "geometry" the grid of the source; "image" (C, R, A, S) and "reference" (1, R, A, S) are MONAI
#: `MetaTensor` whose affine is the exact voxel -> RAS+ mm matrix.
IMAGE, REFERENCE, CASE, GEOMETRY = "image", "reference", "case", "geometry"

Sample = Mapping[Hashable, Any]
