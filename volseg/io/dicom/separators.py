"""Separators: properties by which images at one position are split into several volumes of a series."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.io.dicom.header import Header


@dataclass(frozen=True)
class Separator:
    """One property of an image.

    Attributes:
        word: Names the volumes: "echo" in "echo2".
        keyword: The element that states it in a classic image.
        group: The functional group that states it in an enhanced image (PS3.3 section C.7.6.16).
        group_keyword: The element in that group.
    """

    word: str
    keyword: str
    group: str = ""
    group_keyword: str = ""


#: In order of how strongly they suggest another volume. The first ones are equal in all images of a volume.
STABLE = (
    Separator("stack", "StackID", "FrameContentSequence", "StackID"),
    Separator("type", "ImageType", "MRImageFrameTypeSequence", "FrameType"),
    Separator("type", "ComplexImageComponent", "MRImageFrameTypeSequence", "ComplexImageComponent"),
    Separator("type", "", "CTImageFrameTypeSequence", "FrameType"),
    Separator("echo", "EchoTime", "MREchoSequence", "EffectiveEchoTime"),
    Separator("inversion", "InversionTime", "MRModifierSequence", "InversionTimes"),
    Separator("flip", "FlipAngle", "MRTimingAndRelatedParametersSequence", "FlipAngle"),
    Separator("b", "DiffusionBValue", "MRDiffusionSequence", "DiffusionBValue"),
    Separator("direction", "DiffusionGradientOrientation", "MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    Separator("kernel", "ConvolutionKernel", "CTReconstructionSequence", "ConvolutionKernel"),
)
#: These say no more than when an image was taken. Of images that all state one position that tells nothing: slices of
#: one volume whose positions are wrong differ in it as well as images of one slice.
CLOCK = (
    Separator("acquisition", "AcquisitionNumber", "FrameContentSequence", "FrameAcquisitionNumber"),
    Separator("time", "AcquisitionTime", "FrameContentSequence", "FrameReferenceDateTime"),
    Separator("time", "ContentTime"),
)
#: These may differ from slice to slice of one volume.
VARYING = (
    Separator("time", "TemporalPositionIdentifier", "FrameContentSequence", "TemporalPositionIndex"),
    Separator("phase", "TriggerTime", "CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    Separator("phase", "", "CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
    *CLOCK,
)
SEPARATORS = (*STABLE, *VARYING)


def classic_values(header: Header) -> tuple[str, ...]:
    """Return the value of each of `SEPARATORS` in a classic image, empty if not stated."""
    return tuple("\\".join(header.words(each.keyword)) if each.keyword else "" for each in SEPARATORS)


def frame_values(own: Header, shared: Header) -> tuple[str, ...]:
    """Return the value of each of `SEPARATORS` in a frame of an enhanced image, empty if not stated.

    Args:
        own: Functional groups of the frame.
        shared: Functional groups of all frames.
    """
    return tuple(_frame_value(each, own, shared) for each in SEPARATORS)


def _frame_value(separator: Separator, own: Header, shared: Header) -> str:
    if not separator.group:
        return ""
    group = own.functional_group(separator.group, shared)
    if group is None or separator.group_keyword not in group:
        return ""
    if separator.group_keyword.endswith("Sequence"):
        nested = group.items(separator.group_keyword)
        return "\\".join(nested[0].words(separator.keyword)) if nested else ""
    return "\\".join(group.words(separator.group_keyword))
