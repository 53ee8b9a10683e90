"""What there is to segment: any layout without its references, a file, a DICOM folder, or a tree of patient folders."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from volseg.cases.case import Case, Dataset, as_case_id, stem
from volseg.cases.content import MASK_BY_NAME, STRUCTURES
from volseg.cases.layouts import find_dataset
from volseg.cases.layouts.bids import is_bids, why_no_image
from volseg.cases.layouts.channels import are_cases, as_channels, group_channels, split_numbered
from volseg.cases.layouts.datalist import inputs_of_datalist, lists_channels
from volseg.cases.layouts.folders import has_usual_folders, image_and_label_folders
from volseg.cases.layouts.names import by_name, references_in, says_reference
from volseg.cases.layouts.organ_masks import lone_masks, mask_folders
from volseg.cases.layouts.side_by_side import paired_bases
from volseg.cases.manifest import from_manifest, is_manifest
from volseg.cases.series import choose_series, studies_of
from volseg.cases.stated_names import NamesBeside, of_references, with_stated_names
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
    image_files,
    image_suffix,
)
from volseg.io.files import without_root
from volseg.io.own_results import without_batches, without_results
from volseg.progress import Progress, ignore_progress

logger = logging.getLogger(__name__)


def find_inputs(
    path: Path, channels: tuple[str, ...], rules: DicomRules = NO_RULES, progress: Progress = ignore_progress
) -> Dataset:
    """Find the cases to segment.

    Args:
        path: A data set in any layout, a CSV manifest, one file, a DICOM folder, or a tree of these.
        channels: The channels that the model needs.
        rules: Which series of a DICOM study is meant, and how it is read.
        progress: Told while files are looked at.

    Returns:
        The cases, and everything else that was found with the reason why it is not segmented.

    Raises:
        DataError: If there is nothing at `path`, or nothing in it that could be segmented.
    """
    if is_manifest(path):
        dataset = _for_model(from_manifest(path, rules), channels)
    elif _is_datalist(path):
        dataset = _for_model(inputs_of_datalist(path, rules), channels)
    elif lists_channels(path):
        dataset = _for_model(inputs_of_datalist(path / "dataset.json", rules), channels)
    else:
        folder = _images_of(path)
        found = without_results(discover(folder, progress, rules=rules), folder)
        if found.results:
            logger.info("%d files that volseg wrote below %s are no input", len(found.results), folder.name)
        dataset = _from_tree(found, folder, channels, rules)
        if not dataset.cases and not dataset.set_aside and found.results:
            raise DataError(
                f"{path} holds no image but {len(found.results)} files that volseg wrote into folders below it",
                hint="name the folder that they are in, if they are to be segmented",
            )
        if folder != path and not has_usual_folders(path):  # of those everybody knows what lies beside the images
            beside = [source for source in discover(path).sources if not source.place.is_relative_to(folder)]
            more = tuple(SetAside(source.place, "a reference of the data set, no image") for source in beside)
            dataset = replace(dataset, set_aside=(*dataset.set_aside, *more))
    if not dataset.cases and not dataset.set_aside:
        raise DataError(f"{path} holds no image", hint="volseg reads NIfTI, NRRD, MetaImage and DICOM")
    for remark in dataset.remarks:
        logger.warning("%s", remark)
    return dataset


def _images_of(path: Path) -> Path:
    """The folder of images of a data set, else the path itself."""
    if not path.is_dir():
        return path
    if (path / "imagesTs").is_dir() and (path / "imagesTr").is_dir():
        return path / "imagesTs"
    if folders := image_and_label_folders(path):
        return folders[0]
    alone = [entry.name for entry in path.iterdir() if entry.is_dir()] == ["images"]
    return path / "images" if alone and not any(image_suffix(entry) for entry in path.iterdir()) else path


def _for_model(dataset: Dataset, channels: tuple[str, ...]) -> Dataset:
    """Give the channels of a manifest the names the model knows them by, when only the names differ."""
    if set(dataset.channels) == set(channels):
        return dataset
    if len(dataset.channels) != len(channels) or set(dataset.channels) & set(channels):
        raise DataError(
            f"the {dataset.layout} has channels {', '.join(dataset.channels)}, the model needs {', '.join(channels)}",
            hint="call the channels as the model calls them",
        )
    renamed = dict(zip(dataset.channels, channels, strict=True))
    cases = tuple(
        Case(case.case_id, {renamed[name]: source for name, source in case.images.items()}) for case in dataset.cases
    )
    return Dataset(dataset.layout, cases, channels, set_aside=dataset.set_aside)


def _from_tree(discovery: Discovery, root: Path, channels: tuple[str, ...], rules: DicomRules) -> Dataset:
    set_aside = list(discovery.set_aside)
    set_aside += [SetAside(item.path, STRUCTURES) for item in discovery.segments]
    studies, sources, not_taken = _choose_series(discovery.sources, root, channels, rules)
    set_aside += not_taken
    named = by_name(sources, root)
    if root.is_dir():  # a single file is meant, whatever its name
        set_aside += _without_masks(named, root)
    grouped, unclear, remarks = _grouped(named, root, channels)
    set_aside += unclear
    cases: dict[str, Case] = {}
    for name, images in [*studies, *grouped.items()]:
        if missing := [channel for channel in channels if channel not in images]:
            reason = f"the model needs channel {', '.join(missing)} as well, which is not there"
            set_aside += [SetAside(source.place, reason) for source in images.values()]
        else:
            case_id = as_case_id([name], cases)
            cases[case_id] = Case(case_id, {channel: images[channel] for channel in channels})
    return Dataset("tree", tuple(cases.values()), channels, set_aside=tuple(set_aside), remarks=remarks)


def _without_masks(named: dict[str, Source], root: Path) -> list[SetAside]:
    """Take out what is a mask by its name or its folder."""
    reasons = {}
    if is_bids(root):
        reasons = {name: why for name, source in named.items() if (why := why_no_image(source.place, root))}
    folders = mask_folders(image_files(root), root)
    per_structure = {path: name for source in folders.values() for name, path in source.masks}
    reasons |= {
        name: f"it marks {per_structure[source.place]} in the image beside it: name the file itself to segment it"
        for name, source in named.items()
        if source.place in per_structure
    }
    reasons = {name: MASK_BY_NAME for name, source in named.items() if says_reference(source.place)} | reasons
    return [SetAside(named.pop(name).place, reason) for name, reason in reasons.items()]


def _choose_series(
    sources: Sequence[Source], root: Path, channels: tuple[str, ...], rules: DicomRules
) -> tuple[list[tuple[str, dict[str, Source]]], list[Source], list[SetAside]]:
    """Take the series that are meant out of each DICOM study.

    Returns:
        Studies whose channels were matched by rules, with a name; sources that are still to be sorted by their names;
        and the series that are not taken.
    """
    if len(channels) > 1 and not rules.series:  # the names of files and folders say which is which
        return [], list(sources), []
    matched: list[tuple[str, dict[str, Source]]] = []
    not_taken: list[SetAside] = []
    sorted_out: set[Source] = set()
    for study in studies_of([source for source in sources if isinstance(source, SeriesSource)]):
        choice = choose_series(study, channels, rules)
        not_taken += [SetAside(source.place, reason) for source, reason in choice.not_taken.items()]
        sorted_out |= set(study) if len(channels) > 1 else set(choice.not_taken)
        if len(channels) > 1 and choice.chosen:
            folder = Path(os.path.commonpath([source.folder for source in choice.chosen.values()]))
            parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
            matched.append(("_".join(parts) or folder.name, dict(choice.chosen)))
    return matched, [source for source in sources if source not in sorted_out], not_taken


def _grouped(
    named: dict[str, Source], root: Path, channels: tuple[str, ...]
) -> tuple[dict[str, dict[str, Source]], list[SetAside], tuple[str, ...]]:
    """Case name -> channel -> source: by channel numbers, as volumes of a 4D file, or by the names of channels."""
    numbered, rest = split_numbered(named)
    remarks: tuple[str, ...] = ()
    if len(channels) == 1 and numbered and (rest or are_cases(numbered)):
        some = ", ".join(sorted(numbered)[:3]) + " ..." * (len(numbered) > 3)
        remarks = (f"the model has one channel, so the numbers of {some} are taken for those of cases",)
        numbered, rest = {}, named
    grouped, names = group_channels(numbered, channels)
    set_aside: list[SetAside] = []
    if len(names) != len(channels):
        reason = (
            f"files are numbered as {len(names)} channels, the model has {len(channels)}; if the numbers are those of "
            "cases, say so in a manifest (CSV of case_id,image) or rename the files"
        )
        grouped, set_aside = {}, [SetAside(source.place, reason) for source in numbered.values()]
    whole = {name: source for name, source in rest.items() if len(channels) == 1 or _is_4d(source)}
    for name, source in whole.items():
        grouped[as_case_id([name], grouped)] = as_channels(source, channels)
    apart = {name: source for name, source in rest.items() if name not in whole}
    by_folder, unclear = _by_folder(apart, root, channels)
    for name, images in by_folder.items():
        grouped[as_case_id([name], grouped)] = images
    return grouped, set_aside + unclear, remarks


def _is_4d(source: Source) -> bool:
    from volseg.io import frame_count

    if not isinstance(source, FileSource):
        return False
    try:
        return frame_count(source.path) > 1
    except DataError:  # it will fail by name when it is read
        return True


def _by_folder(
    named: dict[str, Source], root: Path, channels: tuple[str, ...]
) -> tuple[dict[str, dict[str, Source]], list[SetAside]]:
    """A folder per case, whose files or sub-folders are called by, or end with, the names of the channels.

    Where a folder holds several cases, what stands before the channel tells them apart.
    """
    folders: dict[Path, dict[str, list[Source]]] = defaultdict(lambda: defaultdict(list))
    set_aside: list[SetAside] = []
    for source in named.values():
        channel = _channel_called(_last_part(source), channels)
        if channel is None:
            set_aside.append(SetAside(source.place, f"its name is none of the channels {', '.join(channels)}"))
        else:
            folders[source.place.parent][channel].append(source)
    grouped: dict[str, dict[str, Source]] = {}
    for folder, found in folders.items():
        if (twice := [channel for channel, sources in found.items() if len(sources) > 1]) and (
            several := _by_beginning(found)
        ):
            parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
            for beginning, images in several.items():
                grouped[as_case_id([*parts, beginning], grouped)] = images
        elif twice:
            reason = f"its folder has channel {', '.join(twice)} more than once; which one is meant is not clear"
            set_aside += [SetAside(source.place, reason) for sources in found.values() for source in sources]
        else:
            parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
            images = {channel: sources[0] for channel, sources in found.items()}
            grouped[as_case_id(parts or [folder.name], grouped)] = images
    return grouped, set_aside


def _by_beginning(found: Mapping[str, Sequence[Source]]) -> dict[str, dict[str, Source]]:
    """The cases of one folder by what stands before the channel in a name: "p1" of "p1_t1"; none if that is unclear."""
    cases: dict[str, dict[str, Source]] = defaultdict(dict)
    for channel, sources in found.items():
        for source in sources:
            beginning = _last_part(source)[: -len(channel)].rstrip("-_. ")
            if not beginning or channel in cases[beginning]:
                return {}
            cases[beginning][channel] = source
    return dict(cases)


def _channel_called(name: str, channels: tuple[str, ...]) -> str | None:
    """The channel that a name is, or ends with after a separator; "post_t1" rather than "t1" where both fit."""
    name = name.lower()
    fitting = [c for c in channels if name == c.lower() or name.endswith((f"_{c.lower()}", f"-{c.lower()}"))]
    return max(fitting, key=len, default=None)


def _last_part(source: Source) -> str:
    return stem(source.place)


def find_references(
    path: Path, rules: DicomRules = NO_RULES, progress: Progress = ignore_progress
) -> dict[str, Source]:
    """Find the references of cases: of a labelled data set in any layout, or a folder of label maps.

    Args:
        path: A data set, a CSV manifest with a `reference` column, a folder of label maps, or one label map.
        rules: How DICOM is read.
        progress: Told while files are looked at.

    Returns:
        Case id -> where its reference is read from.

    Raises:
        DataError: If there is none.
    """
    if is_manifest(path):
        cases = with_stated_names(from_manifest(path, rules), path.parent).cases
    elif is_dataset(path) or _is_datalist(path):
        cases = _all_cases(path, rules, progress)
    else:
        discovery = without_batches(discover(path, progress, rules=rules), path)
        if masks := lone_masks(discovery, path, rules):
            return masks
        found = references_in(discovery, path)
        if not found:
            raise DataError(f"{path} holds no reference", hint="give a folder of label maps, or a labelled data set")
        if not _beside_images(found, path):
            names = NamesBeside(path, of_references)
            return {case_id: names.given(source) for case_id, source in found.items()}
        cases = _all_cases(path, rules, progress)
    return {case.case_id: case.reference for case in cases if case.reference is not None}


def find_images(path: Path, rules: DicomRules = NO_RULES, progress: Progress = ignore_progress) -> dict[str, Source]:
    """Find the images of cases, to be looked at: of several channels the first.

    Args:
        path: A data set that is one by its names or a manifest, or a folder of images.
        rules: How DICOM is read.
        progress: Told while files are looked at.

    Returns:
        Case id -> where its image is read from.

    Raises:
        DataError: If there is nothing at `path`.
    """
    if is_manifest(path):
        cases = from_manifest(path, rules).cases
    elif is_dataset(path) or _is_datalist(path):
        cases = find_dataset(path, rules, progress).cases
    else:
        cases = find_inputs(path, ("image",), rules, progress).cases
    return {case.case_id: next(iter(case.images.values())) for case in cases}


def _is_datalist(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".json"


def is_dataset(path: Path) -> bool:
    """Whether a folder says by its names that it holds images and references."""
    if not path.is_dir():
        return False
    names = {entry.name: entry.is_dir() for entry in path.iterdir()}
    described = "dataset.json" in names and any(names.values())  # nnU-Net puts one among its masks, too
    stated = described or not names.keys().isdisjoint({"labels", "labelsTr"})
    return stated or image_and_label_folders(path) is not None or is_bids(path)


def _all_cases(path: Path, rules: DicomRules, progress: Progress) -> tuple[Case, ...]:
    """The cases of a labelled data set; what is not used is said, since nobody would miss it in a mean."""
    dataset = find_dataset(path, rules, progress)
    for item in dataset.set_aside:
        logger.warning("not scored: %s: %s", item.path.name, without_root(item.reason, path))
    return dataset.cases


def _beside_images(found: dict[str, Source], root: Path) -> bool:
    """Whether references lie beside images: in a folder per case, or called as their image."""
    files = image_files(root)
    if paired_bases(files.get(root, ())) or mask_folders(files, root):
        return True
    below = [
        isinstance(source, SegmentsSource) or says_reference(source.place)
        for source in found.values()
        if source.place.parent != root
    ]
    return any(below) and not all(below)
