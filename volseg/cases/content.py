"""Detecting images and label maps by their voxels, in case the wrong folder is given."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from volseg.cases.case import Case, Dataset
from volseg.errors import DataError
from volseg.image.volume import LARGEST_LABEL
from volseg.io import FileSource, SegmentsSource, Source, read_volume

#: Why a file of a folder is not segmented.
MASK_BY_NAME = "its name says that it is a mask, not an image; name the file itself to segment it"
STRUCTURES = "it marks structures in images, and is not an image itself"

#: The finest atlases name some hundred structures.
MOST_LABELS = 1000
#: A number of values that is too many for organs, and too few for a noisy image.
_SOME_LABELS = 64
#: Volumes with fewer values than any image has, and mostly zeros, are label maps.
_FEW_LABELS = 8
#: Share of neighbours, not both 0, that are alike: nearly all in a label map, hardly any in an image.
_ALIKE_IN_LABELS, _ALIKE_IN_IMAGES = 0.6, 0.25
#: How many files are examined for a folder; it stops at the first that is as expected.
_LOOKED_AT = 5
#: Number of voxels to examine before all of them.
_SAMPLE = 1_000_000


@dataclass(frozen=True)
class VoxelValues:
    """Statistics of the voxels of a volume.

    Attributes:
        fault: Why they are not label values; empty if they are.
        distinct: Number of distinct values.
        empty: Share of the voxels that are 0.
        alike: Share of neighbours along the first axis, not both 0, that have the same value.
    """

    fault: str
    distinct: int = 0
    empty: float = 0.0
    alike: float = 0.0

    @classmethod
    def of(cls, array: NDArray[np.floating] | NDArray[np.unsignedinteger]) -> VoxelValues:
        """Measure (I, J, K) voxels, a sample of them first."""
        fault = _fault(array.ravel()[:: max(1, array.size // _SAMPLE)]) or _fault(array.ravel())
        if fault:
            return cls(fault)
        import fastremap

        values = np.asarray(array, np.uint16)
        one, other = values[1:], values[:-1]
        marked = (one != 0) | (other != 0)
        alike = float((one == other)[marked].mean()) if marked.any() else 0.0
        return cls("", len(fastremap.unique(values)), float((values == 0).mean()), alike)

    @property
    def why_no_labels(self) -> str:
        """The reason why they belong to an image; empty if they may be labels."""
        if self.fault:
            return self.fault
        noisy = self.distinct > _SOME_LABELS and self.alike < _ALIKE_IN_IMAGES
        return f"it has {self.distinct} values" if noisy or self.distinct > MOST_LABELS else ""

    @property
    def are_labels(self) -> bool:
        """True if they certainly belong to a label map."""
        if self.fault or self.distinct < 2 or self.empty < 0.5:
            return False
        return self.distinct <= _FEW_LABELS or (self.distinct <= MOST_LABELS and self.alike >= _ALIKE_IN_LABELS)


def refuse_images(sources: Sequence[Source], folder: Path, what: str) -> None:
    """Check that a folder of masks is not a folder of images.

    Args:
        sources: Sources found in it.
        folder: The folder.
        what: What should be there: "masks", "references".

    Raises:
        DataError: If each file that was examined holds an image.
    """
    reasons = []
    for source, values in _looked_at([one for one in sources if not isinstance(one, SegmentsSource)]):
        if not values.why_no_labels:
            return
        reasons.append(f"{source.place.name}: {values.why_no_labels}")
    if reasons:
        raise DataError(
            f"{folder} holds images, not {what}: {reasons[0]}", hint=f"give the folder of the {what}: label maps"
        )


def refuse_label_maps(dataset: Dataset, folder: Path) -> None:
    """Check that a folder of images is not a folder of masks.

    A single file is segmented whatever it holds.

    Args:
        dataset: The data set found in it.
        folder: The folder.

    Raises:
        DataError: If all files are named like masks, or each that was examined holds a label map.
    """
    if not folder.is_dir():
        return
    hint = "give the folder of the images; to segment such files anyway, name one, or list them in a CSV manifest"
    named = [item for item in dataset.set_aside if item.reason in {MASK_BY_NAME, STRUCTURES}]
    if not dataset.cases and named and len(named) == len(dataset.set_aside):
        example = named[0].path.name
        raise DataError(
            f"{folder} holds masks, not images: {len(named)} files are named like masks, such as {example}", hint=hint
        )
    sources = [source for case in dataset.cases for source in _files_of(case)]
    if not sources or len(sources) < sum(len(case.images) for case in dataset.cases):
        return
    looks = list(_until_image(sources))
    if looks and all(values.are_labels for values in looks):
        values = looks[0]
        raise DataError(
            f"{folder} holds label maps, not images: {sources[0].path.name} has {values.distinct} whole values, and "
            f"{values.empty:.0%} of its voxels are 0",
            hint=hint,
        )


def _files_of(case: Case) -> Iterator[FileSource]:
    yield from (source for source in case.images.values() if isinstance(source, FileSource) and source.frame is None)


def _until_image(sources: Sequence[Source]) -> Iterator[VoxelValues]:
    for _, values in _looked_at(sources):
        yield values
        if not values.are_labels:
            return


def _looked_at(sources: Sequence[Source]) -> Iterator[tuple[Source, VoxelValues]]:
    """Read a few of the sources, evenly spaced; one that cannot be read fails by name when it is used."""
    few = dict.fromkeys(np.linspace(0, len(sources) - 1, min(_LOOKED_AT, len(sources))).astype(int).tolist())
    for number in few:
        with contextlib.suppress(DataError):
            yield sources[number], VoxelValues.of(read_volume(sources[number]).array[0])


def _fault(values: NDArray[np.floating] | NDArray[np.unsignedinteger]) -> str:
    """Return why values cannot be those of a label map; empty if they can."""
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return "some voxels are not finite"
    if low < 0 or high > LARGEST_LABEL:
        return f"its values go from {low:g} to {high:g}"
    if np.abs(values - np.rint(values)).max() > 1e-3:
        return "some voxels are not whole numbers"
    return ""
