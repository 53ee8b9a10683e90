"""Content of a bundle, read as data: references are resolved, and only expressions of plain values are evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from volseg.errors import CheckpointError
from volseg.io.json_files import read_json

METADATA_FILE = Path("configs") / "metadata.json"
_INFERENCE_FILES = tuple(Path("configs") / f"inference.{ending}" for ending in ("json", "yaml", "yml"))
#: A reference to another part: "@network_def", "@display#overlap", "%pixdim".
_REFERENCE = re.compile(r"[@%]([A-Za-z_]\w*(?:#\w+)*)")
#: Limit on resolved values, larger than any bundle; stops references that expand exponentially.
_MOST_VALUES, _LONGEST_EXPRESSION = 100_000, 2_000
HINT = "docs/import.md lists what is supported in bundles"


@dataclass(frozen=True)
class Code:
    """An expression that is more than plain values; it is not executed.

    Attributes:
        text: As written in the bundle.
    """

    text: str

    def __repr__(self) -> str:
        """Return the text for errors."""
        return f"the code {self.text[:60]!r}"


@dataclass
class Bundle:
    """A bundle.

    Attributes:
        folder: Its folder.
        file: Its inference configuration file.
        stated: The content of that file, references unresolved.
        metadata: The content of its metadata file.
    """

    folder: Path
    file: Path
    stated: Mapping[str, Any]
    metadata: Mapping[str, Any]
    _count: int = field(default=0, repr=False)

    @property
    def name(self) -> str:
        """Name and version, for display."""
        name = self.metadata.get("name") or self.folder.resolve().name
        return f"{name} {self.metadata.get('version', '')}".strip()

    def get(self, key: str) -> Any:
        """Return a part of the inference configuration, with references resolved; None if there is none.

        Raises:
            CheckpointError: If a reference leads nowhere, or to itself.
        """
        try:
            return self._resolved(self.stated[key], (key,)) if key in self.stated else None
        except RecursionError as error:
            raise CheckpointError(f"{self.where(key)} is nested too deeply", hint=HINT) from error

    def described(self, *keys: str) -> Any:
        """Look up metadata of the data: ("inputs", "image", "modality"); None if not stated."""
        value: Any = self.metadata.get("network_data_format")
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def where(self, key: str) -> str:
        """Return the name of a part for errors."""
        return f"{self.file}: {key}"

    def _resolved(self, value: Any, within: tuple[str, ...]) -> Any:
        self._count += 1
        if self._count > _MOST_VALUES:
            raise CheckpointError(f"{self.file}: its references expand to too many values", hint=HINT)
        match value:
            case dict():
                return {str(key): self._resolved(each, within) for key, each in value.items()}
            case list():
                return [self._resolved(each, within) for each in value]
            case str() if value.startswith("$"):
                return self._evaluated(value, within)
            case str() if (named := _REFERENCE.fullmatch(value)) is not None:
                return self._referred(named[1], within)
            case _:
                return value

    def _referred(self, name: str, within: tuple[str, ...]) -> Any:
        if name in within:
            raise CheckpointError(f"{self.file}: @{name} refers to itself", hint=HINT)
        value: Any = self.stated
        for part in name.split("#"):
            if isinstance(value, dict) and part in value:
                value = value[part]
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                raise CheckpointError(f"{self.file}: there is no {part!r} for @{name}", hint=HINT)
        return self._resolved(value, (*within, name))

    def _evaluated(self, expression: str, within: tuple[str, ...]) -> Any:
        """Evaluate an expression of plain values; anything else becomes `Code`."""
        values: dict[str, Any] = {}

        def stand_in(named: re.Match[str]) -> str:
            place = f"_{len(values)}"
            values[place] = self._referred(named[1], within)
            return place

        if len(expression) > _LONGEST_EXPRESSION:
            return Code(expression)
        text = expression[1:].strip()
        try:
            tree = ast.parse(_REFERENCE.sub(stand_in, text), mode="eval")
            return _plain_value(tree.body, values)
        except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
            return Code(expression)


def _plain_value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    """Evaluate constants, lists, concatenated strings, and choices between them.

    Raises:
        ValueError: If there is anything else in it.
    """
    match node:
        case ast.Constant(value=str() | int() | float() | bool() | None as value):
            return value
        case ast.Name(id=name) if name in values and not isinstance(values[name], Code):
            return values[name]
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_plain_value(part, values) for part in parts]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_plain_value(operand, values)
        case ast.IfExp(test=test, body=body, orelse=other):
            return _plain_value(body if _plain_value(test, values) else other, values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = _plain_value(left, values), _plain_value(right, values)
            if isinstance(first, str) and isinstance(second, str):
                return first + second
    raise ValueError("it is code")


def is_bundle(folder: Path) -> bool:
    """Return whether a folder is a bundle."""
    return (folder / METADATA_FILE).is_file()


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and its inference configuration.

    Raises:
        CheckpointError: If it has none, or its files cannot be read.
    """
    metadata = read_json(folder / METADATA_FILE, dict, "does not describe a bundle", HINT)
    file = next((folder / name for name in _INFERENCE_FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{folder} has no configs/inference.json or .yaml", hint=HINT)
    if file.suffix == ".json":
        return Bundle(folder, file, read_json(file, dict, "has no inference configuration", HINT), metadata)
    try:
        stated = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file} cannot be read as YAML", hint=HINT) from error
    if not isinstance(stated, dict):
        raise CheckpointError(f"{file} has no inference configuration", hint=HINT)
    return Bundle(folder, file, stated, metadata)
