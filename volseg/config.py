"""The configuration: what can be chosen, what is allowed, and how it is resolved once, at the edge.

A plan is a complete `Config` written as YAML. Precedence: defaults < plan < YAML file < `--set a.b=value`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from volseg.errors import ConfigError
from volseg.volume import Label

Triple = tuple[float, float, float]
IntTriple = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
SpacingMm = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
Fraction = Annotated[float, Field(ge=0, le=1)]
Axis = Literal["left-right", "posterior-anterior", "inferior-superior"]
#: The axes of a preprocessed volume, which is stored R, A, S.
AXES: tuple[Axis, ...] = ("left-right", "posterior-anterior", "inferior-superior")


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Region(Section):
    """An output made of several labels, which may overlap other regions (whole tumour, tumour core ...).

    Attributes:
        name: What people call it.
        labels: The reference labels whose union it is.
        value: What its voxels get in the mask; regions are painted in order, later ones over earlier ones.
    """

    name: str
    labels: Annotated[tuple[int, ...], Field(min_length=1)]
    value: Annotated[int, Field(ge=1, le=65535)]


class DataConfig(Section):
    """What goes in and what comes out.

    Attributes:
        channels: Names of the image channels, in the order the network sees them.
        labels: Name and value of every label of the references; background (0) is not listed.
        regions: When given, the network answers one yes or no per region instead of one label per voxel.
    """

    channels: Annotated[tuple[str, ...], Field(min_length=1)] = ("image",)
    labels: Annotated[dict[str, Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1)]
    regions: tuple[Region, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        values = list(self.labels.values())
        if len(set(values)) != len(values):
            raise ValueError(f"two labels have the same value: {self.labels}")
        if len(set(self.channels)) != len(self.channels):
            raise ValueError(f"two channels have the same name: {', '.join(self.channels)}")
        for attribute in ("name", "value"):
            if len({getattr(region, attribute) for region in self.regions}) != len(self.regions):
                raise ValueError(f"two regions have the same {attribute}")
        for region in self.regions:
            if unknown := set(region.labels) - set(values):
                raise ValueError(
                    f"region {region.name!r} is made of labels {sorted(unknown)}, which are not in data.labels"
                )
        return self

    @property
    def reference_labels(self) -> tuple[Label, ...]:
        """The labels of the references, by value."""
        return tuple(sorted((Label(value, name) for name, value in self.labels.items()), key=lambda label: label.value))

    @property
    def output_labels(self) -> tuple[Label, ...]:
        """The labels of the masks volseg writes: the regions where there are any, else the labels."""
        if self.regions:
            return tuple(Label(region.value, region.name, parts=region.labels) for region in self.regions)
        return self.reference_labels

    @property
    def outputs(self) -> int:
        """How many outputs the network has: a class for background and each label, or one per region."""
        return len(self.regions) or len(self.labels) + 1


class ZScore(Section):
    """Per volume: subtract the mean, divide by the standard deviation, both over nonzero voxels if asked for."""

    method: Literal["zscore"] = "zscore"
    nonzero: bool = True


class _Range(Section):
    """A range of values."""

    method: str
    low: float
    high: float

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low must be below high, given {self.low:g} and {self.high:g}")
        return self


class CtNormalization(_Range):
    """Clip to fixed values, then a z-score with fixed numbers, so that Hounsfield units keep their meaning."""

    method: Literal["ct"] = "ct"
    mean: float
    std: Annotated[float, Field(gt=0)]


class Window(_Range):
    """Clip to a fixed window and scale it to 0..1."""

    method: Literal["window"] = "window"


class Percentiles(_Range):
    """Per volume: clip to two percentiles of the volume and scale them to 0..1."""

    method: Literal["percentiles"] = "percentiles"
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5


class MinMax(Section):
    """Per volume: scale the range of values to 0..1."""

    method: Literal["minmax"] = "minmax"


Normalization = Annotated[ZScore | CtNormalization | Window | Percentiles | MinMax, Field(discriminator="method")]


class PreprocessingConfig(Section):
    """How every volume is brought to one form. The axes always become R, A, S (a permutation and flips, no resampling).

    Attributes:
        spacing_mm: Voxel size along R, A, S to which volumes are resampled (linear; references keep their labels).
        normalization: One entry per channel.
    """

    spacing_mm: SpacingMm
    normalization: Annotated[tuple[Normalization, ...], Field(min_length=1)]


class AugmentationConfig(Section):
    """Random changes of training patches. Every `*_probability` is per patch; 0 switches the change off."""

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
    gamma_probability: Fraction = 0.15
    gamma: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.7, 1.5)
    bias_field_probability: Fraction = 0.0
    bias_field: Annotated[float, Field(ge=0)] = 0.3
    low_resolution_probability: Fraction = 0.1
    low_resolution_zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(le=1)]] = (0.5, 1.0)


class PatchConfig(Section):
    """The boxes of voxels the network sees.

    Attributes:
        size: Voxels along R, A, S at the target spacing; each divisible by what the network needs.
        foreground: Share of training patches that are centred on a voxel of a label, all labels equally often.
    """

    size: IntTriple
    foreground: Fraction = 0.67


class UNet(Section):
    """MONAI's residual 3D U-Net (Kerfoot et al. 2018): strided convolutions down, transposed ones up."""

    name: Literal["unet"] = "unet"
    channels: Annotated[tuple[int, ...], Field(min_length=2)] = (32, 64, 128, 256)
    strides: tuple[IntTriple, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    residual_units: Annotated[int, Field(ge=0)] = 2
    dropout: Fraction = 0.0

    @model_validator(mode="after")
    def _levels(self) -> UNet:
        if len(self.strides) != len(self.channels) - 1:
            raise ValueError(
                f"{len(self.channels)} channels need {len(self.channels) - 1} strides, got {len(self.strides)}"
            )
        return self


class VNet(Section):
    """MONAI's V-Net (Milletari et al. 2016); it halves every axis four times."""

    name: Literal["vnet"] = "vnet"
    dropout: Fraction = 0.0


class DynUNet(Section):
    """MONAI's DynUNet, the topology of nnU-Net (Isensee et al. 2021)."""

    name: Literal["dynunet"] = "dynunet"
    filters: Annotated[tuple[int, ...], Field(min_length=3)] = (32, 64, 128, 256)
    strides: tuple[IntTriple, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    residual: bool = False

    @model_validator(mode="after")
    def _levels(self) -> DynUNet:
        if len(self.strides) != len(self.filters) - 1:
            raise ValueError(
                f"{len(self.filters)} filters need {len(self.filters) - 1} strides, got {len(self.strides)}"
            )
        return self


class SegResNet(Section):
    """MONAI's SegResNet (Myronenko 2018, without the autoencoder branch)."""

    name: Literal["segresnet"] = "segresnet"
    initial_filters: Annotated[int, Field(ge=8, multiple_of=8)] = 16
    blocks_down: Annotated[tuple[int, ...], Field(min_length=2)] = (1, 2, 2, 4)
    dropout: Fraction = 0.0


class AttentionUnet(Section):
    """MONAI's Attention U-Net (Oktay et al. 2018)."""

    name: Literal["attention_unet"] = "attention_unet"
    channels: Annotated[tuple[int, ...], Field(min_length=2)] = (16, 32, 64, 128)
    dropout: Fraction = 0.0


class SwinUNETR(Section):
    """MONAI's SwinUNETR (Hatamizadeh et al. 2022); it halves every axis five times."""

    name: Literal["swin_unetr"] = "swin_unetr"
    feature_size: Annotated[int, Field(ge=12, multiple_of=12)] = 24


NetworkConfig = Annotated[UNet | VNet | DynUNet | SegResNet | AttentionUnet | SwinUNETR, Field(discriminator="name")]
NetworkName = Literal["unet", "vnet", "dynunet", "segresnet", "attention_unet", "swin_unetr"]


class LossConfig(Section):
    """What training minimises.

    Attributes:
        name: Which loss.
        batch: Whether overlaps are summed over the batch before the ratio is taken (steadier for small structures).
        background: Whether background counts as a class of the overlap losses.
        tversky_alpha: Weight of false positives (Tversky only).
        tversky_beta: Weight of false negatives (Tversky only).
    """

    name: Literal["dice_ce", "dice", "dice_focal", "tversky", "generalized_dice", "jaccard"] = "dice_ce"
    batch: bool = True
    background: bool = False
    tversky_alpha: Fraction = 0.3
    tversky_beta: Fraction = 0.7


class TrainingConfig(Section):
    """How the network learns.

    Attributes:
        epochs: Rounds of `steps_per_epoch` steps, each followed by a checkpoint; with `minutes` an upper bound.
        steps_per_epoch: Optimiser steps in an epoch.
        minutes: Time for the whole run, reading and validation included; the schedule is fitted to it.
        batch_size: Patches in a step.
        optimizer: AdamW, or SGD with Nesterov momentum 0.99.
        learning_rate: At the peak of the schedule.
        weight_decay: As the optimiser defines it.
        schedule: How the learning rate falls after warm-up: half a cosine, or (1 - progress)^0.9.
        warmup_steps: Steps over which it rises from zero.
        gradient_clip: Largest norm of the gradient.
        ema_decay: Validated and saved weights are an exponential average of the trained ones; 0 takes them as they are.
        precision: Of the network's arithmetic; auto is bf16 or fp16 where the machine is faster with it.
        validation_interval: Epochs between validations; 0 lets it follow from the time they take.
        patience: Validations without a better Dice after which training stops; 0 never stops early.
        folds: Parts the cases are dealt into; one is held out.
        fold: Which part is held out for validation, from 0.
        holdout: When above 0, one share of the cases is held out instead of a fold.
        validation_cases: At most this many held-out cases are used while training; all of them at the end.
        workers: Processes that prepare patches; 0 prepares them in the training process.
        seed: Of splits, weights, patches and augmentation.
    """

    epochs: Annotated[int, Field(ge=1)] = 200
    steps_per_epoch: Annotated[int, Field(ge=1)] = 50
    minutes: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 4
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    schedule: Literal["cosine", "poly"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 50
    gradient_clip: Annotated[float, Field(gt=0)] = 12.0
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    validation_interval: Annotated[int, Field(ge=0)] = 0
    patience: Annotated[int, Field(ge=0)] = 0
    folds: Annotated[int, Field(ge=2)] = 5
    fold: Annotated[int, Field(ge=0)] = 0
    holdout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    validation_cases: Annotated[int, Field(ge=1)] = 16
    workers: Annotated[int, Field(ge=0)] = 1
    seed: int = 0

    @model_validator(mode="after")
    def _fold_exists(self) -> TrainingConfig:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist: there are {self.folds}, counted from 0")
        return self


class InferenceConfig(Section):
    """How a volume is segmented.

    Attributes:
        overlap: Share of a patch that neighbouring patches have in common.
        batch_size: Patches that go through the network at once.
        mirror_axes: Axes along which the volume is also mirrored and the answers averaged.
        precision: As in training.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    batch_size: Annotated[int, Field(ge=1)] = 2
    mirror_axes: tuple[Axis, ...] = ()
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


class LabelRule(Section):
    """What is done to one label after the network, in this order: morphology, small parts, largest part, holes.

    Attributes:
        label: Name of the label, or "*" for each.
        keep_largest: Keep only the largest connected part.
        min_volume_ml: Remove connected parts smaller than this volume.
        min_voxels: Remove connected parts of fewer voxels.
        fill_holes: Fill background that the label encloses.
        morphology: Shape operation with a ball of `radius_mm`.
        radius_mm: Radius of that ball, in millimetres.
        connectivity: Which neighbours are connected: by faces (6), edges too (18), corners too (26).
    """

    label: str = "*"
    keep_largest: bool = False
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    min_voxels: Annotated[int, Field(ge=0)] = 0
    fill_holes: bool = False
    morphology: Literal["none", "opening", "closing", "erosion", "dilation"] = "none"
    radius_mm: Annotated[float, Field(ge=0)] = 0.0
    connectivity: Literal[6, 18, 26] = 26


class EvaluationConfig(Section):
    """How masks are scored.

    Attributes:
        tolerance_mm: Distance up to which surfaces count as equal in the normalised surface Dice.
    """

    tolerance_mm: Annotated[float, Field(gt=0)] = 2.0


class Config(Section):
    """Everything a run is made of."""

    data: DataConfig
    preprocessing: PreprocessingConfig
    patches: PatchConfig
    network: NetworkConfig
    augmentation: AugmentationConfig = AugmentationConfig()
    loss: LossConfig = LossConfig()
    training: TrainingConfig = TrainingConfig()
    inference: InferenceConfig = InferenceConfig()
    postprocess: tuple[LabelRule, ...] = ()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        channels, normalizations = len(self.data.channels), len(self.preprocessing.normalization)
        if channels != normalizations:
            raise ValueError(f"preprocessing.normalization has {normalizations} entries for {channels} channels")
        names = {label.name for label in self.data.output_labels}
        for rule in self.postprocess:
            if rule.label != "*" and rule.label not in names:
                raise ValueError(f"postprocess names label {rule.label!r}; there are {', '.join(sorted(names))}")
        if unknown := {name for pair in self.augmentation.swap_labels for name in pair} - set(self.data.labels):
            raise ValueError(f"augmentation.swap_labels names {', '.join(sorted(unknown))}, not in data.labels")
        return self


#: What pydantic calls the members of the two unions in the place of an error.
_UNION_MEMBERS: dict[int | str, type[Section]] = {
    "unet": UNet,
    "vnet": VNet,
    "dynunet": DynUNet,
    "segresnet": SegResNet,
    "attention_unet": AttentionUnet,
    "swin_unetr": SwinUNETR,
    "zscore": ZScore,
    "ct": CtNormalization,
    "window": Window,
    "percentiles": Percentiles,
    "minmax": MinMax,
}


def read_overrides(path: Path) -> dict[str, Any]:
    """Read a YAML file of some or all configuration keys.

    Raises:
        ConfigError: If it is missing, is no YAML, or is not a mapping of keys.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}, not a mapping of keys to values")
    return content


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `a.b=value` words into nested keys; values are YAML.

    Raises:
        ConfigError: If a word is not of that form.
    """
    overrides: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(f"--set {assignment!r} is not of the form key=value", hint="--set training.epochs=100")
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment!r}: the value is not YAML: {' '.join(str(error).split())}") from error
        for part in reversed(key.split(".")):
            value = {part: value}
        overrides = merge(overrides, value)
    return overrides


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one tree of keys over another.

    A mapping that names another `name` or `method` (another network, another normalisation) replaces the one below as
    a whole, since the keys of the two are different.
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if not (isinstance(below, Mapping) and isinstance(value, Mapping)) or key == "labels":
            merged[key] = value
        elif any(kind in value and value[kind] != below.get(kind) for kind in ("name", "method")):
            merged[key] = dict(value)
        else:
            merged[key] = merge(below, value)
    return merged


def validate(tree: Mapping[str, Any], origin: str) -> Config:
    """Check a complete tree of keys.

    Args:
        tree: All sections.
        origin: Where it came from, for the message: a path, "--set", "the plan".

    Raises:
        ConfigError: Names the origin, the first wrong key, what was given and what is allowed.
    """
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_explain(error)}", hint=_suggest(error)) from error


def is_complete(tree: Mapping[str, Any]) -> bool:
    """Whether a tree of keys leaves nothing for a plan to decide."""
    decided = "data.channels data.labels preprocessing.spacing_mm preprocessing.normalization patches.size network"
    return all(_has(tree, path.split(".")) for path in decided.split())


def _has(tree: Any, path: Sequence[str]) -> bool:
    if not path:
        return True
    return isinstance(tree, Mapping) and path[0] in tree and _has(tree[path[0]], path[1:])


def read_config(path: Path) -> Config:
    """Read a complete config, such as a run's `config.yaml`.

    Raises:
        ConfigError: If it cannot be read or is not valid.
    """
    return validate(read_overrides(path), str(path))


def dump(config: Config) -> str:
    """The config as YAML text; reading it gives an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=120, default_flow_style=None)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in _key_path(first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"there is no key {path!r}"
    if first["type"] == "missing":
        return f"key {path!r} is missing"
    given = "" if first["type"] == "value_error" else f", given {first['input']!r}"
    return f"{path}: {message}{given}" if path else message


def _suggest(error: ValidationError) -> str:
    """The allowed key that looks most like an unknown one."""
    first = error.errors()[0]
    if first["type"] != "extra_forbidden":
        return ""
    *parents, wrong = first["loc"]
    allowed = list(getattr(_section_at(parents), "model_fields", {}))
    close = difflib.get_close_matches(str(wrong), allowed, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"allowed: {', '.join(allowed)}" if allowed else ""


def _section_at(location: Sequence[int | str]) -> Any:
    """The class of the section at a place that pydantic names."""
    section: Any = Config
    for part in location:
        if part in _UNION_MEMBERS:
            section = _UNION_MEMBERS[str(part)]
        elif isinstance(part, str):
            field = getattr(section, "model_fields", {}).get(part)
            annotation = field.annotation if field is not None else None
            section = next(iter(get_args(annotation)), annotation)  # the sections in a tuple
    return section


def _key_path(location: Sequence[int | str]) -> list[int | str]:
    """The key path without the names of union members that pydantic puts in between."""
    between = {"network": 1, "preprocessing": 3}.get(str(next(iter(location), "")), -1)
    return [part for place, part in enumerate(location) if place != between or part not in _UNION_MEMBERS]
