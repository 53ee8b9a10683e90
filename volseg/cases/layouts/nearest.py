"""What a folder that is no labelled data set holds, and which layout it is nearest to."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from volseg.cases.case import stem
from volseg.cases.layouts.datalist import lists_cases, read_datalist
from volseg.cases.layouts.folders import image_and_label_folders, is_called_images, is_called_labels
from volseg.cases.layouts.names import HINT, base_of, says_reference
from volseg.cases.manifest import has_case_ids, is_manifest
from volseg.errors import DataError
from volseg.io import image_files


def what_is_there(root: Path) -> str:
    """How many image files a folder holds, and how many of them are called as masks are."""
    paths = [path for found in image_files(root).values() for path in found]
    masks = sum(_like_a_mask(path) for path in paths)
    if not paths:
        return "no image file by name"
    return f"{len(paths)} image files, {masks or 'none'} of them with a name or a folder like that of a mask"


def nearest_layout(root: Path) -> str:
    """What to give or to make instead of a folder that is no labelled data set.

    Returns:
        A hint: a part of the folder that is a data set, else the layout that is nearest, as a small tree.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    whole = [path for path in folders if (path / "dataset.json").is_file() or image_and_label_folders(path)]
    lists = sorted(path for path in root.iterdir() if path.is_file() and _lists_cases(path))
    for part in (*whole, *lists):
        return f"give {part.name} itself: it says which images and labels belong together; {HINT}"
    paths = sorted(path for found in image_files(root).values() for path in found)
    images, masks = ([path for path in paths if _like_a_mask(path) is wanted] for wanted in (False, True))
    image = stem(images[0]) if images else "p1"
    if masks and any(mask.parent == each.parent for mask in masks[:1] for each in images):
        base = base_of(masks[0].relative_to(masks[0].parent)) or image
        tree = f"{base}.nii.gz and {base}_seg.nii.gz side by side"
    elif any(is_called_images(path) or is_called_labels(path) for path in folders) or not folders:
        tree = f"images/{image}.nii.gz and labels/{image}.nii.gz"
    else:
        case = folders[0].name
        tree = f"{case}/{image}.nii.gz and {case}/seg.nii.gz, a folder per case"
    return f"the nearest layout is {tree}; {HINT}"


def _like_a_mask(path: Path) -> bool:
    return says_reference(path) or is_called_labels(path.parent)


def _lists_cases(path: Path) -> bool:
    """Whether a file says which images and references belong together."""
    with suppress(DataError):
        if path.suffix.lower() == ".json":
            return lists_cases(read_datalist(path))
        return is_manifest(path) and has_case_ids(path)
    return False
