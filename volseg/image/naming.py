"""Label names: matching two names of the same structure."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache

from volseg.errors import DataError
from volseg.image.short_names import LONGEST_NAME, cut_name, marked_name, short_name
from volseg.image.terminology import Structure, lookup
from volseg.image.volume import LARGEST_LABEL, Label

#: Names for voxels without a structure, besides names that contain "background".
_NOTHING = frozenset(
    {"", "b", "bg", "bkg", "clear label", "empty", "exterior", "none", "nothing", "null", "outside", "unknown", "void"}
    | {"no label", "other", "others", "rest", "unassigned", "unlabeled", "unlabelled"}
)


@cache
def plain_name(name: str) -> str:
    """Normalise a name for comparison: case-insensitive, underscores as blanks, Unicode composed."""
    return " ".join(unicodedata.normalize("NFKC", name).replace("_", " ").casefold().split())


def is_unnamed(label: Label) -> bool:
    """Return whether a label has the default name of a value without a name: "label_3" for 3."""
    return label.name == f"label_{label.value}"


def shown_value(value: int, labels: Sequence[Label]) -> str:
    """Return the display name of a value: its name, or the original number where a file names other values only."""
    name = next((label.name for label in labels if label.value == value), "")
    number = name.removeprefix("label_")
    return f"{number} (unnamed)" if number.isdecimal() else name or str(value)


def short_names(labels: Sequence[Label], longest: int = LONGEST_NAME) -> dict[int, str]:
    """Return label value -> short name; names that would be equal after shortening are marked."""
    names = {label.value: short_name(label.name, longest) for label in labels}
    plain = [plain_name(name) for name in names.values()]
    return {
        label.value: names[label.value]
        if plain.count(plain_name(names[label.value])) == 1
        else marked_name(label.name, longest)
        for label in labels
    }


def label_called(name: str, labels: Sequence[Label]) -> Label | None:
    """Find the label with a name, in full, shortened or as an alias; exact spelling takes precedence over other case.

    A truncated name is that of the only label that begins with it.
    """
    exact = (label for label in labels if name in _spellings(label))
    plain = plain_name(name)
    alike = (label for label in labels if plain in {plain_name(spelling) for spelling in _spellings(label)})
    other = (label for label in labels if plain in {plain_name(alias) for alias in label.aliases})
    cut = [label for label in labels if name == cut_name(label.name)]
    return next(exact, None) or next(alike, None) or next(other, None) or (cut[0] if len(cut) == 1 else None)


def matched(stated: Sequence[Label], wanted: Sequence[Label]) -> dict[int, Label]:
    """Match the labels of one list with those of another.

    A label matches by name or alias; else by the structure that its name stands for, if that is unambiguous; else, if
    one of the two has no name, by value.

    Args:
        stated: Labels with one value each.
        wanted: The other list.

    Returns:
        Value in `stated` -> label of `wanted`, for those that match.

    Raises:
        DataError: If two values have the same name.
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
    """Map the values of a mask so that they mean what they are called.

    Args:
        stated: The labels of the values in the mask.
        wanted: The labels they are mapped to.
        values: The values present in the mask, besides 0.

    Returns:
        Value -> new value, for each of `values`. A value that matches no wanted label keeps its value if no label uses
        it, else gets one that no label uses.

    Raises:
        DataError: If two values have the same name, or too many values match no label.
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
    """Check that no two values have the same name.

    Raises:
        DataError: If two do; names both.
    """
    seen: dict[str, Label] = {}
    for label in labels:
        other = seen.setdefault(plain_name(label.name), label)
        if other.value != label.value:
            raise DataError(
                f"the values {other.value} and {label.value} have the same name, {label.name!r}",
                hint="give each value its own name",
            )


def refuse_misplaced_background(name: str, value: int, where: str) -> None:
    """Check that 0 is not a structure, which would be lost, and that the background is not another value.

    Args:
        name: Name of a value.
        value: The value.
        where: What states it.

    Raises:
        DataError: If either holds; names both.
    """
    plain = plain_name(name)
    if value == 0 and plain not in _NOTHING and "background" not in plain:
        raise DataError(
            f"{where}: the value 0 is background, so {name!r} would be lost",
            hint="number structures from 1, also in the label maps; or name 0 background, if that is meant",
        )
    if value != 0 and plain in {"background", "bg"}:
        raise DataError(
            f"{where}: {name!r} has the value {value}, but background is 0",
            hint="give background the value 0, also in the label maps; or remove it from the list",
        )


def _spellings(label: Label) -> tuple[str, str, str]:
    """Return a name in full, shortened, and shortened with a mark, as used where two would be equal."""
    return label.name, short_name(label.name), marked_name(label.name)


def _of_name(label: Label, wanted: Sequence[Label]) -> Label | None:
    """Find the label of the same name, which may be an alias in either list."""
    if is_unnamed(label):
        return None
    names = (label.name, *label.aliases)
    return next((partner for name in names if (partner := label_called(name, wanted))), None)


def _of_structure(label: Label, stated: Sequence[Label], wanted: Sequence[Label], taken: set[int]) -> Label | None:
    """Find the only label that marks the same structure, if nothing else in either list does."""
    structure = _structure(label.name)
    if structure is None or sum(_structure(other.name) == structure for other in stated) > 1:
        return None
    fitting = [other for other in wanted if _structure(other.name) == structure]
    return fitting[0] if len(fitting) == 1 and fitting[0].value not in taken else None


@cache
def _structure(name: str) -> Structure | None:
    """Look up a structure, cached because lists are compared for every case."""
    return lookup(name)


def _of_value(label: Label, wanted: Sequence[Label], taken: set[int]) -> Label | None:
    """Find the label of the same value, if one of the two has no name."""
    same = next((other for other in wanted if other.value == label.value and other.value not in taken), None)
    return same if same is not None and (is_unnamed(label) or is_unnamed(same)) else None


def _free(used: set[int]) -> int:
    """Return the largest unused value."""
    free = next((value for value in range(LARGEST_LABEL, 0, -1) if value not in used), None)
    if free is None:
        raise DataError(f"there are more than {LARGEST_LABEL} labels")
    return free
