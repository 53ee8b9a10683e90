"""Label names stated in references and masks themselves, or in files beside them.

Names take precedence: a value means what it is called, whatever the same number means in another file. Where no names
are stated, values mean the same everywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from volseg.cases.case import Case, Dataset, names_a_reference
from volseg.cases.dataset_json import mask_labels, read_dataset_json, reference_labels
from volseg.config import with_ignore
from volseg.errors import DataError
from volseg.image.naming import is_unnamed, matched, plain_name
from volseg.image.terminology import Structure, lookup
from volseg.image.volume import Label
from volseg.io import FileSource, MasksSource, SegmentsSource, Source
from volseg.io.labels import LABELS_FILE, read_labels

#: With fewer references, two labels may exclude each other by chance.
_FEWEST_FOR_SYNONYMS = 3

logger = logging.getLogger(__name__)

DATASET_FILE = "dataset.json"
#: Folders of references whose dataset.json lies beside them.
_REFERENCE_FOLDERS = ("labels", "labelsTr", "labelsTs")


class NamesBeside:
    """Label names stated beside label maps: in their folder, or above it up to a root.

    Args:
        root: The given folder.
        stated_in: Folder -> labels it states; `of_references` or `of_masks`.
    """

    def __init__(self, root: Path, stated_in: Callable[[Path], tuple[Label, ...]]) -> None:
        self._root = root if root.is_dir() else root.parent
        self._stated_in = stated_in
        self._known: dict[Path, tuple[Label, ...]] = {}

    def given(self, source: Source) -> Source:
        """Return a label map with the names beside it; a source that states its own names is unchanged.

        Raises:
            DataError: If the file that should state names is damaged.
        """
        if not isinstance(source, FileSource) or source.labels:
            return source
        return replace(source, labels=self._nearest(source.path.parent))

    def _nearest(self, folder: Path) -> tuple[Label, ...]:
        if folder not in self._known:
            labels = self._stated_in(folder)
            if not labels and folder != self._root and folder.is_relative_to(self._root):
                labels = self._nearest(folder.parent)
            self._known[folder] = labels
        return self._known[folder]


def of_references(folder: Path) -> tuple[Label, ...]:
    """Return the labels stated for the references in a folder, by it or by the data set it belongs to."""
    above = folder.name in _REFERENCE_FOLDERS or names_a_reference(folder.name)
    for place in (folder, folder.parent) if above else (folder,):
        if (place / LABELS_FILE).is_file():
            return read_labels(place / LABELS_FILE)
        if (place / DATASET_FILE).is_file():
            return reference_labels(read_dataset_json(place / DATASET_FILE))
    return ()


def of_masks(folder: Path) -> tuple[Label, ...]:
    """Return the labels that a folder states for its masks: labels.json, or the dataset.json that nnU-Net puts there.

    References of a data set may be evaluated like masks, such as those of a second reader.
    """
    if (folder / LABELS_FILE).is_file():
        return read_labels(folder / LABELS_FILE)
    path = folder / DATASET_FILE
    return mask_labels(read_dataset_json(path)) if path.is_file() else of_references(folder)


@dataclass(frozen=True)
class StatedNames:
    """The combined labels of several files.

    Attributes:
        labels: One per name. Their values are those of the files if these agree, else counted from 1 in the order in
            which names are met.
        agreed: Whether every file that states names also states values, and all of them the same.
        clash: How two files differ; empty if they agree, or state no values.
    """

    labels: tuple[Label, ...]
    agreed: bool
    clash: str = ""


def stated_by(source: Source | None) -> tuple[Label, ...]:
    """Return the names that a source states for its values or segments; empty if it does not."""
    match source:
        case FileSource(labels=labels):
            return labels
        case SegmentsSource(names=names, values=values):
            numbers = values or range(1, len(names) + 1)
            return tuple(Label(number, name) for number, name in zip(numbers, names, strict=True) if name.strip())
        case MasksSource(names=names):
            return tuple(Label(number, name) for number, name in enumerate(names, start=1))
    return ()


def states_values(source: Source | None) -> bool:
    """Return whether the names of a source belong to values, not just to segments or files."""
    match source:
        case SegmentsSource(values=values):
            return bool(values)
        case MasksSource():
            return False
    return True


def united(sources: Iterable[Source | None]) -> StatedNames:
    """Combine the labels of several files; names of one structure that no file has side by side are one label.

    Names of masks per structure come last and sorted: which of them a case has says nothing about their order.
    """
    lists = [(source, stated_by(source)) for source in sources if source is not None]
    keys = _keys({labels for _, labels in lists})
    first: dict[str, Label] = {}
    by_value: dict[int, tuple[str, str, str]] = {}
    apart: set[str] = set()
    has_values, clash = True, ""
    for source, labels in lists:
        if isinstance(source, MasksSource):
            apart.update(source.names)
            continue
        for label in labels:
            key, where = keys[label.name], source.place.name
            known = first.setdefault(key, label)
            if not states_values(source):
                has_values = False
                continue
            other, name, place = by_value.setdefault(label.value, (key, label.name, where))
            if other != key:
                clash = clash or f"{label.value} is {label.name} in {where}, {name} in {place}"
            elif known.value != label.value:
                clash = clash or f"{label.name} is {label.value} in {where}, {known.value} elsewhere"
    for name in sorted(apart):
        first.setdefault(keys[name], Label(1, name))
    labels = tuple(first.values())
    if has_values and not clash and not apart:
        return StatedNames(tuple(sorted(labels, key=lambda label: label.value)), agreed=True)
    numbered = (replace(label, value=number) for number, label in enumerate(labels, start=1))
    return StatedNames(tuple(numbered), agreed=False, clash=clash)


def _keys(lists: Collection[tuple[Label, ...]]) -> dict[str, str]:
    """Return name -> a key shared by equivalent names: its normalised form, or that of another name for the same."""
    plain = [{plain_name(label.name) for label in labels} for labels in lists]
    first: dict[Structure, str] = {}
    keys: dict[str, str] = {}
    for label in (label for labels in lists for label in labels):
        key, structure = plain_name(label.name), lookup(label.name)
        other = first.setdefault(structure, key) if structure else key
        keys[label.name] = key if any({key, other} <= names for names in plain if key != other) else other
    return keys


def with_stated_names(dataset: Dataset, root: Path) -> Dataset:
    """Attach stated label names to the references of a data set, and use them as its labels if it states none.

    Args:
        dataset: As found by its layout.
        root: Its folder.

    Raises:
        DataError: If a file that should state names is damaged.
    """
    names = NamesBeside(root, of_references)
    cases = tuple(
        case if case.reference is None else replace(case, reference=names.given(case.reference))
        for case in dataset.cases
    )
    if dataset.labels:
        return replace(dataset, cases=cases, labels=with_ignore(dataset.labels))
    labels = {label.name: label.value for label in united(case.reference for case in cases).labels}
    return replace(dataset, cases=cases, labels=with_ignore(labels))


def refuse_unclear_values(cases: Sequence[Case]) -> None:
    """Check that no reference lacks names while the others' names show that numbering differs between files.

    Raises:
        DataError: If one does; names a case without names, and how the others differ.
    """
    names = united(case.reference for case in cases)
    if not names.labels or names.agreed:
        return
    # Where nothing is outlined there is nothing to name.
    unnamed = (case for case in cases if not stated_by(case.reference))
    nameless = [case.case_id for case in unnamed if not isinstance(case.reference, SegmentsSource)]
    if nameless:
        why = names.clash or "others name segments that have no values"
        raise DataError(
            f"the meaning of the values in {len(nameless)} references is not stated, such as {nameless[0]}: {why}",
            hint=f'write {LABELS_FILE} beside them: [{{"value": 1, "name": "liver"}}], or state data.labels',
        )


def tell_of_names(cases: Sequence[Case], labels: Mapping[str, int]) -> None:
    """Log which references number their labels differently, to be matched by name, and names that may be synonyms."""
    _tell_of_likely_synonyms(cases, labels)
    wanted = tuple(Label(value, name) for name, value in labels.items())
    lists = {stated_by(case.reference) for case in cases}
    other = {stated for stated in lists if _differ(stated, wanted)}
    odd = [case for case in cases if states_values(case.reference) and stated_by(case.reference) in other]
    if not odd:
        return
    stated = ", ".join(f"{label.name} is {label.value}" for label in stated_by(odd[0].reference)[:4])
    logger.warning(
        "%d references number their labels differently: labels are matched by the names in the files (%s: %s)",
        len(odd),
        odd[0].case_id,
        stated,
    )


def _tell_of_likely_synonyms(cases: Sequence[Case], labels: Iterable[str]) -> None:
    """Log two labels of which every case has exactly one: they may be two names of one structure."""
    marked = {
        case.case_id: {plain_name(label.name) for label in stated_by(case.reference)}
        for case in cases
        if isinstance(case.reference, SegmentsSource | MasksSource)
    }
    if len(marked) < _FEWEST_FOR_SYNONYMS:
        return
    holders = {name: {case_id for case_id, names in marked.items() if plain_name(name) in names} for name in labels}
    for one, other in combinations(sorted(holders, key=lambda name: -len(holders[name])), 2):
        if holders[other] and not holders[one] & holders[other] and holders[one] | holders[other] == set(marked):
            logger.warning(
                "%d of %d cases, such as %s, have %s instead of %s; if these are one structure, set "
                "data.segments={%s: [%s]}",
                *(len(holders[other]), len(marked), min(holders[other]), other, one, one, other),
            )


def _differ(stated: Sequence[Label], wanted: Sequence[Label]) -> bool:
    """Return whether a name has another value than its label."""
    try:
        found = matched(stated, wanted)
    except DataError:  # reading the case reports the error
        return False
    return any(found[label.value].value != label.value for label in stated if label.value in found)


def is_named(labels: Iterable[Label]) -> bool:
    """Return whether any of them has a name."""
    return any(not is_unnamed(label) for label in labels)
