"""Kinds of values in the configuration of a server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from volseg.config.section import ContradictionError

_AE_TITLE = re.compile(r"[^\\\x00-\x1f\x7f-\uffff]{1,16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"(?P<ae>[^@]+)@(?P<host>[^@:]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})")


def _ae_title(text: str) -> str:
    """Check an application entity title (PS3.5 section 6.2, value representation AE)."""
    if not _AE_TITLE.fullmatch(text) or not text.strip():
        raise ContradictionError(f"{text!r} is not an AE title", hint="use 1 to 16 ASCII characters, no backslash")
    return text.strip()


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ContradictionError(f"{text!r} cannot be a name", hint="use letters, digits, dot, dash and underscore")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ContradictionError(f"{text!r} is no regular expression: {error}", hint="escape it: \\( for (") from error
    return text


def _relative_to_its_file(path: Path, info: ValidationInfo) -> Path:
    return (info.context or Path()) / path.expanduser()


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Name = Annotated[str, AfterValidator(_name)]
Pattern = Annotated[str, AfterValidator(_pattern)]
#: In a file, relative to the folder of the file.
StatedPath = Annotated[Path, AfterValidator(_relative_to_its_file)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Node:
    """A DICOM node.

    Attributes:
        ae_title: Its application entity title.
        host: Name or IP address.
        port: Where it listens.
    """

    ae_title: str
    host: str
    port: int


def node_of(text: str) -> Node:
    """Parse the address of a DICOM node.

    Args:
        text: AE@host:port.

    Raises:
        ContradictionError: If it has another form.
    """
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found["port"]) < 65536:
        raise ContradictionError(f"{text!r} is not the address of a DICOM node", hint="for example PACS@10.1.0.7:104")
    return Node(_ae_title(found["ae"]), found["host"].strip("[]"), int(found["port"]))
