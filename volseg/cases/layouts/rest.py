"""Everything a layout does not use, so that nothing is dropped without a reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from volseg.cases.case import Dataset
from volseg.cases.source_names import set_aside
from volseg.io import SetAside, discover
from volseg.io.written import is_result


def with_the_rest(dataset: Dataset, root: Path, reason: str, looked_at: Collection[Path] = ()) -> Dataset:
    """Set aside everything else in the folder of a data set; results of volseg are never input.

    Args:
        dataset: As found by its layout.
        root: Its folder.
        reason: Why the layout does not use what is neither in a case nor set aside.
        looked_at: Folders whose files are all in a case or set aside.
    """
    known = {item.path for item in dataset.set_aside}
    for case in dataset.cases:
        for source in (*case.images.values(), *([case.reference] if case.reference else [])):
            known |= {source.place, *source.files}
    entries = [entry for entry in sorted(root.iterdir()) if not entry.name.startswith(".") and entry not in looked_at]
    found = {item.path: item for entry in entries for item in _not_used(entry, reason)}
    rest = [item for path, item in found.items() if path not in known and not is_result(path)]
    return replace(dataset, set_aside=(*dataset.set_aside, *rest))


def _not_used(entry: Path, reason: str) -> Iterator[SetAside]:
    found = discover(entry)
    yield from found.set_aside
    yield from (set_aside(source, reason) for source in (*found.sources, *found.segments))
