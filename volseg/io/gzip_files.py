"""Gzip streams (RFC 1952), read to their end, since the checksum comes last."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import BinaryIO

MAGIC = b"\x1f\x8b"
#: Tells zlib to expect the header and the checksum of gzip.
_FORMAT = 31
_CHUNK = 2**22


@dataclass(frozen=True, eq=False)
class Unpacked:
    """The content of a gzip file.

    Attributes:
        content: Its bytes, at most as many as requested.
        trailing: Number of bytes after the last member; zeros, with which tapes are padded, do not count.
    """

    content: bytes
    trailing: int


def unpack(file: BinaryIO, most: int) -> Unpacked:
    """Unpack all members of a gzip file and verify the checksum of each.

    Args:
        file: At its beginning.
        most: Number of bytes to keep; more are unpacked and verified, but take no memory.

    Raises:
        EOFError: If it ends before a checksum.
        zlib.error: If it is damaged.
    """
    parts: list[bytes] = []
    size = 0
    data = file.read(_CHUNK)
    while data.startswith(MAGIC):
        member = zlib.decompressobj(wbits=_FORMAT)
        while not member.eof:
            if not data:
                raise EOFError("it ends before its checksum")
            part = member.decompress(data, _CHUNK)
            if size < most and part:
                parts.append(part[: most - size])
                size += len(parts[-1])
            data = member.unconsumed_tail or file.read(_CHUNK)
        data = (member.unused_data + data).lstrip(b"\0")
        while len(data) < len(MAGIC) and (more := file.read(_CHUNK)):
            data = (data + more).lstrip(b"\0")
    trailing = len(data)
    while more := file.read(_CHUNK):
        trailing += len(more)
    return Unpacked(b"".join(parts), trailing)


def unpack_head(head: bytes, size: int) -> bytes:
    """Unpack the beginning of a gzip file to its first bytes, as far as it is not damaged."""
    content = b""
    while head.startswith(MAGIC) and len(content) < size:
        member = zlib.decompressobj(wbits=_FORMAT)
        try:
            content += member.decompress(head, size - len(content))
        except zlib.error:
            break
        head = member.unused_data
    return content
