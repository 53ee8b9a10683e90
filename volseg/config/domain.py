"""Properties of training cases, by which prediction recognises images that the model was not made for."""

from __future__ import annotations

from volseg.config.dicom import Range
from volseg.config.section import Section


class IntensityRange(Section):
    """Range of intensities of one channel in the training cases.

    Attributes:
        low: Smallest and largest 0.5th percentile of a training case.
        high: Smallest and largest 99th percentile of a training case.
        labelled: Percentiles 0.5 and 99.5 of all labelled voxels; null if none has a finite value.
    """

    low: Range
    high: Range
    labelled: Range | None = None


class DomainConfig(Section):
    """Properties of the training cases, found by the plan, against which images are checked at prediction.

    Attributes:
        intensities: Range of intensities, one entry per channel.
        spacings_mm: Smallest and largest voxel size along each anatomical axis (R, A, S), in mm.
    """

    intensities: tuple[IntensityRange, ...] = ()
    spacings_mm: tuple[Range, Range, Range] | None = None
