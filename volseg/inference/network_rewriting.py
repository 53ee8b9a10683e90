"""Rewriting networks for faster inference: every change preserves the output up to rounding."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from volseg.model.networks import arranged

#: Processors with 512-bit registers work on this many output channels at once, needed or not.
_LANES = 16
_TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
#: A convolution is packed where that saves at least this share of its multiplications.
_WORTHWHILE = 0.3


class PackedConv3d(nn.Module):
    """A convolution with few outputs, which computes neighbouring voxels as if they were channels.

    A kernel of k voxels, moved over p positions, covers k + p - 1 voxels: a convolution with a kernel of that size and
    stride p gives the p neighbours as p times the outputs, and fills registers that a few outputs would leave empty.
    Neighbours along the last axis with their channels side by side are what a volume is in memory (channels last), so
    nothing has to be moved afterwards.

    Args:
        convolution: Stride 1, odd kernels, padded so that shapes stay the same.
        phases: Neighbours computed together along the last axis, whose size must be divisible by it.
    """

    def __init__(self, convolution: nn.Conv3d, phases: int) -> None:
        super().__init__()
        self.phases, self.outputs, self.padding = phases, convolution.out_channels, convolution.padding
        weight = convolution.weight.detach()
        *others, size = convolution.kernel_size
        packed = weight.new_zeros(phases, self.outputs, convolution.in_channels, *others, size + phases - 1)
        for phase in range(phases):
            packed[phase, ..., phase : phase + size] = weight
        self.weight = nn.Parameter(packed.flatten(0, 1), requires_grad=False)
        bias = None if convolution.bias is None else convolution.bias.detach().repeat(phases)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        """Run the layer: (B, C, R, A, S) -> (B, outputs, R, A, S)."""
        packed = functional.conv3d(image, self.weight, self.bias, (1, 1, self.phases), self.padding)
        count, _, r, a, s = packed.shape
        voxels = packed.permute(0, 2, 3, 4, 1).reshape(count, r, a, s * self.phases, self.outputs)
        return voxels.permute(0, 4, 1, 2, 3)


class PackedUpsampling3d(nn.Module):
    """A transposed convolution of stride 2 and kernel 3 with few outputs, as a convolution of the small feature map.

    Each of 2 x 2 x 2 voxels of the result depends on the same 2 x 2 x 2 voxels of the input: along an axis the first
    lies on the first of them (the middle tap), the second between both (the outer taps).

    Args:
        convolution: Kernel 3, stride 2, padding 1, output padding 1 along each axis.
    """

    def __init__(self, convolution: nn.ConvTranspose3d) -> None:
        super().__init__()
        self.outputs = convolution.out_channels
        # (tap of the result, voxel of the input, tap of the kernel)
        weight = convolution.weight.detach()  # (C, outputs, 3, 3, 3)
        taps = torch.zeros(2, 2, 3, dtype=weight.dtype)
        taps[0, 0, 1] = taps[1, 0, 2] = taps[1, 1, 0] = 1
        packed = torch.einsum("coxyz,pix,qjy,rkz->pqrocijk", weight, taps, taps, taps)
        self.weight = nn.Parameter(packed.flatten(0, 3).contiguous(), requires_grad=False)
        bias = None if convolution.bias is None else convolution.bias.detach().repeat(8)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, features: Tensor) -> Tensor:
        """Run the layer: (B, C, R, A, S) -> (B, outputs, 2 R, 2 A, 2 S)."""
        count, _, r, a, s = features.shape
        packed = functional.conv3d(features, self.weight, self.bias, padding=1)[:, :, 1:, 1:, 1:]
        phases = packed.reshape(count, 2, 2, 2 * self.outputs, r, a, s).permute(0, 4, 1, 5, 2, 6, 3)
        voxels = phases.reshape(count, 2 * r, 2 * a, 2 * s, self.outputs)
        return voxels.permute(0, 4, 1, 2, 3)


class InstanceNorm3d(nn.Module):
    """Instance normalisation of feature maps in channels-last memory format, which it keeps.

    Args:
        norm: Without running statistics.
    """

    def __init__(self, norm: nn.InstanceNorm3d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, features: Tensor) -> Tensor:
        """Run the layer: (B, C, R, A, S) -> the same shape."""
        if features.shape[0] > 1:
            return torch.cat([self.forward(each[None]) for each in features])
        if features.shape[1] < _LANES:
            return self._few_channels(features)
        # Over a batch of one volume, batch normalisation is instance normalisation.
        return functional.batch_norm(features, None, None, self.weight, self.bias, training=True, eps=self.eps)

    def _few_channels(self, features: Tensor) -> Tensor:
        """Sum over several voxels side by side, which fills registers better than sums over few channels."""
        channels, voxels = features.shape[1], features[0, 0].numel()
        together = math.gcd(voxels, _LANES)
        rows = features.permute(0, 2, 3, 4, 1).reshape(-1, together * channels)
        wide = rows.float()
        mean = wide.mean(dim=0).reshape(together, channels).mean(dim=0)
        square = (wide * wide).mean(dim=0).reshape(together, channels).mean(dim=0)
        scale = (square - mean * mean).clamp(min=0).add(self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale if self.bias is None else self.bias - mean * scale
        normal = torch.addcmul(shift.repeat(together), wide, scale.repeat(together)).to(features.dtype)
        return normal.reshape(features.permute(0, 2, 3, 4, 1).shape).permute(0, 4, 1, 2, 3)


def rewrite(network: nn.Module, channels: int, patch: tuple[int, int, int]) -> nn.Module:
    """Copy a network and remove from it what inference does not need, with any engine.

    Args:
        network: Any network; unrecognised layers stay as they are.
        channels: Of its input.
        patch: Voxels of its input; the copy accepts no other size.

    Returns:
        A network with the same outputs, up to rounding, in evaluation mode.
    """
    lean = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    for module in lean.modules():
        for plain in (nn.Conv2d, nn.Conv3d):
            if isinstance(module, plain):
                module.__class__ = plain  # training guards its gradients; there are none here
    _fold_batch_norms(lean)
    _pack_convolutions(lean, channels, patch)
    return lean


def rewrite_for_torch(network: nn.Module) -> nn.Module:
    """Apply what further speeds up PyTorch on a CPU: everything in channels-last memory format.

    Args:
        network: From `rewrite`.

    Returns:
        The same network.
    """
    from volseg.inference.residual_unit import LeanResidualUnit, ResidualUnit  # MONAI takes seconds to import

    _activate_in_place(network)
    for name, module in list(network.named_modules()):
        if isinstance(module, ResidualUnit):
            module.__class__ = LeanResidualUnit
        elif isinstance(module, nn.InstanceNorm3d) and not module.track_running_stats:
            network.set_submodule(name, InstanceNorm3d(module))
        elif isinstance(module, nn.ConvTranspose3d) and _is_packed_faster(module):
            network.set_submodule(name, PackedUpsampling3d(module))
    return arranged(network, torch.channels_last_3d)


def _fold_batch_norms(network: nn.Module) -> None:
    """Fold each batch normalisation into the convolution directly before it."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for (_, one), (name, other) in pairwise(_leaves(module)):
            if isinstance(one, _CONVOLUTIONS) and isinstance(other, nn.BatchNorm2d | nn.BatchNorm3d):
                fused = fuse_conv_bn_eval(one, other, transpose=isinstance(one, _TRANSPOSED))
                one.weight, one.bias = fused.weight, fused.bias
                module.set_submodule(name, nn.Identity())


def _activate_in_place(network: nn.Module) -> None:
    """Make leaky rectifiers work in place on the output of a normalisation that nothing else uses."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for (_, one), (name, other) in pairwise(_leaves(module)):
            if isinstance(one, nn.InstanceNorm3d) and isinstance(other, nn.PReLU) and other.num_parameters == 1:
                module.set_submodule(name, nn.LeakyReLU(float(other.weight), inplace=True))


def _leaves(module: nn.Sequential, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Return the modules of nested chains, in the order in which they run, without identities."""
    leaves: list[tuple[str, nn.Module]] = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, nn.Sequential):
            leaves += _leaves(child, f"{path}.")
        elif not isinstance(child, nn.Identity | nn.Dropout | nn.Dropout3d):
            leaves.append((path, child))
    return leaves


def _pack_convolutions(network: nn.Module, channels: int, patch: tuple[int, int, int]) -> None:
    phases = {
        name: best
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv3d) and (best := _phases(module)) > 1
    }
    for name, length in (_map_lengths(network, list(phases), channels, patch) if phases else {}).items():
        if length % phases[name] == 0:
            convolution = network.get_submodule(name)
            network.set_submodule(name, PackedConv3d(convolution, phases[name]))  # type: ignore[arg-type]


def _map_lengths(network: nn.Module, names: list[str], channels: int, patch: tuple[int, int, int]) -> dict[str, int]:
    """Return the last side of the feature maps that some layers receive, without computing anything."""
    lengths: dict[str, int] = {}
    hollow = copy.deepcopy(network).to("meta")
    for name in names:
        hollow.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: lengths.update({name: int(inputs[0].shape[-1])})
        )
    with torch.inference_mode():
        hollow(torch.empty(1, channels, *patch, device="meta"))
    return lengths


def _phases(convolution: nn.Conv3d) -> int:
    """Choose how many neighbours to compute together: the fewest multiplications, wasted ones included."""
    kernel = convolution.kernel_size
    same = tuple((size - 1) // 2 for size in kernel)
    simple = convolution.stride == convolution.dilation == (1, 1, 1) and convolution.groups == 1
    if not simple or convolution.padding != same or any(size % 2 == 0 for size in kernel) or max(kernel) == 1:
        return 1

    def cost(phases: int) -> float:
        lanes = math.ceil(convolution.out_channels * phases / _LANES) * _LANES
        return lanes * (kernel[-1] + phases - 1) / phases

    best = min((1, 2, 4, 8), key=cost)
    return best if cost(best) < (1 - _WORTHWHILE) * cost(1) else 1


def _is_packed_faster(convolution: nn.ConvTranspose3d) -> bool:
    """Return whether a transposed convolution can be packed, and has so few outputs that it pays."""
    known = (
        convolution.kernel_size == (3, 3, 3)
        and convolution.stride == (2, 2, 2)
        and convolution.padding == convolution.output_padding == convolution.dilation == (1, 1, 1)
        and convolution.groups == 1
    )
    # 27 taps, each on all lanes, against 8 voxels of the input for 8 times the outputs.
    lanes = math.ceil(convolution.out_channels / _LANES) * _LANES
    packed = math.ceil(8 * convolution.out_channels / _LANES) * _LANES
    return known and 8 * packed < (1 - _WORTHWHILE) * 27 * lanes
