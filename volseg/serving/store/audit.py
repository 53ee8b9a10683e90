"""Who did what to whose images; no names of patients, but the ids of their cases."""

from __future__ import annotations

import time

from volseg.serving.store.database import Store


def note(store: Store, who: str, what: str, case_id: str = "", detail: str = "") -> None:
    """Add a line to the audit.

    Args:
        store: The store.
        who: A user, an AE title, or "volseg".
        what: What was done, such as "received" or "sent".
        case_id: The case.
        detail: Where to, or how much; nothing that identifies a patient.
    """
    store.change(
        "INSERT INTO audit (at, who, what, case_id, detail) VALUES (?, ?, ?, ?, ?)",
        *(time.time(), who, what, case_id, detail),
    )
