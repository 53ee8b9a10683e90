"""What a server has received, has to do and has made: a SQLite database, and files under hashed names beside it.

Every process opens the same store. A row is written after the file that it speaks of, so that whatever process is
killed whenever, a row never lacks its file; files without a row are found again (`cases.recover`) or removed.
"""

from __future__ import annotations

from volseg.serving.store.database import Store, open_store

__all__ = ["Store", "open_store"]
