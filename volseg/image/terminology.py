"""Terminology: codes of the structures that labels mark, and display colours."""

from __future__ import annotations

import colorsys
import csv
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from volseg.errors import ConfigError
from volseg.image.short_names import short_name

#: Longest code value, scheme and meaning that DICOM can state (value representations SH and LO, PS3.5 section 6.2).
_LONGEST_SHORT, _LONGEST_MEANING = 16, 64

#: Coding scheme of labels that the table does not know.
PRIVATE_SCHEME = "99VOLSEG"


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
    """The meaning of a label, as DICOM segments state it (PS3.3 section C.8.20.2).

    Attributes:
        category: Kind of thing, such as "Anatomical Structure" or "Morphologically Abnormal Structure".
        type: The thing: "Kidney", "Neoplasm".
        modifier: The side, where there are two: "Left"; None where the type is sufficient.
        region: Where in the body, for a type that may be anywhere (a neoplasm in the liver); else None.
        region_modifier: The side of the region.
        color: Recommended display colour, (red, green, blue) of 0 to 255.
    """

    category: Code
    type: Code
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None
    color: tuple[int, int, int] | None = None


#: Kinds of things (PS3.16 CID 7150). "Anatomical Structure" has the code that 3D Slicer, dcmqi and TotalSegmentator
#: write and match; recent editions of the standard list 91723000 under the same meaning.
_CATEGORIES = {
    "anatomical": Code("123037004", "SCT", "Anatomical Structure"),
    "tissue": Code("85756007", "SCT", "Tissue"),
    "altered": Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    "substance": Code("91720002", "SCT", "Body Substance"),
    "object": Code("260787004", "SCT", "Physical object"),
}

#: Sides and positions (PS3.16 CID 244 and CID 2).
_MODIFIERS = {
    "left": Code("7771000", "SCT", "Left"),
    "right": Code("24028007", "SCT", "Right"),
    "both": Code("51440002", "SCT", "Right and left"),
    "anterior": Code("255549009", "SCT", "Anterior"),
    "posterior": Code("255551008", "SCT", "Posterior"),
    "medial": Code("255561001", "SCT", "Medial"),
    "lateral": Code("49370004", "SCT", "Lateral"),
}

#: Words for sides; the short ones count at the beginning or the end of a name only.
_SIDES = {"left": "left", "right": "right", "both": "both", "bilateral": "both"}
_SHORT_SIDES = {"l": "left", "lt": "left", "r": "right", "rt": "right"}

#: British spellings, as beginnings of words, and the table's spelling.
_SPELLINGS = {
    "coeliac": "celiac",
    "grey": "gray",
    "haema": "hema",
    "haemo": "hemo",
    "oedema": "edema",
    "oesoph": "esoph",
    "tumour": "tumor",
}

_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9_ -]{0,14}[A-Za-z0-9_-])?")


def lookup(name: str) -> Structure | None:
    """Look up the structure that a label's name stands for; None where the table has no unambiguous answer.

    Case and separators (blanks, dots, hyphens, ...) do not matter, nor whether spelling is British. Three ways lead to
    an answer, tried in this order:

    1. The name or an alias in `terminology.csv`: "liver", "Gall bladder", "left atrium".
    2. One of those that exist on both sides, with one word for the side: "kidney_left", "Left kidney", "rib_right_3",
       "Kidney.R", "lt lung". "l", "lt", "r" and "rt" count as the first or last word only.
    3. One of those in the body, then an abnormality: "liver tumour", "kidney_cyst_left".

    Bare names of vertebrae ("L1", "T2") are not understood: they are as likely to be a count or a contrast.
    """
    words = _words(name)
    entry = _entry(words)
    if entry:
        return entry.structure
    side, others = _split_side(words)
    entry = _entry(others) if side else None
    return _on_side(entry.structure, side) if entry and entry.paired else None


def matches(name: str, type_: Code | None, modifier: Code | None) -> bool:
    """Return whether the structure that `name` stands for has this type and modifier.

    Codes are equal when value and scheme are; meanings are for people. Retired SNOMED-RT codes ("SRT") are not
    translated.
    """
    structure = lookup(name)
    if structure is None or type_ is None:
        return False
    return _identity(structure.type) == _identity(type_) and _identity(structure.modifier) == _identity(modifier)


def private(name: str) -> Structure:
    """Make a structure for a label that the table does not know.

    Its category is Tissue, which nearly everything that a network segments is made of, whereas "Anatomical Structure"
    would be wrong for a lesion. The code's value is the name itself where it is plain and short enough, otherwise a
    hash, so that two names never share a code; the "#" keeps hashes apart from names.

    Raises:
        ConfigError: If the name is blank.
    """
    digest = "#" + hashlib.sha256(name.encode()).hexdigest()[: _LONGEST_SHORT - 1]
    value = name if _PLAIN_VALUE.fullmatch(name) else digest
    return Structure(_CATEGORIES["tissue"], Code(value, PRIVATE_SCHEME, short_name(name, _LONGEST_MEANING)))


def is_private(structure: Structure) -> bool:
    """Return whether the structure has a private code, which only volseg understands."""
    return structure.type.scheme == PRIVATE_SCHEME


def is_anatomical(structure: Structure) -> bool:
    """Return whether the structure is one of the body, rather than a tissue, a lesion, a substance or a device."""
    return structure.category == _CATEGORIES["anatomical"]


def default_color(value: int) -> tuple[int, int, int]:
    """Choose a colour for a label value that has none: (red, green, blue) of 0 to 255, never near black or white.

    Hues advance by the golden angle, which keeps any run of values apart; the tone alternates in fours.
    """
    saturation, brightness = ((0.8, 0.75), (0.7, 0.95), (0.9, 0.75), (0.9, 0.95))[value % 4]
    red, green, blue = colorsys.hsv_to_rgb(value * 0.6180339887 % 1, saturation, brightness)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class _Entry:
    """A row of the table.

    Attributes:
        structure: The structure it stands for.
        paired: Whether it exists on the left and on the right.
    """

    structure: Structure
    paired: bool


@cache
def _table() -> Mapping[str, _Entry]:
    """Read the table: every name and alias, normalised by `_key`, -> its entry."""
    text = resources.files("volseg.image").joinpath("terminology.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    types = {row["name"]: Code(row["value"], row["scheme"], row["meaning"]) for row in rows}
    table: dict[str, _Entry] = {}
    for row in rows:
        entry = _Entry(_structure(row, types), paired=row["paired"] == "paired")
        for alias in (row["name"], *filter(None, row["aliases"].split("|"))):
            table[_key(_words(alias))] = entry
    return table


def _structure(row: Mapping[str, str], types: Mapping[str, Code]) -> Structure:
    red, green, blue = (int(part) for part in row["color"].split())
    return Structure(
        category=_CATEGORIES[row["category"]],
        type=types[row["name"]],
        modifier=_MODIFIERS[row["modifier"]] if row["modifier"] else None,
        region=types[row["region"]] if row["region"] else None,
        color=(red, green, blue),
    )


def _words(name: str) -> list[str]:
    words = re.findall(r"[^\W_]+", name.casefold())
    for british, american in _SPELLINGS.items():
        words = [american + word.removeprefix(british) if word.startswith(british) else word for word in words]
    return words


def _key(words: list[str]) -> str:
    """Join words without blanks, except between digits: "rib 1 1" is not rib 11."""
    return re.sub(r"(?<!\d) | (?!\d)", "", " ".join(words))


def _split_side(words: list[str]) -> tuple[str, list[str]]:
    """Split off the first word for a side, as in `_MODIFIERS` ("" if there is none), from the other words."""
    for position, word in enumerate(words):
        at_end = position in (0, len(words) - 1)
        side = _SIDES.get(word, _SHORT_SIDES.get(word, "") if at_end else "")
        if side:
            return side, words[:position] + words[position + 1 :]
    return "", words


def _entry(words: list[str]) -> _Entry | None:
    return _table().get(_key(words)) or _abnormality(words)


def _abnormality(words: list[str]) -> _Entry | None:
    """Look up an anatomical structure followed by an abnormality in it."""
    for split in range(1, len(words)):
        place, found = _table().get(_key(words[:split])), _table().get(_key(words[split:]))
        if place and found and _is_plain(place, "anatomical", "tissue") and _is_plain(found, "altered"):
            where = place.structure
            return _Entry(replace(found.structure, region=where.type, region_modifier=where.modifier), place.paired)
    return None


def _is_plain(entry: _Entry, *categories: str) -> bool:
    """Return whether the entry belongs to one of these categories and to no particular body region."""
    return entry.structure.region is None and entry.structure.category in [_CATEGORIES[name] for name in categories]


def _on_side(structure: Structure, side: str) -> Structure:
    """Set the side of a structure: of its region if there is one, else of its type."""
    if side == "right" and structure.color:
        structure = replace(structure, color=_color_on_the_right(structure.color))
    if structure.region:
        return replace(structure, region_modifier=_MODIFIERS[side])
    return replace(structure, modifier=_MODIFIERS[side])


def _color_on_the_right(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Darken a colour and turn its hue by 54 degrees, so that the two sides differ clearly in a transparent overlay."""
    hue, saturation, brightness = colorsys.rgb_to_hsv(*(part / 255 for part in color))
    red, green, blue = colorsys.hsv_to_rgb((hue + 0.15) % 1, saturation, 0.75 * brightness)
    return round(255 * red), round(255 * green), round(255 * blue)


def _identity(code: Code | None) -> tuple[str, str] | None:
    return (code.value, code.scheme) if code else None
