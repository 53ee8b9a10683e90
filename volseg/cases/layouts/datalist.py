"""A JSON that lists its cases (Medical Segmentation Decathlon, MONAI), or describes the folders beside it (nnU-Net)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from volseg.cases.case import Case, Dataset, stem
from volseg.cases.case_ids import case_id_of, path_name
from volseg.cases.dataset_json import read_dataset_json, stated_channels, stated_labels, states_channels
from volseg.cases.layouts.channels import as_channels, as_the_model_sees
from volseg.cases.layouts.equal_names import from_equal_names
from volseg.cases.layouts.folders import image_and_label_folders, is_called_images
from volseg.cases.layouts.names import ENTRIES, HINT
from volseg.cases.listed import listed_path, listed_reference, listed_source
from volseg.cases.source_names import distinct
from volseg.cases.splits import Split
from volseg.config import DicomRules
from volseg.errors import DataError
from volseg.io import SetAside, Source, image_suffix
from volseg.progress import Progress

#: Our name of each list of cases -> other names in use.
_CALLED = {"training": ("train",), "validation": ("val", "valid"), "testing": ("test",)}
#: Key for the case name in nnU-Net's lists; no other entry of a list is the name.
_NAME = "key in the object 'dataset'"


@dataclass(frozen=True)
class _Entry:
    """One case of a list.

    Attributes:
        images: Files as listed: one per channel, or one that holds all channels.
        label: The reference as listed, None if there is none.
        fold: The fold for which it is a validation case, None if not stated.
        name: The case name in nnU-Net's lists; empty in other lists.
    """

    images: tuple[str, ...]
    label: str | None = None
    fold: int | None = None
    name: str = ""

    @classmethod
    def of(cls, stated: object) -> _Entry:
        """Build an entry.

        Raises:
            DataError: If it is invalid.
        """
        entry: Mapping[str, Any] = stated if isinstance(stated, dict) else {"image": stated}
        images, label, fold = entry.get("image"), entry.get("label"), entry.get("fold")
        images = [images] if isinstance(images, str) else images
        label = label[0] if isinstance(label, list) and len(label) == 1 else label
        if not isinstance(images, list) or not images or not all(isinstance(image, str) and image for image in images):
            other = f" but {', '.join(map(repr, entry))}" if entry and "image" not in entry else ""
            raise DataError(f"has no 'image'{other}", hint="give it a path, or a list of one per channel")
        if isinstance(label, list):
            raise DataError(
                f"lists {len(label)} files as its 'label'", hint="put all labels into one file, each with its own value"
            )
        if label is not None and not isinstance(label, str):
            raise DataError(f"has the 'label' {label!r}, which is not a path", hint="give the path of its label map")
        if (isinstance(fold, str) and fold.isdecimal()) or (isinstance(fold, float) and fold.is_integer()):
            fold = int(fold)
        is_fold = isinstance(fold, int) and not isinstance(fold, bool) and fold >= 0
        return cls(tuple(images), label or None, fold if is_fold else None, str(entry.get(_NAME, "")))


def read_datalist(path: Path) -> dict[str, Any]:
    """Read a JSON, with its lists of cases under the names `training`, `validation` and `testing`.

    nnU-Net's `dataset`, an object of case to files, is also such a list.

    Raises:
        DataError: If it is not a JSON object.
    """
    description = read_dataset_json(path)
    for part, others in _CALLED.items():
        for other in others:
            known = description.get(part) or []
            if isinstance(known, list) and isinstance(description.get(other), list):
                description[part] = [*known, *description.pop(other)]
    explicit = description.get("dataset")
    if isinstance(explicit, dict) and any(isinstance(files, dict) and "images" in files for files in explicit.values()):
        named = [(name, files if isinstance(files, dict) else {}) for name, files in description.pop("dataset").items()]
        entries = [{_NAME: name, "image": files.get("images"), "label": files.get("label")} for name, files in named]
        description["training"] = [*entries, *(description.get("training") or [])]
    return description


def from_dataset_json(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """Find the cases of a folder with a `dataset.json`: those that it lists, or those of the folders beside it.

    nnU-Net's first version lists files without the number in their names.
    """
    path = root / "dataset.json"
    description = read_datalist(path)
    labels, regions = stated_labels(description)
    channels = stated_channels(description)

    images, references = root / "imagesTr", root / "labelsTr"
    is_nnunet = images.is_dir() and references.is_dir()
    folders = (images, references) if is_nnunet else image_and_label_folders(root)
    if lists_cases(description) and not (folders and _lists_nothing(root, description)):
        return from_datalist(path, rules)
    if not folders:
        raise DataError(
            f"{root} has a dataset.json, but no imagesTr/ and labelsTr/ beside it",
            hint=f"add them, or a list: {ENTRIES}",
        )
    paired = from_equal_names(*folders, rules, progress, channels)
    if len(paired.channels) == 1:  # a picture holds all of its colours
        paired = as_the_model_sees(paired, channels)
    if paired.cases and len(paired.channels) != len(channels) and states_channels(description):
        raise DataError(
            f"{root}: the files in {folders[0].name}/ are numbered as {len(paired.channels)} channels, "
            f"dataset.json states {len(channels)}",
            hint="correct its channel_names; if the numbers are those of cases, their labels must have them, too",
        )
    layout = "nnU-Net" if is_nnunet else paired.layout
    return Dataset(layout, paired.cases, paired.channels, labels, regions, paired.set_aside, paired.remarks)


def is_datalist(path: Path) -> bool:
    """Return whether a path is a JSON list."""
    return path.is_file() and path.suffix.lower() == ".json"


def lists_cases(description: Mapping[str, Any]) -> bool:
    """Return whether a JSON lists cases."""
    listed = description.get("training")
    return isinstance(listed, list) and any(isinstance(entry, dict) for entry in listed)


def lists_channels(root: Path) -> bool:
    """Return whether the `dataset.json` of a folder states image paths: one file per channel, or unusual folders."""
    path = root / "dataset.json"
    if not path.is_file():
        return False
    description = read_datalist(path)
    if not lists_cases(description) or _lists_nothing(root, description):
        return False
    images = [entry["image"] for entry in description["training"] if isinstance(entry, dict) and "image" in entry]
    usual = (root / "imagesTr").is_dir() or (root / "images").is_dir()
    return not usual or any(isinstance(image, list) and len(image) > 1 for image in images)


def from_datalist(path: Path, rules: DicomRules) -> Dataset:
    """Find the cases that a JSON lists under `training` and `validation`; paths are relative to it, or absolute.

    A `validation` list, or a `fold` in every entry, is the split of the data set.

    Raises:
        DataError: If it is not such a JSON.
    """
    description = read_datalist(path)
    if not lists_cases(description):
        raise DataError(f"{path} lists no cases: it has no list 'training' of image and label", hint=ENTRIES)
    labels, regions = stated_labels(description)
    found = [(part, entry) for part in ("validation", "training") for entry in _entries(path, description, part)]
    set_aside = [entry for _, entry in found if isinstance(entry, SetAside)]
    entries = [(part, entry) for part, entry in found if isinstance(entry, _Entry)]
    channels, wrong = _channels(description, [entry for _, entry in entries])
    cases: list[tuple[Case, str, _Entry]] = []
    listed: set[Path] = set()
    for part, entry in entries:
        paths = [listed_path(path.parent, image) for image in entry.images]
        try:
            _check_count(entry, wrong)
            case = _case(path.parent, entry, channels, rules, listed)
        except DataError as error:
            set_aside += [SetAside(path if image in listed else image, error.explanation) for image in paths]
        else:
            cases.append((case, part, entry))
        listed.update([*paths, *([listed_path(path.parent, entry.label)] if entry.label else [])])
    set_aside += [*_unlisted(path, description, listed), *_under_other_keys(path, description)]
    known, equal = distinct(case for case, _, _ in cases)
    set_aside += equal
    kept = {case.case_id for case in known}
    splits, remarks = _stated_splits(
        {case.case_id: (part, entry) for case, part, entry in cases if case.case_id in kept}
    )
    layout = _layout(path, description)
    return Dataset(layout, known, channels, labels, regions, tuple(set_aside), remarks, splits)


def inputs_of_datalist(path: Path, rules: DicomRules) -> Dataset:
    """Find the images to segment: those that a JSON lists under `testing`, or else all others."""
    description = read_datalist(path)
    parts = ["testing"] if description.get("testing") else ["training", "validation"]
    found = [entry for part in parts for entry in _entries(path, description, part)]
    set_aside = [entry for entry in found if isinstance(entry, SetAside)]
    entries = [entry for entry in found if isinstance(entry, _Entry)]
    channels, wrong = _channels(description, entries)
    cases: list[Case] = []
    for entry in entries:
        try:
            _check_count(entry, wrong)
            images = _images(path.parent, entry, channels, rules)
        except DataError as error:
            missed = [listed_path(path.parent, image) for image in entry.images]
            set_aside += [SetAside(image, error.explanation, is_fault=True) for image in missed]
        else:
            cases.append(Case(_case_id(path.parent, entry), images))
    known, equal = distinct(cases)
    set_aside += [*equal, *_under_other_keys(path, description)]
    return Dataset(f"list in {path.name}", known, channels, set_aside=tuple(set_aside))


def _layout(path: Path, description: Mapping[str, Any]) -> str:
    listed = description["training"]
    monai = "validation" in description or any(
        isinstance(entry, dict) and ("fold" in entry or isinstance(entry.get("image"), list)) for entry in listed
    )
    if path.name == "dataset.json" and not monai:
        return "Medical Segmentation Decathlon"
    return f"list of cases in {path.name}"


def _entries(path: Path, description: Mapping[str, Any], part: str) -> Iterator[_Entry | SetAside]:
    stated = description.get(part, [])
    if not isinstance(stated, list):
        raise DataError(f"{path}: {part!r} is not a list of cases", hint=HINT)
    for number, entry in enumerate(stated, start=1):
        try:
            yield _Entry.of(entry)
        except DataError as error:
            yield SetAside(path, f"entry {number} of {part!r} {error.explanation}", is_fault=True)


def _channels(description: Mapping[str, Any], entries: Sequence[_Entry]) -> tuple[tuple[str, ...], dict[int, str]]:
    """Return the channels, and the numbers of files an entry must not list, with the reason."""
    stated = stated_channels(description)
    counts = Counter(len(entry.images) for entry in entries)
    usual = max(counts, key=lambda count: (counts[count], count), default=1)
    if states_channels(description) and len(stated) > 1:
        right = {1, len(stated)}
        reasons = {count: f"it lists {count} files, {len(stated)} channels are stated" for count in counts}
        return stated, {count: why for count, why in reasons.items() if count not in right}
    channels = stated if usual == 1 else tuple(f"channel_{number}" for number in range(usual))
    return channels, {count: f"it lists {count} files, most cases list {usual}" for count in counts if count != usual}


def _check_count(entry: _Entry, wrong: Mapping[int, str]) -> None:
    if len(entry.images) in wrong:
        raise DataError(wrong[len(entry.images)], hint="list one file per channel, or one that holds all")


def _case(
    root: Path,
    entry: _Entry,
    channels: tuple[str, ...],
    rules: DicomRules,
    listed: set[Path],
) -> Case:
    if entry.label is None:
        raise DataError("an image without a label: its entry has no 'label'", hint="add the path of its label map")
    images = _images(root, entry, channels, rules)
    if any(source.place in listed for source in images.values()):
        raise DataError(f"{', '.join(entry.images)} is listed twice, and used once", hint="remove one entry")
    label = listed_path(root, entry.label)
    if not label.exists():
        raise DataError(f"its reference {label.name} does not exist", hint="correct its path in the list")
    return Case(_case_id(root, entry), images, listed_reference(root, entry.label, rules))


def _images(root: Path, entry: _Entry, channels: tuple[str, ...], rules: DicomRules) -> dict[str, Source]:
    sources = [listed_source(root, image, rules) for image in entry.images]
    return as_channels(sources[0], channels) if len(sources) == 1 else dict(zip(channels, sources, strict=True))


def _case_id(root: Path, entry: _Entry) -> str:
    """Return the id of an entry: nnU-Net's name, else what its paths below the image folder or the list share."""
    if entry.name:
        return case_id_of(entry.name)
    paths = [listed_path(root, image) for image in entry.images]
    parts = list(paths[0].relative_to(root).parts if paths[0].is_relative_to(root) else paths[0].parts[-2:])
    usual = [place for place, part in enumerate(parts[:-1]) if is_called_images(Path(part))]
    folders = parts[usual[-1] + 1 : -1] if usual else parts[:-1]
    if len(paths) == 1:
        return case_id_of(path_name([*folders, stem(paths[0])]))
    letters = zip(*(f"{stem(path)}_" for path in paths), strict=False)
    shared = "".join(alike[0] for alike in takewhile(lambda each: len(set(each)) == 1, letters))
    shared = re.sub(r"[^-_. ]*$", "", shared).strip("-_. ")
    if shared or folders:
        return case_id_of(path_name([*folders, *([shared] if shared else [])]))
    return case_id_of(path_name([stem(paths[0])]))


def _lists_nothing(root: Path, description: Mapping[str, Any]) -> bool:
    """Return whether a list is valid, but none of its images exists."""
    entries = list(_entries(root / "dataset.json", description, "training"))
    return all(isinstance(entry, _Entry) and entry.label for entry in entries) and not any(
        listed_path(root, image).exists() for entry in entries if isinstance(entry, _Entry) for image in entry.images
    )


def _unlisted(path: Path, description: Mapping[str, Any], listed: set[Path]) -> list[SetAside]:
    root = path.parent
    stated_tests = description.get("testing")
    testing = stated_tests if isinstance(stated_tests, list) else []
    tested = {
        listed_path(root, image)
        for stated in testing
        if isinstance(stated, str | dict)
        for image in _images_stated(stated)
    }
    files = [file for folder in ("imagesTr", "labelsTr") for file in sorted((root / folder).glob("[!.]*"))]
    where = ": neither under training nor under validation" if "validation" in description else ""
    unlisted = [SetAside(file, f"not listed in {path.name}{where}") for file in files if file not in listed | tested]
    return [*unlisted, *(SetAside(file, "an image for testing") for file in sorted(tested - listed) if file.exists())]


def _under_other_keys(path: Path, description: Mapping[str, Any]) -> Iterator[SetAside]:
    """Yield cases in lists whose names do not state their purpose."""
    others = {key: stated for key, stated in description.items() if key not in _CALLED and isinstance(stated, list)}
    for key, stated in others.items():
        reason = f"listed under {key!r} in {path.name}; name that list {', '.join(_CALLED)} or leave it out"
        images = [image for entry in stated if _looks_like_a_case(entry) for image in _images_stated(entry)]
        yield from (SetAside(listed_path(path.parent, image), reason) for image in images)


def _looks_like_a_case(entry: object) -> bool:
    return isinstance(entry, dict) or (isinstance(entry, str) and bool(image_suffix(Path(entry))))


def _images_stated(stated: str | dict[str, Any]) -> tuple[str, ...]:
    try:
        return _Entry.of(stated).images
    except DataError:
        return ()


def _stated_splits(parts: Mapping[str, tuple[str, _Entry]]) -> tuple[tuple[Split, ...], tuple[str, ...]]:
    """Return the split that a list states, and remarks about it."""
    held_out = {case_id for case_id, (part, _) in parts.items() if part == "validation"}
    folds = {case_id: entry.fold for case_id, (_, entry) in parts.items() if entry.fold is not None}
    if held_out and len(held_out) < len(parts):
        splits = [_split(parts, held_out)]
        what = "a list 'validation'"
    elif len(folds) == len(parts) and len(set(folds.values())) > 1:
        splits = [
            _split(parts, {case_id for case_id, other in folds.items() if other == fold})
            for fold in sorted(set(folds.values()))
        ]
        what = f"a 'fold' in every entry, {len(splits)} in all"
    elif folds:
        why = (
            "all entries state one 'fold'"
            if len(folds) == len(parts)
            else "some entries state a 'fold' and others none"
        )
        return (), (f"{why}: cases are split into folds regardless",)
    else:
        return (), ()
    return tuple(splits), (f"the data set states its split, by {what}; --set training.split=dealt makes another",)


def _split(case_ids: Mapping[str, object], held_out: set[str]) -> Split:
    return Split(tuple(sorted(set(case_ids) - held_out)), tuple(sorted(held_out)))
