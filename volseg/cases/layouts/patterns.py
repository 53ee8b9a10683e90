"""Images and references by patterns of their paths: `images/*_training.tif` and `1st_manual/*_manual1.gif`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from volseg.cases.case import Case, Dataset, stem
from volseg.cases.case_ids import case_id_of
from volseg.cases.layouts.names import in_order
from volseg.cases.layouts.rest import with_the_rest
from volseg.cases.listed import listed_reference, listed_source
from volseg.cases.source_names import name_of
from volseg.config import DicomRules
from volseg.errors import DataError
from volseg.io import SetAside

#: What each * of a pattern stands for -> the paths that fit, below the data set.
Found = Mapping[tuple[str, ...], Sequence[str]]


def from_patterns(root: Path, images: str, references: str, rules: DicomRules) -> Dataset:
    """Pair images and references whose wildcards match the same text.

    Args:
        root: Of the data set.
        images: Pattern of paths below it, of files or of folders with a DICOM series; a * stands for anything within a
            part of the path. The suffix may be left out.
        references: The same for references, with as many *.
        rules: How files are read.

    Raises:
        DataError: If no path matches one of the two.
    """
    found, drawn = (_fitting(root, pattern) for pattern in (images, references))
    cases, set_aside = [], []
    for key in sorted(found.keys() | drawn.keys()):
        paths, marked = found.get(key, ()), drawn.get(key, ())
        reason = _why_not(paths, marked, _filled_in(images, key), _filled_in(references, key))
        if not reason:
            try:
                cases.append(_case(root, images, paths[0], marked[0], rules))
                continue
            except DataError as error:
                reason = error.explanation
        set_aside += [SetAside(root / path, reason, is_fault=True) for path in (*paths, *marked)]
    dataset = Dataset(f"{images} and {references}", in_order(cases), ("image",), set_aside=tuple(set_aside))
    return with_the_rest(dataset, root, f"it is neither {images} nor {references}")


def _fitting(root: Path, pattern: str) -> Found:
    expression = re.compile("([^/]+)".join(map(re.escape, pattern.split("*"))))
    found: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        below = path.relative_to(root)
        if any(part.startswith(".") for part in below.parts):
            continue
        names = (below.with_name(stem(path)).as_posix(), below.as_posix())
        if fits := next(filter(None, map(expression.fullmatch, names)), None):
            found[fits.groups()].append(below.as_posix())
    if not found:
        raise DataError(f"there is no {pattern} in {root}", hint="correct data.images and data.references")
    return found


def _why_not(paths: Sequence[str], marked: Sequence[str], image: str, reference: str) -> str:
    """Return why files are not a case; empty if they are."""
    if not paths:
        return f"a label without an image: there is no {image}"
    if not marked:
        return f"an image without a label: there is no {reference}"
    several = paths if len(paths) > 1 else marked
    return f"{len(several)} files match: {', '.join(several)}" if len(several) > 1 else ""


def _filled_in(pattern: str, key: Sequence[str]) -> str:
    parts = pattern.split("*")
    return "".join(f"{part}{word}" for part, word in zip(parts, (*key, ""), strict=True))


def _case(root: Path, pattern: str, image: str, reference: str, rules: DicomRules) -> Case:
    """Build a case, named after its image below the folder that all images share."""
    shared = root.joinpath(*takewhile(lambda part: "*" not in part, PurePosixPath(pattern).parent.parts))
    source = listed_source(root, image, rules)
    return Case(case_id_of(name_of(source, shared)), {"image": source}, listed_reference(root, reference, rules))
