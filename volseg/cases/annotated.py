"""Partial annotation: the labels for which the reference of a case was drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from volseg.cases.case import Case
from volseg.config import IGNORE
from volseg.errors import ConfigError, DataError
from volseg.image.volume import Label
from volseg.io import MasksSource
from volseg.io.mask_per_label import label_of_file


def annotated_labels(case: Case, labels: Sequence[Label], values: Collection[int]) -> frozenset[str] | None:
    """Return the labels for which the reference of a case was annotated, by name.

    Labels may be spelled as in any other file: in another letter case, or as in `data.segments`. Masks per structure
    may include structures that are not labels.

    Args:
        case: With a reference.
        labels: All labels.
        values: Values of the labels that the reference marks.

    Returns:
        Names; None if all labels were annotated.

    Raises:
        ConfigError: If `case.annotated` names something that is not a label.
        DataError: If the reference marks a label that is not among the annotated ones.
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
            f"the reference marks {', '.join(sorted(marked))}, which is not among its annotated labels",
            hint="add it to the annotated labels, or correct the reference",
        )
    return annotated


def check_sides(case_id: str, annotated: Collection[str] | None, pairs: Iterable[tuple[str, str]]) -> None:
    """Check that a reference is not annotated for only one side of a pair that mirroring swaps.

    Args:
        case_id: For the message.
        annotated: Annotated labels; None if all.
        pairs: Labels that are swapped.

    Raises:
        ConfigError: If it is; names the pair.
    """
    known = set(annotated or ())
    if halves := [pair for pair in pairs if len(known & {*pair}) == 1]:
        raise ConfigError(
            f"case {case_id}: only one of {' and '.join(halves[0])} is annotated, but mirroring swaps them",
            hint="--set augmentation.swap_labels=[] --set augmentation.flip_axes=[]",
        )
