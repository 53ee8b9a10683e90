"""Convert a plan and a checkpoint of nnU-Net to a configuration and weights of volseg.

nnU-Net uses the axes of a file in reverse (k, j, i), and its plan may permute them once more. Here weights, strides and
everything else along axes are brought into the order i, j, k instead, so that a run of volseg does not depend on that.
Slices processed one by one are patches of one voxel along the slice axis.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from volseg.cases.dataset_json import mask_labels, stated_channels, stated_labels
from volseg.config import IGNORE, named_modality, validate
from volseg.errors import CheckpointError
from volseg.importing.nnunet.checkpoint import Checkpoint
from volseg.importing.nnunet.plans import Configuration, Plans
from volseg.importing.weights import check_fit
from volseg.model.checkpoint import TrainedNetwork

#: Readers of nnU-Net that keep the storage order of the file, and one that reorients to R, A, S.
_AS_STORED, _TURNED = ("SimpleITKIO", "NibabelIO"), "NibabelIOWithReorient"
#: Words in the names of trainers whose network is not the plan's.
_OTHER_NETWORKS = ("bn", "primus", "mednext", "mamba", "swin", "relu", "transformer")
#: nnU-Net's layer names -> volseg's.
_NAMES = (
    (r"^encoder\.stem\.convs\.0\.", "stem."),
    (r"^encoder\.stages\.(\d+)\.(?:0\.convs|blocks)\.(\d+)\.", r"encoder.\1.\2."),
    (r"^decoder\.transpconvs\.", "decoder.upsamplings."),
    (r"^decoder\.stages\.(\d+)\.convs\.", r"decoder.stages.\1."),
    (r"\.skip\.", ".shortcut."),
)
_HINT = "docs/import.md lists what is supported"

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class AxisNumbers:
    """The axis of a file for each axis of the network.

    Attributes:
        of_network: The axes i, j, k (0, 1, 2) of the file, in the order of the network's.
    """

    of_network: tuple[int, int, int]

    @classmethod
    def of(cls, plans: Plans) -> AxisNumbers:
        """Return the axis order of a plan.

        Raises:
            CheckpointError: If its transposition is not a permutation.
        """
        if sorted(plans.transpose_forward) != [0, 1, 2]:
            raise CheckpointError(
                f"transpose_forward is {plans.transpose_forward}, which is not a permutation of three axes", hint=_HINT
            )
        first, second, third = (2 - axis for axis in plans.transpose_forward)
        return cls((first, second, third))

    def in_order(self, values: Sequence[_Value]) -> list[_Value]:
        """Reorder values along the network's axes to the file's."""
        return [values[self.of_network.index(axis)] for axis in range(3)]

    def weights(self, kernel: Tensor) -> Tensor:
        """Reorder a kernel: (O, I, network's axes) -> (O, I, axes of the file)."""
        return kernel.permute(0, 1, *(2 + self.of_network.index(axis) for axis in range(3))).contiguous()


def convert(
    plans: Plans, wanted: Configuration, dataset: Mapping[str, Any], checkpoint: Checkpoint, axes: str, origin: str
) -> TrainedNetwork:
    """Rebuild the model of one fold.

    Args:
        plans: Of the data set.
        wanted: The configuration that was trained.
        dataset: `dataset.json`.
        checkpoint: Of the fold.
        axes: Directions of the network's axes, or "stored", or "" for those of the plan.
        origin: Its name in errors.

    Returns:
        The model, whose weights fit its network.

    Raises:
        CheckpointError: If anything is not supported, or does not fit.
    """
    if (word := _other_network(checkpoint.trainer)) is not None:
        raise CheckpointError(f"{origin}: trainer {checkpoint.trainer!r} has another network ({word})", hint=_HINT)
    order = AxisNumbers.of(plans)
    tree = {
        "data": _data(dataset, cascade=wanted.previous_stage is not None),
        "preprocessing": _preprocessing(plans, wanted, order, axes or _axes(plans)),
        "patches": {"size": order.in_order(_three(wanted.patch_size, 1))},
        "network": _network(wanted, order),
        "inference": {
            "overlap": 0.5,
            "steps": "even",
            "weights": "cut_gaussian",
            "mirror_axes": _mirrors(checkpoint.mirror_axes, wanted, order),
            "mirroring": "each",
            "precision": "fp32",
            "air": None,
        },
        "augmentation": {"flip_axes": []},
        "postprocess": [],
    }
    config = validate(tree, origin)
    model = TrainedNetwork(_weights(checkpoint.weights, wanted, order), config, origin=origin)
    if any("running_mean" in name for name in model.weights):
        raise CheckpointError(f"{origin}: the network has batch normalisation, which is not in its plan", hint=_HINT)
    check_fit(model, "plans.json, dataset.json and the checkpoint must come from the same training")
    return model


def _other_network(trainer: str) -> str | None:
    """Return the word in a trainer's name that means its network is not the plan's, if any."""
    if not trainer.startswith("nnUNetTrainer"):
        return "not a trainer of nnU-Net"
    words = trainer.removeprefix("nnUNetTrainer").lower()
    return next((word for word in _OTHER_NETWORKS if word in words), None)


def _axes(plans: Plans) -> str:
    """Return the axes that the plan's reader gives.

    Raises:
        CheckpointError: If the reader is for flat images, or unknown.
    """
    if plans.image_reader_writer == _TURNED:
        return "RAS"
    if plans.image_reader_writer in _AS_STORED:
        return "stored"
    raise CheckpointError(f"images were read with {plans.image_reader_writer!r}, which is not supported", hint=_HINT)


def _data(dataset: Mapping[str, Any], *, cascade: bool) -> dict[str, Any]:
    channels = stated_channels(dataset)
    labels, regions = stated_labels(dataset)
    previous = sorted(value for name, value in labels.items() if name != IGNORE) if cascade else []
    painted = {label.name: label.value for label in mask_labels(dataset)}
    if regions and set(painted) != set(regions):
        raise CheckpointError(
            "dataset.json: regions_class_order does not name a value for each region",
            hint="give one value per entry of labels",
        )
    modality = [named_modality(channel) or "unknown" for channel in channels]
    return {
        "channels": channels,
        "labels": labels,
        "modality": modality,
        "previous_labels": previous,
        "regions": [
            {"name": name, "labels": values, "value": painted[name], "threshold": 0.5}
            for name, values in regions.items()
        ],
    }


def _preprocessing(plans: Plans, wanted: Configuration, order: AxisNumbers, axes: str) -> dict[str, Any]:
    data, back = wanted.resampling_fn_data_kwargs, wanted.resampling_fn_probabilities_kwargs
    if back.order != 1 or data.force_separate_z != back.force_separate_z:
        raise CheckpointError("images and logits are resampled in ways that do not match", hint=_HINT)
    spacing_mm: list[float | None] = _three(wanted.spacing, None)
    return {
        "axes": axes,
        "crop": "nonzero",
        "grid": "extent",
        "interpolation": "cubic" if data.order == 3 else "linear",
        "coarse_axis": "interpolated" if data.force_separate_z is False else "nearest",
        "spacing_mm": order.in_order(spacing_mm),
        "normalization": [
            _normalization(plans, wanted, channel) for channel in range(len(wanted.normalization_schemes))
        ],
    }


def _normalization(plans: Plans, wanted: Configuration, channel: int) -> dict[str, Any]:
    match wanted.normalization_schemes[channel]:
        case "ZScoreNormalization":
            inside = wanted.use_mask_for_norm[channel : channel + 1] == [True]
            return {"method": "zscore", "nonzero": inside, "fill_holes": inside}
        case "CTNormalization":
            seen = plans.foreground_intensity_properties_per_channel.get(str(channel))
            if seen is None:
                raise CheckpointError(f"the plan has no intensities of channel {channel}, a CT", hint=_HINT)
            return {
                "method": "ct",
                "low": seen.percentile_00_5,
                "high": seen.percentile_99_5,
                "mean": seen.mean,
                "std": max(seen.std, 1e-8),
            }
        case "RescaleTo01Normalization":
            return {"method": "minmax"}
        case "RGBTo01Normalization":
            return {"method": "window", "low": 0, "high": 255}
        case "NoNormalization":
            return {"method": "none"}


def _network(wanted: Configuration, order: AxisNumbers) -> dict[str, Any]:
    told, residual = wanted.architecture.arch_kwargs, wanted.architecture.is_residual
    blocks = (told.n_blocks_per_stage if residual else told.n_conv_per_stage) or []
    levels = [len(told.features_per_stage), len(told.kernel_sizes), len(told.strides), len(blocks)]
    if levels != [told.n_stages] * 4 or len(told.n_conv_per_stage_decoder) != told.n_stages - 1:
        raise CheckpointError(f"the plan does not describe each of its {told.n_stages} levels", hint=_HINT)
    dimensions = len(wanted.patch_size)
    kernels, strides = (
        [order.in_order(_three([one] * dimensions if isinstance(one, int) else one, 1)) for one in sizes]
        for sizes in (told.kernel_sizes, told.strides)
    )
    if strides[0] != [1, 1, 1]:
        raise CheckpointError(f"the finest level is strided by {strides[0]}, which is not supported", hint=_HINT)
    return {
        "name": "residual_encoder_unet" if residual else "plain_unet",
        "filters": told.features_per_stage,
        "kernels": kernels,
        "strides": strides[1:],
        "blocks": blocks,
        "decoder_blocks": told.n_conv_per_stage_decoder[::-1],
        "deep_supervision": told.n_stages - 2,
    }


def _mirrors(axes: Sequence[int], wanted: Configuration, order: AxisNumbers) -> list[str]:
    first = 1 if wanted.is_flat else 0
    return sorted("ijk"[order.of_network[first + axis]] for axis in axes if first + axis < 3)


def _weights(stated: Mapping[str, Tensor], wanted: Configuration, order: AxisNumbers) -> dict[str, Tensor]:
    deepest = wanted.architecture.arch_kwargs.n_stages - 2
    weights = {}
    for name, tensor in stated.items():
        values = tensor.float()
        if values.ndim == 4:  # of a slice
            values = values.unsqueeze(2)
        weights[_renamed(name, deepest)] = order.weights(values) if values.ndim == 5 else values
    return weights


def _renamed(name: str, deepest: int) -> str:
    """Rename a weight: nnU-Net counts decoder levels from the deepest, volseg its outputs from the finest."""
    if head := re.match(r"^decoder\.seg_layers\.(\d+)\.(.+)", name):
        return f"heads.{deepest - int(head[1])}.{head[2]}"
    for theirs, ours in _NAMES:
        name = re.sub(theirs, ours, name)
    return name


def _three(values: Sequence[_Value], of_slices: _Value) -> list[_Value]:
    """Expand values along the axes of a volume or of a slice to the three axes of a volume."""
    return [of_slices, *values] if len(values) == 2 else list(values)
