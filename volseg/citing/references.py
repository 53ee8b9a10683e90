"""BibTeX entries of what a text cites, and of nothing else."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from string import Template

#: As Pandoc has them: [@key] or [@key; @other]; an escaped at sign is none.
_CITED = re.compile(r"(?<!\\)@([a-z][a-z0-9]+)")
_ENTRY = re.compile(r"^(@\w+\{(\w+),\n.*?^\})$", re.MULTILINE | re.DOTALL)


def bibtex_of(text: str, version: str) -> str:
    """Return the entries of what a text cites, in the order in which it does.

    Args:
        text: Markdown with citations as Pandoc has them.
        version: Of volseg, that the text is about.
    """
    entries = _entries()
    return "\n\n".join(
        Template(entries[key]).substitute(version=version) for key in dict.fromkeys(_CITED.findall(text))
    )


@cache
def _entries() -> dict[str, str]:
    """Key -> entry, of everything that volseg may have to cite."""
    text = resources.files(__package__).joinpath("references.bib").read_text(encoding="utf-8")
    return {key: entry for entry, key in _ENTRY.findall(text)}
