"""What goes in and out, and how volumes are prepared and varied."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from volseg.config.dicom import Byte, DicomRules, StructureConfig
from volseg.config.modality import UNKNOWN, Modalities
from volseg.config.section import Axis, ContradictionError, Fraction, Orientation, Section, SpacingMm, Triple
from volseg.errors import DataError
from volseg.image.geometry import Unit
from volseg.image.naming import plain_name, refuse_one_name_twice
from volseg.image.terminology import lookup
from volseg.image.volume import Label

#: The label that says where a reference says nothing.
IGNORE = "ignore"

_OWN_NAME, _OWN_VALUE = "give each a name of its own", "give each a value of its own"


def with_ignore(labels: Mapping[str, int]) -> dict[str, int]:
    """Labels, of which that of what nobody looked at is called so however it is spelled: names have no case."""
    return {IGNORE if plain_name(name) == IGNORE else name: value for name, value in labels.items()}


def _told_apart(labels: dict[str, int]) -> dict[str, int]:
    """Refuse labels that masks and tables could not tell apart."""
    if not all(map(plain_name, labels)):
        raise ContradictionError(f"a label has no name: {labels}", hint="name it, for example {liver: 1}")
    if len(set(labels.values())) < len(labels):
        raise ContradictionError(f"two labels have the same value: {labels}", hint=_OWN_VALUE)
    try:
        refuse_one_name_twice([Label(value, name) for name, value in labels.items()])
    except DataError as error:
        raise ContradictionError(f"{error}: case and underscores do not matter", hint=error.hint) from error
    return with_ignore(labels)


ChannelNames = Annotated[tuple[str, ...], Field(min_length=1)]
Others = Literal["refuse", "background"]
Grid = Literal["spacing", "extent", "corners", "monai"]
Answers = Literal["logits", "probabilities", "labels"]
Color = tuple[Byte, Byte, Byte]
PreviousLabels = tuple[Annotated[int, Field(ge=1, le=65535)], ...]
LabelValues = Annotated[
    dict[str, Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1), AfterValidator(_told_apart)
]


class Region(Section):
    """An output made of several labels, which may overlap other regions (whole tumour, tumour core ...).

    Attributes:
        name: What people call it.
        labels: The reference labels whose union it is.
        value: What its voxels get in the mask; regions are painted in order, later ones over earlier ones, unless
            `data.painted` brings them into another.
        threshold: A voxel belongs to it when that is more likely than this. Left out, training chooses what gives
            held-out cases the best Dice, and one half where nothing is better.
    """

    name: str
    labels: Annotated[tuple[int, ...], Field(min_length=1)]
    value: Annotated[int, Field(ge=1, le=65535)]
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None


class DataConfig(DicomRules):
    """What goes in and what comes out.

    Attributes:
        channels: Names of the image channels, in the order the network sees them.
        modality: Of each channel, or one for all: CT, MR, PT ... as in DICOM; "unknown" where nothing says so, "mixed"
            where a network learns from several on purpose.
        unit: What images are measured in: "mm", or "px" of pictures that state no size.
        labels: Name and value of every label of the references; background (0) is not listed. A label with the name
            "ignore" marks voxels that nobody has looked at: they teach nothing and are not scored.
        regions: When given, the network answers one yes or no per region instead of one label per voxel.
        painted: Names of all regions in the order in which they are painted, where that is not their own.
        others: Whether a value of a reference that no label has is refused, or is background: then some labels of a
            data set can be learned without the rest.
        segments: For each label what else references call it that name their structures: names, or codes as in
            "SCT:10200004". A segment that has the label's own name, or the code of the structure that name stands for,
            is found without.
        structures: For each label or region what it marks, where volseg's own table does not know its name.
        colors: The colour of labels or regions, red, green, blue of 0 to 255: in which they are shown, and which
            references have where data.values says so.
        previous_labels: Of a cascade: the values in the masks of the network before this one that are further channels
            of what this one sees.
    """

    channels: ChannelNames = ("image",)
    modality: Modalities = ()
    unit: Unit = "mm"
    labels: LabelValues
    regions: tuple[Region, ...] = ()
    painted: tuple[str, ...] = ()
    others: Others = "refuse"
    segments: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    structures: Mapping[str, StructureConfig] = Field(default_factory=dict)
    colors: Mapping[str, Color] = Field(default_factory=dict)
    previous_labels: PreviousLabels = ()

    @model_validator(mode="after")
    def _consistent(self) -> DataConfig:
        if not self.learned_labels:
            raise ContradictionError(
                f"{IGNORE!r} marks what cannot be learned from; there is no other label", hint="list others, too"
            )
        if len(set(self.channels)) != len(self.channels):
            raise ContradictionError(f"two channels have the same name: {', '.join(self.channels)}", hint=_OWN_NAME)
        if len({plain_name(region.name) for region in self.regions}) < len(self.regions):
            raise ContradictionError("two regions have the same name", hint=_OWN_NAME)
        if len({region.value for region in self.regions}) < len(self.regions):
            raise ContradictionError("two regions have the same value", hint=_OWN_VALUE)
        for region in self.regions:
            if unknown := set(region.labels) - {label.value for label in self.learned_labels}:
                raise ContradictionError(
                    f"region {region.name!r} is made of labels {sorted(unknown)}, which are not in data.labels",
                    hint="correct the region, or list them in data.labels",
                )
        if self.painted and sorted(self.painted) != sorted(region.name for region in self.regions):
            raise ContradictionError(
                f"painted names {', '.join(self.painted)}; there are the regions "
                f"{', '.join(region.name for region in self.regions) or 'none'}",
                hint="name each region once, or leave it out",
            )
        outputs = {*self.labels, *(region.name for region in self.regions)}
        known = {"series": set(self.channels), "segments": set(self.labels), "structures": outputs, "colors": outputs}
        for key, names in known.items():
            if strange := set(getattr(self, key)) - names:
                raise ContradictionError(
                    f"{key} names {', '.join(sorted(strange))}; there are {', '.join(sorted(names))}",
                    hint=f"correct the name in data.{key}",
                )
        return self

    @model_validator(mode="after")
    def _a_modality_for_each_channel(self) -> DataConfig:
        if len(self.modality) not in (0, 1, len(self.channels)):
            raise ContradictionError(
                f"modality has {len(self.modality)} entries for {len(self.channels)} channels",
                hint="give one for each channel, or one for all",
            )
        return self

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modality of each channel."""
        stated = self.modality or (UNKNOWN,)
        return stated if len(stated) == len(self.channels) else stated * len(self.channels)

    @property
    def reference_labels(self) -> tuple[Label, ...]:
        """The labels of the references, by value."""
        return tuple(
            sorted((self._label(name, value) for name, value in self.labels.items()), key=lambda label: label.value)
        )

    @property
    def learned_labels(self) -> tuple[Label, ...]:
        """The labels of the references that mean something, by value."""
        return tuple(label for label in self.reference_labels if label.name != IGNORE)

    @property
    def ignored_value(self) -> int | None:
        """What references hold where they say nothing, outside of fields of view too; None if they always do."""
        if self.roi is None or IGNORE in self.labels:
            return self.labels.get(IGNORE)
        return next(value for value in count(1) if value not in self.labels.values())

    @property
    def output_labels(self) -> tuple[Label, ...]:
        """The labels of the masks volseg writes: the regions where there are any, else the labels."""
        if self.regions:
            return tuple(self._label(region.name, region.value, region.labels) for region in self.regions)
        return self.learned_labels

    @property
    def paint_order(self) -> tuple[int, ...]:
        """The places of the regions among `output_labels`, what is painted first first."""
        names = [region.name for region in self.regions]
        return tuple(names.index(name) for name in self.painted or names)

    def _label(self, name: str, value: int, parts: tuple[int, ...] = ()) -> Label:
        structure = self.structures[name].structure if name in self.structures else lookup(name)
        color = self.colors.get(name)
        return Label(value, name, color, parts=parts, structure=structure, aliases=self.segments.get(name, ()))

    @property
    def inputs(self) -> int:
        """How many channels the network sees: those of the image, and of a cascade one per label."""
        return len(self.channels) + len(self.previous_labels)

    @property
    def outputs(self) -> int:
        """How many outputs the network has: a class for background and each label, or one per region."""
        return len(self.regions) or len(self.learned_labels) + 1


class ZScore(Section):
    """Per volume: subtract the mean, divide by the standard deviation, both over nonzero voxels if asked for.

    Attributes:
        nonzero: Leave out voxels that are 0.
        fill_holes: Of these, leave out only those that lie outside: not enclosed by voxels where any channel is not 0.
    """

    method: Literal["zscore"] = "zscore"
    nonzero: bool = True
    fill_holes: bool = False


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
    """Per volume: scale the range of values to another, 0..1 unless given."""

    method: Literal["minmax"] = "minmax"
    low: float = 0.0
    high: float = 1.0


class Standardized(Section):
    """Subtract a fixed number and divide by another."""

    method: Literal["fixed"] = "fixed"
    mean: float
    std: Annotated[float, Field(gt=0)]


class Unchanged(Section):
    """Intensities as they are."""

    method: Literal["none"] = "none"


SingleNormalization = Annotated[
    ZScore | CtNormalization | Window | Percentiles | MinMax | Standardized | Unchanged, Field(discriminator="method")
]


class Successive(Section):
    """One after the other."""

    method: Literal["successive"] = "successive"
    steps: Annotated[tuple[SingleNormalization, ...], Field(min_length=1)]


Normalization = Annotated[
    ZScore | CtNormalization | Window | Percentiles | MinMax | Standardized | Unchanged | Successive,
    Field(discriminator="method"),
]


Normalizations = Annotated[tuple[Normalization, ...], Field(min_length=1)]


class PreprocessingRules(Section):
    """How every volume is brought to one form, but for what depends on the data.

    Attributes:
        axes: What networks see (a permutation and flips, no resampling): the direction of each axis, or `stored`, as
            the file has them. Everything that is given per axis is given in this order.
        crop: Leave out what lies outside the box of all voxels that are not 0 in some channel; it is background.
        normalize: Whether intensities are normalised `before_resampling`, as they were measured, or
            `after_resampling`; what is cropped away is decided at the same time.
        grid: How many voxels there are and where: `spacing` has exactly the voxel size that is asked for, about the
            centre of the volume; `monai` has it, too, mostly from the first voxel on, as MONAI's Spacingd;
            `extent` fills the volume exactly, with a voxel size as close to it as that allows, as nnU-Net does;
            `corners` keeps the first and the last voxel of each axis in their places, as TotalSegmentator does.
        interpolation: Of images, along straight lines or cubic splines; references keep their labels.
        coarse_axis: Along the one axis whose voxels are more than three times as long as the others': `interpolated` as
            along the others, or `nearest`, images as well as answers.
        answers: What is interpolated on the way back to the grid of the volume: `logits` or `probabilities`; or
            `labels`, of which the nearest is taken.
    """

    axes: Orientation = "RAS"
    crop: Literal["none", "nonzero"] = "none"
    normalize: Literal["before_resampling", "after_resampling"] = "before_resampling"
    grid: Grid = "spacing"
    interpolation: Literal["linear", "cubic"] = "linear"
    coarse_axis: Literal["interpolated", "nearest"] = "interpolated"
    answers: Answers = "logits"


class PreprocessingConfig(PreprocessingRules):
    """How every volume is brought to one form.

    Attributes:
        spacing_mm: Voxel size along each axis to which volumes are resampled; null leaves it as it is.
        normalization: One entry per channel.
    """

    spacing_mm: SpacingMm
    normalization: Normalizations


class AugmentationConfig(Section):
    """Random changes of training patches. Every `*_probability` is per patch; 0 switches the change off.

    Of what has three numbers, the first concerns the first axis that networks see: flat patches are turned about it and
    stay in their plane. `channelwise` changes brightness and contrast of each channel by itself, which of a picture are
    its colours.
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
