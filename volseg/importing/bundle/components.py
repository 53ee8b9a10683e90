"""The supported MONAI components of bundles, each with its allowed arguments."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from volseg.errors import CheckpointError
from volseg.importing.bundle.content import HINT

_Number = Annotated[float, Field(allow_inf_nan=False)]
_Size = Annotated[int, Field(ge=1, le=4096)]
#: Module of the extra transforms in bundles written by volseg.
_OWN_SCRIPTS = "scripts.volseg_bundle."
#: Keys about a component that are not its arguments.
_NOTES = ("_target_", "_requires_", "_desc_", "_disabled_", "_mode_")


class Component(BaseModel):
    """A component; arguments that are not listed are refused, those in `passed_over` have no effect here."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    passed_over: ClassVar[tuple[str, ...]] = ()


class _Transform(Component):
    """A dictionary transform."""

    keys: str | list[str]
    allow_missing_keys: bool = False
    lazy: Literal[False] = False


class Load(_Transform):
    """Reads files."""

    passed_over = ("image_only", "ensure_channel_first", "simple_keys", "dtype", "prune_meta_pattern", "prune_meta_sep",
                   "meta_keys", "meta_key_postfix", "overwriting", "expanduser")  # fmt: skip
    reader: Literal["NibabelReader", "ITKReader", "monai.data.NibabelReader", "monai.data.ITKReader"] | None = None


class AsItIs(_Transform):
    """Does nothing that volseg does not do anyway."""

    passed_over = ("dtype", "data_type", "device", "wrap_sequence", "track_meta", "meta_keys", "meta_key_postfix",
                   "strict_check", "channel_dim")  # fmt: skip


class Orientation(_Transform):
    """Reorients the axes."""

    passed_over = ("labels",)
    axcodes: Annotated[str, Field(pattern="^[RLAPSI]{3}$")]
    as_closest_canonical: Literal[False] = False


class Spacing(_Transform):
    """Resamples."""

    passed_over = ("dtype", "ensure_same_shape")
    pixdim: _Number | Annotated[list[_Number], Field(min_length=3, max_length=3)]
    mode: Literal["bilinear"] | list[Literal["bilinear", "nearest"]] = "bilinear"
    padding_mode: Literal["border"] | list[Literal["border"]] = "border"
    diagonal: Literal[False] = False
    align_corners: Literal[False] | None = False
    scale_extent: Literal[False] = False
    recompute_affine: Literal[False] = False
    min_pixdim: None = None
    max_pixdim: None = None


class SpacingAboutCentre(_Transform):
    """Resamples about the centre, as volseg does."""

    pixdim: Annotated[list[_Number | None], Field(min_length=3, max_length=3)]


class NormalizeIntensity(_Transform):
    """Subtracts one number and divides by another."""

    passed_over = ("dtype",)
    subtrahend: _Number | None = None
    divisor: Annotated[_Number, Field(gt=0)] | None = None
    nonzero: bool = False
    channel_wise: bool = False


class ScaleIntensity(_Transform):
    """Scales the range of values."""

    passed_over = ("dtype",)
    minv: _Number = 0.0
    maxv: _Number = 1.0
    factor: None = None
    channel_wise: bool = False


class ScaleIntensityRange(_Transform):
    """Scales one range to another."""

    passed_over = ("dtype",)
    a_min: _Number
    a_max: _Number
    b_min: _Number
    b_max: _Number
    clip: bool = False


class ScaleIntensityRangePercentiles(_Transform):
    """Scales a range of percentiles to 0..1."""

    passed_over = ("dtype",)
    lower: Annotated[_Number, Field(ge=0, lt=100)]
    upper: Annotated[_Number, Field(gt=0, le=100)]
    b_min: Annotated[_Number, Field(ge=0, le=0)]
    b_max: Annotated[_Number, Field(ge=1, le=1)]
    clip: Literal[True]
    relative: Literal[False] = False
    channel_wise: bool = False


class Activations(_Transform):
    """Turns logits into probabilities."""

    softmax: bool = False
    sigmoid: bool = False
    other: None = None


class Invert(_Transform):
    """Resamples back to the grid of the image."""

    passed_over = ("transform", "orig_keys", "meta_keys", "orig_meta_keys", "meta_key_postfix", "to_tensor", "device",
                   "post_func")  # fmt: skip
    nearest_interp: bool | list[bool] = True


class AsDiscrete(_Transform):
    """Turns probabilities into labels."""

    argmax: bool = False
    to_onehot: None = None
    threshold: Annotated[_Number, Field(gt=0, lt=1)] | None = None
    rounding: None = None
    dtype: Any = None


class PaintRegions(_Transform):
    """Paints overlapping regions into a label map, as volseg does."""

    values: Annotated[list[Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1)]
    thresholds: Annotated[list[Annotated[_Number, Field(gt=0, lt=1)]], Field(min_length=1)]
    order: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class KeepLargest(_Transform):
    """Keeps the largest connected component of each label."""

    applied_labels: list[int] | int | None = None
    independent: Literal[True] = True
    connectivity: Literal[1, 2, 3] | None = None
    is_onehot: Literal[False] | None = None
    num_components: Literal[1] = 1


class FillHoles(_Transform):
    """Fills holes in each label."""

    applied_labels: list[int] | int | None = None
    connectivity: Literal[1]


class Lambda(_Transform):
    """Runs code."""

    func: Any
    overwrite: bool = True


class Save(Component):
    """Writes files."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SlidingWindow(Component):
    """Runs sliding-window inference."""

    passed_over = ("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh",
                   "buffer_steps", "buffer_dim", "with_coord")  # fmt: skip
    roi_size: _Size | Annotated[list[_Size], Field(min_length=3, max_length=3)]
    overlap: Annotated[_Number, Field(ge=0, lt=1)] | list[Annotated[_Number, Field(ge=0, lt=1)]] = 0.25
    mode: Literal["constant", "gaussian"] = "constant"
    sigma_scale: Annotated[_Number, Field(ge=0.125, le=0.125)] | list[Annotated[_Number, Field(ge=0.125, le=0.125)]] = (
        0.125
    )
    padding_mode: Literal["constant", "replicate"] = "constant"
    cval: Annotated[_Number, Field(ge=0, le=0)] = 0.0


class MirroredSlidingWindow(SlidingWindow):
    """Runs sliding-window inference on mirror images, too, as volseg does."""

    mirror_axes: Annotated[list[Literal[0, 1, 2]], Field(max_length=3)]
    in_turns: bool


_KNOWN: dict[str, type[Component]] = {
    "LoadImaged": Load,
    "EnsureChannelFirstd": AsItIs,
    "AddChanneld": AsItIs,
    "EnsureTyped": AsItIs,
    "ToTensord": AsItIs,
    "CastToTyped": AsItIs,
    "Orientationd": Orientation,
    "Spacingd": Spacing,
    "NormalizeIntensityd": NormalizeIntensity,
    "ScaleIntensityd": ScaleIntensity,
    "ScaleIntensityRanged": ScaleIntensityRange,
    "ScaleIntensityRangePercentilesd": ScaleIntensityRangePercentiles,
    "Activationsd": Activations,
    "Invertd": Invert,
    "AsDiscreted": AsDiscrete,
    "KeepLargestConnectedComponentd": KeepLargest,
    "FillHolesd": FillHoles,
    "Lambdad": Lambda,
    "SaveImaged": Save,
    "SlidingWindowInferer": SlidingWindow,
    f"{_OWN_SCRIPTS}SpacingAboutCentred": SpacingAboutCentre,
    f"{_OWN_SCRIPTS}PaintRegionsd": PaintRegions,
    f"{_OWN_SCRIPTS}MirroredSlidingWindowInferer": MirroredSlidingWindow,
}


def class_name(stated: Any, where: str) -> str:
    """Return the class name of a component, without its MONAI module.

    Raises:
        CheckpointError: If it names no class, or one that is not MONAI's.
    """
    target = stated.get("_target_") if isinstance(stated, dict) else None
    if not isinstance(target, str):
        raise CheckpointError(f"{where} does not name a component (_target_)", hint=HINT)
    if target.startswith("monai."):
        return target.rpartition(".")[2]
    if "." in target and not target.startswith(_OWN_SCRIPTS):
        raise CheckpointError(f"{where} is {target!r}, which is code of the bundle itself", hint=HINT)
    return target


def arguments_of(stated: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a component."""
    return {name: value for name, value in stated.items() if name not in _NOTES}


def read_component(stated: Any, where: str) -> Component | None:
    """Check a component.

    Args:
        stated: Class and arguments.
        where: Its name in errors.

    Returns:
        The component; None if it is disabled.

    Raises:
        CheckpointError: If it, or an argument, is not supported.
    """
    name = class_name(stated, where)
    if stated.get("_disabled_") in (True, "true"):
        return None
    if stated.get("_mode_", "default") != "default":
        raise CheckpointError(f"{where}: _mode_ {stated['_mode_']!r} is not supported", hint=HINT)
    kind = _KNOWN.get(re.sub("(Dict|D)$", "d", name))  # MONAI has three names for each
    if kind is None:
        raise CheckpointError(f"{where} is {name}, which is not supported", hint=HINT)
    told = {name: value for name, value in arguments_of(stated).items() if name not in kind.passed_over}
    try:
        return kind.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        argument = ".".join(str(part) for part in first["loc"])
        given = "" if first["type"] == "missing" else f", not {str(first['input'])[:60]!r}"
        raise CheckpointError(f"{where}: {name} {argument}: {first['msg']}{given}", hint=HINT) from error


def read_chain(stated: Any, where: str) -> list[tuple[str, Component]]:
    """Check a chain of transforms.

    Args:
        stated: A Compose, or a list of transforms.
        where: Its name in errors.

    Returns:
        Each component with its place.

    Raises:
        CheckpointError: If it is not a chain, or anything in it is not supported.
    """
    if isinstance(stated, dict):
        stated = stated.get("transforms") if class_name(stated, where) == "Compose" else [stated]
    if not isinstance(stated, list):
        raise CheckpointError(f"{where} is not a chain of transforms", hint=HINT)
    places = [(f"{where}#transforms#{n}", each) for n, each in enumerate(stated)]
    read = [(place, read_component(each, place)) for place, each in places]
    return [(place, component) for place, component in read if component is not None]
