"""Streaming: a picture too large for memory, read and normalised part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from volseg.cases import Case, read_region
from volseg.cases.case import nothing_to_see
from volseg.config import Config, Normalization
from volseg.image.box import Box
from volseg.image.geometry import AxisOrder
from volseg.image.resampled import ResampledVolume, Resampling
from volseg.io import FileSource
from volseg.io.pictures.streamed import StreamedPicture, streamed
from volseg.model.domain import ImageTraits, mismatches
from volseg.prediction.prepared import Prepared

_NUMBER_BYTES = 4
#: The axis of a picture along which its tiles or strips follow each other.
_ROWS = 1


@dataclass(frozen=True, eq=False)
class StreamedInput(ResampledVolume):
    """A picture on its own grid; only the parts that are read are decoded.

    Attributes:
        picture: The file.
        order: From its storage order to the network's axis order.
        normalizations: One per channel, none of which depends on the rest of the picture.
    """

    picture: StreamedPicture
    order: AxisOrder
    normalizations: tuple[Normalization, ...]

    @property
    def along(self) -> int:
        """The axis that runs along its rows."""
        return self.order.axes.index(_ROWS)

    def read(self, box: Box) -> torch.Tensor:
        """Read a part.

        Args:
            box: Voxels in the network's axis order.

        Returns:
            (C, *box) float32, contiguous.
        """
        from volseg.transforms import normalize

        columns, rows = self._stored(box, 0), self._stored(box, _ROWS)
        stored = self.picture.read(columns, rows).astype(np.float32)
        if len(stored) < len(self.normalizations):  # grey has equal values in all colours
            stored = np.repeat(stored, len(self.normalizations), axis=0)
        part = np.ascontiguousarray(self.order.apply(stored))
        normalize(part, self.normalizations)
        return torch.from_numpy(part)

    def _stored(self, box: Box, axis: int) -> slice:
        """Return the range of a box along an axis in storage order."""
        place = self.order.axes.index(axis)
        side, size = box[place], self.picture.geometry.shape[axis]
        return slice(size - side.stop, size - side.start) if self.order.flips[place] else side


def prepare_streamed(
    case: Case, configs: Sequence[Config], modalities: Sequence[str], most_gb: float
) -> Prepared | None:
    """Prepare a case for the networks without a copy of it in memory.

    Args:
        case: One picture.
        configs: Of the models.
        modalities: Modalities stated by the files of each channel.
        most_gb: Pictures whose values take less memory are not streamed.

    Returns:
        None if it is no such picture, is not that large, or must be processed as a whole.

    Raises:
        DataError: If the picture is damaged, or has a single value everywhere.
        GeometryError: If its field of view lies on another grid.
    """
    picture = _large_picture(case, most_gb)
    config = configs[0]
    preprocessing = config.preprocessing
    plain = preprocessing.spacing_mm == (None, None, None) and preprocessing.crop == "none"
    alike = all(other.preprocessing == preprocessing and other.inference.air is None for other in configs)
    if picture is None or not plain or not alike or config.data.previous_labels:
        return None
    from volseg.transforms import network_order, network_resampling, of_whole_numbers

    if all(histogram.low == histogram.high for histogram in picture.histograms):
        raise nothing_to_see(case.case_id, next(iter(case.images.values())), picture.histograms[0].low)
    histograms = (picture.histograms * len(config.data.channels))[: len(config.data.channels)]
    if picture.channels not in (1, len(config.data.channels)):
        return None
    found = [
        of_whole_numbers(normalization, histogram)
        for normalization, histogram in zip(preprocessing.normalization, histograms, strict=True)
    ]
    fixed = tuple(normalization for normalization in found if normalization is not None)
    if len(fixed) < len(found):
        return None
    order = network_order(picture.geometry, preprocessing.axes)
    geometry = picture.geometry.reordered(order)
    way: Resampling = network_resampling(geometry, preprocessing.spacing_mm, preprocessing)
    nothing: NDArray[np.float32] = np.empty((len(fixed), 0, 0, 0), np.float32)
    traits = ImageTraits(
        tuple(modalities),
        tuple(histogram.intensities for histogram in histograms),
        picture.geometry.reordered(picture.geometry.to_canonical).spacing_mm,
        picture.geometry.unit,
    )
    differences = tuple(dict.fromkeys(each for other in configs for each in mismatches(traits, other)))
    return Prepared(
        picture.geometry,
        order,
        Box.whole(geometry.shape),
        (StreamedInput(nothing, way, picture, order, fixed),),
        None,
        differences,
        region=read_region(case, picture.geometry),
    )


def _large_picture(case: Case, most_gb: float) -> StreamedPicture | None:
    """Return the picture of a case, if it is a single large file."""
    sources = list(case.images.values())
    first = sources[0]
    if not isinstance(first, FileSource) or any(source.place != first.place for source in sources):
        return None
    frames = [source.frame for source in sources if isinstance(source, FileSource)]
    if frames not in ([None], [*range(len(sources))]):
        return None
    picture = streamed(first.path, first.rules)
    if picture is None:
        return None
    columns, rows, _ = picture.geometry.shape
    return picture if len(sources) * columns * rows * _NUMBER_BYTES > most_gb * 1e9 else None
