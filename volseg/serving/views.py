"""What the page shows of a case and offers for download, made when somebody asks for it and kept for the next time."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from volseg.cases.case_ids import pseudonym
from volseg.errors import DataError
from volseg.exporting import MESHES, output_path, parse_formats
from volseg.io import SeriesSource, Source, discover, read_shown, write_volume
from volseg.serving.store import Store

_LOCKS = [Lock() for _ in range(16)]


def image_view(store: Store, case_id: str, revision: int, series_uid: str) -> Path:
    """Return a volume of a case as NIfTI, for viewers in a browser.

    Args:
        store: The store.
        case_id: The case.
        revision: Its state.
        series_uid: Of a study: which series; empty for an uploaded image.

    Raises:
        DataError: If there is no such volume.
    """
    path = _view(store, case_id, revision, series_uid, ".nii.gz")

    def make(temporary: Path) -> None:
        write_volume(read_shown(volume_source(store.case_folder(case_id), series_uid)), temporary)

    return _made_once(path, make)


def mask_view(store: Store, case_id: str, revision: int, mask: Path, form: str) -> Path:
    """Return a mask in another format; meshes, which are several files, as a .zip.

    Args:
        store: The store.
        case_id: The case.
        revision: Its state.
        mask: The mask, as NIfTI.
        form: The format.

    Raises:
        ConfigError: If the format is unknown.
        DataError: If the image does not allow it.
    """
    from volseg.api import export

    (known,) = parse_formats(form)
    suffix = ".zip" if known in MESHES else output_path(Path(), "mask", known).name.removeprefix("mask")
    path = _view(store, case_id, revision, f"{mask.parent.name} {mask.name} {known}", suffix)

    def make(temporary: Path) -> None:
        with TemporaryDirectory(dir=store.work) as room:
            made = output_path(Path(room), "mask", known)
            export(mask, store.case_folder(case_id), made, format=known)
            if made.is_dir():
                with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                    for file in sorted(made.glob(f"*.{known}")):
                        archive.write(file, file.name)
            else:
                shutil.move(made, temporary)

    return _made_once(path, make)


def remove_views(store: Store, case_id: str) -> None:
    """Remove what was made of a case; it is made again when somebody asks for it."""
    shutil.rmtree(store.folder / "views" / case_id, ignore_errors=True)


def _view(store: Store, case_id: str, revision: int, what: str, suffix: str) -> Path:
    return store.folder / "views" / case_id / f"{pseudonym(f'{revision} {what}')}{suffix}"


def _made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Make a file unless it is there; whoever asks for it meanwhile waits."""
    with _LOCKS[hash(path) % len(_LOCKS)]:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"making-{path.name}")
            make(temporary)
            temporary.replace(path)
    return path


def volume_source(folder: Path, series_uid: str) -> Source:
    """Return a volume of a case.

    Raises:
        DataError: If there is no such volume.
    """
    sources = discover(folder).sources
    fitting = [
        source
        for source in sources
        if (source.series_uid if isinstance(source, SeriesSource) else "") == series_uid or len(sources) == 1
    ]
    if not fitting:
        raise DataError("there is no such volume", hint="load the page again")
    return fitting[0]
