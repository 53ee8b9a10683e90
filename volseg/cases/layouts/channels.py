"""Channels of a case: numbered files, or the volumes of one 4D file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from volseg.cases.case import Case, Dataset
from volseg.errors import DataError
from volseg.io import FileSource, Source, frame_count, is_picture

#: The channels of a colour picture.
COLORS = ("red", "green", "blue")
_CHANNEL_SUFFIX = re.compile(r"(.+)_(\d{4})")


def split_numbered(sources: Mapping[str, Source]) -> tuple[dict[str, Source], dict[str, Source]]:
    """Split sources into those whose names end in a channel number, and the rest: all, if nothing ends in _0000."""
    numbered = {name: source for name, source in sources.items() if _CHANNEL_SUFFIX.fullmatch(name)}
    if not any(name.endswith("_0000") for name in numbered):
        numbered = {}
    return numbered, {name: source for name, source in sources.items() if name not in numbered}


def are_cases(numbered: Mapping[str, Source]) -> bool:
    """Return whether numbers distinguish cases rather than the channels of each, for a model of one channel.

    Channels are numbered from 0 without gaps, and the same in every case. A single name with several numbers has no
    other case to compare with; several channels would then be too many for the model.
    """
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for name in numbered:
        case_name, number = name.rsplit("_", 1)
        numbers[case_name].append(int(number))
    alike = {tuple(sorted(found)) for found in numbers.values()}
    first = next(iter(alike), ())
    return len(alike) > 1 or first != tuple(range(len(first))) or (len(numbers) == 1 and len(first) > 1)


def group_channels(
    numbered: Mapping[str, Source], names: tuple[str, ...]
) -> tuple[dict[str, dict[str, Source]], tuple[str, ...]]:
    """Group `<case>_0000`, `<case>_0001` ... into cases.

    Args:
        numbered: Name -> source, every name ending in a channel number.
        names: Channel names in order, as far as known; if there are fewer or more than numbers, they are made up.

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
    """Return the channels of a source that is a case by itself: several are the volumes of one 4D file."""
    if len(names) == 1 or not isinstance(source, FileSource):
        return {names[0]: source}
    return {name: replace(source, frame=frame) for frame, name in enumerate(names)}


def with_colors(dataset: Dataset) -> Dataset:
    """Set the channels of a picture data set: red, green and blue if any picture has colours."""
    pictures = [source for case in dataset.cases if (source := _picture_of(case))]
    if not pictures or len(pictures) < len(dataset.cases):
        return dataset
    count = max(map(_channel_count, pictures))
    if count == 1:
        return dataset
    names = COLORS if count == len(COLORS) else tuple(f"channel_{n}" for n in range(count))
    cases = tuple(replace(case, images=as_channels(case.image, names)) for case in dataset.cases)
    return replace(dataset, cases=cases, channels=names)


def as_the_model_sees(dataset: Dataset, channels: tuple[str, ...]) -> Dataset:
    """Set the channels of a picture data set, one file per case, to those of a multi-channel model."""
    pictures = [source for case in dataset.cases if (source := _picture_of(case))]
    if len(channels) == 1 or not pictures or len(pictures) < len(dataset.cases):
        return dataset
    cases = tuple(replace(case, images=as_channels(case.image, channels)) for case in dataset.cases)
    return replace(dataset, cases=cases, channels=channels)


def _picture_of(case: Case) -> FileSource | None:
    """Return the file of a case that is one picture."""
    one = case.image if len(case.images) == 1 else None
    return one if isinstance(one, FileSource) and is_picture(one.path) and one.frame is None else None


def _channel_count(source: FileSource) -> int:
    try:
        return frame_count(source.path, source.rules)
    except DataError:  # reading it reports the error
        return 1
