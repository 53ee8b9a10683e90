"""Networks, built from the configuration, all with one calling convention.

A network maps (B, C, R, A, S) float to logits (B, outputs, R, A, S); with deep supervision, while training, to
(B, 1 + levels, outputs, R, A, S), the finest first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from volseg.config import (
    FCN,
    AttentionUnet,
    BlockUNetConfig,
    DeepLab,
    DimensionalConfig,
    DynUNet,
    EncodedConfig,
    EncoderUNet,
    NetworkConfig,
    SegResNet,
    SwinUNETR,
    UNet,
    VNet,
)
from volseg.errors import ConfigError
from volseg.model import deeplab, encoder_unet, fcn
from volseg.model.encoders.pretrained import load_pretrained
from volseg.model.monai_networks import statement_of
from volseg.model.unets import BlockUNet


class Planes(nn.Module):
    """A network of two dimensions, which sees each plane of a volume by itself.

    Args:
        network: (B, C, A, S) -> (B, outputs, A, S).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, volume: Tensor) -> Tensor:
        """Run the network: (B, C, R, A, S) -> (B, outputs, R, A, S)."""
        batch, channels, planes, *size = volume.shape
        if planes == 1:
            alone: Tensor = self.network(volume.squeeze(2)).unsqueeze(2)
            return alone
        answers: Tensor = self.network(volume.transpose(1, 2).reshape(batch * planes, channels, *size))
        return answers.reshape(batch, planes, -1, *size).transpose(1, 2)


class Neighbors(nn.Module):
    """A network that sees neighbouring slices of each slice as further channels (2.5D).

    Beyond the first and the last slice, these are repeated.

    Args:
        network: (B, (2 * neighbors + 1) * C, R, A, S) -> (B, outputs, R, A, S); it sees each slice by itself.
        neighbors: Number of slices on either side.
    """

    def __init__(self, network: nn.Module, neighbors: int) -> None:
        super().__init__()
        self.network = network
        self.neighbors = neighbors

    def forward(self, volume: Tensor) -> Tensor:
        """Run the network: (B, C, R, A, S) -> (B, outputs, R, A, S)."""
        slices = volume.shape[2]
        ends = [volume[:, :, :1]] * self.neighbors, [volume[:, :, -1:]] * self.neighbors
        longer = torch.cat([*ends[0], volume, *ends[1]], dim=2)
        seen = [longer[:, :, first : first + slices] for first in range(2 * self.neighbors + 1)]
        answers: Tensor = self.network(torch.cat(seen, dim=1))
        return answers


class _Guarded:
    """A convolution that falls back from bf16 on the CPU where its weight gradient would be undefined.

    With PyTorch 2.13 on CPUs with bf16 arithmetic, the weight gradient of a bf16 convolution is wrong, often not even
    finite, when the feature map is narrower than the kernel along an axis (deep levels of small patches; 5x5x5 kernels
    of V-Net below 5 voxels). Forward results and input gradients are right.
    """

    kernel_size: tuple[int, ...]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  PyTorch's name
        """Convolve, in float32 where bf16 is not reliable."""
        narrow = any(size < kernel for size, kernel in zip(input.shape[2:], self.kernel_size, strict=True))
        if narrow and torch.is_grad_enabled() and input.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())  # type: ignore[misc]
        return super().forward(input)  # type: ignore[misc]


class GuardedConv3d(_Guarded, nn.Conv3d):
    """A convolution of volumes with correct weight gradients."""


class GuardedConv2d(_Guarded, nn.Conv2d):
    """A convolution of planes with correct weight gradients."""


def build_network(config: NetworkConfig, channels: int, outputs: int) -> nn.Module:
    """Build a network with random weights.

    Args:
        config: The network's configuration.
        channels: Image channels.
        outputs: Logits per voxel.

    Returns:
        The network.
    """
    channels = config.inputs(channels)
    match config:
        case BlockUNetConfig():
            network: nn.Module = BlockUNet(config, channels, outputs)
        case VNet():
            network = _build_vnet(config, channels, outputs)
        case EncoderUNet():
            network = encoder_unet.EncoderUNet(config, channels, outputs)
        case FCN():
            network = fcn.FCN(config, channels, outputs)
        case DeepLab():
            network = deeplab.DeepLab(config, channels, outputs)
        case _:
            network = _build_with_monai(config, channels, outputs)
    for module in network.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = GuardedConv3d  # same parameters and state, another forward
        elif type(module) is nn.Conv2d:
            module.__class__ = GuardedConv2d
    if isinstance(config, DimensionalConfig) and config.dimensions == 2:
        network = Planes(network)
    return Neighbors(network, config.neighbors) if config.neighbors else network


def begin_with_pretrained(network: nn.Module, config: NetworkConfig) -> set[str]:
    """Load the pretrained weights that the configuration names into the network's encoder, if it names any.

    Returns:
        The names of the weights that were loaded.

    Raises:
        CheckpointError: If the file cannot be read, or its weights do not fit the encoder.
    """
    if not isinstance(config, EncodedConfig) or config.encoder.weights is None:
        return set()
    place = "network.network.encoder" if isinstance(network, Neighbors) else "network.encoder"
    encoder = network.get_submodule(place)
    load_pretrained(encoder, config.encoder)  # type: ignore[arg-type]
    return {f"{place}.{name}" for name in encoder.state_dict()}


def _build_with_monai(config: NetworkConfig, channels: int, outputs: int) -> nn.Module:
    from monai.networks import nets

    from volseg.model.dynunet import CopyableDynUNet

    stated = statement_of(config, channels, outputs)
    if stated is None:
        raise ConfigError(f"MONAI has no network {config.name}", hint="name another network")
    build = CopyableDynUNet if stated.name == "DynUNet" else getattr(nets, stated.name)
    network: nn.Module = build(**stated.arguments)
    return network


def patch_divisor(config: NetworkConfig) -> tuple[int, int, int]:
    """Return the divisor of each side of a patch."""
    match config:
        case UNet(strides=strides) | DynUNet(strides=strides) | BlockUNetConfig(strides=strides):
            r, a, s = (math.prod(stride[axis] for stride in strides) for axis in range(3))
            return r, a, s
        case VNet():
            step = 16
        case SegResNet(blocks_down=blocks):
            step = 2 ** (len(blocks) - 1)
        case AttentionUnet(channels=channels):
            step = 2 ** (len(channels) - 1)
        case SwinUNETR() | EncoderUNet() | FCN():
            step = 32
        case DeepLab(stride=stride):
            step = stride
    return config.over_planes((step, step, step))


def check_divisible(network: NetworkConfig, sizes: Sequence[int], key: str, what: str, hint: str) -> None:
    """Check that sides are divisible by the network's total stride.

    Args:
        network: The network.
        sizes: Voxels along each axis.
        key: Configuration key of the sizes.
        what: What the sides belong to: "patches".
        hint: What to do about it.

    Raises:
        ConfigError: If not; names the sides and the strides.
    """
    steps = patch_divisor(network)
    if any(size % step for size, step in zip(sizes, steps, strict=True)):
        raise ConfigError(
            f"{key}: {list(sizes)} does not fit network {network.name}, "
            f"whose {what} must be divisible by {list(steps)}",
            hint=hint,
        )


def _build_vnet(config: VNet, channels: int, outputs: int) -> nn.Module:
    from volseg.model.vnet import MonaiVNet, PaperVNet

    features = config.filters
    # V-Net repeats its input to as many features; any number that does not divide them is mixed into them first.
    divides = features % channels == 0
    inputs = channels if divides else features
    if config.design == "paper":
        network: nn.Module = PaperVNet(config, inputs, outputs)
    else:
        network = MonaiVNet(features, inputs, outputs, config.dropout, config.dimensions)
    mix = nn.Conv3d if config.dimensions == 3 else nn.Conv2d
    return network if divides else nn.Sequential(mix(channels, features, kernel_size=1), network)


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Choose the precision of the network.

    Args:
        precision: "auto", "fp32", "bf16" or "fp16".
        device: Where it runs.

    Returns:
        torch.float32, torch.bfloat16 or torch.float16. "auto" is bf16 if the hardware supports its arithmetic, else
        fp32.
    """
    match precision:
        case "fp32":
            return torch.float32
        case "bf16":
            return torch.bfloat16
        case "fp16":
            return torch.float16
    if device.type == "cuda":
        # Older GPUs only emulate bf16, slower than float32.
        with torch.cuda.device(device):
            multiplies = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if multiplies else torch.float16
    if device.type != "cpu":
        return torch.float32
    supported = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001  no public name
    # A processor's features may be disabled (ATEN_CPU_CAPABILITY): then bf16 is emulated, a hundred times slower.
    used = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.bfloat16 if supported and used else torch.float32


def arranged(network: nn.Module, layout: torch.memory_format, device: torch.device | None = None) -> nn.Module:
    """Move a network to a device, its weights in a memory format for volumes or the 2D equivalent for planes."""
    if layout is torch.channels_last_3d and any(isinstance(module, Planes) for module in network.modules()):
        layout = torch.channels_last
    return network.to(device, memory_format=layout)  # type: ignore[call-overload]


def choose_memory_format(memory_format: str, device: torch.device) -> torch.memory_format:
    """Choose the memory format of feature maps during training.

    Args:
        memory_format: "auto", "contiguous" or "channels_last".
        device: Where the network runs: channels last is usually fastest on GPUs and slower on CPUs.
    """
    last = memory_format == "channels_last" or (memory_format == "auto" and device.type == "cuda")
    return torch.channels_last_3d if last else torch.contiguous_format
