"""Cases preprocessed for the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from volseg.config import PreprocessingConfig
from volseg.errors import DataError
from volseg.image.box import Box
from volseg.image.geometry import AxisOrder, Geometry
from volseg.image.resampled import ReadyVolume, ResampledVolume, ResampledWithLabels
from volseg.image.volume import Mask, Volume
from volseg.inference.tissue import Tissue, find_tissue

#: Value outside of labels and background in the mask for the second network of a cascade, as in nnU-Net.
_OUTSIDE = -1

#: Beginning of the warning for a mask made with `allow_mismatch`.
IN_SPITE = "segmented in spite of a mismatch with the training cases"


class Checked:
    """A case that was compared with the training data of the models.

    Attributes:
        mismatches: How it clearly lies outside of it.
    """

    mismatches: tuple[str, ...]

    def refuse_mismatch(self) -> None:
        """Check that the models were made for the case.

        Raises:
            DataError: If not; says how it differs from the training cases, and how to segment it anyway.
        """
        if self.mismatches:
            raise DataError(
                f"the model was not made for this kind of image: {'; '.join(self.mismatches)}",
                hint="use a model for such images, or segment it anyway: --allow-mismatch (allow_mismatch=True)",
            )

    @property
    def warning(self) -> str:
        """The warning for a mask made in spite of mismatches; empty if there are none."""
        return f"{IN_SPITE}: {'; '.join(self.mismatches)}" if self.mismatches else ""


@dataclass(frozen=True, eq=False)
class Prepared(Checked):
    """A case as the networks see it.

    Attributes:
        geometry: The grid of its first channel, as stored.
        order: To the network's axis order.
        box: The part that the networks see, in that order.
        inputs: One for each kind of preprocessing among the models.
        tissue: Where there is anything but air; None to process everything.
        mismatches: How it clearly lies outside the training data of the models.
        previous: Input of the previous networks in a cascade.
        outside: In a cascade with cropped volumes: voxels of the part outside of the nonzero region.
        region: The field of view, as stored; None for the whole image.
    """

    geometry: Geometry
    order: AxisOrder
    box: Box
    inputs: tuple[ResampledVolume, ...]
    tissue: Tissue | None
    mismatches: tuple[str, ...] = ()
    previous: Prepared | None = None
    outside: NDArray[np.bool_] | None = None
    region: NDArray[np.bool_] | None = None

    @property
    def gigabytes(self) -> float:
        """Memory for its voxels."""
        earlier = self.previous.gigabytes if self.previous else 0.0
        return earlier + sum(network_input.array.nbytes for network_input in self.inputs) / 1e9

    @classmethod
    def of(
        cls,
        volume: Volume,
        name: str,
        preprocessings: Sequence[PreprocessingConfig],
        air: float | None,
        mismatches: tuple[str, ...] = (),
        previous: Prepared | None = None,
    ) -> Prepared:
        """Preprocess a volume for the networks.

        Args:
            volume: Its channels in the order of the models'; its voxels are changed in place where possible.
            name: Name for the log.
            preprocessings: Of each kind of model; all see the same part of the volume, along the same axes.
            air: How far above the darkest value still counts as air, as a share of the range; None processes
                everything.
            mismatches: How it clearly lies outside the training data of the models.
            previous: Input of the previous networks in a cascade.
        """
        from volseg.transforms import (  # MONAI takes seconds to import
            fill_non_finite,
            filled_nonzero,
            network_order,
            network_resampling,
            nonzero_box,
            normalize,
        )

        array = np.require(volume.array, requirements="W")
        fill_non_finite(array, name)
        first, *_ = preprocessings
        order = network_order(volume.geometry, first.axes)
        seen = order.apply(array)
        cropped = first.crop == "nonzero" and first.normalize == "before_resampling"
        box = nonzero_box(seen) if cropped else Box.whole(seen.shape[1:])
        geometry = volume.geometry.reordered(order).part(box)
        outside = ~filled_nonzero(seen[:, *box]) if previous and cropped else None
        # The normalised value of air depends on the volume, so tissue is found before.
        tissue = None if air is None else find_tissue(seen[:, *box], first.normalization, air)
        inputs: list[ResampledVolume] = []
        for n, preprocessing in enumerate(preprocessings):
            own = array if n == len(preprocessings) - 1 else array.copy(order="K")
            view = order.apply(own)[:, *box]
            way = network_resampling(geometry, preprocessing.spacing_mm, preprocessing)
            match preprocessing.normalize:
                case "before_resampling":
                    normalize(view, preprocessing.normalization)
                    inputs.append(ResampledVolume(view, way))
                case "after_resampling":  # statistics need all voxels
                    ready = ResampledVolume(view, way).read(Box.whole(way.new_shape)).numpy()
                    left = nonzero_box(ready) if preprocessing.crop == "nonzero" else Box.whole(way.new_shape)
                    ready = ready[:, *left]
                    normalize(ready, preprocessing.normalization)
                    inputs.append(ReadyVolume(view, way, ready, left.origin))
        return cls(volume.geometry, order, box, tuple(inputs), tissue, mismatches, previous, outside)

    def beside(self, mask: Mask, labels: tuple[int, ...]) -> Prepared:
        """Return the input of the later networks of a cascade.

        Args:
            mask: The result of the first networks.
            labels: Those of its values that become channels.
        """
        seen = self.order.apply(mask.array)[self.box].astype(np.int32)
        if self.outside is not None:
            seen[(seen == 0) & self.outside] = _OUTSIDE
        inputs = [ResampledWithLabels(each.array, each.resampling, seen, labels) for each in self.inputs]
        return replace(self, inputs=tuple(inputs))
