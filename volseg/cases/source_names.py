"""Names of sources: their path below a folder, without the suffix of a file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from volseg.cases.case import Case, stem
from volseg.cases.case_ids import lies_below, marked, path_name, same_on_any_disk, why_equal
from volseg.io import MasksSource, ObjectsSource, SegmentsSource, SeriesSource, SetAside, Source
from volseg.io.files import without_root

_Files = TypeVar("_Files")


def name_of(source: Source, root: Path) -> str:
    """Return the path of a source below `root`, as `case_id_of` takes it; for `root` itself, its name."""
    below = source.place != root and source.place.is_relative_to(root)  # a series of a single file has it as its root
    parts = lies_below(source.place, root) if below else (root.name,)
    last = stem(Path(parts[-1]))
    volume = f"_{source.volume}" if isinstance(source, SeriesSource) and source.volume else ""
    return path_name([*parts[:-1], f"{last}{volume}"])


def names_in(sources: Iterable[Source], root: Path) -> list[tuple[str, Source]]:
    """Return the name of every source below `root`.

    Several series of one folder are all distinguished by their UIDs, and none has the name of the folder: otherwise the
    next series to arrive could change which one it is.
    """
    named = [(name_of(source, root), source) for source in sources]
    crowd = Counter(name for name, source in named if isinstance(source, SeriesSource))
    return [
        (marked(name, source.series_uid) if isinstance(source, SeriesSource) and crowd[name] > 1 else name, source)
        for name, source in named
    ]


def by_name(sources: Iterable[Source], root: Path) -> tuple[dict[str, Source], list[SetAside]]:
    """Name every source below `root`.

    Returns:
        Name -> source; and the sources whose names are equal, which are ambiguous.
    """
    groups: defaultdict[str, list[Source]] = defaultdict(list)
    for name, source in names_in(sources, root):
        groups[name].append(source)
    named = {name: group[0] for name, group in groups.items() if len(group) == 1}
    equal = ([[source] for source in group] for group in groups.values() if len(group) > 1)
    return named, [item for group in equal for item in refused(group)]


def by_id(
    found: Iterable[tuple[str, _Files]], key: Callable[[str], str] = same_on_any_disk
) -> tuple[dict[str, _Files], list[list[_Files]]]:
    """Index cases by id, unless ids are equal.

    Args:
        found: The id of a case, and its files in whatever form.
        key: The part of ids that must differ: by default they must be different file names on any disk.

    Returns:
        Id -> files; and the groups of cases whose ids are equal.
    """
    groups: defaultdict[str, list[tuple[str, _Files]]] = defaultdict(list)
    for case_id, files in found:
        groups[key(case_id)].append((case_id, files))
    alone = {case_id: files for group in groups.values() if len(group) == 1 for case_id, files in group}
    return alone, [[files for _, files in group] for group in groups.values() if len(group) > 1]


def distinct(cases: Iterable[Case]) -> tuple[tuple[Case, ...], list[SetAside]]:
    """Return the cases with unique ids, ordered by id; and the sources of the others."""
    known, equal = by_id((case.case_id, case) for case in cases)
    items = [item for group in equal for item in refused(map(_sources_of, group))]
    return tuple(known[case_id] for case_id in sorted(known)), items


def _sources_of(case: Case) -> list[Source]:
    return [*case.images.values(), *([case.reference] if case.reference else [])]


def refused(cases: Iterable[Iterable[Source]]) -> Iterator[SetAside]:
    """Set aside the sources of cases with equal names, the source that gives the name first."""
    known = [list(sources) for sources in cases]
    reason = why_equal(str(sources[0].place) for sources in known)
    parts = (part for sources in known for source in sources for part in _parts_of(source))
    return (replace(set_aside(part, reason), is_fault=True) for part in {part.place: part for part in parts}.values())


def _parts_of(source: Source) -> tuple[Source, ...]:
    return source.each if isinstance(source, MasksSource | ObjectsSource) else (source,)


def set_aside(source: Source, reason: str) -> SetAside:
    """Set aside a source with a reason."""
    return SetAside(source.place, reason, source.series_uid if isinstance(source, SeriesSource) else "")


def by_reason(items: Iterable[SetAside], root: Path) -> Iterator[str]:
    """Summarise what is not used, a line per reason: "imagesTs/a.nii.gz and 47 more: an image for testing"."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for item in items:
        paths[without_root(item.reason, root)].append(without_root(str(item.path), root))
    for reason, (first, *others) in paths.items():
        yield f"{first}{f' and {len(others)} more' if others else ''}: {reason}"


def unknown_series(source: SegmentsSource) -> str:
    """Say why it is not known on which series an object lies."""
    match len(source.series_uids):
        case 0:
            return "of a series that it does not state"
        case 1:
            return "of a series that is missing"
        case count:
            return f"of {count} series"
