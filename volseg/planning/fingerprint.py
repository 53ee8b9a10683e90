"""What a data set looks like: every case is read once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volseg.cases import Case, Dataset, read_images, read_reference
from volseg.config import IGNORE
from volseg.errors import DataError
from volseg.image.volume import Label
from volseg.io import SeriesSource
from volseg.parallel import side_by_side
from volseg.progress import Progress, ignore_progress

logger = logging.getLogger(__name__)

#: Voxels per label and case whose intensities enter the statistics.
_SAMPLES = 5_000


@dataclass(frozen=True, eq=False)
class CasePrint:
    """What one case looks like, axes in R, A, S order.

    Attributes:
        shape: Voxels.
        spacing_mm: Voxel size.
        modalities: Per channel "CT", "MR" or empty, as the file states it.
        low: The 0.5th percentile of each channel.
        high: The 99th.
        values: (C, N) intensities of a sample of labelled voxels.
        label_ml: Label value -> volume in millilitres.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    modalities: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    values: NDArray[np.float32]
    label_ml: Mapping[int, float]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What a data set looks like.

    Attributes:
        channels: Channel names.
        labels: Label name -> value.
        regions: Region name -> label values; empty if there are none.
        cases: One entry per readable case.
    """

    channels: tuple[str, ...]
    labels: Mapping[str, int]
    regions: Mapping[str, tuple[int, ...]]
    cases: tuple[CasePrint, ...]

    @property
    def spacings_mm(self) -> NDArray[np.float64]:
        """(N, 3) voxel sizes."""
        return np.array([case.spacing_mm for case in self.cases])

    @property
    def shapes(self) -> NDArray[np.int64]:
        """(N, 3) voxels."""
        return np.array([case.shape for case in self.cases])


def take_fingerprint(
    dataset: Dataset,
    labels: Mapping[str, int] | None = None,
    progress: Progress = ignore_progress,
    aliases: Mapping[str, tuple[str, ...]] | None = None,
) -> Fingerprint:
    """Look at every case once.

    Args:
        dataset: Labelled cases.
        labels: Name -> value where it is already decided; otherwise as the data set states it, else as found.
        progress: Told per case.
        aliases: Label name -> what else references call it.

    Returns:
        The fingerprint of all cases that can be read; the others are logged.

    Raises:
        DataError: If none can be read.
        ConfigError: If a reference holds a value that is not among the labels.
    """
    labels = dict(labels or dataset.labels)
    known = tuple(Label(value, name, aliases=(aliases or {}).get(name, ())) for name, value in labels.items())
    prints: list[CasePrint] = []
    looks = side_by_side(lambda case: _attempt(case, dataset.channels, known), dataset.cases)
    for done, (case, look) in enumerate(zip(dataset.cases, looks, strict=True), start=1):
        if isinstance(look, CasePrint):
            prints.append(look)
        else:
            logger.warning("case %s is left out of the plan: %s", case.case_id, look)
        progress("look", done, len(dataset.cases), case.case_id)
    if not prints:
        raise DataError("no case could be read")
    found = sorted({value for case in prints for value in case.label_ml})
    if not found:
        raise DataError("all references are empty, there is nothing to learn")
    return Fingerprint(
        dataset.channels, labels or {f"label_{value}": value for value in found}, dataset.regions, tuple(prints)
    )


def _attempt(case: Case, channels: tuple[str, ...], labels: tuple[Label, ...]) -> CasePrint | DataError:
    try:
        return look_at_case(case, channels, labels)
    except DataError as error:
        return error


def look_at_case(case: Case, channels: tuple[str, ...], labels: tuple[Label, ...]) -> CasePrint:
    """Read one case and describe it.

    Args:
        case: With a reference.
        channels: Their order.
        labels: What the values of references mean; any value where they are not known yet.

    Raises:
        DataError: If image or reference cannot be used.
        ConfigError: If the reference holds a value that no label has.
    """
    image = read_images(case, channels)
    mask = read_reference(case, image, labels)
    geometry = image.geometry.reordered(image.geometry.to_canonical)
    ignored = [label.value for label in labels if label.name == IGNORE]
    taught = mask.array * ~np.isin(mask.array, ignored) if ignored else mask.array
    values, counts = np.unique(taught, return_counts=True)
    inside = np.flatnonzero(taught)
    chosen = np.random.default_rng(0).choice(inside, min(_SAMPLES, len(inside)), replace=False)
    sources = [case.images[channel] for channel in channels]
    finite = np.where(np.isfinite(image.array), image.array, np.nan).reshape(len(channels), -1)
    low, high = np.nanpercentile(finite[:, :: max(1, finite.shape[1] // 100_000)], [0.5, 99], axis=1).tolist()
    return CasePrint(
        shape=geometry.shape,
        spacing_mm=geometry.spacing_mm,
        modalities=tuple(source.traits.modality if isinstance(source, SeriesSource) else "" for source in sources),
        low=tuple(low),
        high=tuple(high),
        values=finite[:, chosen],
        label_ml={
            int(value): float(count) * geometry.voxel_volume_ml
            for value, count in zip(values, counts, strict=True)
            if value
        },
    )
