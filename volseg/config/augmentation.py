"""Augmentation: random changes of training patches."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from volseg.config.section import Axis, Fraction, Section, Triple


class AugmentationConfig(Section):
    """Random augmentation of training patches; a probability of 0 switches a change off.

    Of settings with three numbers, the first concerns the first axis that the network sees: flat patches are
    rotated about it and stay in their plane.

    Attributes:
        affine_probability: Probability that a patch is rotated, scaled, sheared and shifted.
        rotation_degrees: Largest rotation about each axis, in degrees.
        scaling: Largest zoom: factors are drawn from 1 - scaling to 1 + scaling.
        shear: Largest shear factor.
        translation_fraction: Largest shift, as a share of the patch size.
        elastic_probability: Probability of an elastic deformation.
        elastic_magnitude: Largest magnitude of the random displacements of an elastic deformation: in 3D of voxels
            before smoothing (MONAI's Rand3DElastic); in 2D of a control grid of 24 pixels, divided by 50, in pixels.
        flip_axes: Axes along which patches are flipped at random.
        flip_probability: Probability of a flip along each of these axes.
        swap_labels: Pairs of left and right labels that are exchanged in a left-right flip.
        noise_probability: Probability of Gaussian noise.
        noise_std: Standard deviation of the noise, in normalised intensities.
        blur_probability: Probability of Gaussian blur.
        blur_sigma: Largest standard deviation of the blur, in voxels; the smallest is half of it.
        brightness_probability: Probability that a constant is added to all intensities.
        brightness: Largest constant that is added, in normalised intensities.
        contrast_probability: Probability that the contrast is scaled about the mean.
        contrast: Largest relative change of contrast.
        channelwise: Change brightness and contrast of each channel independently, which jitters the colours of 2D
            images.
        gamma_probability: Probability of a gamma correction that keeps mean and standard deviation.
        gamma: Smallest and largest exponent of the gamma correction.
        bias_field_probability: Probability of a smooth bias field, such as MR coils cause.
        bias_field: Largest coefficient of the polynomial of the bias field.
        low_resolution_probability: Probability that a patch is downsampled and upsampled again.
        low_resolution_zoom: Smallest and largest factor of the downsampling.
    """

    affine_probability: Fraction = 0.35
    rotation_degrees: Triple = (15.0, 15.0, 15.0)
    scaling: Annotated[float, Field(ge=0, lt=1)] = 0.15
    shear: Annotated[float, Field(ge=0, lt=1)] = 0.0
    translation_fraction: Fraction = 0.05
    elastic_probability: Fraction = 0.0
    elastic_magnitude: Annotated[float, Field(ge=0)] = 100.0
    flip_axes: tuple[Axis, ...] = ()
    flip_probability: Fraction = 0.5
    swap_labels: tuple[tuple[str, str], ...] = ()
    noise_probability: Fraction = 0.15
    noise_std: Annotated[float, Field(ge=0)] = 0.1
    blur_probability: Fraction = 0.1
    blur_sigma: Annotated[float, Field(gt=0)] = 1.0
    brightness_probability: Fraction = 0.15
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.25
    contrast_probability: Fraction = 0.15
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.25
    channelwise: bool = False
    gamma_probability: Fraction = 0.15
    gamma: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.7, 1.5)
    bias_field_probability: Fraction = 0.0
    bias_field: Annotated[float, Field(ge=0)] = 0.3
    low_resolution_probability: Fraction = 0.1
    low_resolution_zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1)]] = (0.5, 1.0)
