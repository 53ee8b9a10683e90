"""One binary mask per object: `0a7e06/images/0a7e06.png` and `0a7e06/masks/*.png`, as in the Data Science Bowl 2018."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from volseg.cases.case import Case, Dataset, stem
from volseg.cases.case_ids import case_id_of, path_name
from volseg.cases.layouts.folders import is_called_images, is_called_labels
from volseg.cases.layouts.names import in_order
from volseg.config import DicomRules
from volseg.io import FileSource, ObjectsSource, SetAside, image_files

#: Folder -> its image files, as `volseg.io.image_files` finds them.
Files = Mapping[Path, Sequence[Path]]


def object_folders(files: Files, root: Path) -> dict[Path, Path]:
    """Find the images that have a mask per object, by names alone.

    The masks of an image lie in a folder with a usual name beside it (`masks/` of a case folder), or in one that has
    the name of the image (`masks/p1/` of `images/p1.png`).

    Args:
        files: All image files below `root`.
        root: The given folder.

    Returns:
        Image -> the folder of its masks.
    """
    found: dict[Path, Path] = {}
    for folder, masks in files.items():
        if is_called_labels(folder) and root not in (folder, folder.parent):
            images = _images_in(folder.parent, files)
            if len(images) == 1 and stem(images[0]) not in map(stem, masks):
                found[images[0]] = folder
        elif is_called_labels(folder.parent) and folder.parent != root:
            called = [path for path in _images_in(folder.parent.parent, files) if stem(path) == folder.name]
            if len(called) == 1:
                found[called[0]] = folder
    return found


def with_objects(root: Path, rules: DicomRules) -> Dataset | None:
    """Find the cases of a folder whose images have a mask per object, named after the case folder or the image.

    Args:
        root: The folder.
        rules: How files are read; they state whether masks are of objects.

    Returns:
        The data set; None if masks are of something else, or no image has a folder of them.
    """
    if rules.values != "objects" or not root.is_dir():
        return None
    files = image_files(root)
    folders = object_folders(files, root)
    if not folders:
        return None
    cases = []
    known = set(folders)
    for image, folder in folders.items():
        reference = ObjectsSource(folder, tuple(sorted(files[folder])), rules.of_files)
        known.update(reference.paths)
        place = folder if is_called_labels(folder.parent) else folder.parent
        parts = [part for part in place.relative_to(root).parts if not is_called_labels(Path(part))]
        cases.append(Case(case_id_of(path_name(parts)), {"image": FileSource(image, rules=rules.of_files)}, reference))
    reason = "it is not an image with a folder of masks, one per object"
    rest = [SetAside(path, reason) for paths in files.values() for path in paths if path not in known]
    return Dataset("one binary mask per object", in_order(cases), ("image",), set_aside=tuple(rest))


def _images_in(folder: Path, files: Files) -> list[Path]:
    """Return the images of a folder, or of its image sub-folder."""
    inner = [
        path for place, paths in files.items() if place.parent == folder and is_called_images(place) for path in paths
    ]
    return [*files.get(folder, ()), *inner]
