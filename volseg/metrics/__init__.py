"""Agreement of a prediction with a reference, label by label.

`crops` cuts each label out of two masks; `overlap` counts voxels, `surface` measures millimetres between surface voxels
and `surfels` between surface elements, `lesions` matches separate components, `centerline` follows tubes, `probability`
scores probabilities; `score` combines all of them into one row per label and decides the value of a structure that is
missing on one side. `conventions` holds the choices that have to be made.

Formulas and names follow Maier-Hein, Reinke et al., "Metrics reloaded: recommendations for image analysis validation",
Nature Methods 21 (2024), unless another source is named.
"""

from __future__ import annotations

from volseg.metrics.centerline import centerline_dice
from volseg.metrics.conventions import Conventions, Family, Hd95, Nsd, parse_conventions
from volseg.metrics.lesions import Lesions, match_lesions
from volseg.metrics.overlap import Overlap, count_overlap
from volseg.metrics.probability import ProbabilityScore, score_probability
from volseg.metrics.score import LabelScore, LabelStatus, SurfaceScore, score_label, score_masks, worst_distance_mm
from volseg.metrics.surface import SurfaceDistances, SurfacePair, measure_surfaces, surface_of
from volseg.metrics.surfels import AreaDistances, measure_areas, pattern_areas_mm2

__all__ = [
    "AreaDistances",
    "Conventions",
    "Family",
    "Hd95",
    "LabelScore",
    "LabelStatus",
    "Lesions",
    "Nsd",
    "Overlap",
    "ProbabilityScore",
    "SurfaceDistances",
    "SurfacePair",
    "SurfaceScore",
    "centerline_dice",
    "count_overlap",
    "match_lesions",
    "measure_areas",
    "measure_surfaces",
    "parse_conventions",
    "pattern_areas_mm2",
    "score_label",
    "score_masks",
    "score_probability",
    "surface_of",
    "worst_distance_mm",
]
