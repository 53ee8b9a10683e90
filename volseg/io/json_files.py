"""Reading and writing JSON files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from volseg.errors import DataError
from volseg.io.files import write_text

_Content = TypeVar("_Content")


def write_json(path: Path, value: Any) -> None:
    """Write a human-readable JSON file, whole or not at all.

    Raises:
        OutputError: If it cannot be written.
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path, parse: Callable[[Any], _Content], problem: str, hint: str) -> _Content:
    """Read a JSON file in any Unicode encoding.

    Args:
        path: The file.
        parse: Converts its content; raises a KeyError, ValueError, TypeError or AttributeError if it is invalid.
        problem: What is wrong with a file that is not JSON or cannot be parsed: "is no list of labels".
        hint: What to do about it: what such a file looks like, or how to do without it.

    Raises:
        DataError: If it cannot be read or parsed.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} {problem}: it is not Unicode text", hint=f"save it as UTF-8; {hint}") from error
    except KeyError as error:
        raise DataError(f"{path} {problem}: an entry has no {error}", hint=hint) from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path} {problem}: {error}", hint=hint) from error
