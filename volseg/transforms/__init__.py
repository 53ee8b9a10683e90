"""MONAI dictionary transforms: reading, axes, spacing, normalisation and augmentation of volumes.

Training loads its data with them; they also work in any `monai.transforms.Compose`.
"""

from volseg.transforms.augmentation import RandFlipSided, build_augmentation
from volseg.transforms.keys import CASE, GEOMETRY, IMAGE, REFERENCE, Sample
from volseg.transforms.normalization import (
    FillNonFinited,
    Normalized,
    build_normalization,
    fill_non_finite,
    filled_nonzero,
    normalize,
    of_whole_numbers,
)
from volseg.transforms.preprocessing import build_preprocessing, preprocess
from volseg.transforms.reading import LoadCased, LoadVolumed, geometry_of
from volseg.transforms.spatial import (
    Canonicald,
    CroppedToNonzerod,
    Respaced,
    network_order,
    network_resampling,
    nonzero_box,
)

__all__ = [
    "CASE",
    "GEOMETRY",
    "IMAGE",
    "REFERENCE",
    "Canonicald",
    "CroppedToNonzerod",
    "FillNonFinited",
    "LoadCased",
    "LoadVolumed",
    "Normalized",
    "RandFlipSided",
    "Respaced",
    "Sample",
    "build_augmentation",
    "build_normalization",
    "build_preprocessing",
    "fill_non_finite",
    "filled_nonzero",
    "geometry_of",
    "network_order",
    "network_resampling",
    "nonzero_box",
    "normalize",
    "of_whole_numbers",
    "preprocess",
]
