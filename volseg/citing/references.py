"""BibTeX entries for the citations of a text."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from string import Template

#: Pandoc citations: [@key] or [@key; @other]; an escaped at sign is not one.
_CITED = re.compile(r"(?<!\\)@([a-z][a-z0-9]+)")
_ENTRY = re.compile(r"^(@\w+\{(\w+),\n.*?^\})$", re.MULTILINE | re.DOTALL)


def bibtex_of(text: str, version: str) -> str:
    """Return the entries for the citations of a text, in their order.

    Args:
        text: Markdown with Pandoc citations.
        version: The volseg version to cite.
    """
    entries = _entries()
    return "\n\n".join(
        Template(entries[key]).substitute(version=version) for key in dict.fromkeys(_CITED.findall(text))
    )


@cache
def _entries() -> dict[str, str]:
    """Return key -> entry, for everything that volseg may cite."""
    text = resources.files(__package__).joinpath("references.bib").read_text(encoding="utf-8")
    return {key: entry for entry, key in _ENTRY.findall(text)}
