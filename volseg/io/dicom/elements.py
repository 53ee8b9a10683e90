"""Fast extraction of the few elements needed to sort files, straight from the bytes at the head of a file.

pydicom turns every element of a header into an object; sorting a tree of a hundred thousand files needs twenty of them.
Only the two common encodings are read here (PS3.5 section 7.1: explicit and implicit VR little endian). For all others,
and wherever the bytes look unusual, `glance` returns None and pydicom is used.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass

_IMPLICIT = b"1.2.840.10008.1.2"
_EXPLICIT = b"1.2.840.10008.1.2.1"
#: Compressed pixels leave the header in explicit VR little endian (PS3.5 annex A.4).
_COMPRESSED = (b"1.2.840.10008.1.2.4.", b"1.2.840.10008.1.2.5")
#: VRs whose length takes 4 bytes behind 2 of padding, and those whose length takes 2 (PS3.5 section 7.1.2).
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_META_START, _META_END = 132, 0x0002FFFF
_TRANSFER_SYNTAX = 0x00020010

_explicit = struct.Struct("<HH2sH").unpack_from
_implicit = struct.Struct("<HHL").unpack_from
_length = struct.Struct("<L").unpack_from


@dataclass(frozen=True, slots=True)
class Glance:
    """Elements extracted from a file.

    Attributes:
        elements: Tag -> raw value of the wanted elements that are present.
        end: Offset of the element at which the walk ended.
        explicit: Whether elements state their VR.
    """

    elements: dict[int, bytes]
    end: int
    explicit: bool


def glance(head: bytes, wanted: Collection[int], last: int) -> Glance | None:
    """Extract top-level elements from the head of a DICOM file.

    Args:
        head: The first bytes of the file, from the preamble on.
        wanted: Tags to extract, as group << 16 | element.
        last: Elements come in ascending order; the walk ends at the first one after this tag.

    Returns:
        None if the head must be left to pydicom: another encoding, no file meta information, tags out of order, an
        unknown VR, a wanted sequence of undefined length, or a head that ends before `last` is passed.
    """
    if head[128:132] != b"DICM":
        return None
    try:
        meta, start = _walk(head, _META_START, (_TRANSFER_SYNTAX,), _META_END, explicit=True)
        syntax = meta.get(_TRANSFER_SYNTAX, b"").rstrip(b"\0 ")
        if syntax in (_EXPLICIT, _IMPLICIT) or syntax.startswith(_COMPRESSED):
            explicit = syntax != _IMPLICIT
            return Glance(*_walk(head, start, wanted, last, explicit=explicit), explicit)
    except (struct.error, ValueError):
        return None
    return None


def native_value(content: bytes, found: Glance, tag: int) -> memoryview | None:
    """Return the value, of a stated length and not copied, of the element at which a walk ended.

    Returns:
        None if it is another element, or of undefined length: compressed pixels.
    """
    try:
        group, element, length = _implicit(content, found.end)
        start = found.end + 8
        if found.explicit:
            (length,) = _length(content, start)
            start += 4
    except struct.error:
        return None
    here = group << 16 | element == tag and length != _UNDEFINED and start + length <= len(content)
    return memoryview(content)[start : start + length] if here else None


def _walk(head: bytes, at: int, wanted: Collection[int], last: int, *, explicit: bool) -> tuple[dict[int, bytes], int]:
    """Return the wanted elements from `at` on, and the offset of the first element after `last`."""
    found: dict[int, bytes] = {}
    previous = -1
    while True:
        start = at
        if explicit:
            group, element, vr, length = _explicit(head, at)
            at += 8
            if vr in _LONG_VRS:
                (length,) = _length(head, at)
                at += 4
            elif vr not in _SHORT_VRS and group << 16 | element <= last:
                raise ValueError
        else:
            group, element, length = _implicit(head, at)
            at += 8
        tag = group << 16 | element
        if tag > last:
            return found, start
        if tag <= previous:
            raise ValueError
        previous = tag
        if length == _UNDEFINED:
            if tag in wanted:
                raise ValueError
            at = _behind_sequence(head, at, explicit=explicit)
            continue
        if tag in wanted:
            found[tag] = head[at : at + length]
        at += length


def _behind_sequence(head: bytes, at: int, *, explicit: bool) -> int:
    """Return where a sequence of undefined length ends, whose first item starts at `at` (PS3.5 section 7.5)."""
    while True:
        group, element, length = _implicit(head, at)
        at += 8
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise ValueError
        at = _behind_item(head, at, explicit=explicit) if length == _UNDEFINED else at + length


def _behind_item(head: bytes, at: int, *, explicit: bool) -> int:
    """Return where an item of undefined length ends, whose first element starts at `at`."""
    while True:
        group, element, length = _implicit(head, at)
        if group << 16 | element == _ITEM_END:
            return at + 8
        if explicit:
            vr, length = head[at + 4 : at + 6], length >> 16
            if vr in _LONG_VRS:
                (length,) = _length(head, at + 8)
                at += 4
            elif vr not in _SHORT_VRS:
                raise ValueError
        at += 8
        at = _behind_sequence(head, at, explicit=explicit) if length == _UNDEFINED else at + length
