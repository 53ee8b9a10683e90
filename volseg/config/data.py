"""Channels, labels and regions: the inputs and outputs of the network."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from volseg.config.dicom import Byte, DicomRules, StructureConfig
from volseg.config.modality import UNKNOWN, Modalities
from volseg.config.section import ContradictionError, Section
from volseg.errors import DataError
from volseg.image.geometry import Unit
from volseg.image.naming import plain_name, refuse_one_name_twice
from volseg.image.terminology import lookup
from volseg.image.volume import Label

#: Name of the label of voxels that nobody has annotated.
IGNORE = "ignore"

_OWN_NAME, _OWN_VALUE = "give each a different name", "give each a different value"


def with_ignore(labels: Mapping[str, int]) -> dict[str, int]:
    """Return the labels with `ignore` in lower case, however it is spelled."""
    return {IGNORE if plain_name(name) == IGNORE else name: value for name, value in labels.items()}


def _told_apart(labels: dict[str, int]) -> dict[str, int]:
    """Refuse labels that masks and tables cannot distinguish."""
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
Color = tuple[Byte, Byte, Byte]
PreviousLabels = tuple[Annotated[int, Field(ge=1, le=65535)], ...]
LabelValues = Annotated[
    dict[str, Annotated[int, Field(ge=1, le=65535)]], Field(min_length=1), AfterValidator(_told_apart)
]


class Region(Section):
    """An output made of several labels, which may overlap other regions (whole tumour, tumour core ...).

    Attributes:
        name: Name of the region.
        labels: Values of the reference labels of which the region is the union.
        value: Value of the region in the mask; later regions are painted over earlier ones (see `data.painted`).
        threshold: Probability above which a voxel belongs to the region; null lets training choose the threshold with
            the best validation Dice.
    """

    name: str
    labels: Annotated[tuple[int, ...], Field(min_length=1)]
    value: Annotated[int, Field(ge=1, le=65535)]
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None


class DataConfig(DicomRules):
    """Reading of files, and the channels, labels and regions: the inputs and outputs of the network.

    Attributes:
        channels: Names of the image channels, in the order in which the network sees them.
        modality: Modality of each channel, or one for all, in DICOM's terms (CT, MR, PT ...); `unknown` if nothing
            states it, `mixed` allows several.
        unit: Unit of lengths: `mm`, or `px` for 2D images whose pixel size is not known; chosen by the plan.
        labels: Name and value of every label in the references, excluding background (0); the label `ignore` marks
            voxels that are neither learned nor scored.
        regions: Unions of labels, which may overlap; if given, the network predicts each region independently (sigmoid)
            instead of one label per voxel (softmax).
        painted: Order in which regions are written to the mask, later ones over earlier ones; empty for the order of
            `regions`.
        others: What to do with reference values that belong to no label: `refuse` the case, or treat them as
            `background`.
        segments: Synonyms of each label in DICOM and 3D Slicer references: names, or codes such as SCT:10200004; the
            label's own name and code are recognised anyway.
        structures: Coded anatomy of labels and regions whose names are not in volseg's terminology table.
        colors: Colour of each label or region as red, green and blue (0 to 255), for display and for references with
            `data.values` set to `colors`.
        previous_labels: Label values of the previous network of a cascade that this network sees as additional
            channels.
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
                f"{IGNORE!r} marks voxels to leave out, and there is no other label",
                hint="list the labels to learn as well",
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
                    f"region {region.name!r} consists of labels {sorted(unknown)}, which are not in data.labels",
                    hint="correct the region, or list them in data.labels",
                )
        if self.painted and sorted(self.painted) != sorted(region.name for region in self.regions):
            raise ContradictionError(
                f"painted lists {', '.join(self.painted)}, but the regions are "
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
        """Modality of each channel."""
        stated = self.modality or (UNKNOWN,)
        return stated if len(stated) == len(self.channels) else stated * len(self.channels)

    @property
    def reference_labels(self) -> tuple[Label, ...]:
        """Labels of the references, by value."""
        return tuple(
            sorted((self._label(name, value) for name, value in self.labels.items()), key=lambda label: label.value)
        )

    @property
    def learned_labels(self) -> tuple[Label, ...]:
        """Labels of the references without `ignore`, by value."""
        return tuple(label for label in self.reference_labels if label.name != IGNORE)

    @property
    def ignored_value(self) -> int | None:
        """Value of voxels that are neither learned nor scored, as outside the field of view; None if there are none."""
        if self.roi is None or IGNORE in self.labels:
            return self.labels.get(IGNORE)
        return next(value for value in count(1) if value not in self.labels.values())

    @property
    def output_labels(self) -> tuple[Label, ...]:
        """Labels of the masks that are written: the regions if there are any, else the labels."""
        if self.regions:
            return tuple(self._label(region.name, region.value, region.labels) for region in self.regions)
        return self.learned_labels

    @property
    def paint_order(self) -> tuple[int, ...]:
        """Indices of the regions among `output_labels`, in the order in which they are painted."""
        names = [region.name for region in self.regions]
        return tuple(names.index(name) for name in self.painted or names)

    def _label(self, name: str, value: int, parts: tuple[int, ...] = ()) -> Label:
        structure = self.structures[name].structure if name in self.structures else lookup(name)
        color = self.colors.get(name)
        return Label(value, name, color, parts=parts, structure=structure, aliases=self.segments.get(name, ()))

    @property
    def inputs(self) -> int:
        """Number of input channels: those of the image, and in a cascade one per label of the previous network."""
        return len(self.channels) + len(self.previous_labels)

    @property
    def outputs(self) -> int:
        """Number of outputs: a class for background and each label, or one per region."""
        return len(self.regions) or len(self.learned_labels) + 1
