"""Simulation of a scanner: texture, coil sensitivity, limited resolution and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_NOISE = 6.0


def scan(rng: np.random.Generator, tissue: NDArray[np.floating], spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """Return the simulated image of tissue, (I, J, K) integers from 0.

    The noise is Rician, as in the magnitude of a complex signal (Gudbjartsson and Patz, MRM 34, 1995).

    Args:
        rng: Random number generator for texture, sensitivity, noise and the unit of intensity.
        tissue: (I, J, K) brightness.
        spacing_mm: Voxel size.
    """
    shape = tissue.shape
    texture = 1 + 0.05 * smooth_noise(rng, shape, spacing_mm, sigma_mm=2.5)
    sensitivity = np.exp(0.1 * smooth_noise(rng, shape, spacing_mm, sigma_mm=50))
    # A border voxel contains both tissues: the partial volume effect.
    signal = blurred(tissue * texture * sensitivity, spacing_mm, 0.4 * np.asarray(spacing_mm))
    noise = rng.normal(scale=_NOISE, size=(2, *shape))
    magnitude = np.hypot(signal + noise[0], noise[1])
    return np.asarray(np.rint(magnitude * rng.uniform(2, 6)), dtype=np.float32)


def smooth_noise(rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], sigma_mm: float) -> Array:
    """Return an (I, J, K) random field of mean 0 and standard deviation 1 that varies over about `sigma_mm`."""
    field = blurred(rng.standard_normal(tuple(shape)), spacing_mm, (sigma_mm,) * 3)
    return np.asarray((field - field.mean()) / field.std())


def blurred(array: NDArray[np.floating], spacing_mm: Sequence[float], sigma_mm: ArrayLike) -> Array:
    """Blur by a Gaussian in millimetres with the Fourier transform, which wraps around at the borders."""
    spectrum = np.fft.rfftn(array)
    for axis, (size, step_mm, sigma) in enumerate(zip(array.shape, spacing_mm, np.asarray(sigma_mm), strict=True)):
        frequency = np.fft.rfftfreq(size, step_mm) if axis == array.ndim - 1 else np.fft.fftfreq(size, step_mm)
        # The transform of a Gaussian of width s is exp(-2 (pi s f)^2).
        gain = np.exp(-2 * (np.pi * sigma * frequency) ** 2)
        spectrum *= np.expand_dims(gain, tuple(other for other in range(3) if other != axis))
    return np.fft.irfftn(spectrum, array.shape, axes=range(array.ndim))
