"""Results of volseg in a folder tree, which are not images to segment.

They are recognised by the records of the folders, so that a manually corrected mask is recognised as well. A folder
given directly is used as it is: the masks of one model can be the images of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from volseg.io.earlier import BATCH_TABLE
from volseg.io.record import written_names
from volseg.io.source import Discovery, FileSource, SegmentsSource, SetAside
from volseg.io.written import is_result

_CHANGED = "volseg wrote a mask of this name here, which was changed since; if it is an image, rename it"


def without_results(found: Discovery, root: Path) -> Discovery:
    """Leave out what volseg wrote, unless there is nothing else.

    Args:
        found: Everything below `root`.
        root: The given folder.

    Returns:
        What may be segmented. A file directly in `root` that was changed since is set aside: it may be another file.
    """
    names = cache(written_names)
    left = _without(found, lambda path: path != root and path.name in names(path.parent))
    if not left.sources and any(path.parent == root for path in left.results):
        return _without(found, lambda path: path.parent != root and path.name in names(path.parent))
    changed = [
        path for path in left.results if path.parent == root and path.stat().st_size not in names(root)[path.name]
    ]
    results = tuple(path for path in left.results if path not in changed)
    set_aside = [*left.set_aside, *(SetAside(path, _CHANGED) for path in changed)]
    return replace(left, set_aside=tuple(sorted(set_aside, key=lambda item: item.path)), results=results)


def without_batches(found: Discovery, root: Path) -> Discovery:
    """Leave out the masks of batches that were written into folders below a tree of references.

    A mask that volseg wrote can be a reference if it was put among others; the folder of a batch is not one.

    Args:
        found: Everything below `root`.
        root: The given folder.
    """
    names = cache(written_names)

    def is_of_batch(path: Path) -> bool:
        return path.parent != root and path.name in names(path.parent) and BATCH_TABLE in names(path.parent)

    return _without(found, is_of_batch)


def without_result_folders(entries: Iterable[Path]) -> Iterator[Path]:
    """Leave out results and result folders from the entries of a folder; a folder of images may hold some, too."""
    for path in entries:
        if is_result(path) or (path.is_dir() and path.name != "images" and written_names(path)):
            continue
        yield path


def _without(found: Discovery, is_result: Callable[[Path], bool]) -> Discovery:
    files = (source.place for source in (*found.sources, *found.segments) if isinstance(source, _FILES))
    results = {path for path in (*files, *(item.path for item in found.set_aside)) if is_result(path)}
    return replace(
        found,
        sources=tuple(source for source in found.sources if source.place not in results),
        segments=tuple(source for source in found.segments if source.place not in results),
        set_aside=tuple(item for item in found.set_aside if item.path not in results),
        results=(*found.results, *sorted(results)),
    )


#: Files that volseg writes; a series is an image.
_FILES = (FileSource, SegmentsSource)
