"""What the sources below a folder are called: names made from their paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from volseg.cases.case import Case, as_case_id, stem
from volseg.io import Discovery, SegmentsSource, SeriesSource, Source

#: Of a refusal of a whole folder.
HINT = "data/README.md shows every layout with a tree"


def by_name(sources: Iterable[Source], root: Path) -> dict[str, Source]:
    """Give every source below `root` a unique name from its path."""
    named: dict[str, Source] = {}
    for source in sources:
        named[as_case_id(name_parts(source, root), named)] = source
    return named


def references_in(discovery: Discovery, root: Path) -> dict[str, Source]:
    """Label maps and objects that mark structures below `root`, by name: a lone object in a folder has its name."""
    lone = Counter(source.path.parent for source in discovery.segments)
    lone.update(source.place.parent for source in discovery.sources)
    named = by_name(discovery.sources, root)
    for source in discovery.segments:
        parts = name_parts(source, root)
        alone = len(parts) > 1 and lone[source.path.parent] == 1
        named[as_case_id(parts[:-1] if alone else parts, named)] = source
    return named


def name_parts(source: Source, root: Path) -> list[str]:
    """The parts of a path below `root` that name a source, the last one without its suffix."""
    below = source.place != root and source.place.is_relative_to(root)  # a series of one file lies above it
    parts = source.place.relative_to(root).parts if below else (root.name,)
    last = stem(Path(parts[-1]))
    return [*parts[:-1], f"{last}_{source.volume}" if isinstance(source, SeriesSource) and source.volume else last]


def segment_labels(sources: Iterable[Source | None]) -> dict[str, int]:
    """Names of the structures that DICOM objects mark, numbered in the order in which they are met."""
    names = [name for source in sources if isinstance(source, SegmentsSource) for name in source.names]
    return {name: value for value, name in enumerate(dict.fromkeys(filter(None, names)), start=1)}


def in_order(cases: Iterable[Case]) -> tuple[Case, ...]:
    """Cases in the order of their ids."""
    return tuple(sorted(cases, key=lambda case: case.case_id))
