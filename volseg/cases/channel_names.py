"""Matching stated channels with a model's: by name, whatever the spelling, and by order only without names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from volseg.config import named_modality
from volseg.io import FileSource, Source

#: Names that do not state what a channel shows.
_SAYS_NOTHING = re.compile(r"(image|img|channel|volume|vol|scan|input|file|series|ch|c)?s?\d*")
#: Normal forms of names with several spellings, without blanks and punctuation.
_SPELLINGS: Mapping[str, str] = {
    **dict.fromkeys(("t1w", "t1n", "t1weighted", "t1native"), "t1"),
    **dict.fromkeys(("t2w", "t2weighted"), "t2"),
    **dict.fromkeys(("pdw", "pdweighted"), "pd"),
    **dict.fromkeys(("t1c", "t1gd", "t1post", "t1gad", "t1contrast"), "t1ce"),
    **dict.fromkeys(("t2f", "t2flair", "flairt2"), "flair"),
    **dict.fromkeys(("mri",), "mr"),
    **dict.fromkeys(("pet", "suv"), "pt"),
}


def match_channels(stated: Sequence[str], wanted: Sequence[str]) -> dict[str, str]:
    """Match stated channels with those of a model.

    Args:
        stated: Channel names in a list, a table or a `dataset.json`, in its order.
        wanted: The channels of the model.

    Returns:
        Stated name -> the model's: by name, or by order if the names of one side are meaningless ("image_2"). A single
        channel matches that of the model, whatever its name. Empty if the names contradict.
    """
    if len(stated) != len(wanted):
        return {}
    ours = {_spelled(name): name for name in wanted}
    if len(ours) == len(wanted) and {_spelled(name) for name in stated} == set(ours):
        return {name: ours[_spelled(name)] for name in stated}
    nameless = any(all(_SAYS_NOTHING.fullmatch(_spelled(name)) for name in names) for names in (stated, wanted))
    return dict(zip(stated, wanted, strict=True)) if nameless or len(wanted) == 1 else {}


def called(source: Source, name: str) -> Source:
    """Return a source with the modality that its channel name implies ("T1w" is MR); DICOM states it itself."""
    return replace(source, modality=named_modality(name)) if isinstance(source, FileSource) else source


def _spelled(name: str) -> str:
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return _SPELLINGS.get(plain, plain)
