"""Names of the sources below a folder, made from their paths."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from volseg.cases.case import Case, Dataset, names_a_reference, reference_base, stem
from volseg.cases.case_ids import case_id_of
from volseg.cases.source_names import name_of, names_in, refused
from volseg.image.naming import plain_name
from volseg.image.terminology import lookup
from volseg.io import Discovery, MasksSource, SegmentsSource, SetAside, Source

#: Hint when a whole folder is refused.
HINT = "docs/data.md shows every layout with a tree"
#: Hint for a JSON that lists no case.
ENTRIES = (
    'each entry of "training" needs the keys image and label: '
    '{"training": [{"image": "scan.nii.gz", "label": "mask.nii.gz"}]}, with paths relative to the list, or absolute'
)
_NUMBERED = re.compile(r"(.+)[-_. ]\d{1,3}")
#: Hint for several references of one case.
KEEP_ONE = "keep one, or choose in a manifest (a CSV of case_id,image,reference)"


def references_in(discovery: Discovery, root: Path) -> tuple[dict[str, Source], list[SetAside]]:
    """Find label maps and objects that mark structures below `root`.

    Returns:
        Case id -> where its reference is read from: a single object in a folder has the folder's name, and among files
        of one name the one named as a reference is used; and those that have no unique id.
    """
    lone = Counter(source.path.parent for source in discovery.segments)
    lone.update(source.place.parent for source in discovery.sources)
    named = names_in(discovery.sources, root)
    for source in discovery.segments:
        name = name_of(source, root)
        folder, _, last = name.rpartition("/")
        alone = folder and lone[source.path.parent] == 1 and (not source.has_grid or names_a_reference(last))
        named.append((folder if alone else name, source))
    groups: defaultdict[str, list[Source]] = defaultdict(list)
    for name, found in named:
        groups[case_id_of(name)].append(found)
    for case_id, group in groups.items():
        says: list[Source] = [one for one in group if isinstance(one, SegmentsSource) or says_reference(one.place)]
        groups[case_id] = says if len(says) == 1 else group
    known = {case_id: group[0] for case_id, group in groups.items() if len(group) == 1}
    equal = [group for group in groups.values() if len(group) > 1]
    return known, [item for group in equal for item in refused([source] for source in group)]


def says_reference(path: Path) -> bool:
    """Return whether a file or folder is named like a reference, such as `p1_seg.nii.gz` and `p1.seg.nrrd`."""
    return is_of_slicer(path) or names_a_reference(stem(path))


def further_references(paths: Iterable[Path]) -> dict[Path, Path]:
    """Map additional references of an image, `p1_mask_1.png` beside `p1_mask.png`, to the first of them."""
    known = {(path.parent, stem(path)): path for path in paths}
    numbered = {path: _NUMBERED.fullmatch(name) for (_, name), path in known.items()}
    firsts = {path: known.get((path.parent, found[1])) for path, found in numbered.items() if found}
    return {path: first for path, first in firsts.items() if first is not None and says_reference(first)}


def is_of_slicer(path: Path) -> bool:
    """Return whether a file has the suffix of 3D Slicer's segmentations, which its stem does not show."""
    return path.name.lower().endswith(".seg.nrrd")


def base_of(path: Path) -> str:
    """Return the image name in a reference's name: "p1" of `p1_seg.nii.gz` and of `p1.seg.nrrd`, "" of `seg.nii.gz`."""
    return reference_base(stem(path))


def with_annotated(dataset: Dataset) -> Dataset:
    """Set the annotated labels of cases with masks per structure.

    A structure without a file in a case was not annotated there; one that was annotated but is absent has an empty mask
    file.
    """
    drawn = [case for case in dataset.cases if isinstance(case.reference, MasksSource)]
    meant = {case.case_id: {lookup(name) or plain_name(name) for name in _names_of(case)} for case in drawn}
    everything = set().union(*meant.values())
    partly = {case.case_id: frozenset(_names_of(case)) for case in drawn if meant[case.case_id] != everything}
    if not partly:
        return dataset
    cases = tuple(replace(case, annotated=case.annotated or partly.get(case.case_id)) for case in dataset.cases)
    some = ", ".join(sorted(partly)[:3]) + " ..." * (len(partly) > 3)
    remark = f"{len(partly)} cases have no file for some structures, which count as not annotated there: {some}"
    return replace(dataset, cases=cases, remarks=(*dataset.remarks, remark))


def _names_of(case: Case) -> tuple[str, ...]:
    return case.reference.names if isinstance(case.reference, MasksSource) else ()


def other_names(cases: Iterable[Case]) -> tuple[str, ...]:
    """Return a remark on images paired with a reference of another name, if there are any."""
    pairs = []
    for case in cases:
        image, reference = next(iter(case.images.values())).place, case.reference
        if len(case.images) > 1 or reference is None:
            continue
        called = {stem(image), re.sub(r"_0000$", "", stem(image))}  # nnU-Net numbers its channels
        if not called & {stem(reference.place), base_of(reference.place)}:
            pairs.append(f"{stem(image)} with {stem(reference.place)}")
    some = ", ".join(sorted(pairs)[:3]) + " ..." * (len(pairs) > 3)
    return (f"{len(pairs)} images are paired with a reference of another name: {some}",) if pairs else ()


def in_order(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Return cases in the order of their ids."""
    return tuple(sorted(cases, key=lambda case: case.case_id))
