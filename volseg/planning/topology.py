"""Patch size and network topology, adapted to each other, to the volumes and to memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from volseg.config import Config, NetworkConfig, NetworkName
from volseg.errors import ConfigError
from volseg.model.networks import check_divisible, patch_divisor

_NETWORK: TypeAdapter[NetworkConfig] = TypeAdapter(NetworkConfig)
#: Features of the planned strided U-Net, whose finest level works at half the resolution.
_UNET_FEATURES = 32
#: Coarser levels with deep supervision.
_SUPERVISED_LEVELS = 2
_SMALLEST_FEATURE_MAP = 4
_MOST_STRIDES = 5
#: Convolutions per level of a plain U-Net, in encoder and decoder.
_CONVOLUTIONS = 2
#: Blocks per level of a residual encoder (Isensee et al. 2024).
_RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6)
_LARGEST_WIDTH = 320
#: Padding an axis by more than this share costs more than cropping it loses.
_WASTE = 0.05


def plan_patch(
    shape: NDArray[np.float64],
    spacing_mm: tuple[float, float, float],
    network: NetworkName,
    voxels: float,
    features: int,
) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Find the largest patch within the median volume and the voxel budget, and the network that fits it.

    Args:
        shape: Voxels of the median volume along R, A, S.
        spacing_mm: Voxel size.
        network: The network.
        voxels: Largest number of voxels in a patch.
        features: Of a DynUNet at full resolution.

    Returns:
        The patch and the configuration of the network.
    """
    size = np.maximum(shape, np.where(shape == 1, 1, _SMALLEST_FEATURE_MAP))  # what is flat stays flat
    while True:
        topology = _topology(network, size, spacing_mm, features)
        r, a, s = (_round_to(length, step) for length, step in zip(size, divisor_of(topology), strict=True))
        if r * a * s <= voxels or size.max() <= _SMALLEST_FEATURE_MAP:
            return _more_than_one_voxel((r, a, s), divisor_of(topology), size), topology
        longest = int(np.where(size > _SMALLEST_FEATURE_MAP, size * spacing_mm, 0).argmax())
        size = size.copy()
        size[longest] = max(size[longest] * 0.95, _SMALLEST_FEATURE_MAP)


def check_patch(config: Config) -> None:
    """Check that a patch is divisible by the network's total stride, and is more than one voxel at the deepest level.

    Raises:
        ConfigError: If not; names the side and the stride.
    """
    hint = "change patches.size, or leave it out to have it planned"
    check_divisible(config.network, config.patches.size, "patches.size", "patches", hint)
    if tuple(config.patches.size) == patch_divisor(config.network) != (1, 1, 1):
        raise ConfigError(
            f"patches.size: {list(config.patches.size)} leaves network {config.network.name} a single voxel at its "
            "deepest level, which cannot be normalised",
            hint="double one side",
        )


def _more_than_one_voxel(
    patch: tuple[int, int, int], divisor: tuple[int, int, int], size: NDArray[np.float64]
) -> tuple[int, int, int]:
    """Double the longest side if the deepest level would hold one voxel, which no layer can normalise."""
    if patch != divisor or divisor == (1, 1, 1):
        return patch
    longest = int(size.argmax())
    r, a, s = (2 * side if axis == longest else side for axis, side in enumerate(patch))
    return r, a, s


def _topology(
    network: NetworkName, size: NDArray[np.float64], spacing_mm: tuple[float, float, float], features: int
) -> dict[str, Any]:
    dimensions = 2 if size[0] == 1 else 3
    match network:
        case "unet":
            strides = _strides(size, spacing_mm) or [(1, 1, 1)]
            widths = _widths(_UNET_FEATURES, len(strides) + 1)
            return {"name": network, "dimensions": dimensions, "strides": strides, "channels": widths}
        case "dynunet":
            strides = _strides(size, spacing_mm)
            strides += [(1, 1, 1)] * (2 - len(strides))  # MONAI's DynUNet needs at least two
            levels = len(strides)
            return {
                "name": network,
                "strides": strides,
                "kernels": _kernels(strides, size, spacing_mm),
                "filters": _widths(features, levels + 1),
                "deep_supervision": min(_SUPERVISED_LEVELS, levels - 1),
            }
        case "plain_unet" | "residual_encoder_unet":
            strides = _strides(size, spacing_mm) or [(1, 1, 1)]
            levels = len(strides)
            residual = network == "residual_encoder_unet"
            return {
                "name": network,
                "strides": strides,
                "kernels": _kernels(strides, size, spacing_mm),
                "filters": _widths(features, levels + 1),
                "blocks": [*_RESIDUAL_BLOCKS[: levels + 1]] if residual else [_CONVOLUTIONS] * (levels + 1),
                "decoder_blocks": [1 if residual else _CONVOLUTIONS] * levels,
                "deep_supervision": min(_SUPERVISED_LEVELS, levels - 1),
            }
        case "vnet":
            return {"name": network, "dimensions": dimensions, "design": "paper", "filters": features}
        case _:
            return {"name": network, "dimensions": dimensions}


def _strides(size: NDArray[np.float64], spacing_mm: tuple[float, float, float]) -> list[tuple[int, int, int]]:
    """Halve an axis while enough voxels remain, coarse axes only once the fine ones have caught up.

    An axis that is too short to be halved again does not hold up the others, nor is it held up by them.
    """
    remaining, spacing = size.copy(), np.asarray(spacing_mm)
    strides: list[tuple[int, int, int]] = []
    while len(strides) < _MOST_STRIDES:
        long = remaining / 2 >= _SMALLEST_FEATURE_MAP
        if not long.any():
            break
        r, a, s = np.where(long & (spacing < 2 * spacing[long].min()), 2, 1).tolist()
        strides.append((r, a, s))
        remaining, spacing = remaining / (r, a, s), spacing * (r, a, s)
    return strides


def _kernels(
    strides: Sequence[tuple[int, int, int]], size: NDArray[np.float64], spacing_mm: tuple[float, float, float]
) -> list[tuple[int, int, int]]:
    """Choose kernels: flat along an axis that is still coarser than the others, or that has only one voxel."""
    spacing, kernel = np.asarray(spacing_mm), np.ones(3, dtype=np.int64)
    kernels = []
    for stride in ((1, 1, 1), *strides):
        spacing = spacing * stride
        near = (spacing < 2 * spacing.min()) & (size > 1)
        kernel = np.where(near, 3, kernel)  # an axis that has caught up stays so
        r, a, s = kernel.tolist()
        kernels.append((r, a, s))
    return kernels


def _widths(first: int, levels: int) -> list[int]:
    return [min(first * 2**level, _LARGEST_WIDTH) for level in range(levels)]


def with_features(topology: Mapping[str, Any], features: int) -> dict[str, Any]:
    """Return a topology with this many features at the finest level, if its width is planned."""
    match topology:
        case {"filters": [*levels]}:
            return {**topology, "filters": _widths(features, len(levels))}
        case {"filters": int()}:
            return {**topology, "filters": features}
    return dict(topology)


def divisor_of(topology: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the divisor of each side of a patch for a network."""
    return patch_divisor(_NETWORK.validate_python(topology))


def _round_to(length: float, step: int) -> int:
    """Round up to a multiple of `step` where that pads little, else down; never below one step."""
    up = math.ceil(round(length, 3) / step) * step
    return up if up <= length * (1 + _WASTE) else max(up - step, step)
