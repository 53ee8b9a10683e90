"""Convert the transforms before the network to preprocessing settings."""

from __future__ import annotations

from typing import Any

from volseg.errors import CheckpointError
from volseg.importing.bundle import components
from volseg.importing.bundle.components import Component, read_chain
from volseg.importing.bundle.content import HINT

_INTENSITIES = (
    components.NormalizeIntensity,
    components.ScaleIntensity,
    components.ScaleIntensityRange,
    components.ScaleIntensityRangePercentiles,
)


def read_preprocessing(stated: Any, where: str, channels: int, axes: str) -> dict[str, Any]:
    """Read the chain.

    Args:
        stated: The chain in the bundle.
        where: Its name in errors.
        channels: Of the image.
        axes: Directions of the network's axes, or "stored", or "" for those of the chain.

    Returns:
        Settings.

    Raises:
        CheckpointError: If anything in it is not supported.
    """
    turned, spaced = "", False
    settings: dict[str, Any] = {"spacing_mm": [None, None, None]}
    before: list[dict[str, Any]] = []
    after: list[dict[str, Any]] = []
    for place, component in read_chain(stated, where):
        match component:
            case components.Load() | components.AsItIs():
                pass
            case components.Orientation(axcodes=axcodes) if not turned and not spaced:
                turned = axcodes
            case components.Spacing(pixdim=pixdim) if not spaced:
                spaced = True
                settings |= {"spacing_mm": pixdim if isinstance(pixdim, list) else [pixdim] * 3, "grid": "monai"}
            case components.SpacingAboutCentre(pixdim=pixdim) if not spaced:
                spaced = True
                settings |= {"spacing_mm": pixdim, "grid": "spacing"}
            case _ if isinstance(component, _INTENSITIES):
                (after if spaced else before).append(_normalization(component, channels, place))
            case _:
                raise CheckpointError(f"{place} is not supported there", hint=HINT)
    if before and after:
        raise CheckpointError(f"{where}: intensities are changed before and after Spacingd", hint=HINT)
    steps = [*before, *after]
    one = steps[0] if len(steps) == 1 else {"method": "successive", "steps": steps} if steps else {"method": "none"}
    return {
        **settings,
        "axes": axes or turned or "stored",
        "normalize": "after_resampling" if after else "before_resampling",
        "normalization": [one] * channels,
    }


def _normalization(  # noqa: PLR0911  one for each component
    component: Component, channels: int, place: str
) -> dict[str, Any]:
    if not getattr(component, "channel_wise", True) and channels > 1:
        raise CheckpointError(f"{place}: the range of all channels together (channel_wise) is not supported", hint=HINT)
    match component:
        case components.NormalizeIntensity(subtrahend=None, divisor=None, nonzero=nonzero):
            return {"method": "zscore", "nonzero": nonzero}
        case components.NormalizeIntensity(subtrahend=float(mean), divisor=float(std), nonzero=False):
            return {"method": "fixed", "mean": mean, "std": std}
        case components.ScaleIntensity(minv=low, maxv=high):
            return {"method": "minmax", "low": low, "high": high}
        case components.ScaleIntensityRange(a_min=low, a_max=high, b_min=0.0, b_max=1.0, clip=True):
            return {"method": "window", "low": low, "high": high}
        case components.ScaleIntensityRange(a_min=low, a_max=high, b_min=first, b_max=last) if (
            low < high and first < last
        ):
            std = (high - low) / (last - first)
            fixed = {"mean": low - first * std, "std": std}
            if component.clip:
                return {"method": "ct", "low": low, "high": high, **fixed}
            return {"method": "fixed", **fixed}
        case components.ScaleIntensityRangePercentiles(lower=low, upper=high):
            return {"method": "percentiles", "low": low, "high": high}
    raise CheckpointError(f"{place}: {component!r} is not supported", hint=HINT)
