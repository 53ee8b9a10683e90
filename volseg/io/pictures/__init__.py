"""Flat pictures in pixels: PNG, JPEG, TIFF, GIF and BMP."""

from volseg.io.pictures.channels import channel_count, frame_of, read_array
from volseg.io.pictures.values import holds_colors, read_soft, read_values
from volseg.io.pictures.write import write_mask, write_volume

__all__ = [
    "channel_count",
    "frame_of",
    "holds_colors",
    "read_array",
    "read_soft",
    "read_values",
    "write_mask",
    "write_volume",
]
