"""Labels to score: those of masks and references, matched by name if both state names, else by value."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import fastremap

from volseg.cases.content import MOST_LABELS
from volseg.cases.stated_names import NamesBeside, StatedNames, is_named, of_masks, stated_by, united
from volseg.config import IGNORE
from volseg.errors import DataError, WorkerLostError
from volseg.evaluation.evaluate import CasePair
from volseg.image.naming import is_unnamed, label_called, matched, plain_name, refuse_one_name_twice
from volseg.image.volume import Label
from volseg.io import FileSource, MasksSource, SegmentsSource, Source, read_mask
from volseg.io.labels import LABELS_FILE, read_labels
from volseg.parallel import side_by_side

_LIST = '`volseg predict` writes it, for example [{"value": 1, "name": "liver"}]'
_SAY_NAMES = f"give them the same names, in a {LABELS_FILE} in the folder of the masks or of the references"


@dataclass(frozen=True)
class ScoredLabels:
    """The labels to score, and the pairs with the names of their values.

    Attributes:
        labels: The labels of the predictions first, in the order of their probabilities; their values are those of the
            references, if these state any.
        pairs: The cases, with the names of the values in each source.
        lacking: Number of labels at the end that only the references have.
        ignored: Value of reference voxels that are not annotated; None if there is none.
        remarks: Remarks on how labels were matched.
    """

    labels: tuple[Label, ...]
    pairs: tuple[CasePair, ...]
    lacking: int = 0
    ignored: int | None = None
    remarks: tuple[str, ...] = ()


def scored_labels(
    predictions: Path,
    pairs: Sequence[CasePair],
    *,
    calibrated: bool = False,
    ignored: int | None = None,
    executor: Executor | None = None,
) -> ScoredLabels:
    """Choose the labels to score: those that masks and references name, else every value that occurs.

    Args:
        predictions: The folder of masks.
        pairs: Its cases.
        calibrated: Whether there are probabilities, whose order only labels.json states.
        ignored: A reference value that is not a label.
        executor: Reads masks, if their values are not stated; by default threads of this process.

    Raises:
        DataError: If a list of labels is damaged or missing although it is needed, masks and references have no label
            name in common, or no file has any label.
    """
    beside = NamesBeside(predictions, of_masks)
    pairs = [
        pair if pair.prediction is None else replace(pair, prediction=beside.given(pair.prediction)) for pair in pairs
    ]
    made, wanted = _of_predictions(predictions, pairs), united(pair.reference for pair in pairs)
    if calibrated and not made.labels:
        raise DataError(f"{predictions} has no {LABELS_FILE}: the order of the probabilities is unknown", hint=_LIST)
    if not made.labels and not wanted.labels:
        return ScoredLabels(_found_values(pairs, ignored, executor), tuple(pairs), ignored=ignored)
    for labels in (made.labels, wanted.labels):
        refuse_one_name_twice(labels)
    if any(label.parts for label in made.labels):
        return _regions(made, wanted, pairs, ignored)
    ignored = _ignored_value(wanted, ignored)
    wanted = replace(wanted, labels=tuple(label for label in wanted.labels if _is_scored(label, wanted, ignored)))
    _check_values_known(predictions, made, wanted)
    merged = _merged(made, wanted, _labels_of_maps(pairs), ignored)
    return replace(merged, pairs=tuple(pairs), ignored=ignored)


def _of_predictions(predictions: Path, pairs: Sequence[CasePair]) -> StatedNames:
    """Return the label names of the masks: a list in their folder states more than the files themselves."""
    listed = read_labels(predictions / LABELS_FILE) if (predictions / LABELS_FILE).is_file() else ()
    return StatedNames(listed, agreed=True) if listed else united(pair.prediction for pair in pairs)


def _check_values_known(predictions: Path, made: StatedNames, wanted: StatedNames) -> None:
    """Refuse to match values with names if one side has no names and the other does not state its values."""
    for named, other, side in ((made, wanted, "references"), (wanted, made, "masks")):
        if named.agreed or not named.labels or is_named(other.labels):
            continue
        if named.clash:
            raise DataError(
                f"the meaning of the values of the {side} is unknown: {named.clash}",
                hint=f"write a {LABELS_FILE} in the folder of the {side}; {_LIST}",
            )
        raise DataError(
            f"{predictions} has no {LABELS_FILE}: it is unknown which DICOM structure each value of a mask stands for",
            hint=_LIST,
        )


def _labels_of_maps(pairs: Sequence[CasePair]) -> set[str]:
    """Return the label names of label maps only: DICOM objects and masks per structure may mark anything."""
    references = [pair.reference for pair in pairs]
    own: list[Source] = [one for one in references if isinstance(one, FileSource)]
    own += [one for one in references if isinstance(one, SegmentsSource) and one.has_grid]
    return {plain_name(label.name) for source in own for label in stated_by(source)}


def _merged(made: StatedNames, wanted: StatedNames, of_maps: Collection[str], ignored: int | None) -> ScoredLabels:
    """Merge the labels of both sides."""
    comparable = [label for label in made.labels if wanted.agreed or not is_unnamed(label)]
    found = matched(comparable, wanted.labels)
    if wanted.labels and not found and is_named(made.labels) and is_named(wanted.labels):
        raise DataError(
            f"masks and references have no label in common: the masks have {_listed(made)}, the references "
            f"{_listed(wanted)}",
            hint=_SAY_NAMES,
        )
    used = {label.value for label in wanted.labels if wanted.agreed} | ({ignored} if ignored else set())
    used |= {found[label.value].value if wanted.agreed else label.value for label in comparable if label.value in found}
    labels: list[Label] = []
    for label in made.labels:
        partner = found.get(label.value)
        value = partner.value if partner and wanted.agreed else label.value
        if not partner and value in used:
            value = _free(used)
        used.add(value)
        labels.append(_joined(label, partner, value))
    partners = {partner.value for partner in found.values()}
    others = [
        label
        for label in wanted.labels
        if label.value not in partners and (is_unnamed(label) or not label_called(label.name, made.labels))
    ]
    lacking = [label for label in others if not made.labels or plain_name(label.name) in of_maps]
    for label in lacking:
        value = label.value if wanted.agreed else _free(used)
        used.add(value)
        labels.append(replace(label, value=value, parts=()))
    remarks = _remarks(made, wanted, found, [label.name for label in lacking])
    if beside := [label.name for label in others if label not in lacking]:
        remarks = (*remarks, f"the masks have no label {_some(beside)}, so it is not scored")
    return ScoredLabels(tuple(labels), (), len(lacking), remarks=remarks)


def _joined(label: Label, partner: Label | None, value: int) -> Label:
    """Return a label of the masks that is also recognised by its name in the references."""
    if partner is None:
        return replace(label, value=value)
    name = partner.name if is_unnamed(label) else label.name
    return replace(label, value=value, name=name, aliases=tuple(dict.fromkeys([*label.aliases, partner.name])))


def _remarks(
    made: StatedNames, wanted: StatedNames, found: dict[int, Label], lacking: Sequence[str]
) -> tuple[str, ...]:
    if not made.labels or not wanted.labels:
        return ()
    remarks = []
    moved = [label for label in made.labels if label.value in found and found[label.value].value != label.value]
    if moved and made.agreed and wanted.agreed:
        shown = (
            f"{label.name} is {label.value} in the masks, {found[label.value].value} in the references"
            for label in moved
        )
        remarks.append(f"labels are matched by their names: {_some(shown)}")
    alone = [label.name for label in made.labels if label.value not in found]
    if alone:
        remarks.append(f"the references have no label {_some(alone)}: voxels with it count as false alarms")
    if lacking:
        remarks.append(f"the masks have no label {_some(lacking)}: it counts as missed")
    return tuple(remarks)


def _regions(made: StatedNames, wanted: StatedNames, pairs: Sequence[CasePair], ignored: int | None) -> ScoredLabels:
    """Return the regions, with the reference values that the references or else the masks state for them.

    Raises:
        DataError: If the references state other values, but not for all regions.
    """
    named = [label for label in wanted.labels if wanted.agreed and not is_unnamed(label)]
    theirs = {region: label_called(region.name, named) for region in made.labels}
    labels = tuple(
        region if label is None else replace(region, parts=label.parts or (label.value,))
        for region, label in theirs.items()
    )
    moved = [new for old, new in zip(made.labels, labels, strict=True) if set(old.parts) != set(new.parts)]
    unclear = [region.name for region, label in theirs.items() if label is None]
    if moved and unclear:
        raise DataError(
            f"in the references, region {moved[0].name} consists of values {_values(moved[0])}, unlike in the masks, "
            f"and the values of region {unclear[0]} are unknown",
            hint="state all regions in the dataset.json of the references",
        )
    remarks = [f"region {new.name} consists of values {_values(new)}, as the references state" for new in moved]
    plain = (replace(pair, reference=_by_value(pair.reference)) for pair in pairs)
    return ScoredLabels(labels, tuple(plain), ignored=_ignored_value(wanted, ignored), remarks=tuple(remarks))


def _values(region: Label) -> str:
    return ", ".join(map(str, region.parts))


def _by_value(source: Source) -> Source:
    """Return a reference without the names of its values, if it has values."""
    match source:
        case FileSource():
            return replace(source, labels=())
        case SegmentsSource(values=values) if values:
            return FileSource(source.path)
    return source


def _ignored_value(wanted: StatedNames, ignored: int | None) -> int | None:
    """Return the given value to ignore, else the value that the references name `ignore`."""
    stated = [label.value for label in wanted.labels if plain_name(label.name) == IGNORE and wanted.agreed]
    return stated[0] if ignored is None and stated else ignored


def _is_scored(label: Label, wanted: StatedNames, ignored: int | None) -> bool:
    """Return whether a reference label is scored; regions are not, as their labels are listed themselves."""
    is_ignored = plain_name(label.name) == IGNORE or (wanted.agreed and label.value == ignored)
    return not is_ignored and not label.parts


def _found_values(pairs: Sequence[CasePair], ignored: int | None, executor: Executor | None) -> tuple[Label, ...]:
    """Return a label for every value of masks and references."""
    sources = [source for pair in pairs for source in (pair.reference, pair.prediction) if source is not None]
    own = [source for source in sources if not isinstance(source, SegmentsSource | MasksSource)]
    values: set[int] = set()
    faults: list[DataError] = []
    for source, found in zip(own, side_by_side(_values_in, own, executor, _lost), strict=True):
        if isinstance(found, DataError):
            faults.append(found)
        else:
            values |= found
        if len(values) > MOST_LABELS:
            raise DataError(
                f"{source} holds an image, not labels: it has more than {MOST_LABELS} values",
                hint="give the folder of its label maps",
            )
    values -= {0, ignored}
    if not values:
        why, hint = (f"; the first: {faults[0]}", faults[0].hint) if faults else ("", "")
        raise DataError(
            f"all masks and references are empty or unreadable, so there is nothing to score{why}", hint=hint
        )
    return tuple(Label(value, f"label_{value}") for value in sorted(values))


def _lost(source: Source, error: WorkerLostError) -> DataError:
    return DataError(f"{source}: {error}", hint=error.hint)


def _values_in(source: Source) -> set[int] | DataError:
    """Return the values of a mask, or the error if it cannot be read."""
    try:
        return set(fastremap.unique(read_mask(source).array).tolist())
    except DataError as error:
        return error


def _free(used: set[int]) -> int:
    return next(value for value in range(1, len(used) + 2) if value not in used)


def _listed(names: StatedNames) -> str:
    return _some(f"{label.name} ({label.value})" if names.agreed else label.name for label in names.labels)


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (" ..." if len(listed) > 5 else "")
