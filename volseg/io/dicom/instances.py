"""The images under a mask, slice by slice, which objects derived from a series refer to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from volseg.image.geometry import Geometry
from volseg.io.dicom.frames import Frame
from volseg.io.dicom.header import Header


@dataclass(frozen=True, eq=False)
class Instances:
    """The images of a series in the patient, without their pixels.

    Attributes:
        folder: The folder that holds the files of the series.
        geometry: The grid that `read_series` gives for the same source.
        frames: The images in the order of their position along the normal i x j.
        slices: For each of `frames`, the index k of its slice in the grid: 0, 1, 2 ... unless gaps were filled to make
            the grid even.
        headers: File -> its header; one entry per file, of one frame or of several.
    """

    folder: Path
    geometry: Geometry
    frames: tuple[Frame, ...]
    slices: tuple[int, ...]
    headers: Mapping[Path, Header]

    @cached_property
    def is_multi_frame(self) -> bool:
        """Return whether the images are frames of a multi-frame object rather than objects of their own."""
        return any((header.count("NumberOfFrames") or 1) > 1 for header in self.headers.values())

    def header_of(self, frame: Frame) -> Header:
        """Return the header of the file that a frame is in."""
        return self.headers[frame.path]
