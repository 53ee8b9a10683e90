"""COCO: one annotation file for all pictures, as exported by CVAT, Label Studio and Roboflow."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath

from volseg.cases.case import Case, Dataset, stem
from volseg.cases.case_ids import case_id_of, path_name
from volseg.cases.layouts.folders import is_called_images, is_called_labels
from volseg.cases.layouts.names import in_order
from volseg.config import DicomRules
from volseg.errors import DataError
from volseg.io import FileSource, SetAside, image_files, is_picture
from volseg.io.coco import holds_annotations
from volseg.io.outlines import outline_suffix, outlines_of

#: Folder of the annotation files, beside the picture folders.
_ANNOTATIONS = "annotations"
#: Prefixes of paths relative to the annotation folder, or to that of a program.
_UPWARDS = {"..", ".", "/"}


def annotations_of(path: Path) -> Path | None:
    """Return the annotation file of a data set: the path itself, or in its folder or in `annotations/`.

    Raises:
        DataError: If there are several, and none is clearly the right one.
    """
    if not path.is_dir():
        return path if holds_annotations(path) else None
    files = [file for folder in (path, path / _ANNOTATIONS) for file in sorted(folder.glob("[!.]*.json"))]
    parts = sorted(path.glob("[!.]*/_annotations.coco.json"))  # as Roboflow splits a data set
    if not files and parts:
        raise DataError(
            f"{path} is divided into {', '.join(file.parent.name for file in parts)}",
            hint=f"give one of them as the data set: {parts[0].parent}",
        )
    if not files or not any(map(is_picture, path.rglob("*"))):
        return None
    of_one = {stem(file) for paths in image_files(path).values() for file in paths}
    # p1.coco.json beside p1.png belongs to that picture only.
    found = [file for file in files if not _is_beside(file, of_one) and holds_annotations(file)]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise DataError(f"{path} holds several annotation files: {names}", hint="name one of them as the data set")
    return found[0] if found else None


def _is_beside(file: Path, pictures: set[str]) -> bool:
    suffix = outline_suffix(file)
    return bool(suffix) and file.name[: -len(suffix)] in pictures


def from_coco(file: Path, rules: DicomRules) -> Dataset:
    """Find the pictures that a file annotates; a picture without annotations is background.

    Args:
        file: Annotations. Pictures lie below its folder, or below that of its folder `annotations/`.
        rules: How they are read.
    """
    root = file.parent.parent if file.parent.name == _ANNOTATIONS else file.parent
    by_name: defaultdict[str, list[Path]] = defaultdict(list)
    for folder, paths in image_files(root).items():
        if folder.name == rules.roi or is_called_labels(folder):
            continue
        for path in filter(is_picture, paths):
            by_name[_composed(path.name)].append(path)
    cases, set_aside, taken = [], [], set()
    for name, reference in outlines_of(file).items():
        parts = PurePosixPath(name.replace("\\", "/")).parts
        ending = tuple(_composed(part) for part in parts if part not in _UPWARDS)
        called_so = by_name[ending[-1]] if ending else []
        fitting = [path for path in called_so if _parts(path, root)[-len(ending) :] == ending]
        if len(fitting) != 1:
            why = "is not beside it" if not fitting else f"is in {len(fitting)} folders beside it"
            set_aside.append(SetAside(file, f"it annotates {name!r}, which {why}", is_fault=True))
            continue
        taken.add(fitting[0])
        place = fitting[0].relative_to(root).parent.parts
        inner = place[is_called_images(root / place[0]) :] if place else ()
        case_id = case_id_of(path_name([*inner, stem(fitting[0])]))
        cases.append(Case(case_id, {"image": FileSource(fitting[0], rules=rules.of_files)}, reference))
    rest = (path for paths in by_name.values() for path in paths if path not in taken)
    set_aside += [SetAside(path, f"{file.name} does not list it") for path in sorted(rest)]
    return Dataset("annotations of COCO", in_order(cases), ("image",), set_aside=tuple(set_aside))


def _composed(name: str) -> str:
    """Normalise a name: disks and programs may store accents as separate characters."""
    return unicodedata.normalize("NFC", name)


def _parts(path: Path, root: Path) -> tuple[str, ...]:
    return tuple(map(_composed, path.relative_to(root).parts))
