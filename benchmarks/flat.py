"""Flat kernels of three dimensions beside those of two (python benchmarks/flat.py).

The same convolution of planes, with instance normalisation and a rectifier, forward and backward: as PyTorch's two
dimensions, as three with the flat axis first (1 x 3 x 3, as volseg has it), and with the flat axis last (3 x 3 x 1).
"""

from __future__ import annotations

from statistics import median
from time import perf_counter

import torch
from torch import nn

_ROUNDS = 7
#: Features in and out, and the side of the planes.
_LAYERS = ((3, 32, 128), (32, 32, 128), (64, 64, 64), (128, 128, 32))


def main() -> None:
    """Print a row per layer and kind of numbers."""
    print(f"{'layer':>22} {'numbers':>9} {'3 x 3':>9} {'1 x 3 x 3':>10} {'3 x 3 x 1':>10} {'first / 2d':>11}")
    for dtype in (torch.float32, torch.bfloat16):
        for inputs, outputs, side in _LAYERS:
            planes = torch.randn(4, inputs, side, side)
            cases = (
                (_layer(nn.Conv2d, nn.InstanceNorm2d, inputs, outputs, (3, 3), (1, 1)), planes),
                (_layer(nn.Conv3d, nn.InstanceNorm3d, inputs, outputs, (1, 3, 3), (0, 1, 1)), planes[:, :, None]),
                (_layer(nn.Conv3d, nn.InstanceNorm3d, inputs, outputs, (3, 3, 1), (1, 1, 0)), planes[..., None]),
            )
            times: list[list[float]] = [[] for _ in cases]
            for _ in range(_ROUNDS):  # in turns, so that all see the same machine
                for own, (layer, image) in zip(times, cases, strict=True):
                    own.append(_seconds(layer, image, dtype))
            flat, first, last = (1000 * median(own[1:]) for own in times)
            name = f"{inputs} -> {outputs}, {side} x {side}"
            kind = str(dtype).removeprefix("torch.")
            print(f"{name:>22} {kind:>9} {flat:>6.1f} ms {first:>7.1f} ms {last:>7.1f} ms {first / flat:>11.2f}")


def _layer(
    convolution: type[nn.Module],
    norm: type[nn.Module],
    inputs: int,
    outputs: int,
    kernel: tuple[int, ...],
    padding: tuple[int, ...],
) -> nn.Module:
    return nn.Sequential(convolution(inputs, outputs, kernel, padding=padding), norm(outputs, affine=True), nn.ReLU())


def _seconds(layer: nn.Module, image: torch.Tensor, dtype: torch.dtype) -> float:
    began = perf_counter()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        answers = layer(image)
    answers.float().sum().backward()
    return perf_counter() - began


if __name__ == "__main__":
    main()
