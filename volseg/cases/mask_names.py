"""Names of the masks in a folder, each after the structure that it marks."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from volseg.cases.case import names_a_reference, reference_base, stem
from volseg.config import DicomRules
from volseg.io import MasksSource, ObjectsSource, image_files

_SAYS_MASK = re.compile(r"(labels?|seg|segmentations?|masks?)[-_. ]+(?=.)", re.IGNORECASE)


def masks_of_folder(folder: Path, rules: DicomRules) -> MasksSource | ObjectsSource | None:
    """Return the masks of a folder that is stated as the reference of a case.

    Returns:
        A mask per structure, or per object if the rules say so; None if the folder holds no image files, or fewer than
        two structures, or two of one name.
    """
    paths = image_files(folder).get(folder, ())
    if rules.values == "objects" and paths:
        return ObjectsSource(folder, tuple(sorted(paths)), rules.of_files)
    masks = masks_by_structure(paths, [folder.parent.name, folder.name])
    if len(paths) < 2 or len(masks) < len(paths):
        return None
    return MasksSource(folder, tuple(sorted(masks.items())), rules=rules.of_files)


def masks_by_structure(paths: Sequence[Path], prefixes: Sequence[str]) -> dict[str, Path]:
    """Return structure -> its file, for files whose name states a structure that no other file states.

    Args:
        paths: Masks.
        prefixes: Names of the case and its images, which may come first: `p1_liver` of `p1`.
    """
    named: defaultdict[str, list[Path]] = defaultdict(list)
    for path in paths:
        name = stem(path)
        name = reference_base(name) if names_a_reference(name) else name
        name = without_prefix(_SAYS_MASK.sub("", name, count=1) if _SAYS_MASK.match(name) else name, prefixes)
        named[name].append(path)
    return {name: found[0] for name, found in named.items() if name and len(found) == 1}


def without_prefix(name: str, prefixes: Sequence[str]) -> str:
    """Remove the prefix of the case or the image from a name; empty if nothing is left."""
    fitting = [prefix for prefix in prefixes if name == prefix or name.startswith(prefix)]
    return name.removeprefix(max(fitting, key=len, default="")).strip("-_. ")
