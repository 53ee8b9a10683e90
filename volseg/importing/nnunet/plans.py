"""One configuration of `plans.json`, validated: anything not supported is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from volseg.errors import CheckpointError
from volseg.io.json_files import read_json

_Count = Annotated[int, Field(ge=1, le=4096)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Sizes = Annotated[list[_Count], Field(min_length=2, max_length=3)]
_Levels = Annotated[list[_Count], Field(min_length=2, max_length=12)]
_Triples = Annotated[list[_Sizes | _Count], Field(min_length=2, max_length=12)]
_Axis = Annotated[int, Field(ge=0, le=2)]
_Model = TypeVar("_Model", bound=BaseModel)
_HINT = "only models planned by nnU-Net v2 itself can be imported; docs/import.md lists what is supported"


class _Part(BaseModel):
    """A part of the plan; keys that prediction does not need are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Strict(BaseModel):
    """A part of the plan in which every key must be supported."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NormalizationArguments(_Strict):
    """Arguments of the instance normalisation."""

    eps: Annotated[float, Field(ge=1e-05, le=1e-05)] = 1e-05
    affine: Literal[True]


class ActivationArguments(_Strict):
    """Arguments of the leaky rectifier."""

    inplace: bool = False
    negative_slope: Annotated[float, Field(ge=0.01, le=0.01)] = 0.01


class NetworkArguments(_Strict):
    """Number of levels of the network, and the layers of each."""

    n_stages: Annotated[int, Field(ge=2, le=12)]
    features_per_stage: _Levels
    conv_op: Literal[
        "torch.nn.modules.conv.Conv3d", "torch.nn.Conv3d", "torch.nn.modules.conv.Conv2d", "torch.nn.Conv2d"
    ]
    kernel_sizes: _Triples
    strides: _Triples
    n_conv_per_stage: _Levels | None = None
    n_blocks_per_stage: _Levels | None = None
    n_conv_per_stage_decoder: Annotated[list[_Count], Field(min_length=1, max_length=11)]
    conv_bias: Literal[True]
    norm_op: Literal[
        "torch.nn.modules.instancenorm.InstanceNorm3d",
        "torch.nn.InstanceNorm3d",
        "torch.nn.modules.instancenorm.InstanceNorm2d",
        "torch.nn.InstanceNorm2d",
    ]
    norm_op_kwargs: NormalizationArguments
    dropout_op: None = None
    dropout_op_kwargs: None = None
    nonlin: Literal["torch.nn.LeakyReLU", "torch.nn.modules.activation.LeakyReLU"]
    nonlin_kwargs: ActivationArguments | None = None
    deep_supervision: bool = True


class Architecture(_Part):
    """The network architecture."""

    network_class_name: Literal[
        "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet",
    ]
    arch_kwargs: NetworkArguments

    @property
    def is_residual(self) -> bool:
        """True if its encoder is residual."""
        return self.network_class_name.endswith("ResidualEncoderUNet")


class ResamplingArguments(_Strict):
    """Resampling of images or logits."""

    is_seg: Literal[False] = False
    order: Literal[1, 3] = 3
    order_z: Literal[0] = 0
    force_separate_z: Literal[False] | None = False


class Configuration(_Part):
    """One configuration of a plan, with inherited keys."""

    preprocessor_name: Literal["DefaultPreprocessor"]
    patch_size: _Sizes
    spacing: Annotated[list[Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=2, max_length=3)]
    normalization_schemes: list[
        Literal[
            "ZScoreNormalization",
            "CTNormalization",
            "NoNormalization",
            "RescaleTo01Normalization",
            "RGBTo01Normalization",
        ]
    ]
    use_mask_for_norm: list[bool]
    resampling_fn_data: Literal["resample_data_or_seg_to_shape"]
    resampling_fn_data_kwargs: ResamplingArguments
    resampling_fn_probabilities: Literal["resample_data_or_seg_to_shape"]
    resampling_fn_probabilities_kwargs: ResamplingArguments
    architecture: Architecture
    previous_stage: str | None = None

    @property
    def is_flat(self) -> bool:
        """True if it processes one slice at a time."""
        return len(self.patch_size) == 2


class Intensities(_Part):
    """Intensity statistics of the labelled voxels in one channel of the training cases."""

    mean: _Number
    std: _Number
    percentile_00_5: _Number
    percentile_99_5: _Number


class Plans(_Part):
    """Settings shared by all configurations of a plan."""

    image_reader_writer: str
    transpose_forward: Annotated[list[_Axis], Field(min_length=3, max_length=3)]
    label_manager: Literal["LabelManager"] = "LabelManager"
    foreground_intensity_properties_per_channel: dict[str, Intensities] = Field(default_factory=dict)
    configurations: dict[str, dict[str, Any]]


def read_plans(path: Path) -> Plans:
    """Read a plan.

    Raises:
        CheckpointError: If it cannot be read, or is not of nnU-Net v2.
    """
    content = read_json(path, dict, "is not a plan of nnU-Net", _HINT)
    old = content.get("foreground_intensity_properties_by_modality")
    if old is not None:
        content.setdefault("foreground_intensity_properties_per_channel", old)
    return _validated(Plans, content, str(path))


def configuration_of(plans: Plans, name: str, path: Path) -> Configuration:
    """Return one configuration, including what it inherits from others.

    Args:
        plans: All.
        name: Of the configuration.
        path: Of the file, for messages.

    Raises:
        CheckpointError: If there is none of that name, or something in it is not supported.
    """
    merged: dict[str, Any] = {}
    heirs: list[str] = []
    parent: Any = name
    while parent is not None:
        if not isinstance(parent, str) or parent not in plans.configurations or parent in heirs:
            raise CheckpointError(f"{path}: there is no configuration {parent!r}", hint=_HINT)
        heirs.append(parent)
        merged = {**plans.configurations[parent], **merged}
        parent = plans.configurations[parent].get("inherits_from")
    if "architecture" not in merged:
        merged["architecture"] = _architecture_of_old(merged)
    return _validated(Configuration, merged, f"{path}: configurations.{name}")


def _architecture_of_old(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the network of a plan of early versions by its old keys; missing ones stay missing."""
    name, blocks = stated.get("UNet_class_name"), stated.get("n_conv_per_stage_encoder")
    first, most = stated.get("UNet_base_num_features"), stated.get("unet_max_num_features")
    numbers = isinstance(blocks, list) and isinstance(first, int) and isinstance(most, int)
    levels = len(blocks) if isinstance(blocks, list) else 0
    axes = len(stated["patch_size"]) if isinstance(stated.get("patch_size"), list) else 3
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": levels,
            "features_per_stage": [min(first * 2**level, most) for level in range(levels)] if numbers else None,
            "conv_op": f"torch.nn.Conv{axes}d",
            "kernel_sizes": stated.get("conv_kernel_sizes"),
            "strides": stated.get("pool_op_kernel_sizes"),
            "n_blocks_per_stage" if name == "ResidualEncoderUNet" else "n_conv_per_stage": blocks,
            "n_conv_per_stage_decoder": stated.get("n_conv_per_stage_decoder"),
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{axes}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
        },
    }


def _validated(kind: type[_Model], content: Any, where: str) -> _Model:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        given = "" if first["type"] == "missing" else f", not {str(first['input'])[:60]!r}"
        raise CheckpointError(f"{where}: {place}: {first['msg']}{given}", hint=_HINT) from error
