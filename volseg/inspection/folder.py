"""Inspecting a folder: list everything in it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, overload

from volseg.cases import is_dataset, is_list
from volseg.cases.case import names_a_reference, stem
from volseg.cases.series import choose_series, studies_of
from volseg.config import DataConfig, DicomRules, PartialConfig
from volseg.inspection.items import InspectedItem, look_at, lost, not_a_volume, own_results
from volseg.inspection.readiness import CaseReadiness, Readiness, prediction_readiness, training_readiness
from volseg.io import (
    Discovery,
    FileSource,
    MasksSource,
    ObjectsSource,
    SegmentsSource,
    SeriesSource,
    SetAside,
    Source,
    discover,
    stands_for,
)
from volseg.io.files import without_root
from volseg.io.own_results import without_results
from volseg.io.readable import check_there
from volseg.parallel import side_by_side
from volseg.progress import Progress, ignore_progress

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Inspection(Sequence[InspectedItem]):
    """The contents of a folder.

    Attributes:
        items: One per volume and per other item, in path order.
        readiness: How training, or prediction with a model, would use them; None if there is nothing to learn from and
            no model was named.
    """

    items: tuple[InspectedItem, ...]
    readiness: Readiness | None = None

    @overload
    def __getitem__(self, index: int) -> InspectedItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[InspectedItem]: ...
    def __getitem__(self, index: int | slice) -> InspectedItem | Sequence[InspectedItem]:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"<Inspection: {', '.join(f'{count} {status}' for status, count in sorted(self.counts.items()))}>"

    @property
    def table(self) -> pd.DataFrame:
        """The items as a table, a row per item."""
        import pandas as pd

        return pd.DataFrame([asdict(item) for item in self.items])

    @property
    def counts(self) -> dict[str, int]:
        """Count the items of each status."""
        return dict(Counter(item.status for item in self.items))


def inspect_folder(
    path: Path,
    given: PartialConfig,
    model: DataConfig | None = None,
    progress: Progress = ignore_progress,
    executor: Executor | None = None,
) -> Inspection:
    """Inspect everything below a path.

    Args:
        path: A folder, a file, or a manifest.
        given: DICOM reading options, and labels if already decided.
        model: Data of the model whose prediction is checked; otherwise training is checked, if there are references.
        progress: Called per volume and per case.
        executor: Reads volumes and cases; by default threads of this process.

    Returns:
        The items, each with its role in a case if it has one.

    Raises:
        DataError: If the path does not exist.
    """
    check_there(path)
    path, rules = stands_for(path), model or given.data
    listed = is_list(path)
    found = Discovery((), ()) if listed else without_results(discover(path, progress, rules=rules), path)
    readiness: Readiness | None
    if model is not None:
        readiness = prediction_readiness(path, model, progress, executor)
    else:
        readiness = training_readiness(path, given, progress, executor)
        if not (listed or readiness.dataset or _holds_references(found, path, rules)):
            readiness = None  # it is not meant for training
    if listed and readiness:
        path, found = path.parent, _files_of(readiness)
    channels = model.channels if model else tuple(rules.series) or ("image",)
    return Inspection(_items(found, path, channels, rules, readiness, progress, executor), readiness)


def _holds_references(found: Discovery, root: Path, rules: DicomRules) -> bool:
    """Return whether there are references, used or not: by file or folder name, or as objects that mark structures."""
    if found.segments or is_dataset(root, rules):
        return True
    parts = (source.place.relative_to(root).parts for source in found.sources if source.place.is_relative_to(root))
    return any(names_a_reference(stem(Path(part))) for names in parts for part in names)


def _files_of(readiness: Readiness) -> Discovery:
    """Return the files that a list names."""
    if readiness.dataset is None:
        return Discovery((), ())
    cases = readiness.dataset.cases
    parts = [part for case in cases for part in (*case.images.values(), *_one_by_one(case.reference))]
    sources = dict.fromkeys(part for part in parts if not isinstance(part, SegmentsSource))
    segments = dict.fromkeys(part for part in parts if isinstance(part, SegmentsSource))
    return Discovery(tuple(sources), (), segments=tuple(segments))


def _one_by_one(reference: Source | None) -> tuple[Source, ...]:
    """Split a reference into its sources."""
    if isinstance(reference, MasksSource | ObjectsSource):
        return reference.each
    return (reference,) if reference else ()


def _items(
    found: Discovery,
    root: Path,
    channels: Sequence[str],
    rules: DicomRules,
    readiness: Readiness | None,
    progress: Progress,
    executor: Executor | None,
) -> tuple[InspectedItem, ...]:
    series = [source for source in found.sources if isinstance(source, SeriesSource)]
    choices = [choose_series(study, channels, rules) for study in studies_of(series)]
    taken = {source: why for choice in choices for source, why in choice.reasons.items()}
    roles = _Roles(readiness, root)
    items = [not_a_volume(item, root) for item in found.set_aside] + own_results(found.results, root)
    sources: list[Source] = [*found.sources, *found.segments]
    looks = side_by_side(partial(look_at, root=root), map(roles.volume_of, sources), executor, partial(lost, root=root))
    for done, (source, look) in enumerate(zip(sources, looks, strict=True), start=1):
        item = replace(look, taken=taken[source]) if isinstance(source, SeriesSource) else look
        items.append(roles.placed(item, source))
        progress("inspect", done, len(sources))
    items += [not_a_volume(item, root) for item in roles.not_shown(found)]
    return tuple(sorted(items, key=lambda item: item.path))


class _Roles:
    """The case that each source belongs to, and its role there."""

    def __init__(self, readiness: Readiness | None, root: Path) -> None:
        self._root = root
        self._parts: dict[object, tuple[CaseReadiness, list[str]]] = {}
        for one in readiness.cases if readiness else ():
            for channel, source in one.case.images.items():
                self._add(one, channel, source)
            for source in _one_by_one(one.case.reference):
                self._add(one, "reference", source)
        self._set_aside = readiness.dataset.set_aside if readiness and readiness.dataset else ()
        self._reasons: defaultdict[Path, list[str]] = defaultdict(list)
        for item in self._set_aside:
            self._reasons[item.path].append(item.reason)

    def _add(self, one: CaseReadiness, role: str, source: Source) -> None:
        for key in (source.path,) if isinstance(source, FileSource) else (source,):
            self._parts.setdefault(key, (one, []))[1].append(role)

    def _of(self, source: Source) -> tuple[CaseReadiness | None, list[str]]:
        key = source.path if isinstance(source, FileSource) else source
        return self._parts.get(key, (None, []))

    def volume_of(self, source: Source) -> Source:
        """Return the source to inspect: the first channel of a file with several, and an object with its series."""
        one, _ = self._of(source)
        if (
            one
            and isinstance(source, SegmentsSource)
            and not source.series
            and isinstance(one.case.image, SeriesSource)
        ):
            return replace(source, series=one.case.image)
        frames = [part for part in one.case.images.values() if part.files == source.files] if one else []
        return frames[0] if frames else source

    def placed(self, item: InspectedItem, source: Source) -> InspectedItem:
        """Return the item with its case filled in."""
        one, roles = self._of(source)
        if one is None:
            reasons = "; ".join(dict.fromkeys(self._reasons[source.place]))
            return replace(item, refusal=without_root(reasons, self._root))
        return replace(item, case_id=one.case.case_id, role=", ".join(dict.fromkeys(roles)), refusal=one.refusal)

    def not_shown(self, found: Discovery) -> list[SetAside]:
        """Return what is set aside without being an item yet, such as a list entry that names nothing."""
        shown = {item.path for item in found.set_aside}
        shown |= {source.place for source in (*found.sources, *found.segments) if self._of(source)[0] is None}
        return [item for item in self._set_aside if item.path not in shown]
