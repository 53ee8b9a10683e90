"""Fast classification of files in long series: what all images share is parsed once."""

from __future__ import annotations

from pathlib import Path

from pydicom.datadict import tag_for_keyword

from volseg.io.dicom.classify import CLASSIC_CLASSES, TAGS, Found, classify
from volseg.io.dicom.dataset import raw_dataset
from volseg.io.dicom.elements import glance
from volseg.io.dicom.frames import FARTHEST_MM, Plane
from volseg.io.dicom.header import parse_numbers
from volseg.io.dicom.separators import STABLE, VARYING
from volseg.io.dicom.volumes import Image

#: Bytes to read if `HEAD_BYTES` were not enough; anything longer is left to pydicom.
LONG_HEAD_BYTES = 65_536

_SOP_CLASS, _SOP_UID, _INSTANCE, _POSITION, _FRAMES, _IMAGE_TYPE = (
    tag_for_keyword(keyword) or 0
    for keyword in (
        "SOPClassUID",
        "SOPInstanceUID",
        "InstanceNumber",
        "ImagePositionPatient",
        "NumberOfFrames",
        "ImageType",
    )
)
_VARYING = tuple(tag_for_keyword(each.keyword) or 0 for each in VARYING)
#: Groups after the pixel description are functional groups, which are left to pydicom.
_WANTED = frozenset(tag for tag in TAGS if tag >> 16 <= 0x0028)
_LAST = max(_WANTED)
_SHARED = tuple(sorted(_WANTED - {_SOP_UID, _INSTANCE, _POSITION, *_VARYING}))
_CLASSIC = frozenset(str(sop_class).encode() for sop_class in CLASSIC_CLASSES)


class QuickLook:
    """Classifies single-frame CT, MR and PET files; those of one series differ in a few elements only."""

    def __init__(self) -> None:
        self._first: dict[tuple[bytes | None, ...], Image] = {}

    def __call__(self, head: bytes, path: Path) -> Found | None:
        """Classify a file by its head; None if pydicom is needed."""
        seen = glance(head, _WANTED, _LAST)
        found = seen.elements if seen else {}
        if found.get(_SOP_CLASS, b"").rstrip(b"\0 ") not in _CLASSIC or _FRAMES in found:
            return None
        if b"MOSAIC" in found.get(_IMAGE_TYPE, b""):  # its private elements are needed, too
            return None
        key = tuple(map(found.get, _SHARED))
        first = self._first.get(key)
        if first is not None:
            return (_like(first, found, path),)
        looked = classify(raw_dataset(found, path))
        if isinstance(looked, tuple) and looked[0].plane is not None:
            self._first[key] = looked[0]
        return looked


def _like(first: Image, found: dict[int, bytes], path: Path) -> Image:
    """Return an image whose header equals that of `first` in all shared elements."""
    varying = tuple(_text(found.get(tag)) for tag in _VARYING)
    try:
        numbers = parse_numbers(found.get(_INSTANCE, b""))
    except ValueError:
        numbers = []
    return Image(
        path,
        0,
        _plane(first.plane, found.get(_POSITION)),
        _text(found.get(_SOP_UID)),
        first.kind,
        int(numbers[0]) if len(numbers) == 1 and numbers[0] >= 0 and numbers[0].is_integer() else None,
        (*first.values[: len(STABLE)], *varying),
        first.series_uid,
        first.traits,
        first.patient_id,
    )


def _plane(first: Plane | None, position: bytes | None) -> Plane | None:
    try:
        origin = parse_numbers(position or b"")
    except ValueError:
        return None
    if first is None or len(origin) != 3 or not all(abs(x) <= FARTHEST_MM for x in origin):
        return None
    return Plane(first.shape, tuple(origin), first.orientation, first.spacing_mm)


def _text(raw: bytes | None) -> str:
    return raw.decode("latin-1").strip(" \0") if raw else ""
