"""Input and output: from disk to types and back, the only place that knows file formats."""

from __future__ import annotations

from volseg.io.discovery import discover, image_files, single_source, stands_for
from volseg.io.images import (
    IMAGE_SUFFIXES,
    file_source,
    frame_count,
    header_remark,
    image_suffix,
    is_picture,
    read_channels,
    read_grid,
    read_shown,
    read_volume,
    resample,
    resample_mask,
    write_mask,
    write_probabilities,
    write_volume,
)
from volseg.io.label_maps import read_mask, read_probabilities
from volseg.io.source import (
    Discovery,
    FileSource,
    MasksSource,
    ObjectsSource,
    SegmentsSource,
    SeriesSource,
    SetAside,
    Source,
    stated_modality,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "Discovery",
    "FileSource",
    "MasksSource",
    "ObjectsSource",
    "SegmentsSource",
    "SeriesSource",
    "SetAside",
    "Source",
    "discover",
    "file_source",
    "frame_count",
    "header_remark",
    "image_files",
    "image_suffix",
    "is_picture",
    "read_channels",
    "read_grid",
    "read_mask",
    "read_probabilities",
    "read_shown",
    "read_volume",
    "resample",
    "resample_mask",
    "single_source",
    "stands_for",
    "stated_modality",
    "write_mask",
    "write_probabilities",
    "write_volume",
]
