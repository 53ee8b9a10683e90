"""Case ids: file names that are safe on every system, made only from the path of a case.

A case is named by its path below the input, `sub/p1` -> `sub_p1`. Letters and digits of every script stay. Characters
that are not safe in file names are replaced, and since two names could become equal that way, a hash of the original is
appended. The mapping is idempotent: a case id maps to itself, so an id read back from a file name is unchanged.

Rules of file names: Windows, "Naming Files, Paths, and Namespaces" (reserved characters and names, final dots and
blanks); POSIX NAME_MAX of 255 bytes; Unicode Standard Annex 15 (NFC) and section 3.13 (caseless matching), since disks
of macOS and Windows treat names as equal that differ in case or in how an accent is stored.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from volseg.config import one_of
from volseg.io.images import IMAGE_SUFFIXES

#: How cases are named: by path, by DICOM series, or by a pseudonym.
CaseNaming = Literal["path", "series", "hash"]

#: Bytes of UTF-8. What is written for a case has up to 55 more: ".volseg-part-4194304-" before, ".probabilities.nii.gz"
#: or "-<16 digits>.labels.npy" behind; a file name has 255.
LONGEST_BYTES = 200

_PUNCTUATION = frozenset("._- ()+,=@'")
#: A name that begins with another one is hidden, looks like an option, or is a formula to a spreadsheet.
_FIRST_PUNCTUATION = frozenset("_(")
#: Invisible letters and marks (Default_Ignorable_Code_Point); other invisible characters are not letters.
_INVISIBLE = frozenset(
    [
        *(0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0),
        *range(0xFE00, 0xFE10),
        *range(0xE0100, 0xE01F0),
    ]
)
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$", "clock$"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in "0123456789¹²³"]
)
#: A case with such a name would overwrite another case's file: the `.seg.nrrd` of `p1` is the `.nrrd` of
#: `p1.seg`.
_OUR_ENDINGS = (
    ".probabilities",
    ".overlay",
    ".geojson",
    ".coco.json",
    ".svg",
    ".seg",
    ".rtstruct",
    ".sr",
    ".dcm",
    ".glb",
    ".png",
    ".gz",
    *IMAGE_SUFFIXES,
)


def parse_naming(name: str) -> CaseNaming:
    """Parse the name of a case naming scheme.

    Raises:
        ConfigError: If it is unknown.
    """
    naming: CaseNaming = one_of("--case-id", name, get_args(CaseNaming))
    return naming


def path_name(parts: Iterable[str]) -> str:
    """Join the parts of a path with slashes: UTF-8 whatever the locale says, in NFC."""
    return unicodedata.normalize("NFC", "/".join(map(_as_utf8, parts)))


def case_id_of(name: str) -> str:
    """Return the case id for a name.

    Args:
        name: A path as from `path_name`, without the suffix of a file; or any other text.

    Returns:
        A file name of at most `LONGEST_BYTES`, in NFC. A valid case id stays as it is.
    """
    name = unicodedata.normalize("NFC", name)
    joined = "_".join(_safe_part(part) for part in name.split("/"))
    fitting = _fitting(joined)
    return joined if joined == fitting != "" else marked(_cut(fitting or "case"), name)


def is_case_id(text: str) -> bool:
    """Return whether a text is a valid case id."""
    return case_id_of(text) == text


def marked(name: str, by: str) -> str:
    """Make one of several equal names unique by a hash of its own properties, never of its position among them."""
    return f"{name}-{short_hash(by)}"


def pseudonym(name: str) -> str:
    """Return a pseudonym for a name; anyone who guesses the name can compute it, too."""
    return _digest(name)[:16]


def short_hash(text: str) -> str:
    """Return eight hexadecimal digits that identify a text, practically without collisions."""
    return _digest(text)[:8]


def why_equal(names: Iterable[str]) -> str:
    """Describe the conflict of cases whose ids are equal."""
    return f"{' and '.join(sorted(names))} would have the same name; rename them, or name them in a manifest"


def same_on_any_disk(case_id: str) -> str:
    """Normalise an id so that ids are equal if their files are the same on a case- or accent-insensitive disk."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", case_id).casefold())


def lies_below(path: Path, root: Path) -> tuple[str, ...]:
    """Return the parts of a path below a folder; for any other path its name."""
    parts = path.relative_to(root).parts if path.is_relative_to(root) else ()
    return parts or (path.name,)


def _safe_part(part: str) -> str:
    if all(map(_is_safe, part)):
        return part
    words = "".join(char if _is_safe(char) else "\0" for char in part).split("\0")
    return marked("_".join([words[0], *filter(None, words[1:-1]), words[-1]]), part)


def _is_safe(char: str) -> bool:
    if char.isascii():
        return char.isalnum() or char in _PUNCTUATION
    return unicodedata.category(char)[0] in "LMN" and ord(char) not in _INVISIBLE


def _fitting(text: str) -> str:
    """Make a text valid as a whole file name."""
    if text and not (unicodedata.category(text[0])[0] in "LN" or text[0] in _FIRST_PUNCTUATION):
        text = f"_{text[1:]}"
    text = text.rstrip(". ")
    if text.split(".", maxsplit=1)[0].rstrip(" ").casefold() in _DEVICES:
        text = f"_{text}"
    if text.lower().endswith(_OUR_ENDINGS):
        text = "_".join(text.rsplit(".", 1))
    return text if len(text.encode()) <= LONGEST_BYTES else _cut(text)


def _cut(text: str) -> str:
    """Truncate a text to leave room for a hash behind it."""
    return text.encode()[: LONGEST_BYTES - len(marked("", ""))].decode("utf-8", "ignore")


def _as_utf8(part: str) -> str:
    try:
        return os.fsencode(part).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it is not from this disk, but from an archive or a manifest
        return part


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
