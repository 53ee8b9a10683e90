"""What the models that are served draw, for processes that have not loaded them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from volseg.image.volume import Label
from volseg.serving.store.database import Store


def note_model(store: Store, name: str, labels: Sequence[Label]) -> None:
    """Note what a model draws, once it is loaded."""
    store.change("INSERT OR REPLACE INTO models (name, labels) VALUES (?, ?)", name, labels_text(labels))


def labels_of_model(store: Store, name: str) -> tuple[Label, ...]:
    """Return the labels of a model; none if it has not been loaded yet."""
    row = store.row("SELECT labels FROM models WHERE name = ?", name)
    return () if row is None else labels_from(row["labels"])


def labels_text(labels: Sequence[Label]) -> str:
    """Return values and names of labels as JSON, as rows keep them."""
    return json.dumps([{"value": label.value, "name": label.name} for label in labels])


def labels_from(text: str) -> tuple[Label, ...]:
    """Return what `labels_text` made a text of."""
    return tuple(Label(each["value"], each["name"]) for each in json.loads(text))
