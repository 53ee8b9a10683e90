"""Which series of a DICOM study is meant, and what a structure in it is called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from volseg.config.reading import ReadingRules
from volseg.config.section import ContradictionError, Section
from volseg.errors import ConfigError
from volseg.image.terminology import Code, Structure, lookup


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


def _path_pattern(text: str) -> str:
    if text.startswith("/") or "\\" in text or ".." in text.split("/") or "**" in text or "*" not in text:
        raise ValueError(
            f"{text!r} is no pattern of paths below the data set, such as images/*.png: parts are separated by /, "
            "and a * stands for what differs within one of them"
        )
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
PathPattern = Annotated[str, AfterValidator(_path_pattern)]
#: Smallest and largest value that fit.
Range = tuple[float, float]
Byte = Annotated[int, Field(ge=0, le=255)]


class SeriesRule(Section):
    """What a series must be to be taken for a channel; what is not given, fits.

    Attributes:
        modality: DICOM Modality, such as CT or MR.
        description: Regular expression that must be found in SeriesDescription, upper or lower case alike.
        image_type: Words that ImageType must contain.
        not_image_type: Words that it must not contain.
        orientation: The plane the slices are closest to.
        pixel_spacing_mm: Range of the distance of pixels.
        slice_spacing_mm: Range of the distance of slices.
        slices: Range of the number of slices.
    """

    modality: str | None = None
    description: Pattern | None = None
    image_type: tuple[str, ...] = ()
    not_image_type: tuple[str, ...] = ()
    orientation: Literal["axial", "coronal", "sagittal"] | None = None
    pixel_spacing_mm: Range | None = None
    slice_spacing_mm: Range | None = None
    slices: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> SeriesRule:
        for name in ("pixel_spacing_mm", "slice_spacing_mm", "slices"):
            limits = getattr(self, name)
            if limits and limits[0] > limits[1]:
                raise ValueError(f"{name}: the smallest comes first, given {list(limits)}")
        return self


class DicomRules(ReadingRules):
    """Which files are images and references, how they are read, which DICOM series are meant, and which part of them.

    Attributes:
        images: Pattern of the paths of the images in a data set of no other layout, `images/*_training.tif`. What each
            * stands for, within a part of the path, is that of the reference, too.
        references: That of the references: `1st_manual/*_manual1.gif`.
        series: For each channel what its series must be, where a study holds several; the best that fits is taken.
        roi: A folder of masks called as the images, in the data set or beside its images: fields of view, outside of
            which nothing is learned or segmented.
    """

    images: PathPattern | None = None
    references: PathPattern | None = None
    series: Mapping[str, SeriesRule] = Field(default_factory=dict)
    roi: str | None = None

    @model_validator(mode="after")
    def _patterns_alike(self) -> Self:
        images, references = self.images or "", self.references or ""
        if images.count("*") != references.count("*"):
            raise ContradictionError(
                f"what belongs together is named by images={self.images} and references={self.references}",
                hint="give both, with as many *: data.images=images/*.png and data.references=masks/*_mask.png",
            )
        return self


#: Any series will do; gaps and contradictions are refused.
NO_RULES = DicomRules()


class CodeConfig(Section):
    """A coded concept: value, coding scheme ("SCT" is SNOMED CT) and meaning."""

    value: str
    scheme: str = "SCT"
    meaning: str

    @property
    def code(self) -> Code:
        """The code.

        Raises:
            ConfigError: If DICOM cannot state it.
        """
        return Code(self.value, self.scheme, self.meaning)


class StructureConfig(Section):
    """What a label marks, for viewers and archives, where volseg's own table does not know its name.

    Attributes:
        like: A name that the table knows, "liver" or "left kidney": the label marks the same structure.
        type: Where there is none like it, code of what it is.
        category: Code of the kind of thing `type` is.
        modifier: Code of which side, where there are two.
        region: Code of where in the body it is.
        color: Display colour, red, green, blue of 0 to 255.
    """

    like: str | None = None
    type: CodeConfig | None = None
    category: CodeConfig = CodeConfig(value="123037004", meaning="Anatomical Structure")
    modifier: CodeConfig | None = None
    region: CodeConfig | None = None
    color: tuple[Byte, Byte, Byte] | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> StructureConfig:
        if (self.like is None) == (self.type is None):
            raise ValueError("give either `like` or `type`")
        if self.like is not None and lookup(self.like) is None:
            raise ValueError(f"the table of structures knows nothing like {self.like!r}")
        return self

    @property
    def structure(self) -> Structure:
        """What the label marks."""
        known = lookup(self.like) if self.like else None
        if known is not None:
            return replace(known, color=self.color or known.color)
        if self.type is None:
            raise ConfigError(
                f"the table of structures knows nothing like {self.like!r}", hint="state its type as a code instead"
            )
        modifier, region = (part.code if part else None for part in (self.modifier, self.region))
        return Structure(self.category.code, self.type.code, modifier, region, color=self.color)
