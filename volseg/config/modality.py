"""Modality of a channel, in DICOM's terms."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

#: Modality of unknown channels, and of channels that deliberately mix several.
UNKNOWN, MIXED = "unknown", "mixed"
#: The defined terms of Modality (PS3.3 section C.7.3.1.1.1) for images of patients.
_TERMS = {"CT", "MR", "PT", "NM", "US", "XA", "RF", "DX", "CR", "MG", "IO", "PX", "BMD", "BDUS", "IVUS", "IVOCT"}
_TERMS |= {"OP", "OPT", "OPM", "OCT", "ES", "GM", "SM", "XC"}
#: Other terms for modalities, as words of the name of a channel.
_WORDS = {
    **dict.fromkeys(("ct", "cta", "cbct", "ncct"), "CT"),
    **dict.fromkeys(("mr", "mri", "t1", "t1w", "t1c", "t1ce", "t1gd", "t1n", "t2", "t2w", "t2f"), "MR"),
    **dict.fromkeys(("flair", "dwi", "adc", "swi"), "MR"),
    **dict.fromkeys(("pt", "pet", "suv"), "PT"),
    **dict.fromkeys(("us", "ultrasound"), "US"),
}


def known_modality(term: str) -> str:
    """Return a modality as DICOM defines it; empty if it does not state the kind of image, as OT (other)."""
    upper = term.strip().upper()
    upper = {"MRI": "MR", "PET": "PT"}.get(upper, upper)
    return upper if upper in _TERMS else ""


def named_modality(channel: str) -> str:
    """Return the modality stated by the name of a channel ("T1w", "ct_scan"); empty if it states none."""
    found = {_WORDS[word] for word in re.findall(r"[a-z0-9]+", channel.lower()) if word in _WORDS}
    return found.pop() if len(found) == 1 else ""


def _modality(word: str) -> str:
    if word.lower() in (UNKNOWN, MIXED):
        return word.lower()
    if not (term := known_modality(word)):
        raise ValueError(
            f"{word!r} is not a modality; use a DICOM term such as CT, MR, PT or US, or {UNKNOWN} or {MIXED}"
        )
    return term


def _listed(given: object) -> object:
    return (given,) if isinstance(given, str) else given


#: One for each channel, or one for all; a single word is a list of one.
Modalities = Annotated[tuple[Annotated[str, AfterValidator(_modality)], ...], BeforeValidator(_listed)]
