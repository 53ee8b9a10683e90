"""Discovery: find what a folder tree holds, by names and headers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from volseg.config import known_modality
from volseg.config.reading import AS_STATED, ReadingRules
from volseg.errors import DataError
from volseg.io.archives import is_archive, members
from volseg.io.companions import companion
from volseg.io.images import PROBABILITIES_SUFFIX, VOLUME_SUFFIXES, file_source, has_picture_suffix, image_suffix
from volseg.io.outlines import outline_suffix
from volseg.io.readable import check_there, special_kind
from volseg.io.signatures import concerns_dicom
from volseg.io.source import Discovery, FileSource, SegmentsSource, SeriesSource, SetAside, Source
from volseg.progress import Progress, ignore_progress

#: Why a file of an archive is not used.
UNPACK = "only DICOM is read from an archive: unpack it"
# The voxels that a header of two-file formats refers to: part of the header's image, not files of their own.
_VOXEL_SUFFIXES = {".img": (".hdr",), ".raw": (".nhdr", ".mhd"), ".zraw": (".mhd",)}


def discover(root: Path, progress: Progress = ignore_progress, *, rules: ReadingRules = AS_STATED) -> Discovery:
    """Find everything below `root` that may be a volume, reading headers only.

    Args:
        root: A folder, a single image or DICOM file, a .zip of DICOM files, or a DICOMDIR, which stands for its folder.
        progress: Called with the number of files examined.
        rules: How to read what is found.

    Returns:
        The sources, and what was set aside with the reason. Hidden files are skipped.

    Raises:
        DataError: If `root` does not exist.
    """
    check_there(root)
    root = stands_for(root)
    images: list[Source] = []
    pictures: list[Path] = []
    flat: list[FileSource] = []
    segments: list[SegmentsSource] = []
    candidates: list[Path] = []
    set_aside: list[SetAside] = []
    for path in _files_of(root, set_aside):
        if has_picture_suffix(path):
            pictures.append(path)
        elif image_suffix(path) or outline_suffix(path):
            _sort_in(path, rules, images, segments, set_aside)
        elif not _belongs_to_header(path):
            candidates.append(path)
    ignored = len(candidates)
    if not any(map(concerns_dicom, candidates)):
        if candidates:
            progress("scan", len(candidates), len(candidates))
    else:
        from volseg.io.dicom import scan_dicom

        scan = scan_dicom(candidates, progress, fill_gaps=rules.allow_gaps)
        images += scan.series
        segments += scan.segments
        set_aside += scan.set_aside
        flat += [FileSource(path, rules=rules.of_files, modality=known_modality(word)) for path, word in scan.flat]
        ignored = scan.ignored
    drawn_in_volumes = any(not source.is_of_a_picture for source in segments)
    if drawn_in_volumes or any(map(_is_a_volume, (source.place for source in images))):
        ignored += len(pictures)  # previews of volumes, icons of viewers, photographs of a screen
    else:
        images += [*flat, *(FileSource(path, rules=rules.of_files) for path in pictures)]
        set_aside = [item for item in set_aside if item.path not in {source.path for source in flat}]
    return Discovery(
        tuple(sorted(images, key=_order)), _by_path(set_aside), ignored, tuple(sorted(segments, key=_order))
    )


def _sort_in(
    path: Path, rules: ReadingRules, images: list[Source], segments: list[SegmentsSource], set_aside: list[SetAside]
) -> None:
    """Add an image file to the images or, if its header names segments, to the files that mark structures."""
    try:
        source = file_source(path, rules)
    except DataError as error:
        set_aside.append(SetAside(path, error.explanation, is_fault=True))
        return
    if isinstance(source, SegmentsSource):
        segments.append(source)
    else:
        images.append(source)


def image_files(root: Path) -> dict[Path, list[Path]]:
    """Find the image files below a folder, by their names alone, without opening them: folder -> files.

    Pictures count only where there are no volumes.
    """
    volumes: dict[Path, list[Path]] = {}
    pictures: dict[Path, list[Path]] = {}
    for path in _walk(root, []):
        if image_suffix(path):
            (pictures if has_picture_suffix(path) else volumes).setdefault(path.parent, []).append(path)
    if any(_is_a_volume(path) for paths in volumes.values() for path in paths):
        return volumes
    return {folder: [*volumes.get(folder, []), *pictures.get(folder, [])] for folder in {**volumes, **pictures}}


def _is_a_volume(path: Path) -> bool:
    """Return whether pictures beside a file are to be ignored; NIfTI probabilities of a picture do not count."""
    return not path.name.lower().endswith(PROBABILITIES_SUFFIX)


def stands_for(path: Path) -> Path:
    """Return the path that a given path stands for: a DICOMDIR, the index of a medium, stands for its folder."""
    return path.parent if path.name.upper() == "DICOMDIR" and path.is_file() else path


def single_source(path: Path, *, rules: ReadingRules = AS_STATED) -> Source:
    """Return the only volume at a path: a file, a folder with one DICOM series, or an object that marks structures.

    Args:
        path: Where it lies.
        rules: How to read it.

    Raises:
        DataError: If there is none, or more than one.
    """
    discovery = discover(path, rules=rules)
    sources = discovery.sources or discovery.segments
    if not sources and len(discovery.set_aside) == 1:
        raise DataError(f"{path} holds no volume: {discovery.set_aside[0].reason}", hint="name another file or folder")
    if len(sources) != 1:
        raise DataError(f"{path} holds {len(sources)} volumes instead of one", hint="`volseg inspect` shows them")
    return sources[0]


def _files_of(root: Path, set_aside: list[SetAside]) -> Iterator[Path]:
    """Yield all files below a path, including those in archives, of which only DICOM is read."""
    for path in _walk(root, set_aside) if root.is_dir() else [root]:
        if not is_archive(path) or special_kind(path):
            yield path
            continue
        try:
            for member in members(path):
                if member.name.lower().endswith((*VOLUME_SUFFIXES, path.suffix.lower())):
                    set_aside.append(SetAside(member, UNPACK))
                else:
                    yield member
        except DataError as error:
            set_aside.append(SetAside(path, error.explanation, is_fault=True))


def _walk(root: Path, set_aside: list[SetAside]) -> Iterator[Path]:
    """Yield all files that are not hidden, following links to folders, none twice; unreadable folders are set aside."""
    entered: set[str] = set()

    def closed(error: OSError) -> None:
        reason = f"cannot look into the folder: {error.strerror}; give yourself read permission"
        set_aside.append(SetAside(Path(error.filename), reason, is_fault=True))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=closed):
        place = os.path.realpath(folder)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        if not folders and not files and image_suffix(Path(folder)):
            reason = "an empty folder named like an image; download the file again"
            set_aside.append(SetAside(Path(folder), reason, is_fault=True))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(files) if not name.startswith("."))


def _belongs_to_header(path: Path) -> bool:
    return companion(path, *_VOXEL_SUFFIXES.get(path.suffix.lower(), ())) is not None


def _order(source: Source) -> tuple[str, int, str]:
    if isinstance(source, SeriesSource):
        return str(source.place), source.traits.number or 0, source.series_uid + source.volume
    return str(source.place), 0, ""


def _by_path(set_aside: Iterable[SetAside]) -> tuple[SetAside, ...]:
    return tuple(sorted(set_aside, key=lambda item: item.path))
