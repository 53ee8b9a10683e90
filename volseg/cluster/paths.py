"""The same folders under other paths: what one machine calls /data, another may call /mnt/data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

from volseg.errors import ConfigError

#: Path of a folder on the machine that coordinates -> its path on a worker.
PathMap = Mapping[str, str]


def checked_path_map(path_map: PathMap) -> dict[str, str]:
    """Return the map with plain paths.

    Raises:
        ConfigError: If a path is not absolute, or two folders would become one.
    """
    plain = {str(PurePath(here)): str(PurePath(there)) for here, there in path_map.items()}
    for path in (*plain, *plain.values()):
        if not PurePath(path).is_absolute():
            raise ConfigError(f"path_map: {path} is not an absolute path", hint="write it from the root: /data")
    if len(set(plain.values())) < len(plain):
        raise ConfigError("path_map: two folders have the same path on a worker", hint="give each its own")
    return plain


def inverse(path_map: PathMap) -> dict[str, str]:
    """Return the way back."""
    return {there: here for here, there in path_map.items()}


def mapped(value: Any, path_map: PathMap) -> Any:
    """Return a value in which every path is as the other machine has it; of nested folders the innermost counts."""
    return with_paths(value, partial(_mapped_path, path_map=path_map)) if path_map else value


def with_paths(value: Any, change: Callable[[Path], Path]) -> Any:
    """Return a value in which every path is changed.

    Args:
        value: A path, or dataclasses, collections and partial functions that hold some; anything else stays.
        change: Returns the other path.
    """
    again = partial(with_paths, change=change)
    changed = value
    match value:
        case Path():
            changed = change(value)
        case partial():
            given = {name: again(each) for name, each in value.keywords.items()}
            changed = partial(value.func, *map(again, value.args), **given)
        case tuple() if hasattr(value, "_fields"):  # a named one
            changed = type(value)(*map(again, value))
        case tuple() | list() | set() | frozenset():
            changed = type(value)(map(again, value))
        case dict():
            changed = {again(name): again(each) for name, each in value.items()}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
            moved = {name: new for name, each in fields.items() if (new := again(each)) is not each}
            changed = dataclasses.replace(value, **moved) if moved else value
    return changed


def _mapped_path(path: Path, path_map: PathMap) -> Path:
    for folder in (path, *path.parents):
        if str(folder) in path_map:
            return Path(path_map[str(folder)]) / path.relative_to(folder)
    return path


def existing_files(value: Any) -> Iterator[Path]:
    """Find the files in a value, as `with_paths` does, that exist; those in the last arguments of calls first."""
    match value:
        case Path():
            if value.is_file():
                yield value
        case partial():
            yield from existing_files((*reversed(value.args), value.keywords))
        case tuple() | list() | set() | frozenset():
            yield from chain.from_iterable(map(existing_files, value))
        case dict():
            yield from existing_files(tuple(value.items()))
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from existing_files(tuple(getattr(value, field.name) for field in dataclasses.fields(value)))
