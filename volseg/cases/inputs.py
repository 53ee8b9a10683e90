"""What there is to segment: any layout without its references, a file, a DICOM folder, or a tree of patient folders."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from volseg.cases.case import Case, Dataset, as_case_id, names_a_reference, stem
from volseg.cases.layouts import by_name, find_dataset, from_manifest, group_channels
from volseg.errors import DataError
from volseg.io import FileSource, SetAside, Source, discover
from volseg.progress import Progress, silent


def find_inputs(path: Path, channels: tuple[str, ...], progress: Progress = silent) -> Dataset:
    """Find the cases to segment.

    Args:
        path: A data set in any layout, a CSV manifest, one file, a DICOM folder, or a tree of these.
        channels: The channels that the model needs.
        progress: Told while files are looked at.

    Returns:
        The cases, and everything else that was found with the reason why it is not segmented.

    Raises:
        DataError: If there is nothing at `path`, or nothing in it that could be segmented.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        dataset = _for_model(from_manifest(path), channels)
    else:
        dataset = _from_tree(_images_of(path), channels, progress)
    if not dataset.cases and not dataset.set_aside:
        raise DataError(f"{path} holds no image", hint="volseg reads NIfTI, NRRD, MetaImage and DICOM")
    return dataset


def _images_of(path: Path) -> Path:
    """The folder of images of a data set, else the path itself."""
    for name, partner in (("imagesTs", "imagesTr"), ("imagesTr", "labelsTr"), ("images", "labels"), ("images", "")):
        if (path / name).is_dir() and (path / partner).is_dir():
            return path / name
    return path


def _for_model(dataset: Dataset, channels: tuple[str, ...]) -> Dataset:
    """Give the channels of a manifest the names the model knows them by, when only the names differ."""
    if set(dataset.channels) == set(channels):
        return dataset
    if len(dataset.channels) != len(channels):
        raise DataError(
            f"the manifest has channels {', '.join(dataset.channels)}, the model needs {', '.join(channels)}"
        )
    renamed = dict(zip(dataset.channels, channels, strict=True))
    cases = tuple(
        Case(case.case_id, {renamed[name]: source for name, source in case.images.items()}) for case in dataset.cases
    )
    return Dataset(dataset.layout, cases, channels, set_aside=dataset.set_aside)


def _from_tree(root: Path, channels: tuple[str, ...], progress: Progress) -> Dataset:
    discovery = discover(root, progress)
    named = by_name(discovery, root)
    set_aside = list(discovery.set_aside)
    if root.is_dir():  # a single file is meant, whatever its name
        masks = [name for name in named if names_a_reference(_last_part(named[name]))]
        set_aside += [
            SetAside(named.pop(name).place, "its name says that it is a mask, not an image") for name in masks
        ]
    grouped, names = group_channels(named, channels)
    if len(names) == len(channels) and names != channels:
        grouped = {
            name: {channels[names.index(channel)]: source for channel, source in images.items()}
            for name, images in grouped.items()
        }
    elif len(channels) > 1 and grouped and _unnumbered(grouped, named):
        grouped = _by_folder(named, channels)
    cases: dict[str, Case] = {}
    for name, images in grouped.items():
        missing = [channel for channel in channels if channel not in images]
        if missing:
            reason = f"the model needs channel {', '.join(missing)} as well, which is not there"
            set_aside += [SetAside(source.place, reason) for source in images.values()]
        else:
            case_id = as_case_id([name], cases)
            cases[case_id] = Case(case_id, {channel: images[channel] for channel in channels})
    return Dataset("tree", tuple(cases.values()), channels, set_aside=tuple(set_aside))


def _unnumbered(grouped: dict[str, dict[str, Source]], named: dict[str, Source]) -> bool:
    """Whether the files carry no channel numbers and are no 4D files, so that only their names tell channels apart."""
    return set(grouped) == set(named) and any(not _is_4d(source) for source in named.values())


def _is_4d(source: Source) -> bool:
    from volseg.io import frame_count

    if not isinstance(source, FileSource):
        return False
    try:
        return frame_count(source.path) > 1
    except DataError:  # it will fail by name when it is read
        return False


def _by_folder(named: dict[str, Source], channels: tuple[str, ...]) -> dict[str, dict[str, Source]]:
    """A folder per case, whose files or sub-folders are called by, or end with, the names of the channels."""
    grouped: dict[str, dict[str, Source]] = defaultdict(dict)
    for name, source in named.items():
        last = _last_part(source).lower()
        channel = next((c for c in channels if last == c or last.endswith((f"_{c}", f"-{c}"))), None)
        if channel is None:
            grouped[name]["?"] = source
        else:
            grouped[source.place.parent.name][channel] = source
    return dict(grouped)


def _last_part(source: Source) -> str:
    return stem(source.place)


def find_references(path: Path, progress: Progress = silent) -> dict[str, Source]:
    """Find the references of cases: of a labelled data set in any layout, or a folder of label maps.

    Args:
        path: A data set, a CSV manifest with a `reference` column, a folder of label maps, or one label map.
        progress: Told while files are looked at.

    Returns:
        Case id -> where its reference is read from.

    Raises:
        DataError: If there is none.
    """
    if path.is_file() and path.suffix.lower() == ".csv":
        cases = from_manifest(path).cases
    elif path.is_dir() and any((path / name).exists() for name in ("dataset.json", "labels", "labelsTr")):
        cases = find_dataset(path, progress).cases
    else:
        found = by_name(discover(path, progress), path)
        if not found:
            raise DataError(f"{path} holds no reference", hint="give a folder of label maps, or a labelled data set")
        return found
    return {case.case_id: case.reference for case in cases if case.reference is not None}
