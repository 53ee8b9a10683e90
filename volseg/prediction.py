"""One case in, one mask out, on the grid the case came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from volseg.cases import Case
from volseg.checkpoint import Model
from volseg.config import Config
from volseg.errors import CheckpointError
from volseg.geometry import Geometry
from volseg.networks import choose_precision
from volseg.outputs import activate, mask_dtype, paint
from volseg.patches import sliding_window
from volseg.postprocess import postprocess
from volseg.resampling import interpolate_axis, sample_positions
from volseg.transforms import GEOMETRY, IMAGE, preprocess
from volseg.volume import Mask

#: Probabilities on the source's grid are held for so many numbers at once, not for the whole volume.
_SLAB_NUMBERS = 32_000_000


def predict(case: Case, models: Sequence[Model]) -> Mask:
    """Segment a case.

    Args:
        case: Its images.
        models: One or more with the same channels and labels; their probabilities are averaged.

    Returns:
        The post-processed mask on the grid of the first channel as it was stored.

    Raises:
        DataError: If the images cannot be used.
        GeometryError: If they do not say where they lie, or do not lie on one grid.
    """
    first = models[0].config
    preprocessing = first.preprocessing
    sample = preprocess(case, first.data, preprocessing, reference=False)
    probabilities = []
    for model in models:
        if model.config.preprocessing != preprocessing:
            preprocessing = model.config.preprocessing
            sample = preprocess(case, first.data, preprocessing, reference=False)
        probabilities.append(_probabilities(model, sample[IMAGE]))
    native: Geometry = sample[GEOMETRY]
    order = native.to_canonical
    canonical = native.reordered(order)
    array = restore(probabilities, [model.config for model in models], canonical)
    mask = postprocess(Mask(array, canonical, first.data.output_labels), first.postprocess)
    stored = np.ascontiguousarray(order.inverse().apply(mask.array))
    return Mask(stored, native, mask.labels)


def check_ensemble(models: Sequence[Model]) -> None:
    """Refuse models whose answers cannot be averaged.

    Raises:
        CheckpointError: If their channels, labels or regions differ.
    """
    for model in models[1:]:
        if model.config.data != models[0].config.data:
            raise CheckpointError(
                "the models differ in channels, labels or regions, so their answers cannot be averaged",
                hint="predict with each of them on its own",
            )


def restore(
    probabilities: Sequence[torch.Tensor], configs: Sequence[Config], geometry: Geometry
) -> NDArray[np.unsignedinteger]:
    """Bring probabilities onto the grid of the source and decide there.

    Args:
        probabilities: Per model (outputs, R, A, S) float32 at its own spacing.
        configs: Of the models.
        geometry: The source's grid with its axes in R, A, S order; same centre as the probabilities.

    Returns:
        (R, A, S) label values.
    """
    result = np.empty(geometry.shape, dtype=mask_dtype(configs[0].data))
    outputs = len(probabilities[0])
    thickness = max(1, _SLAB_NUMBERS // (outputs * geometry.shape[1] * geometry.shape[2]))
    for begin in range(0, geometry.shape[0], thickness):
        slab = slice(begin, min(begin + thickness, geometry.shape[0]))
        total = torch.zeros(outputs, slab.stop - slab.start, *geometry.shape[1:])
        for each, config in zip(probabilities, configs, strict=True):
            total += _slab(each, config.preprocessing.spacing_mm, geometry, slab)
        result[slab] = paint(total / len(probabilities), configs[0].data)
    return result


def _slab(array: torch.Tensor, spacing_mm: tuple[float, float, float], geometry: Geometry, slab: slice) -> torch.Tensor:
    """The part of a resampled array with first index in `slab`."""
    for axis in range(3):
        new_spacing_mm = geometry.spacing_mm[axis]
        positions = sample_positions(array.shape[axis + 1], spacing_mm[axis], geometry.shape[axis], new_spacing_mm)
        array = interpolate_axis(array, axis + 1, positions[slab] if axis == 0 else positions)
    return array


def _probabilities(model: Model, image: MetaTensor) -> torch.Tensor:
    device = next(model.network.parameters()).device
    config = model.config
    dtype = choose_precision(config.inference.precision, device)
    logits = sliding_window(model.network, image.as_tensor(), config.patches.size, config.inference, dtype)
    return activate(logits, config.data)
