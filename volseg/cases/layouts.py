"""The layouts of a labelled data set, each recognised by what is in the folder."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from volseg.cases.case import Case, Dataset, as_case_id, names_a_reference, stem
from volseg.cases.dataset_json import read_dataset_json, stated_channels, stated_labels
from volseg.cases.manifest import from_manifest, with_references
from volseg.cases.series import choose_series
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.io import (
    Discovery,
    FileSource,
    SegmentsSource,
    SeriesSource,
    SetAside,
    Source,
    discover,
)
from volseg.progress import Progress, ignore_progress

_CHANNEL_SUFFIX = re.compile(r"(.+)_(\d{4})")
_HINT = "data/README.md shows every layout with a tree"


def find_dataset(path: Path, rules: DicomRules = NO_RULES, progress: Progress = ignore_progress) -> Dataset:
    """Find the cases of a labelled data set.

    Args:
        path: A folder in one of the layouts, or a CSV manifest.
        rules: Which series of a DICOM study is meant, and how it is read.
        progress: Told while files are looked at.

    Returns:
        The cases that have images and a reference, and everything else with the reason why it is not used.

    Raises:
        DataError: If there is nothing at `path`, or no labelled case in it.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise DataError(f"{path} is a single file", hint=f"training takes a folder or a CSV manifest; {_HINT}")
        dataset = with_references(from_manifest(path, rules))
    elif (path / "dataset.json").is_file():
        dataset = _from_dataset_json(path, rules, progress)
    elif (folders := _image_and_label_folders(path)) is not None:
        dataset = _from_equal_names(*folders, rules, progress)
    else:
        dataset = _from_case_folders(path, rules, progress)
    if not dataset.cases:
        reasons = Counter(item.reason for item in dataset.set_aside)
        found = "; ".join(f"{reason} ({count} files)" for reason, count in reasons.most_common(3)) or "it has no images"
        raise DataError(f"{path} holds no labelled case: {found}", hint=_HINT)
    return (
        dataset if dataset.labels else replace(dataset, labels=segment_labels(case.reference for case in dataset.cases))
    )


def segment_labels(sources: Iterable[Source | None]) -> dict[str, int]:
    """Names of the structures that DICOM objects mark, numbered in the order in which they are met."""
    names = [name for source in sources if isinstance(source, SegmentsSource) for name in source.names]
    return {name: value for value, name in enumerate(dict.fromkeys(filter(None, names)), start=1)}


def split_numbered(sources: Mapping[str, Source]) -> tuple[dict[str, Source], dict[str, Source]]:
    """Part sources by name into those that end in a channel number, and the rest: all, if nothing ends in _0000."""
    numbered = {name: source for name, source in sources.items() if _CHANNEL_SUFFIX.fullmatch(name)}
    if not any(name.endswith("_0000") for name in numbered):
        numbered = {}
    return numbered, {name: source for name, source in sources.items() if name not in numbered}


def group_channels(
    numbered: Mapping[str, Source], names: tuple[str, ...]
) -> tuple[dict[str, dict[str, Source]], tuple[str, ...]]:
    """Group `<case>_0000`, `<case>_0001` ... into cases.

    Args:
        numbered: Name -> source, every name ending in a channel number.
        names: Channel names in order, as far as known; where there are not as many as numbers, they are made up.

    Returns:
        Case name -> channel -> source, and all channel names.
    """
    parts = {name: name.rsplit("_", 1) for name in numbered}
    count = 1 + max((int(number) for _, number in parts.values()), default=-1)
    if count not in {0, len(names)}:
        names = ("image",) if count == 1 else tuple(f"channel_{n}" for n in range(count))
    grouped: dict[str, dict[str, Source]] = defaultdict(dict)
    for name, (case_name, number) in parts.items():
        grouped[case_name][names[int(number)]] = numbered[name]
    return dict(grouped), names


def as_channels(source: Source, names: tuple[str, ...]) -> dict[str, Source]:
    """The channels of a source that is a case by itself: several are the volumes of one 4D file."""
    if len(names) == 1 or not isinstance(source, FileSource):
        return {names[0]: source}
    return {name: FileSource(source.path, frame) for frame, name in enumerate(names)}


def by_name(sources: Iterable[Source], root: Path) -> dict[str, Source]:
    """Give every source below `root` a unique name from its path."""
    named: dict[str, Source] = {}
    for source in sources:
        named[as_case_id(name_parts(source, root), named)] = source
    return named


def references_in(discovery: Discovery, root: Path) -> dict[str, Source]:
    """Label maps and objects that mark structures below `root`, by name: a lone object in a folder has its name."""
    lone = Counter(source.path.parent for source in discovery.segments)
    lone.update(source.place.parent for source in discovery.sources)
    named = by_name(discovery.sources, root)
    for source in discovery.segments:
        parts = name_parts(source, root)
        alone = len(parts) > 1 and lone[source.path.parent] == 1
        named[as_case_id(parts[:-1] if alone else parts, named)] = source
    return named


def name_parts(source: Source, root: Path) -> list[str]:
    """The parts of a path below `root` that name a source, the last one without its suffix."""
    below = source.place != root and source.place.is_relative_to(root)  # a series of one file lies above it
    parts = source.place.relative_to(root).parts if below else (root.name,)
    last = stem(Path(parts[-1]))
    return [*parts[:-1], f"{last}_{source.volume}" if isinstance(source, SeriesSource) and source.volume else last]


def _from_dataset_json(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    description = read_dataset_json(root / "dataset.json")
    labels, regions = stated_labels(description)
    channels = stated_channels(description)
    listed = description.get("training")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        wanted = {_entry_path(root, entry, "image"): _entry_path(root, entry, "label") for entry in listed}
        if all(image.exists() for image in wanted):
            return _from_list(root, wanted, channels, labels)
    images, references = root / "imagesTr", root / "labelsTr"
    if not images.is_dir() or not references.is_dir():
        raise DataError(f"{root} has a dataset.json, but no imagesTr/ and labelsTr/ beside it", hint=_HINT)
    paired = _from_equal_names(images, references, rules, progress, channels)
    return Dataset("nnU-Net", paired.cases, paired.channels, labels, regions, paired.set_aside)


def _from_list(root: Path, wanted: Mapping[Path, Path], channels: tuple[str, ...], labels: dict[str, int]) -> Dataset:
    """The Decathlon: every pair is listed, several channels are the volumes of one 4D file."""
    cases: dict[str, Case] = {}
    set_aside: list[SetAside] = []
    for image, reference in wanted.items():
        if not reference.is_file():
            set_aside.append(SetAside(image, f"its reference {reference.name} does not exist"))
            continue
        case_id = as_case_id([stem(image)], cases)
        cases[case_id] = Case(case_id, as_channels(FileSource(image), channels), FileSource(reference))
    unlisted = [path for folder in ("imagesTr", "labelsTr") for path in sorted((root / folder).glob("[!.]*"))]
    used = {*wanted, *wanted.values()}
    set_aside += [SetAside(path, "not listed in dataset.json") for path in unlisted if path not in used]
    return Dataset("Medical Segmentation Decathlon", _sorted(cases.values()), channels, labels, {}, tuple(set_aside))


def _from_equal_names(
    images: Path, references: Path, rules: DicomRules, progress: Progress, channels: tuple[str, ...] = ("image",)
) -> Dataset:
    found, wanted = (discover(folder, progress, fill_gaps=rules.allow_gaps) for folder in (images, references))
    named, labels = by_name(found.sources, images), references_in(wanted, references)
    # Where images/a_0000 has its labels/a_0000, the number is that of the case.
    numbered, rest = ({}, named) if named.keys() & labels.keys() else split_numbered(named)
    grouped, names = group_channels(numbered, channels)
    for name, source in rest.items():
        grouped[as_case_id([name], grouped)] = as_channels(source, names)
    cases, set_aside = [], [*found.set_aside, *wanted.set_aside]
    for case_id, channel_sources in grouped.items():
        missing = [name for name in names if name not in channel_sources]
        reason = f"channel {', '.join(missing)} of case {case_id} is missing" if missing else ""
        reason = reason or (
            "" if case_id in labels else f"an image without a label: no {case_id} in {references.name}/"
        )
        if reason:
            unused = [*channel_sources.values(), *([labels[case_id]] if case_id in labels else [])]
            set_aside += [SetAside(place, reason) for place in dict.fromkeys(source.place for source in unused)]
        else:
            cases.append(Case(case_id, channel_sources, labels[case_id]))
    for case_id in sorted(set(labels) - set(grouped)):
        reason = f"a label without an image: no {case_id} in {images.name}/"
        set_aside.append(SetAside(labels[case_id].place, reason))
    return Dataset("images and labels with equal names", _sorted(cases), names, set_aside=tuple(set_aside))


def _from_case_folders(root: Path, rules: DicomRules, progress: Progress) -> Dataset:
    """One folder per case: the reference is known by its kind or its name, what is left are the channels."""
    found: dict[str, tuple[dict[str, Source], list[Source]]] = {}
    set_aside: list[SetAside] = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        discovery = discover(folder, progress, fill_gaps=rules.allow_gaps)
        set_aside += discovery.set_aside
        images, references, not_taken = _parts_of_case(discovery, folder, rules)
        set_aside += not_taken
        if images or references:
            found[as_case_id([folder.name], found)] = (images, references)
    loose = [path for path in sorted(root.glob("[!.]*")) if path.is_file() and _holds_something(path)]
    set_aside += [SetAside(path, "lies beside the case folders, not in one") for path in loose]
    channels = tuple(rules.series) or _common_channels(images for images, _ in found.values())
    cases = []
    for case_id, (images, references) in found.items():
        chosen = images if len(channels) > 1 else dict(zip(channels, images.values(), strict=False))
        reason = _why_not(case_id, images, references, channels)
        if reason:
            set_aside += [SetAside(source.place, reason) for source in [*images.values(), *references]]
        else:
            cases.append(Case(case_id, {name: chosen[name] for name in channels}, references[0]))
    return Dataset("one folder per case", _sorted(cases), channels, set_aside=tuple(set_aside))


def _holds_something(path: Path) -> bool:
    discovery = discover(path)
    return bool(discovery.sources or discovery.segments)


def _parts_of_case(
    discovery: Discovery, folder: Path, rules: DicomRules
) -> tuple[dict[str, Source], list[Source], list[SetAside]]:
    """The images by channel, the references, and the series that are not taken, of the folder of one case."""
    named = by_name(discovery.sources, folder)
    references: list[Source] = [source for name, source in named.items() if names_a_reference(name)]
    candidates = {name: source for name, source in named.items() if not names_a_reference(name)}
    references += discovery.segments
    series = [source for source in candidates.values() if isinstance(source, SeriesSource)]
    images: dict[str, Source] = {}
    reasons: dict[SeriesSource, str] = {}
    marked = {source.series for source in discovery.segments} - {None}
    if rules.series:
        choice = choose_series(series, tuple(rules.series), rules)
        images |= choice.chosen
        reasons = choice.not_taken
    elif len(marked) == 1:  # the reference says which image it is about
        reasons = {source: "the reference is about another series" for source in series if source not in marked}
    for name, source in candidates.items():
        if source not in reasons and source not in images.values():
            images[as_case_id([_channel_name(name, folder.name)], images)] = source
    return images, references, [SetAside(source.place, reason) for source, reason in reasons.items()]


def _why_not(case_id: str, images: Mapping[str, Source], references: list[Source], channels: tuple[str, ...]) -> str:
    """Why a case folder is not a labelled case; empty if it is one."""
    if not images:
        return f"a label without an image in case {case_id}"
    if not references:
        return f"an image without a label in case {case_id}"
    if len(references) > 1:
        return f"case {case_id} has {len(references)} references; which one is meant is not clear"
    if len(channels) == 1 and len(images) == 1:
        return ""
    if set(images) != set(channels):
        return f"case {case_id} has channels {', '.join(sorted(images))}, most cases have {', '.join(channels)}"
    return ""


def _common_channels(images: Iterable[Mapping[str, Source]]) -> tuple[str, ...]:
    """The set of channels that most cases have; one image per case is one channel whatever its name."""
    counts = Counter(tuple(sorted(found)) if len(found) > 1 else ("image",) for found in images if found)
    return max(counts, key=lambda names: (counts[names], names)) if counts else ("image",)


def _channel_name(name: str, case_name: str) -> str:
    """What distinguishes a file within its case folder: "BraTS_001_flair" in "BraTS_001" is "flair"."""
    return name.removeprefix(case_name).strip("_-. ") or "image"


def _image_and_label_folders(root: Path) -> tuple[Path, Path] | None:
    for images, labels in (("images", "labels"), ("imagesTr", "labelsTr")):
        if (root / images).is_dir() and (root / labels).is_dir():
            return root / images, root / labels
    return None


def _entry_path(root: Path, entry: Mapping[str, Any], key: str) -> Path:
    if not isinstance(entry.get(key), str):
        raise DataError(f"{root / 'dataset.json'}: an entry of 'training' has no {key!r}")
    return root / entry[key]


def _sorted(cases: Iterable[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: case.case_id))
