"""What labels mean to other programs: codes of the structures they mark, and the colours they are shown in."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.errors import ConfigError

#: Longest code value, scheme and meaning that DICOM can state (value representations SH and LO, PS3.5 section 6.2).
_LONGEST_SHORT, _LONGEST_MEANING = 16, 64


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8).

    Attributes:
        value: Within the scheme, at most 16 characters: "10200004".
        scheme: Coding scheme designator, at most 16 characters: "SCT" (SNOMED CT), "FMA", "99VOLSEG" (private).
        meaning: For people, at most 64 characters: "Liver".
    """

    value: str
    scheme: str
    meaning: str

    def __post_init__(self) -> None:
        limits = (("value", _LONGEST_SHORT), ("scheme", _LONGEST_SHORT), ("meaning", _LONGEST_MEANING))
        for name, longest in limits:
            text = getattr(self, name)
            if not text or len(text) > longest or "\\" in text:
                raise ConfigError(f"the {name} of a code has 1 to {longest} characters and no backslash, got {text!r}")


@dataclass(frozen=True)
class Structure:
    """What a label marks in the patient, as DICOM segments state it (PS3.3 section C.8.20.2).

    Attributes:
        category: Kind of thing, such as "Anatomical Structure" or "Morphologically Abnormal Structure".
        type: The thing: "Kidney", "Neoplasm".
        modifier: Which side, where there are two: "Left"; None where the type says it all.
        region: Where in the body, for a type that may be anywhere (a neoplasm in the liver); else None.
        region_modifier: Which side of the region.
        color: Recommended display colour, (red, green, blue) of 0 to 255.
    """

    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    color: tuple[int, int, int] | None = None
