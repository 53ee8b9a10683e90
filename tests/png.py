"""PNG files written by hand, of kinds that no library writes."""

from __future__ import annotations

import struct
import zlib


def png(header: tuple[int, int, int, int], rows: bytes, **chunks: bytes) -> bytes:
    """The bytes of a PNG (PNG specification, section 5).

    Args:
        header: Columns, rows, bits per sample, kind of colour.
        rows: Each begins with its filter.
        chunks: Others, by name.
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = struct.pack(">IIBBBBB", *header, 0, 0, 0)
    others = b"".join(chunk(name.encode(), content) for name, content in chunks.items())
    body = chunk(b"IHDR", start) + others + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body
