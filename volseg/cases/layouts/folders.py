"""Common names of image folders and reference folders."""

from __future__ import annotations

from pathlib import Path

from volseg.io import image_files

_IMAGES = frozenset(
    {"image", "images", "img", "imgs", "scan", "scans", "volume", "volumes", "ct", "cts", "mr", "mri", "mris", "raw"}
)
#: In lower case, with blanks and dashes as underscores.
LABELS = frozenset(
    {"label", "labels", "mask", "masks", "seg", "segs", "segmentation", "segmentations", "annotation", "annotations"}
    | {"gt", "gts", "ground_truth", "groundtruth", "reference", "references", "labelmap", "labelmaps"}
    | {"annot", "anno", "manual"}
)
_USUAL = (("images", "labels"), ("imagestr", "labelstr"))


def image_and_label_folders(root: Path) -> tuple[Path, Path] | None:
    """Return the image folder and the reference folder of a data set; None if there are none.

    `images/` + `labels/` and `imagesTr/` + `labelsTr/` are accepted in any letter case, whatever lies beside them;
    other common names only if there is exactly one of each, and no third folder with images.
    """
    folders = _sub_folders(root)
    if usual := _usual(folders):
        return usual
    images = [folder for folder in folders if plain(folder.name) in _IMAGES]
    labels = [folder for folder in folders if plain(folder.name) in LABELS]
    if len(images) != 1 or len(labels) != 1:
        return None
    found = {folder.relative_to(root).parts[:1] for folder in image_files(root)}
    others = [folder for folder in folders if folder not in (*images, *labels)]
    return None if any((folder.name,) in found for folder in others) else (images[0], labels[0])


def two_folders(root: Path, roi: str | None) -> tuple[Path, Path] | None:
    """Return the folders of images and of references if there is no third, and a word in one name tells which is which.

    `CXR_png/` and `masks/`, `stare-images/` and `labels-ah/`, `Original/` and `Ground Truth/`.

    Args:
        root: Of the data set.
        roi: The folder of fields of view, which is neither.
    """
    holding = {folder.relative_to(root).parts[:1] for folder in image_files(root)}
    folders = [folder for folder in _sub_folders(root) if (folder.name,) in holding and folder.name != roi]
    if len(folders) != 2:
        return None
    first, second = folders
    for words, images_last in ((LABELS, True), (_IMAGES, False)):
        if (says := _says(first.name, words)) != _says(second.name, words):
            return (second, first) if says == images_last else (first, second)
    return None


def _says(name: str, words: frozenset[str]) -> bool:
    return any(f"_{word}_" in f"_{plain(name)}_" for word in words)


def has_usual_folders(root: Path) -> bool:
    """Return whether image and reference folders have the most common names, or there are images only."""
    folders = _sub_folders(root)
    return bool(_usual(folders)) or not any(plain(folder.name) in LABELS for folder in folders)


def is_called_images(folder: Path) -> bool:
    """Return whether the name of a folder says that it holds images."""
    return plain(folder.name) in {*_IMAGES, "imagestr", "imagests", "imagesval"}


def is_called_labels(folder: Path) -> bool:
    """Return whether the name of a folder says that it holds references."""
    return plain(folder.name) in {*LABELS, "labelstr"}


def plain(name: str) -> str:
    """Normalise a name: lower case, with blanks and dashes as underscores."""
    return name.lower().replace(" ", "_").replace("-", "_")


def _usual(folders: list[Path]) -> tuple[Path, Path] | None:
    for pair in _USUAL:
        found = [[folder for folder in folders if plain(folder.name) == name] for name in pair]
        if all(found):
            return _exact_first(found[0], pair[0]), _exact_first(found[1], pair[1])
    return None


def _sub_folders(root: Path) -> list[Path]:
    """Return the folders that are not empty; moving files elsewhere may have left empty ones."""
    folders = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(path for path in folders if any(map(_is_no_folder, path.rglob("*"))))


def _is_no_folder(path: Path) -> bool:
    return path.is_symlink() or not path.is_dir()


def _exact_first(folders: list[Path], name: str) -> Path:
    """Choose, among folders whose names differ in letter case only, the one in lower case."""
    return next((folder for folder in folders if folder.name == name), folders[0])
