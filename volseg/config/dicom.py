"""Choice of DICOM series and names of structures."""

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
        raise ValueError(f"{text!r} is not a valid regular expression: {error}") from error
    return text


def _path_pattern(text: str) -> str:
    if text.startswith("/") or "\\" in text or ".." in text.split("/") or "**" in text or "*" not in text:
        raise ValueError(
            f"{text!r} is not a valid pattern of paths in the data set, such as images/*.png: separate parts by / "
            "and use * for the text that differs within a part"
        )
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
PathPattern = Annotated[str, AfterValidator(_path_pattern)]
#: Smallest and largest value that fit.
Range = tuple[float, float]
Byte = Annotated[int, Field(ge=0, le=255)]


class SeriesRule(Section):
    """Conditions that a DICOM series must meet to be taken for a channel; those left out are met by any.

    Attributes:
        modality: DICOM Modality, such as CT or MR.
        description: Regular expression, searched in SeriesDescription ignoring case.
        image_type: Words that ImageType must contain.
        not_image_type: Words that ImageType must not contain.
        orientation: Slice orientation, the nearest of the three.
        pixel_spacing_mm: Minimum and maximum pixel spacing, in mm.
        slice_spacing_mm: Minimum and maximum distance between slices, in mm.
        slices: Minimum and maximum number of slices.
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
                raise ValueError(f"{name}: give the smallest first, not {list(limits)}")
        return self


class DicomRules(ReadingRules):
    """Choice of images, references and DICOM series, and how they are read.

    Attributes:
        images: Pattern of the paths of images in a data set of no known layout, such as `images/*_training.tif`; the
            text matched by each `*` must be the same, in order, in the path of the reference.
        references: Pattern of the paths of references, such as `1st_manual/*_manual1.gif`.
        series: Conditions for the DICOM series of each channel; of several series that meet them, the best is taken.
        roi: Name of a folder of field-of-view masks, with the file names of the images; nothing outside them is learned
            or segmented.
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
                f"images={self.images} and references={self.references} do not match",
                hint="give both, with as many *: data.images=images/*.png and data.references=masks/*_mask.png",
            )
        return self


#: Any series is accepted; gaps and contradictions are refused.
NO_RULES = DicomRules()


class CodeConfig(Section):
    """A coded concept.

    Attributes:
        value: Code value.
        scheme: Coding scheme designator; SCT is SNOMED CT.
        meaning: Code meaning.
    """

    value: str
    scheme: str = "SCT"
    meaning: str

    @property
    def code(self) -> Code:
        """Build the code.

        Raises:
            ConfigError: If DICOM cannot state it.
        """
        return Code(self.value, self.scheme, self.meaning)


class StructureConfig(Section):
    """Anatomical meaning of a label, for viewers and archives.

    Attributes:
        like: Name of a structure in volseg's terminology table, such as "liver" or "left kidney", that the label marks.
        type: Code of the structure, if `like` is not given.
        category: Code of the category that `type` belongs to.
        modifier: Code of the side, for paired structures.
        region: Code of the anatomical region.
        color: Display colour as red, green and blue, 0 to 255.
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
            raise ValueError(f"the terminology table has no structure like {self.like!r}")
        return self

    @property
    def structure(self) -> Structure:
        """Anatomical structure that the label marks."""
        known = lookup(self.like) if self.like else None
        if known is not None:
            return replace(known, color=self.color or known.color)
        if self.type is None:
            raise ConfigError(
                f"the terminology table has no structure like {self.like!r}", hint="give its type as a code instead"
            )
        modifier, region = (part.code if part else None for part in (self.modifier, self.region))
        return Structure(self.category.code, self.type.code, modifier, region, color=self.color)
