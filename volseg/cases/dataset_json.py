"""Channels, labels and regions in the `dataset.json` of the Medical Segmentation Decathlon and of nnU-Net."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volseg.config import IGNORE
from volseg.errors import DataError
from volseg.image.naming import plain_name, refuse_misplaced_background
from volseg.image.terminology import lookup
from volseg.image.volume import LARGEST_LABEL, Label
from volseg.io.json_files import read_json

_HINT = 'write it as {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}'
_LABELS_HINT = 'for example "labels": {"background": 0, "liver": 1}'


def read_dataset_json(path: Path) -> dict[str, Any]:
    """Read the `dataset.json` of the Medical Segmentation Decathlon or of nnU-Net.

    Raises:
        DataError: If it is not a JSON object.
    """
    return read_json(path, _object, "is not a JSON object", _HINT)


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise TypeError(f"it holds {'null' if content is None else f'a {type(content).__name__}'}")
    return content


def stated_channels(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the channel names of a `dataset.json`, converted to words usable as keys and in file names."""
    stated = description.get("channel_names") or description.get("modality") or {"0": "image"}
    if not isinstance(stated, dict):
        raise DataError(
            f"dataset.json: the channels must be an object of index to name, got {stated!r}",
            hint='for example "channel_names": {"0": "CT"}',
        )
    keys = sorted(map(str, stated), key=lambda key: (len(key), key))  # "2" before "10"
    names = [re.sub(r"\W+", "_", str(stated[key])).strip("_").lower() or "channel" for key in keys]
    return tuple(name if names.count(name) == 1 else f"{name}_{n}" for n, name in enumerate(names))


def states_channels(description: Mapping[str, Any]) -> bool:
    """Return whether a `dataset.json` states channels."""
    return bool({"channel_names", "modality"} & set(description))


def stated_labels(description: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Return labels and regions of a `dataset.json`: Decathlon has value -> name, nnU-Net name -> value or values.

    If any entry is a list of values, each entry is an output of its own; a single number then is the region of that
    label alone.

    Returns:
        Label name -> value, for every value; region name -> values, empty if there are none.

    Raises:
        DataError: If a value is not an integer, a region includes the background, or a value is used twice.
    """
    stated = description.get("labels", {})
    if not isinstance(stated, dict):
        raise DataError(f"dataset.json: labels must be an object, got {stated!r}", hint=_LABELS_HINT)
    entries = [_Entry.of(key, value) for key, value in stated.items()]
    foreground = [entry for entry in entries if entry.values != (0,)]
    names = [entry.name for entry in foreground]
    for entry in foreground:
        if names.count(entry.name) > 1:
            raise DataError(
                f"dataset.json gives {names.count(entry.name)} values the same name, {entry.name!r}",
                hint="give each value its own name",
            )
        if 0 in entry.values:
            raise DataError(
                f"dataset.json: region {entry.name!r} includes 0, which is background",
                hint="remove 0 from its list",
            )
    labels = {entry.name: entry.values[0] for entry in foreground if not entry.is_list}
    if twice := [name for name, value in labels.items() if list(labels.values()).count(value) > 1]:
        raise DataError(
            f"dataset.json gives {' and '.join(map(repr, twice[:2]))} the same value, {labels[twice[0]]}",
            hint="give each name its own value",
        )
    if not any(entry.is_list for entry in foreground):
        return labels, {}
    regions = {entry.name: entry.values for entry in foreground if entry.name != IGNORE}
    for value in sorted({value for values in regions.values() for value in values} - set(labels.values())):
        labels[f"label_{value}"] = value
    return labels, regions


def reference_labels(description: Mapping[str, Any]) -> tuple[Label, ...]:
    """Return the labels of reference values, followed by the regions, under values that references do not hold.

    Raises:
        DataError: If the labels are invalid.
    """
    labels, regions = stated_labels(description)
    plain = tuple(Label(value, name) for name, value in labels.items())
    others = [(name, parts) for name, parts in regions.items() if name not in labels]
    free = range(max(labels.values(), default=0) + 1, LARGEST_LABEL)
    return (*plain, *(Label(value, name, parts=parts) for value, (name, parts) in zip(free, others, strict=False)))


def mask_labels(description: Mapping[str, Any]) -> tuple[Label, ...]:
    """Return the labels of masks that nnU-Net made: it paints each region with its entry of `regions_class_order`.

    Raises:
        DataError: If the labels are invalid.
    """
    labels, regions = stated_labels(description)
    if not regions:
        return tuple(Label(value, name, structure=lookup(name)) for name, value in labels.items())
    painted = description.get("regions_class_order")
    if not isinstance(painted, list) or len(painted) != len(regions):
        return ()
    return tuple(
        Label(int(value), name, parts=parts, structure=lookup(name))
        for value, (name, parts) in zip(painted, regions.items(), strict=True)
        if str(value).isdecimal() and int(value)
    )


@dataclass(frozen=True)
class _Entry:
    """An entry of `labels`.

    Attributes:
        name: Of the label or region.
        values: Its values, each once.
        is_list: Whether it is stated as a list: only regions are.
    """

    name: str
    values: tuple[int, ...]
    is_list: bool

    @classmethod
    def of(cls, key: object, value: Any) -> _Entry:
        """Build an entry from key and value, whichever of them is the name."""
        number: Any
        # A name may look like a number: nnU-Net's entries have number values, the Decathlon's have names.
        by_value = str(key).isdecimal() and isinstance(value, str)
        name, number = (value, key) if by_value else (str(key), value)
        name = IGNORE if plain_name(name) == IGNORE else name
        values = number if isinstance(number, list) else [number]
        if not values or not all(str(part).isdecimal() for part in values):
            raise DataError(
                f"dataset.json: label {name!r} has value {number!r}, which is not a whole number", hint=_LABELS_HINT
            )
        if not isinstance(number, list):
            refuse_misplaced_background(name, int(number), "dataset.json")
        return cls(name, tuple(dict.fromkeys(int(part) for part in values)), isinstance(number, list))
