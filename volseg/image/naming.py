"""Names of labels: when two of them mean the same structure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from volseg.errors import DataError
from volseg.image.short_names import LONGEST_NAME, cut_name, marked_name, short_name
from volseg.image.terminology import Structure, lookup
from volseg.image.volume import LARGEST_LABEL, Label

#: What people call the voxels of no structure, beside names with "background" in them.
_NOTHING = frozenset(
    {"", "b", "bg", "bkg", "clear label", "empty", "exterior", "none", "nothing", "null", "outside", "unknown", "void"}
    | {"no label", "other", "others", "rest", "unassigned", "unlabeled", "unlabelled"}
)


@cache
def plain_name(name: str) -> str:
    """A name as it is compared: case does not matter, underscores are blanks, letters are composed."""
    return " ".join(unicodedata.normalize("NFKC", name).replace("_", " ").casefold().split())


def is_unnamed(label: Label) -> bool:
    """Whether a label has the name that volseg gives to a value nobody named: "label_3" for 3."""
    return label.name == f"label_{label.value}"


def shown_value(value: int, labels: Sequence[Label]) -> str:
    """A value of a mask as people know it: by its name, or the number it had in a file that names others but not it."""
    name = next((label.name for label in labels if label.value == value), "")
    number = name.removeprefix("label_")
    return f"{number} (unnamed)" if number.isdecimal() else name or str(value)


def short_names(labels: Sequence[Label], longest: int = LONGEST_NAME) -> dict[int, str]:
    """Label value -> short name; where two would be called alike, both are marked."""
    names = {label.value: short_name(label.name, longest) for label in labels}
    plain = [plain_name(name) for name in names.values()]
    return {
        label.value: names[label.value]
        if plain.count(plain_name(names[label.value])) == 1
        else marked_name(label.name, longest)
        for label in labels
    }


def label_called(name: str, labels: Sequence[Label]) -> Label | None:
    """The label that has a name, in full or shortened, or has it for an alias; to the letter before in other case.

    A name that was cut off is that of the only label that begins so.
    """
    exact = (label for label in labels if name in _spellings(label))
    plain = plain_name(name)
    alike = (label for label in labels if plain in {plain_name(spelling) for spelling in _spellings(label)})
    other = (label for label in labels if plain in {plain_name(alias) for alias in label.aliases})
    cut = [label for label in labels if name == cut_name(label.name)]
    return next(exact, None) or next(alike, None) or next(other, None) or (cut[0] if len(cut) == 1 else None)


def matched(stated: Sequence[Label], wanted: Sequence[Label]) -> dict[int, Label]:
    """Which labels of one list are which of another.

    A label is the one of its name or alias, else the one of the structure that its name stands for, if nothing else
    has a claim to that, else, where one of the two has no name, the one of its value.

    Args:
        stated: Labels of one value each.
        wanted: The other list.

    Returns:
        Value in `stated` -> label of `wanted`, for those that have one.

    Raises:
        DataError: If two values are stated under one name.
    """
    refuse_one_name_twice(stated)
    found = {label.value: partner for label in stated if (partner := _of_name(label, wanted))}
    taken = {label.value for label in found.values()}
    for label in stated:
        partner = None
        if label.value not in found:
            partner = _of_structure(label, stated, wanted, taken) or _of_value(label, wanted, taken)
        if partner:
            found[label.value] = partner
    return found


def values_by_name(stated: Sequence[Label], wanted: Sequence[Label], values: Sequence[int]) -> dict[int, int]:
    """What the values of a mask become, so that they mean what they are called.

    Args:
        stated: What the values mean in the mask.
        wanted: What they are to mean.
        values: Those that the mask holds, besides 0.

    Returns:
        Value -> new value, of each of `values`. One that is none of the wanted labels keeps its value where no label
        has it, else gets one that no label has.

    Raises:
        DataError: If two values are stated under one name, or too many values are none of the labels.
    """
    found = matched(stated, wanted)
    new = {value: found[value].value for value in values if value in found}
    called = {label.value for label in stated}
    used = {label.value for label in wanted} | set(new.values())
    for value in values:
        if value in new:
            continue
        nameless = next((label for label in wanted if label.value == value and is_unnamed(label)), None)
        if nameless is not None and value not in called:
            new[value] = value
            continue
        new[value] = value if value not in used else _free(used)
        used.add(new[value])
    return new


def refuse_one_name_twice(labels: Sequence[Label]) -> None:
    """Refuse a list in which two values have one name.

    Raises:
        DataError: Names both.
    """
    seen: dict[str, Label] = {}
    for label in labels:
        other = seen.setdefault(plain_name(label.name), label)
        if other.value != label.value:
            raise DataError(
                f"the values {other.value} and {label.value} have one name, {label.name!r}",
                hint="give each value a name of its own",
            )


def refuse_misplaced_background(name: str, value: int, where: str) -> None:
    """Refuse a structure under 0, where it would be lost, and the background under another value, as a structure.

    Args:
        name: What a value is called.
        value: It.
        where: What says so.

    Raises:
        DataError: Names both.
    """
    plain = plain_name(name)
    if value == 0 and plain not in _NOTHING and "background" not in plain:
        raise DataError(
            f"{where}: the value 0 is background, and {name!r} would be lost under it",
            hint="number structures from 1, in the label maps, too; or call 0 background, if it is meant",
        )
    if value != 0 and plain in {"background", "bg"}:
        raise DataError(
            f"{where}: {name!r} has the value {value}, and background is 0",
            hint="give background the value 0, in the label maps, too; or take it out of the list",
        )


def _spellings(label: Label) -> tuple[str, str, str]:
    """A name in full, as it is written where there is little room, and where another would be written alike."""
    return label.name, short_name(label.name), marked_name(label.name)


def _of_name(label: Label, wanted: Sequence[Label]) -> Label | None:
    """The label of the same name, whichever of the two has it for an alias."""
    if is_unnamed(label):
        return None
    names = (label.name, *label.aliases)
    return next((partner for name in names if (partner := label_called(name, wanted))), None)


def _of_structure(label: Label, stated: Sequence[Label], wanted: Sequence[Label], taken: set[int]) -> Label | None:
    """The one label that marks the same structure, where nothing else of either list does."""
    structure = _structure(label.name)
    if structure is None or sum(_structure(other.name) == structure for other in stated) > 1:
        return None
    fitting = [other for other in wanted if _structure(other.name) == structure]
    return fitting[0] if len(fitting) == 1 and fitting[0].value not in taken else None


@cache
def _structure(name: str) -> Structure | None:
    """Looked up once: lists are compared for every case."""
    return lookup(name)


def _of_value(label: Label, wanted: Sequence[Label], taken: set[int]) -> Label | None:
    """The label of the same value, where one of the two has no name."""
    same = next((other for other in wanted if other.value == label.value and other.value not in taken), None)
    return same if same is not None and (is_unnamed(label) or is_unnamed(same)) else None


def _free(used: set[int]) -> int:
    """A value that is not used, the largest there is."""
    free = next((value for value in range(LARGEST_LABEL, 0, -1) if value not in used), None)
    if free is None:
        raise DataError(f"there are more than {LARGEST_LABEL} labels")
    return free
