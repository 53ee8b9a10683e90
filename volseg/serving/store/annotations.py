"""Annotations: masks that people have saved, which a model can learn from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sqlite3 import Row
from typing import Any

from volseg.image.volume import Label
from volseg.serving.store.database import Store, new_id
from volseg.serving.store.models import labels_from, labels_text

#: The tag of masks that somebody has approved.
FINAL = "final"


@dataclass(frozen=True)
class Annotation:
    """A mask that somebody has saved.

    Attributes:
        case_id: The case.
        series_uid: Of a study: which series; empty for an uploaded image.
        tag: What it is, in the words of the client; one mask of each tag is kept.
        labels: Of its values.
        user: Who saved it.
        info: What the client told of it.
        created: When, in seconds since 1970.
        id: Its name.
    """

    case_id: str
    series_uid: str
    tag: str
    labels: tuple[Label, ...]
    user: str
    info: Mapping[str, Any] = field(default_factory=dict)
    created: float = field(default_factory=time.time)
    id: str = field(default_factory=new_id)


def annotation_file(store: Store, annotation: Annotation) -> Path:
    """Return the file of an annotation, with the values of its labels."""
    return store.annotation_folder(annotation.case_id) / f"{annotation.id}.nii.gz"


def add_annotation(store: Store, annotation: Annotation, put: Callable[[Path], None]) -> None:
    """Keep a mask, in place of an earlier one of the same tag.

    Args:
        store: The store.
        annotation: What it is.
        put: Writes it to a file.
    """
    path = annotation_file(store, annotation)
    path.parent.mkdir(exist_ok=True)
    put(path)
    with store.transaction():
        earlier = find_annotation(store, annotation.case_id, annotation.series_uid, annotation.tag)
        store.change(
            "INSERT OR REPLACE INTO annotations (id, case_id, series_uid, tag, labels, info, user, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(annotation.id, annotation.case_id, annotation.series_uid, annotation.tag),
            *(labels_text(annotation.labels), json.dumps(annotation.info), annotation.user, annotation.created),
        )
        store.change("UPDATE cases SET changed = ? WHERE id = ?", annotation.created, annotation.case_id)
    if earlier is not None:
        annotation_file(store, earlier).unlink(missing_ok=True)


def find_annotation(store: Store, case_id: str, series_uid: str, tag: str) -> Annotation | None:
    """Return the mask of an image with a tag; None if there is none."""
    row = store.row(
        "SELECT * FROM annotations WHERE case_id = ? AND series_uid = ? AND tag = ?", case_id, series_uid, tag
    )
    return None if row is None else _annotation(row)


def list_annotations(store: Store) -> list[Annotation]:
    """Return all masks that somebody has saved, the oldest first."""
    return [_annotation(row) for row in store.rows("SELECT * FROM annotations ORDER BY created")]


def change_info(store: Store, annotation: Annotation, info: Mapping[str, Any]) -> None:
    """Add to what is told of an annotation."""
    text = json.dumps({**annotation.info, **info})
    store.change("UPDATE annotations SET info = ? WHERE id = ?", text, annotation.id)


def remove_annotation(store: Store, annotation: Annotation) -> None:
    """Remove an annotation."""
    store.change("DELETE FROM annotations WHERE id = ?", annotation.id)  # first, since a row never lacks its file
    annotation_file(store, annotation).unlink(missing_ok=True)


def _annotation(row: Row) -> Annotation:
    names = ("case_id", "series_uid", "tag", "user", "created", "id")
    return Annotation(
        **{name: row[name] for name in names}, labels=labels_from(row["labels"]), info=json.loads(row["info"])
    )
