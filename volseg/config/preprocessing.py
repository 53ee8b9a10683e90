"""Preprocessing of volumes."""

from __future__ import annotations

from typing import Literal

from volseg.config.normalization import Normalizations
from volseg.config.section import Orientation, Section, SpacingMm

Grid = Literal["spacing", "extent", "corners", "monai"]
Answers = Literal["logits", "probabilities", "labels"]


class PreprocessingRules(Section):
    """Orientation, resampling and cropping, without settings that depend on the data.

    Attributes:
        axes: Direction of each axis as the network sees it, such as RAS (axes are permuted and flipped, not resampled),
            or `stored`, as in the file; settings per axis follow this order.
        crop: Crop to the bounding box of voxels that are nonzero in any channel (`nonzero`); voxels outside are
            predicted as background.
        normalize: Whether intensity normalisation and cropping happen `before_resampling` or `after_resampling`.
        grid: Grid of the resampled volume: `spacing` has exactly the requested voxel size, centred on the volume;
            `monai` starts at the first voxel, as MONAI's Spacingd does; `extent` fills the volume exactly, with a voxel
            size close to the requested one, as nnU-Net does; `corners` keeps the first and last voxel of each axis in
            place, as TotalSegmentator does.
        interpolation: Interpolation of images, `linear` or with `cubic` splines; references keep their label values.
        coarse_axis: Interpolation of images and predictions along an axis whose voxels are more than three times as
            long as the others': `interpolated` as along the other axes, or `nearest`.
        answers: What is resampled back to the original grid: `logits`, `probabilities`, or `labels` (nearest
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
        spacing_mm: Voxel size along each axis, in mm, to which volumes are resampled; null does not resample along that
            axis.
        normalization: Intensity normalisation, one entry per channel.
    """

    spacing_mm: SpacingMm
    normalization: Normalizations
