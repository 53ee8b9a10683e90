"""How well a prediction agrees with a reference, label by label.

`overlap` counts voxels, `surface` measures millimetres between borders, `score` puts both into one row per label and
decides what a structure that is missing on one side is worth.

Formulas and names follow Maier-Hein, Reinke et al., "Metrics reloaded: recommendations for image analysis validation",
Nature Methods 21 (2024).
"""

from __future__ import annotations

from volseg.metrics.overlap import Overlap, count_overlap
from volseg.metrics.score import LabelScore, Status, score_label, score_masks, worst_distance_mm
from volseg.metrics.surface import SurfaceDistances, measure_surfaces, surface_of

__all__ = [
    "LabelScore",
    "Overlap",
    "Status",
    "SurfaceDistances",
    "count_overlap",
    "measure_surfaces",
    "score_label",
    "score_masks",
    "surface_of",
    "worst_distance_mm",
]
