"""Measuring conventions: choices on which tools disagree, so they are stated wherever numbers are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from volseg.config import one_of
from volseg.errors import ConfigError

#: Definitions of the 95th percentile of distances, see `surface` and `surfels`.
Hd95 = Literal["max_of_directed", "pooled", "area_weighted"]
#: Families of metrics that are slow or suit only some structures.
Family = Literal["lesions", "centerline"]
#: Weights of surface parts in the normalised surface Dice.
Nsd = Literal["voxels", "area_weighted"]


@dataclass(frozen=True)
class Conventions:
    """The definitions of metrics that have several; the defaults follow Metrics Reloaded.

    Attributes:
        tolerances_mm: Tolerances of the normalised surface Dice, one number per tolerance; the first is also the width
            of a boundary (`boundary_iou`).
        hd95: `max_of_directed` is the larger of the two directed percentiles (Metrics Reloaded, MONAI), `pooled` one
            percentile of both directions together (MedPy), `area_weighted` the larger of the two directed percentiles
            of the surface's area (DeepMind's surface-distance).
        nsd: `voxels` counts surface voxels (Metrics Reloaded, MONAI), `area_weighted` square millimetres (Nikolov et
            al., arXiv 1809.04430).
        lesion_iou: Two lesions match when their intersection over union exceeds this (0.5: Kirillov et al., "Panoptic
            segmentation", CVPR 2019); at 0 any overlap suffices.
        also: Metrics to compute beyond overlap, volume and surface.
    """

    tolerances_mm: tuple[float, ...] = (2.0,)
    hd95: Hd95 = "max_of_directed"
    nsd: Nsd = "voxels"
    lesion_iou: float = 0.5
    also: frozenset[Family] = frozenset()

    def __post_init__(self) -> None:
        if not self.tolerances_mm:
            raise ConfigError("there is no surface tolerance", hint="give one in mm")
        for tolerance_mm in self.tolerances_mm:
            if not 0 <= tolerance_mm < math.inf:
                raise ConfigError(f"{tolerance_mm} mm is not a valid surface tolerance", hint="give 0 or more")
        if len({f"{tolerance_mm:g}" for tolerance_mm in self.tolerances_mm}) < len(self.tolerances_mm):
            raise ConfigError("a surface tolerance is given twice", hint="give each once, to six digits")
        if not 0 <= self.lesion_iou < 1:
            raise ConfigError(f"lesion_iou cannot be {self.lesion_iou}", hint="give a number from 0 to below 1")

    @property
    def by_area(self) -> bool:
        """True if surfaces are also measured by their area."""
        return "area_weighted" in {self.hd95, self.nsd}


def parse_conventions(
    tolerances_mm: float | Sequence[float],
    hd95: str,
    nsd: str,
    lesion_iou: float,
    *,
    lesions: bool,
    centerline: bool,
) -> Conventions:
    """Parse conventions as a user states them.

    Raises:
        ConfigError: If a word is unknown, or a number is impossible.
    """
    also: dict[Family, bool] = {"lesions": lesions, "centerline": centerline}
    return Conventions(
        (tolerances_mm,) if isinstance(tolerances_mm, int | float) else tuple(tolerances_mm),
        one_of("percentile", hd95, get_args(Hd95)),
        one_of("weight", nsd, get_args(Nsd)),
        lesion_iou,
        frozenset(name for name, wanted in also.items() if wanted),
    )
