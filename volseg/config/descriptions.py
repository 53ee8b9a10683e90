"""Descriptions of keys from the docstrings of sections, for planned files and the documentation."""

from __future__ import annotations

import inspect
import re

from volseg.config.section import Section

#: An entry of a Google-style list of attributes, and the lines that continue it.
_ENTRY = re.compile(r"^    (\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def descriptions(section: type[Section]) -> dict[str, str]:
    """Return key -> its description in one line, for each key of a section that its docstring or a parent's describes.

    Where Python runs without docstrings (-OO), there are none.
    """
    found: dict[str, str] = {}
    for kind in reversed(section.__mro__):
        _, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
        found |= {key: " ".join(text.split()) for key, text in _ENTRY.findall(attributes)}
    return {key: found[key] for key in section.model_fields if key in found}
