"""Normalisation of intensities."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from volseg.config.section import Section


class ZScore(Section):
    """Z-score of each volume: subtract its mean, divide by its standard deviation.

    Attributes:
        method: `zscore`.
        nonzero: Compute mean and standard deviation over nonzero voxels only.
        fill_holes: Include zeros enclosed by nonzero voxels of any channel.
    """

    method: Literal["zscore"] = "zscore"
    nonzero: bool = True
    fill_holes: bool = False


class _Range(Section):
    """Base of normalisations with a lower and an upper value."""

    method: str
    low: float
    high: float

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, given {self.low:g} and {self.high:g}")
        return self


class CtNormalization(_Range):
    """Clip to fixed limits, subtract a fixed mean and divide by a fixed deviation, as nnU-Net does for CT.

    Attributes:
        method: `ct`.
        low: Lower clipping value.
        high: Upper clipping value.
        mean: Mean to subtract.
        std: Standard deviation to divide by.
    """

    method: Literal["ct"] = "ct"
    mean: float
    std: Annotated[float, Field(gt=0)]


class Window(_Range):
    """Clip to a fixed window and scale it to the range from 0 to 1.

    Attributes:
        method: `window`.
        low: Value that becomes 0.
        high: Value that becomes 1.
    """

    method: Literal["window"] = "window"


class Percentiles(_Range):
    """Clip each volume to two of its percentiles and scale them to the range from 0 to 1.

    Attributes:
        method: `percentiles`.
        low: Percentile that becomes 0.
        high: Percentile that becomes 1.
    """

    method: Literal["percentiles"] = "percentiles"
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5


class MinMax(Section):
    """Rescale each volume linearly to a range.

    Attributes:
        method: `minmax`.
        low: Smallest value of the result.
        high: Largest value of the result.
    """

    method: Literal["minmax"] = "minmax"
    low: float = 0.0
    high: float = 1.0


class Standardized(Section):
    """Subtract a fixed number and divide by another.

    Attributes:
        method: `fixed`.
        mean: Number to subtract.
        std: Number to divide by.
    """

    method: Literal["fixed"] = "fixed"
    mean: float
    std: Annotated[float, Field(gt=0)]


class Unchanged(Section):
    """Intensities as they are.

    Attributes:
        method: `none`.
    """

    method: Literal["none"] = "none"


SingleNormalization = Annotated[
    ZScore | CtNormalization | Window | Percentiles | MinMax | Standardized | Unchanged, Field(discriminator="method")
]


class Successive(Section):
    """Several normalisations, applied in order.

    Attributes:
        method: `successive`.
        steps: Normalisations in the order in which they are applied.
    """

    method: Literal["successive"] = "successive"
    steps: Annotated[tuple[SingleNormalization, ...], Field(min_length=1)]


Normalization = Annotated[
    ZScore | CtNormalization | Window | Percentiles | MinMax | Standardized | Unchanged | Successive,
    Field(discriminator="method"),
]


Normalizations = Annotated[tuple[Normalization, ...], Field(min_length=1)]
