"""Keeping of DICOM objects, however they arrive: sent, uploaded or fetched."""

from __future__ import annotations

import hashlib
from io import BytesIO

from volseg.serving.dicom.objects import read_description
from volseg.serving.store import Store
from volseg.serving.store.cases import Place, add_object

#: The first element of a file (PS3.10 section 7.1), whose value is the length of the File Meta Information behind it.
_META_BEGINS, _META_TAG, _META_VALUE = 132, b"\2\0\0\0UL", 140


def keep_object(store: Store, place: Place, content: bytes, sender: str) -> bool:
    """Keep an object.

    Args:
        store: The store.
        place: Where it belongs, from `read_place`.
        content: A whole DICOM file (PS3.10).
        sender: AE title, archive or user that it comes from.

    Returns:
        False if the same object is there already, so that nothing has changed.

    Raises:
        DataError: If it cannot be read.
        OSError: If it cannot be written.
    """
    digest = hashlib.sha256(_dataset(content)).hexdigest()
    return add_object(store, place, sender, content, digest, lambda: read_description(BytesIO(content)))


def _dataset(content: bytes) -> memoryview:
    """Return a file without its File Meta Information, which everybody who sends it writes anew."""
    if content[_META_BEGINS : _META_BEGINS + len(_META_TAG)] != _META_TAG:
        return memoryview(content)
    length = int.from_bytes(content[_META_VALUE : _META_VALUE + 4], "little")
    return memoryview(content)[_META_VALUE + 4 + length :]
