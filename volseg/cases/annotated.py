"""Which labels were looked for when the reference of a case was drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from volseg.cases.case import Case
from volseg.config import IGNORE
from volseg.errors import ConfigError, DataError
from volseg.image.volume import Label
from volseg.io import MasksSource
from volseg.io.mask_per_label import label_of_file


def annotated_labels(case: Case, labels: Sequence[Label], values: Collection[int]) -> frozenset[str] | None:
    """What was looked for when the reference of a case was drawn, by the names of the labels.

    A label may be called as in any other file: in another letter case, or as `data.segments` says. Masks per structure
    may be of more structures than are wanted.

    Args:
        case: With a reference.
        labels: All that there are.
        values: Of the labels that the reference marks.

    Returns:
        Names; None if all labels were looked for.

    Raises:
        ConfigError: If something was looked for that is no label.
        DataError: If a label is marked that was not looked for.
    """
    if case.annotated is None:
        return None
    known = [label.name for label in labels]
    called = {name: label_of_file(name, labels) for name in case.annotated}
    annotated = frozenset(label.name for label in called.values() if label is not None)
    if isinstance(case.reference, MasksSource):
        return None if annotated == set(known) else annotated
    if strange := sorted(name for name, label in called.items() if label is None):
        listed = ", ".join(known) or "none"
        raise ConfigError(
            f"case {case.case_id}: annotated names {', '.join(strange)}; data.labels lists {listed}",
            hint="correct the manifest, or give the labels their names in data.labels",
        )
    marked = {label.name for label in labels if label.value in values} - {*annotated, IGNORE}
    if marked:
        raise DataError(
            f"the reference marks {', '.join(sorted(marked))}, which it is said not to annotate",
            hint="add it to what is annotated, or correct the reference",
        )
    return annotated


def check_sides(case_id: str, annotated: Collection[str] | None, pairs: Iterable[tuple[str, str]]) -> None:
    """Refuse a reference of one side of a pair that mirroring exchanges.

    Args:
        case_id: For the message.
        annotated: The labels that its reference was drawn for; None if all.
        pairs: Labels that are exchanged.

    Raises:
        ConfigError: Names the pair.
    """
    known = set(annotated or ())
    if halves := [pair for pair in pairs if len(known & {*pair}) == 1]:
        raise ConfigError(
            f"case {case_id}: only one of {' and '.join(halves[0])} is annotated, which mirroring exchanges",
            hint="--set augmentation.swap_labels=[] --set augmentation.flip_axes=[]",
        )
