"""Inputs to segment: any layout without its references, a file, a DICOM folder, or a tree of patient folders."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from volseg.cases import source_names
from volseg.cases.case import Case, Dataset, stem
from volseg.cases.case_ids import CaseNaming, case_id_of, lies_below, marked, path_name, pseudonym
from volseg.cases.channel_names import called, match_channels
from volseg.cases.content import MASK_BY_NAME, STRUCTURES
from volseg.cases.dataset_json import read_dataset_json, stated_channels, states_channels
from volseg.cases.layouts.bids import is_bids, why_no_image
from volseg.cases.layouts.channels import (
    COLORS,
    are_cases,
    as_channels,
    as_the_model_sees,
    group_channels,
    split_numbered,
)
from volseg.cases.layouts.coco import from_coco
from volseg.cases.layouts.datalist import inputs_of_datalist, is_datalist, lists_channels
from volseg.cases.layouts.folders import has_usual_folders, image_and_label_folders, is_called_images
from volseg.cases.layouts.names import further_references, says_reference
from volseg.cases.layouts.object_masks import object_folders, with_objects
from volseg.cases.layouts.organ_masks import mask_folders
from volseg.cases.manifest import from_manifest, is_manifest
from volseg.cases.regions import with_regions_if_there
from volseg.cases.series import choose_series, studies_of
from volseg.cases.source_names import by_id, by_name, refused
from volseg.config import NO_RULES, DicomRules
from volseg.errors import DataError
from volseg.io import (
    Discovery,
    FileSource,
    SeriesSource,
    SetAside,
    Source,
    discover,
    image_files,
    image_suffix,
)
from volseg.io.coco import holds_annotations
from volseg.io.own_results import without_result_folders, without_results
from volseg.io.readable import check_there
from volseg.progress import Progress, ignore_progress

logger = logging.getLogger(__name__)


def find_inputs(
    path: Path,
    channels: tuple[str, ...],
    rules: DicomRules = NO_RULES,
    progress: Progress = ignore_progress,
    naming: CaseNaming = "path",
) -> Dataset:
    """Find the cases to segment.

    Args:
        path: A data set in any layout, a CSV manifest, one file, a DICOM folder, or a tree of these.
        channels: The channels that the model needs.
        rules: Which series of a DICOM study to use, and how to read it.
        progress: Called while files are examined.
        naming: How cases are named. A list names its cases itself, unless pseudonyms are requested.

    Returns:
        The cases, and everything else that was found with the reason why it is not segmented; empty for a folder that
        holds nothing yet.

    Raises:
        DataError: If there is nothing at `path`, it is a file that holds no image, or a folder of results only.
    """
    check_there(path)
    if is_manifest(path):
        dataset = _for_model(from_manifest(path, rules), channels, naming)
    elif is_datalist(path):
        listed = from_coco(path, rules) if holds_annotations(path) else inputs_of_datalist(path, rules)
        dataset = _for_model(listed, channels, naming)
    elif lists_channels(path):
        dataset = _for_model(inputs_of_datalist(path / "dataset.json", rules), channels, naming)
    elif objects := with_objects(path, rules):
        dataset = _for_model(objects, channels, naming)
    else:
        folder = _images_of(path)
        names = _stated_names(path, channels)
        found = without_results(discover(folder, progress, rules=rules), folder)
        if found.results:
            logger.info("%d files that volseg wrote below %s are not input", len(found.results), folder.name)
        dataset = _from_tree(found, folder, names or dict.fromkeys(channels, ""), rules, naming)
        if not dataset.cases and not dataset.set_aside and found.results:
            raise DataError(
                f"{path} holds no image except {len(found.results)} files that volseg wrote into folders below it",
                hint="to segment them, name the folder that they are in",
            )
        if folder != path and not has_usual_folders(path):  # in these layouts, it is known what lies beside the images
            around = without_results(discover(path, rules=rules), path).sources
            beside = [source for source in around if not source.place.is_relative_to(folder)]
            more = tuple(SetAside(source.place, "a reference of the data set, not an image") for source in beside)
            dataset = replace(dataset, set_aside=(*dataset.set_aside, *more))
    if not dataset.cases and not dataset.set_aside and not path.is_dir():
        raise DataError(f"{path} holds no image", hint="volseg reads NIfTI, NRRD, MetaImage and DICOM")
    for remark in dataset.remarks:
        logger.warning("%s", remark)
    return with_regions_if_there(dataset, path, rules)


def _images_of(path: Path) -> Path:
    """Return the image folder of a data set, else the path itself."""
    if not path.is_dir():
        return path
    if (path / "imagesTs").is_dir() and (path / "imagesTr").is_dir():
        return path / "imagesTs"
    if folders := image_and_label_folders(path):
        return folders[0]
    entries = list(without_result_folders(path.iterdir()))
    alone = [entry.name for entry in entries if entry.is_dir()] == ["images"]
    return path / "images" if alone and not any(image_suffix(entry) for entry in entries) else path


def _for_model(dataset: Dataset, channels: tuple[str, ...], naming: CaseNaming) -> Dataset:
    """Rename the channels of a list to the model's names."""
    if naming != "path":
        cases = tuple(replace(case, case_id=_case_id(case.case_id, case.images, naming)) for case in dataset.cases)
        dataset = replace(dataset, cases=cases)
    dataset = as_the_model_sees(dataset, channels)
    renamed = _renamed(dataset.channels, channels, f"the {dataset.layout}")
    cases = tuple(
        Case(case.case_id, {renamed[name]: called(source, name) for name, source in case.images.items()})
        for case in dataset.cases
    )
    return Dataset(dataset.layout, cases, channels, set_aside=dataset.set_aside)


def _renamed(stated: tuple[str, ...], channels: tuple[str, ...], where: str) -> dict[str, str]:
    """Map stated channel names to the model's.

    Raises:
        DataError: If the names contradict.
    """
    renamed = match_channels(stated, channels)
    if not renamed:
        raise DataError(
            f"{where} has channels {', '.join(stated)}, the model needs {', '.join(channels)}",
            hint="name them as the model does, or image_1, image_2 ... if they are in its order",
        )
    return renamed


def _stated_names(path: Path, channels: tuple[str, ...]) -> dict[str, str]:
    """Return the model's channels in the order of a `dataset.json` beside the images, and their names there.

    Raises:
        DataError: If it states others.
    """
    folder = path if path.is_dir() else path.parent
    folder = folder.parent if is_called_images(folder) else folder
    description = read_dataset_json(folder / "dataset.json") if (folder / "dataset.json").is_file() else {}
    stated = stated_channels(description)
    if not states_channels(description) or len(stated) != len(channels):  # their number follows from the files
        return {}
    return {ours: name for name, ours in _renamed(stated, channels, f"{folder}/dataset.json").items()}


def _from_tree(
    discovery: Discovery, root: Path, stated: Mapping[str, str], rules: DicomRules, naming: CaseNaming
) -> Dataset:
    """Find the cases of a tree.

    Args:
        discovery: Everything found.
        root: Of the tree.
        stated: The model's channels in the order of their numbers -> their names in the data set, if stated.
        rules: Which series of a DICOM study to use.
        naming: How cases are named.
    """
    channels = tuple(stated)
    set_aside = list(discovery.set_aside)
    set_aside += [SetAside(item.path, STRUCTURES) for item in discovery.segments]
    studies, sources, not_taken = _choose_series(discovery.sources, root, channels, rules)
    set_aside += not_taken
    if root.is_dir():  # a single file is meant, whatever its name
        masks = _masks_among(sources, root)
        set_aside += [SetAside(source.place, reason) for source, reason in masks.items()]
        sources = [source for source in sources if source not in masks]
    named, unclear = by_name(sources, root)
    set_aside += unclear
    grouped, unclear, remarks = _grouped(named, root, channels)
    set_aside += unclear
    whole: list[tuple[str, dict[str, Source]]] = []
    bids = is_bids(root)  # in which each name ends with the kind of image
    for name, images in [*studies, *grouped]:
        if missing := [channel for channel in channels if channel not in images]:
            reason = f"the model needs channel {', '.join(missing)} as well, which is missing"
            set_aside += [SetAside(source.place, reason, is_fault=True) for source in images.values()]
        else:
            ordered = {
                channel: called(images[channel], name or (_last_word(images[channel]) if bids else ""))
                for channel, name in stated.items()
            }
            whole.append((_case_id(name, ordered, naming), ordered))
    found, equal = by_id(whole)
    for group in equal:
        items = refused(images.values() for images in group)
        set_aside += [replace(item, reason=f"{item.reason}; --case-id hash gives each its own name") for item in items]
    cases = tuple(Case(case_id, images) for case_id, images in found.items())
    return Dataset("tree", cases, channels, set_aside=tuple(set_aside), remarks=remarks)


def _case_id(name: str, images: Mapping[str, Source], naming: CaseNaming) -> str:
    """Return the id of a case by the name from its path."""
    first = next(iter(images.values()))
    if naming == "path":
        return case_id_of(name)
    if isinstance(first, SeriesSource) and first.series_uid:
        name = f"{first.series_uid}_{first.volume}" if first.volume else first.series_uid
    return case_id_of(name) if naming == "series" else pseudonym(name)


def _masks_among(sources: Sequence[Source], root: Path) -> dict[Source, str]:
    """Return the sources that are masks by their name or folder, with the reason."""
    further = further_references(source.place for source in sources)
    reasons = {s: MASK_BY_NAME for s in sources if says_reference(s.place) or s.place in further}
    if is_bids(root):
        reasons |= {source: why for source in sources if (why := why_no_image(source.place, root))}
    folders = mask_folders(image_files(root), root)
    per_structure = {path: name for source in folders.values() for name, path in source.masks}
    reasons |= {
        source: f"it marks {per_structure[source.place]} in the image beside it: name the file itself to segment it"
        for source in sources
        if source.place in per_structure
    }
    objects = set(object_folders(image_files(root), root).values())
    reasons |= {
        source: f"it lies among masks, in {source.place.parent.name}/: name the file itself to segment it"
        for source in sources
        if source not in reasons and source.place.parent in objects
    }
    return reasons


def _choose_series(
    sources: Sequence[Source], root: Path, channels: tuple[str, ...], rules: DicomRules
) -> tuple[list[tuple[str, dict[str, Source]]], list[Source], list[SetAside]]:
    """Choose series from each DICOM study.

    Returns:
        Studies whose channels were matched by rules, with a name; sources that remain to be sorted by name; and series
        that are not used.
    """
    if len(channels) > 1 and not rules.series:  # the names of files and folders distinguish them
        return [], list(sources), []
    matched: list[tuple[str, dict[str, Source]]] = []
    not_taken: list[SetAside] = []
    sorted_out: set[Source] = set()
    for study in studies_of([source for source in sources if isinstance(source, SeriesSource)]):
        choice = choose_series(study, channels, rules)
        not_taken += [source_names.set_aside(source, reason) for source, reason in choice.not_taken.items()]
        sorted_out |= set(study) if len(channels) > 1 else set(choice.not_taken)
        if len(channels) > 1 and choice.chosen:
            folder = Path(os.path.commonpath([source.folder for source in choice.chosen.values()]))
            matched.append((path_name(lies_below(folder, root)), dict(choice.chosen)))
    return _told_apart(matched), [source for source in sources if source not in sorted_out], not_taken


def _told_apart(studies: Sequence[tuple[str, dict[str, Source]]]) -> list[tuple[str, dict[str, Source]]]:
    """Add a hash of a series UID to the names of studies whose files share a folder."""
    counts = Counter(name for name, _ in studies)
    return [(marked(name, _first_uid(images)) if counts[name] > 1 else name, images) for name, images in studies]


def _first_uid(images: Mapping[str, Source]) -> str:
    return min(source.series_uid for source in images.values() if isinstance(source, SeriesSource))


def _grouped(
    named: dict[str, Source], root: Path, channels: tuple[str, ...]
) -> tuple[list[tuple[str, dict[str, Source]]], list[SetAside], tuple[str, ...]]:
    """Group sources into cases by name: channels are numbered, volumes of a 4D file, or named like the model's."""
    numbered, rest = split_numbered(named)
    remarks: tuple[str, ...] = ()
    if len(channels) == 1 and numbered and (rest or are_cases(numbered)):
        remarks = (f"the model has one channel, so the numbers at the end of {len(numbered)} names are case numbers",)
        numbered, rest = {}, named
    grouped, names = group_channels(numbered, channels)
    set_aside: list[SetAside] = []
    if len(names) != len(channels):
        reason = (
            f"files are numbered like {len(names)} channels, the model has {len(channels)}; if the numbers mean "
            "cases, say so in a manifest (CSV of case_id,image) or rename the files"
        )
        grouped, set_aside = {}, [SetAside(source.place, reason, is_fault=True) for source in numbered.values()]
    alone = len(channels) == 1 or channels == COLORS
    whole = {name: source for name, source in rest.items() if alone or _is_4d(source)}
    cases = [*grouped.items(), *((name, as_channels(source, channels)) for name, source in whole.items())]
    apart = {name: source for name, source in rest.items() if name not in whole}
    by_folder, unclear = _by_folder(apart, root, channels)
    return cases + by_folder, set_aside + unclear, remarks


def _is_4d(source: Source) -> bool:
    from volseg.io import frame_count

    if not isinstance(source, FileSource):
        return False
    try:
        return frame_count(source.path, source.rules) > 1
    except DataError:  # reading it will report the error
        return True


def _by_folder(
    named: dict[str, Source], root: Path, channels: tuple[str, ...]
) -> tuple[list[tuple[str, dict[str, Source]]], list[SetAside]]:
    """Group sources into one case per folder, whose files or sub-folders are named after, or end with, a channel.

    If a folder holds several cases, the part before the channel distinguishes them.
    """
    folders: dict[Path, dict[str, list[Source]]] = defaultdict(lambda: defaultdict(list))
    set_aside: list[SetAside] = []
    for source in named.values():
        channel = _channel_called(_last_part(source), channels)
        if channel is None:
            set_aside.append(SetAside(source.place, f"its name is not one of the channels {', '.join(channels)}"))
        else:
            folders[source.place.parent][channel].append(source)
    grouped: list[tuple[str, dict[str, Source]]] = []
    for folder, found in folders.items():
        below = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
        if (twice := [channel for channel, sources in found.items() if len(sources) > 1]) and (
            several := _by_beginning(found)
        ):
            grouped += [(path_name([*below, beginning]), images) for beginning, images in several.items()]
        elif twice:
            reason = f"its folder has channel {', '.join(twice)} more than once, which is ambiguous"
            set_aside += [SetAside(s.place, reason, is_fault=True) for sources in found.values() for s in sources]
        else:
            images = {channel: sources[0] for channel, sources in found.items()}
            grouped.append((path_name(below or [folder.name]), images))
    return grouped, set_aside


def _by_beginning(found: Mapping[str, Sequence[Source]]) -> dict[str, dict[str, Source]]:
    """Split one folder into cases by the part before the channel in a name: "p1" of "p1_t1"; empty if unclear."""
    cases: dict[str, dict[str, Source]] = defaultdict(dict)
    for channel, sources in found.items():
        for source in sources:
            beginning = _last_part(source)[: -len(channel)].rstrip("-_. ")
            if not beginning or channel in cases[beginning]:
                return {}
            cases[beginning][channel] = source
    return dict(cases)


def _channel_called(name: str, channels: tuple[str, ...]) -> str | None:
    """Return the channel that a name is, or ends with after a separator; "post_t1" rather than "t1" if both fit."""
    name = name.lower()
    fitting = [c for c in channels if name == c.lower() or name.endswith((f"_{c.lower()}", f"-{c.lower()}"))]
    return max(fitting, key=len, default=None)


def _last_word(source: Source) -> str:
    return stem(source.place).rsplit("_", 1)[-1]


def _last_part(source: Source) -> str:
    return stem(source.place)
