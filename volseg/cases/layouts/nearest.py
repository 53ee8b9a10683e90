"""Hints for a folder that is not a labelled data set: its content, and which layout it nearly has.

Following a hint to the letter gives a data set: a part of a folder, or a list in it, is named only if it was tried, and
the names in a layout are those of existing files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from volseg.cases.case import Dataset, stem
from volseg.cases.layouts.bids import is_bids, why_no_image
from volseg.cases.layouts.bids_names import BidsFile
from volseg.cases.layouts.folders import image_and_label_folders, is_called_images, is_called_labels
from volseg.cases.layouts.names import ENTRIES, HINT, KEEP_ONE, base_of, says_reference
from volseg.io import image_files, image_suffix
from volseg.io.discovery import UNPACK

#: Returns the number of cases found at a path.
CasesAt = Callable[[Path], int]

_ROWS = "each row needs case_id, image and reference, whose paths are relative to the table or absolute"
_PATTERNS = "--set data.images=photos/*.png --set data.references=drawn/*.png"
#: Number of parts of a folder to try.
_TRIED = 8
_SEPARATORS = ("_", "-", ".", " ")


def what_is_there(root: Path) -> str:
    """Count the image files of a folder, and those of them named like masks."""
    images, masks = _images_and_masks(root)
    if not images and not masks:
        return "no image files by name"
    count = len(images) + len(masks)
    return f"{count} image files, {len(masks) or 'none'} of them with a name or a folder like that of a mask"


def what_a_list_needs(path: Path) -> str:
    """Return a hint for a list without usable entries."""
    return f"{ENTRIES if path.suffix.lower() == '.json' else _ROWS}; {HINT}"


def nearest_layout(root: Path, dataset: Dataset, cases_at: CasesAt) -> str:
    """Return a hint on what to give or to make instead of a folder that is not a labelled data set.

    Args:
        root: The folder.
        dataset: Its interpretation, without usable cases.
        cases_at: Tries a part of the folder.

    Returns:
        A hint: a part of the folder that is a data set, else what its files lack, else the nearest layout.
    """
    if (root / "dataset.json").is_file() and dataset.layout != "nnU-Net":  # which lists nothing
        return what_a_list_needs(root / "dataset.json")
    if parts := _parts(root, cases_at):
        first, *others = (part.relative_to(root) for part in parts)
        more = f", or {', '.join(map(str, others))}; a manifest takes the cases of all" if others else ""
        return f"give {first} itself{more}: it states which images and labels belong together; {HINT}"
    if any(item.reason.endswith(KEEP_ONE) for item in dataset.set_aside):
        return f"keep one reference of each case, or name it in a manifest; {HINT}"
    packed = [item.path for item in dataset.set_aside if item.reason == UNPACK]
    if packed and not image_files(root):
        archive = next(path for path in packed[0].parents if path.is_file())
        return f"unpack {archive.relative_to(root)}, and give the unpacked folder; {HINT}"
    return f"the nearest layout is {_tree(root, dataset)}; or give patterns of names, {_PATTERNS}; {HINT}"


def _parts(root: Path, cases_at: CasesAt) -> list[Path]:
    """Return the folders and lists in a folder that are data sets, those with the most cases first."""
    entries = sorted(path for path in root.iterdir() if not path.name.startswith("."))
    folders = [path for path in entries if path.is_dir()]
    lists = [path for path in entries if path.is_file() and path.suffix.lower() in {".csv", ".tsv", ".json"}]
    counts = {path: cases_at(path) for path in (*folders[:_TRIED], *lists[:_TRIED])}
    found = sorted((path for path, count in counts.items() if count), key=lambda path: -counts[path])
    return _parts(folders[0], cases_at) if not found and len(folders) == 1 else found


def _tree(root: Path, dataset: Dataset) -> str:
    """Show an image and its reference in the nearest layout; DICOM is recognised by what was set aside."""
    images, masks = _images_and_masks(root)
    anatomy = [path for path in images if not why_no_image(path, root)]
    if is_bids(root) and anatomy:
        return _as_bids(root, anatomy)
    if per_structure := next(_per_structure(images, masks), None):
        image, structure, mask = per_structure
        case = stem(image)
        return (
            f"{case}/{image.name} and {case}/segmentations/{structure}{image_suffix(mask)}, "
            "a folder per case with a mask per structure"
        )
    if images:
        return _pair(root, images, masks)
    below = [item.path.relative_to(root).parts for item in dataset.set_aside if item.series_uid]
    if case := next((parts[0] for parts in below if parts), ""):
        return f"{case}/ with the images of a case and {case}/seg.nii.gz, a folder per case"
    return "images/p1.nii.gz and labels/p1.nii.gz"


def _pair(root: Path, images: Sequence[Path], masks: Sequence[Path]) -> str:
    """Show an image and one label map for it, where images are now."""
    folders = [path for path in root.iterdir() if path.is_dir()]
    image = min(images, key=lambda path: (path.parent != root, not is_called_images(path.parent), path))
    suffix = image_suffix(masks[0] if masks else image)
    if image.parent == root and any(mask.parent == root for mask in masks):
        return f"{image.name} and {stem(image)}_seg{suffix} side by side"
    if image.parent == root or any(is_called_images(path) or is_called_labels(path) for path in folders):
        called = image_and_label_folders(root)
        place, reference = (folder.name for folder in called) if called else ("images", "labels")
        return f"{place}/{image.name} and {reference}/{stem(image)}{suffix}"
    if sum(path.parent == image.parent for path in images) > 1:
        return f"images/{image.name} and labels/{stem(image)}{suffix}"
    case = image.relative_to(root).parts[0]
    return f"{case}/{image.name} and {case}/seg{suffix}, a folder per case"


def _as_bids(root: Path, images: Sequence[Path]) -> str:
    """Show an image of BIDS and its label map; among several, the one whose name is the most specific."""
    image = max(images, key=lambda path: len(BidsFile.of(path, root).entities))
    place = image.relative_to(root)
    return f"{place} and derivatives/labels/{place.parent}/{stem(image)}_dseg{image_suffix(image)}"


def _per_structure(images: Sequence[Path], masks: Sequence[Path]) -> Iterator[tuple[Path, str, Path]]:
    """Yield images, structures and their masks, if an image has several: by folders, or in one folder by name.

    `images/p1` has `labels/p1/liver` or `labels/liver/p1`, or `p1` has `p1_liver_seg` and `p1_spleen_seg`.
    """
    called = {stem(image): image for image in images}
    for mask in masks:
        words = (mask.parent.name, stem(mask))
        if is_called_labels(mask.parent.parent) and len(set(words) & called.keys()) == 1:
            name, structure = words if words[0] in called else words[::-1]
            yield called[name], structure, mask
    for name, image in called.items():
        beginnings = tuple(f"{name}{separator}" for separator in _SEPARATORS)
        theirs = [mask for mask in masks if mask.parent == image.parent and base_of(mask).startswith(beginnings)]
        if len(theirs) > 1:
            yield image, base_of(theirs[0])[len(name) + 1 :], theirs[0]


def _images_and_masks(root: Path) -> tuple[list[Path], list[Path]]:
    """Return the image files of a folder, and those whose name or folder is that of a mask."""
    paths = sorted(path for found in image_files(root).values() for path in found)
    masks = {path for path in paths if says_reference(path) or _lies_among_labels(path, root)}
    return [path for path in paths if path not in masks], [path for path in paths if path in masks]


def _lies_among_labels(path: Path, root: Path) -> bool:
    return any(is_called_labels(folder) for folder in path.parents if folder != root and folder.is_relative_to(root))
