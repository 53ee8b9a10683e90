"""Unique identifiers of exported objects: the same result is the same DICOM object, whenever it is written."""

from __future__ import annotations

import hashlib
from uuid import UUID


def derived_uid(*parts: str | bytes) -> str:
    """Return a UID that depends only on `parts` and their order.

    Args:
        *parts: Everything that defines the object: UIDs of its sources, bytes of its mask, names, its kind. Text and
            bytes with the same content are the same part.

    Returns:
        "2.25." and a name-based UUID as a decimal number (PS3.5 section B.2); at most 44 characters.
    """
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        digest.update(len(content).to_bytes(8, "big"))  # so that ("ab", "c") is not ("a", "bc")
        digest.update(content)
    return f"2.25.{UUID(bytes=digest.digest()[:16], version=5).int}"
