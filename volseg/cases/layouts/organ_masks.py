"""One binary mask per structure: `s0001/ct.nii.gz` and `s0001/segmentations/liver.nii.gz`, as in TotalSegmentator."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from volseg.cases.case import Case, Dataset, stem
from volseg.cases.case_ids import case_id_of, path_name, why_equal
from volseg.cases.layouts.case_folders import common_channels, parts_of_case, why_not
from volseg.cases.layouts.folders import LABELS, plain
from volseg.cases.layouts.names import in_order, says_reference
from volseg.cases.layouts.side_by_side import paired_bases
from volseg.cases.mask_names import masks_by_structure, without_prefix
from volseg.cases.source_names import by_id
from volseg.config import DicomRules
from volseg.image.terminology import lookup
from volseg.io import Discovery, MasksSource, SetAside, Source, discover, image_files
from volseg.io.files import without_root
from volseg.io.own_results import without_batches
from volseg.progress import Progress

logger = logging.getLogger(__name__)

_FOLDERS = LABELS | {"organs", "rois", "structures"}

#: Folder -> its image files, as `volseg.io.image_files` finds them.
Files = Mapping[Path, Sequence[Path]]


def mask_folders(files: Files, root: Path, *, with_images: bool = True) -> dict[Path, MasksSource]:
    """Find the case folders that have a mask per structure, by names alone.

    Masks lie in a sub-folder of the case (`segmentations/`, `masks/`, `labels/` ...) or beside its image. A file counts
    as a mask of a structure if volseg's table of structures knows a name beside it, if another case has masks of the
    same names, or if there is exactly one image; a name that an image has as well, or that says no more than "mask",
    does not count.

    Args:
        files: All image files below `root`.
        root: The given folder; it is a case itself only if images lie in it directly.
        with_images: Whether a folder needs an image; without, masks must have names that the table knows.

    Returns:
        Folder of the case -> its masks.
    """
    beneath: defaultdict[Path, set[str]] = defaultdict(set)
    for folder, paths in files.items():
        if plain(folder.name) not in _FOLDERS:
            beneath[folder].update(map(stem, paths))
            beneath[folder.parent].update(map(stem, paths))
    apart = {
        folder.parent: named
        for folder, paths in files.items()
        if plain(folder.name) in _FOLDERS
        and folder != root
        and (folder.parent != root or root in files)
        and (named := _in_folder(folder, paths, beneath[folder.parent]))
    }
    beside = {
        folder: named
        for folder, paths in files.items()
        if folder not in apart and folder.parent not in apart and (named := _beside(folder, paths))
    }
    if not with_images:
        beside |= {
            folder: named
            for folder, paths in files.items()
            if folder != root and folder.parent not in apart and (named := _all_known(folder, paths))
        }
    counts = Counter(name.casefold() for named in apart.values() for name in named)
    found = {
        folder: named
        for folder, named in apart.items()
        if any(map(lookup, named))
        or (with_images and (len(files.get(folder, ())) == 1 or any(counts[name.casefold()] > 1 for name in named)))
    }
    return _same_spelling(found | beside)


def from_organ_masks(root: Path, folders: Mapping[Path, MasksSource], rules: DicomRules, progress: Progress) -> Dataset:
    """Find the cases of folders with a mask per structure."""
    discovery = without_batches(discover(root, progress, rules=rules), root)
    masks = {path for source in folders.values() for _, path in source.masks}
    set_aside = list(discovery.set_aside)
    below: defaultdict[Path | None, list[Source]] = defaultdict(list)
    for source in (*discovery.sources, *discovery.segments):
        if source.place not in masks:
            around = [folder for folder in (source.place, *source.place.parents) if folder in folders]
            below[around[0] if around else None].append(source)
    images: dict[Path, dict[str, Source]] = {}
    more: dict[Path, list[Source]] = {}
    for folder in sorted(folders):
        marked = [source for source in below[folder] if source in discovery.segments]
        rest = Discovery(tuple(source for source in below[folder] if source not in marked), ())
        images[folder], more[folder], not_taken = parts_of_case(rest, folder, rules)
        more[folder] += marked
        set_aside += not_taken
    channels = tuple(rules.series) or common_channels(images.values())
    cases: list[Case] = []
    for folder, found in images.items():
        case_id = _case_id(folder, root)
        reference = replace(folders[folder], rules=rules.of_files)
        chosen = found if len(channels) > 1 else dict(zip(channels, found.values(), strict=False))
        if reason := why_not(case_id, found, [*more[folder], reference], channels):
            set_aside += [SetAside(source.place, reason) for source in (*found.values(), *more[folder])]
            set_aside += [SetAside(path, reason) for _, path in reference.masks]
        else:
            cases.append(Case(case_id, {name: chosen[name] for name in channels}, reference))
    set_aside += [SetAside(source.place, "it is not in a folder with a mask per structure") for source in below[None]]
    return Dataset("one binary mask per structure", in_order(cases), channels, set_aside=tuple(set_aside))


def lone_masks(discovery: Discovery, root: Path, rules: DicomRules) -> dict[str, Source]:
    """Return case id -> its masks, for a folder that holds only masks of structures; empty for any other."""
    folders = mask_folders(image_files(root), root, with_images=False)
    masks = {path for source in folders.values() for _, path in source.masks}
    if discovery.segments or any(source.place not in masks for source in discovery.sources):
        return {}
    known, equal = by_id((_case_id(folder, root), replace(folders[folder], rules=rules.of_files)) for folder in folders)
    for group in equal:
        logger.warning("not used: %s", without_root(why_equal(str(source.folder) for source in group), root))
    return dict(known)


def _case_id(folder: Path, root: Path) -> str:
    return case_id_of(path_name(folder.relative_to(root).parts or (root.name,)))


def _in_folder(folder: Path, paths: Sequence[Path], images: Collection[str]) -> dict[str, Path]:
    """Return the masks in the mask sub-folder; none if they have the names of the images around it: one per image."""
    named = masks_by_structure(paths, [folder.parent.name, *images])
    return named if len(named) == len(paths) and not set(images) & set(map(stem, paths)) else {}


def _beside(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Return the masks among the files of a folder: those named after structures, if the others are images."""
    marked = [path for path in paths if says_reference(path)]
    known = [path for path in paths if path not in marked and lookup(without_prefix(stem(path), [folder.name]))]
    images = [path for path in paths if path not in (*marked, *known)]
    stems = [folder.name, *(stem(path) for path in images)]
    named = masks_by_structure([*known, *marked], stems)
    several = len(named) > 1 or any(map(lookup, named))
    if not images or not several or len(named) < len(known) + len(marked) or paired_bases(paths):
        return {}
    return named


def _all_known(folder: Path, paths: Sequence[Path]) -> dict[str, Path]:
    """Return the files of a folder, if all are named after known structures."""
    named = masks_by_structure(paths, [folder.name])
    return named if len(named) == len(paths) and all(map(lookup, named)) else {}


def _same_spelling(found: Mapping[Path, Mapping[str, Path]]) -> dict[Path, MasksSource]:
    """Return the masks of each case by name; "Liver" and "liver" in two cases are one structure."""
    spelling: dict[str, str] = {}
    for name in sorted({name for named in found.values() for name in named}):
        spelling.setdefault(name.casefold(), name)
    return {
        folder: MasksSource(
            next(iter(named.values())).parent,
            tuple(sorted((spelling[name.casefold()], path) for name, path in named.items())),
        )
        for folder, named in found.items()
    }
