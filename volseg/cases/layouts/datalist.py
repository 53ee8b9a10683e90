"""A dataset.json that lists its cases (Medical Segmentation Decathlon), or describes folders (nnU-Net)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from volseg.cases.case import Case, Dataset, as_case_id, stem
from volseg.cases.dataset_json import read_dataset_json, stated_channels, stated_labels
from volseg.cases.layouts.channels import as_channels
from volseg.cases.layouts.equal_names import from_equal_names
from volseg.cases.layouts.names import HINT, in_order
from volseg.config import DicomRules
from volseg.errors import DataError
from volseg.io import FileSource, SetAside, file_source
from volseg.progress import Progress


def from_dataset_json(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """The cases of a folder with a `dataset.json`."""
    description = read_dataset_json(root / "dataset.json")
    labels, regions = stated_labels(description)
    channels = stated_channels(description)
    listed = description.get("training")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        wanted = {_entry_path(root, entry, "image"): _entry_path(root, entry, "label") for entry in listed}
        if all(image.exists() for image in wanted):
            return replace(_from_list(root, wanted, channels), labels=labels, regions=regions)
    images, references = root / "imagesTr", root / "labelsTr"
    if not images.is_dir() or not references.is_dir():
        raise DataError(f"{root} has a dataset.json, but no imagesTr/ and labelsTr/ beside it", hint=HINT)
    paired = from_equal_names(images, references, rules, progress, channels)
    if paired.cases and len(paired.channels) != len(channels) and {"channel_names", "modality"} & set(description):
        raise DataError(
            f"{root}: the files in {images.name}/ are numbered as {len(paired.channels)} channels, dataset.json states "
            f"{len(channels)}",
            hint="correct its channel_names; if the numbers are those of cases, their labels must have them, too",
        )
    return Dataset("nnU-Net", paired.cases, paired.channels, labels, regions, paired.set_aside, paired.remarks)


def _from_list(root: Path, wanted: Mapping[Path, Path], channels: tuple[str, ...]) -> Dataset:
    """The Decathlon: every pair is listed, several channels are the volumes of one 4D file."""
    cases: dict[str, Case] = {}
    set_aside: list[SetAside] = []
    for image, reference in wanted.items():
        if not reference.is_file():
            set_aside.append(SetAside(image, f"its reference {reference.name} does not exist"))
            continue
        case_id = as_case_id([stem(image)], cases)
        cases[case_id] = Case(case_id, as_channels(FileSource(image), channels), file_source(reference))
    unlisted = [path for folder in ("imagesTr", "labelsTr") for path in sorted((root / folder).glob("[!.]*"))]
    used = {*wanted, *wanted.values()}
    set_aside += [SetAside(path, "not listed in dataset.json") for path in unlisted if path not in used]
    return Dataset("Medical Segmentation Decathlon", in_order(cases.values()), channels, set_aside=tuple(set_aside))


def _entry_path(root: Path, entry: Mapping[str, Any], key: str) -> Path:
    if not isinstance(entry.get(key), str):
        raise DataError(f"{root / 'dataset.json'}: an entry of 'training' has no {key!r}", hint=HINT)
    return root / entry[key]
