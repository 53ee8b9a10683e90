"""Preprocessing: the same form for every volume."""

from __future__ import annotations

from typing import Literal

from volseg.config.normalization import Normalizations
from volseg.config.section import Orientation, Section, SpacingMm

Grid = Literal["spacing", "extent", "corners", "monai"]
Answers = Literal["logits", "probabilities", "labels"]


class PreprocessingRules(Section):
    """Orientation, resampling and cropping, apart from what depends on the data.

    Attributes:
        axes: Direction of each axis as the network sees it, such as RAS (axes are permuted and flipped, not resampled),
            or `stored`, as files have them; every setting that is given per axis is in this order.
        crop: Crop to the bounding box of voxels that are nonzero in any channel (`nonzero`); everything outside is
            background.
        normalize: Normalise intensities, and crop, `before_resampling` or `after_resampling`.
        grid: Grid of the resampled volume: `spacing` has exactly the voxel size requested, centred on the volume;
            `monai` starts at the first voxel, as MONAI's Spacingd; `extent` adjusts the voxel size to fill the volume
            exactly, as nnU-Net; `corners` keeps the first and last voxel of each axis in place, as TotalSegmentator.
        interpolation: Interpolation of images, `linear` or with `cubic` splines; references keep their label values.
        coarse_axis: Interpolation along an axis whose voxels are more than three times as long as the others', for
            images and predictions: `interpolated` as along the other axes, or `nearest`.
        answers: Output that is resampled to the original grid: `logits`, `probabilities`, or `labels` (nearest
            neighbour).
    """

    axes: Orientation = "RAS"
    crop: Literal["none", "nonzero"] = "none"
    normalize: Literal["before_resampling", "after_resampling"] = "before_resampling"
    grid: Grid = "spacing"
    interpolation: Literal["linear", "cubic"] = "linear"
    coarse_axis: Literal["interpolated", "nearest"] = "interpolated"
    answers: Answers = "logits"


class PreprocessingConfig(PreprocessingRules):
    """Orientation, resampling, cropping and normalisation of every volume.

    Attributes:
        spacing_mm: Voxel size along each axis, in mm, to which volumes are resampled; null keeps each volume's own.
        normalization: Intensity normalisation, one entry per channel.
    """

    spacing_mm: SpacingMm
    normalization: Normalizations
