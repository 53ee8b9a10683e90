"""labels.json: the meaning of the values of the masks beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from volseg.config import Others
from volseg.errors import VolsegError
from volseg.image.naming import refuse_misplaced_background
from volseg.image.terminology import Code, Structure, lookup
from volseg.image.volume import LARGEST_LABEL, Label
from volseg.io.json_files import read_json, write_json

LABELS_FILE = "labels.json"
_HINT = 'write it as [{"value": 1, "name": "liver"}], or rename it if it is something else'
_CODES = ("category", "type", "modifier", "region", "region_modifier")


def write_labels(labels: Sequence[Label], path: Path, others: Others = "refuse") -> None:
    """Write value and name of each label, and what else is known: codes, colour, aliases, the labels a region unites.

    Args:
        labels: The labels.
        path: The file.
        others: Whether the model treated other values in references as background; then the list becomes an entry of an
            object that states this.

    Raises:
        OutputError: If it cannot be written.
    """
    entries = [_entry(label) for label in labels]
    write_json(path, entries if others == "refuse" else {"labels": entries, "others": others})


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read what `write_labels` wrote, or values and names alone: a list, or an object of either to the other.

    A label without stated codes gets those of the structure that its name stands for. The value 0 is background and not
    a label, and nothing else has that name.

    Raises:
        DataError: If it has another form.
    """
    return read_json(path, lambda content: tuple(_labels(content, path)), "is not a list of labels", _HINT)


def read_others(path: Path) -> Others:
    """Read whether other values of a reference are refused or background, as `write_labels` wrote it.

    Raises:
        DataError: If it has another form.
    """
    return read_json(path, _others, "is not a list of labels", _HINT)


def _labels(content: Any, path: Path) -> Iterator[Label]:
    names: dict[int, str] = {}
    for entry in _entries(content):
        if entry["value"] == 0:
            refuse_misplaced_background(str(entry.get("name", "")), 0, str(path))
            continue
        label = _label(entry)
        refuse_misplaced_background(label.name, label.value, str(path))
        if names.setdefault(label.value, label.name) != label.name:
            raise ValueError(f"value {label.value} is {names[label.value]} and {label.name}")
        yield label


def _entries(content: Any) -> Any:
    """Return the entries of a list, of a list with its treatment of other values, or of {"1": "liver"}."""
    if not isinstance(content, dict):
        if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
            raise ValueError("it holds no values and names")
        return content
    if isinstance(content.get("labels"), list) or set(content) == {"labels"}:
        return _entries(content["labels"])
    return [_pair(key, value) for key, value in content.items()]


def _pair(key: str, value: object) -> dict[str, object]:
    """Convert one entry of {"1": "liver"} or {"liver": 1}."""
    return {"value": int(key), "name": value} if isinstance(value, str) else {"value": value, "name": key}


def _others(content: Any) -> Others:
    stated = content.get("others", "refuse") if isinstance(content, dict) else "refuse"
    if stated not in get_args(Others):
        raise ValueError(f"others is {stated!r}, allowed are {', '.join(get_args(Others))}")
    return "background" if stated == "background" else "refuse"


def _entry(label: Label) -> dict[str, Any]:
    entry: dict[str, Any] = {"value": label.value, "name": label.name}
    if label.parts:
        entry["labels"] = label.parts
    if label.aliases:
        entry["aliases"] = label.aliases
    if label.color:
        entry["color"] = label.color
    if label.structure:
        entry["structure"] = {key: value for key, value in asdict(label.structure).items() if value is not None}
    return entry


def _label(entry: Mapping[str, Any]) -> Label:
    value, name = entry["value"], entry["name"]
    if type(value) is not int or not isinstance(name, str) or value > LARGEST_LABEL:
        raise ValueError(f"value {value!r} and name {name!r} are not a label")
    try:
        return Label(
            value,
            name,
            color=_color(entry.get("color")),
            parts=tuple(int(part) for part in entry.get("labels", ())),
            structure=_structure(entry["structure"]) if "structure" in entry else lookup(name),
            aliases=tuple(str(alias) for alias in entry.get("aliases", ())),
        )
    except VolsegError as error:
        raise ValueError(str(error)) from error


def _structure(stated: Mapping[str, Any]) -> Structure:
    codes = {key: Code(**stated[key]) for key in _CODES if key in stated}
    return Structure(**codes, color=_color(stated.get("color")))


def _color(stated: Sequence[int] | None) -> tuple[int, int, int] | None:
    if stated is None:
        return None
    red, green, blue = (int(part) for part in stated)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"color {stated} is not of 0 to 255")
    return red, green, blue
