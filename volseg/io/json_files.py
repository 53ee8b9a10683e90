"""The JSON files that volseg writes, and those that it reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from volseg.errors import DataError
from volseg.io.files import write_text

_Content = TypeVar("_Content")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that people can read, too, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, parse: Callable[[Any], _Content], problem: str, hint: str) -> _Content:
    """Read a JSON file, in whichever Unicode encoding it is stored.

    Args:
        path: The file.
        parse: What it must hold -> what that means; raises a KeyError, ValueError, TypeError or AttributeError where
            the file holds something else.
        problem: What is wrong with a file that is no JSON or that cannot be parsed: "is no list of labels".
        hint: What to do about it: what such a file looks like, or how to do without it.

    Raises:
        DataError: If it cannot be read or parsed.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} {problem}: it is no Unicode text", hint=f"save it as UTF-8; {hint}") from error
    except KeyError as error:
        raise DataError(f"{path} {problem}: an entry has no {error}", hint=hint) from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} {problem}: {error}", hint=hint) from error
