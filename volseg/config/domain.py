"""What a model was trained on, by which prediction knows images that it was not made for."""

from __future__ import annotations

from volseg.config.dicom import Range
from volseg.config.section import Section


class IntensityRange(Section):
    """How bright one channel was in the training cases.

    Attributes:
        low: Smallest and largest 0.5th percentile of a case.
        high: Smallest and largest 99th percentile of a case.
        labelled: Percentiles 0.5 and 99.5 of all labelled voxels; null where none has a finite value.
    """

    low: Range
    high: Range
    labelled: Range | None = None


class DomainConfig(Section):
    """What the training cases look like, found by planning; without it, nothing is compared.

    Attributes:
        intensities: One entry per channel.
        spacings_mm: Smallest and largest voxel size along each of R, A, S.
    """

    intensities: tuple[IntensityRange, ...] = ()
    spacings_mm: tuple[Range, Range, Range] | None = None
