"""What the `dataset.json` of the Medical Segmentation Decathlon and of nnU-Net states: channels, labels, regions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from volseg.errors import DataError
from volseg.io.json_files import read_json


def read_dataset_json(path: Path) -> dict[str, Any]:
    """Read the `dataset.json` of the Medical Segmentation Decathlon or of nnU-Net.

    Raises:
        DataError: If it is no JSON object.
    """
    return read_json(path, _object, "is no JSON object")


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise TypeError(f"it holds a {type(content).__name__}")
    return content


def stated_channels(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Channel names of a `dataset.json`, made into words that are keys and file names."""
    stated = description.get("channel_names") or description.get("modality") or {"0": "image"}
    if not isinstance(stated, dict):
        raise DataError(f"dataset.json: the channels must be an object of index to name, got {stated!r}")
    keys = sorted(map(str, stated), key=lambda key: (len(key), key))  # "2" before "10"
    names = [re.sub(r"\W+", "_", str(stated[key])).strip("_").lower() or "channel" for key in keys]
    return tuple(name if names.count(name) == 1 else f"{name}_{n}" for n, name in enumerate(names))


def stated_labels(description: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """Labels and regions of a `dataset.json`: Decathlon has value -> name, nnU-Net name -> value or list of values."""
    stated = description.get("labels", {})
    if not isinstance(stated, dict):
        raise DataError(f"dataset.json: labels must be an object, got {stated!r}")
    labels: dict[str, int] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for key, value in stated.items():
        name, number = (str(value), key) if str(key).isdecimal() else (str(key), value)
        values = number if isinstance(number, list) else [number]
        if not values or not all(str(part).isdecimal() for part in values):
            raise DataError(f"dataset.json: label {name!r} has value {number!r}, which is not a whole number")
        if isinstance(number, list):
            regions[name] = tuple(int(part) for part in number)
        elif int(number) > 0:
            labels[name] = int(number)
    for value in sorted({value for values in regions.values() for value in values} - set(labels.values())):
        labels[f"label_{value}"] = value
    return labels, regions
