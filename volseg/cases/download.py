"""Download of public data: the tasks of the Medical Segmentation Decathlon, from MONAI's servers.

Simpson et al., "A large annotated medical image dataset for the development and evaluation of segmentation
algorithms", arXiv 1902.09063. Addresses and checksums are those of `monai.apps.DecathlonDataset`; the transfer is ours
because MONAI's cannot be resumed, and the checksum is `hashlib`'s because MONAI's logs to standard output.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

from volseg.errors import ConfigError, DataError, OutputExistsError
from volseg.io.disk_errors import output_error
from volseg.io.files import make_folder
from volseg.io.record import OWN_PREFIX
from volseg.io.written import discard, move_folder, own_path
from volseg.progress import Progress, ignore_progress

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 60
_SCHEMES = ("http", "https", "file")
#: Exceptions of `tarfile` for a damaged archive, compressed or not.
_DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


@dataclass(frozen=True)
class _Stream:
    """A download in progress.

    Attributes:
        source: Where to read the bytes.
        start: Offset of the first byte in the whole file.
        total: Bytes of the whole file; 0 if unknown.
    """

    source: BinaryIO
    start: int
    total: int


def download(
    task: str,
    output: str | os.PathLike[str] = "data",
    *,
    url: str | None = None,
    md5: str | None = None,
    progress: Progress = ignore_progress,
) -> Path:
    """Download a data set of the Medical Segmentation Decathlon and verify it, unless it is already there.

    The archive grows in a hidden file beside the data, and an interrupted transfer is resumed by the next call. It is
    unpacked whole or not at all, and then removed.

    Args:
        task: Name of the task, such as "Task04_Hippocampus", and of the folder it becomes.
        output: Folder that will contain that folder.
        url: Another address of the archive (http, https or file): a mirror, or a data set that MONAI does not list.
        md5: The archive's checksum, hexadecimal; None uses MONAI's for this task. Without one, an archive of a task
            that MONAI does not list is not verified, and an interrupted transfer of it starts again.
        progress: Called with the bytes received (stage "download"), then unpacked (stage "extract").

    Returns:
        The folder `output / task`.

    Raises:
        ConfigError: If MONAI does not list the task and no `url` is given, or the address is of another kind.
        DataError: If the transfer breaks off, the checksum is wrong or the archive is unsafe or damaged.
        OutputError: If `output` cannot be written.
    """
    folder = Path(output)
    url, md5 = _address(task, url, md5)
    target = folder / task
    if target.is_dir() and any(target.iterdir()):
        return target
    if os.path.lexists(target) and not target.is_dir():
        raise OutputExistsError(f"{target} is needed as a folder, but is not one", hint="choose another --output")
    make_folder(folder)
    part = own_path(folder, f"{task}.tar.part")
    try:
        if md5 is None:
            discard(part)  # Without a checksum it is unknown whether the two pieces belong to one archive.
        _fetch(url, part, progress)
        if md5 is not None:
            _verify(part, md5, url)
        _extract(part, target, url, progress)
        discard(part)
    except OSError as error:
        raise output_error(target, error) from error
    return target


def _address(task: str, url: str | None, md5: str | None) -> tuple[str, str | None]:
    """Return the address of a task's archive and its checksum, if one is known."""
    from monai.apps.datasets import DecathlonDataset

    if task in ("", ".", "..") or Path(task).name != task or "\\" in task:
        raise ConfigError(f"{task!r} cannot be the name of a folder", hint="name the task without slashes")
    url = url or DecathlonDataset.resource.get(task)
    if url is None:
        tasks = ", ".join(DecathlonDataset.resource)
        raise ConfigError(
            f"there is no data set {task!r}", hint=f"available are {tasks}; for another one, give its url"
        )
    if urlsplit(url).scheme not in _SCHEMES:
        raise ConfigError(f"cannot download {url}", hint=f"the address must begin with one of {', '.join(_SCHEMES)}")
    return url, md5 or DecathlonDataset.md5.get(task)


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Append the missing bytes of the archive at `url` to `part`.

    Raises:
        DataError: If the transfer fails or ends early; received bytes are kept.
        OSError: If `part` cannot be written.
    """
    have = part.stat().st_size if part.exists() else 0
    stream = _open(url, have)
    done = stream.start
    with closing(stream.source), part.open("ab") as sink:
        sink.truncate(stream.start)
        for chunk in _chunks(stream, url):
            sink.write(chunk)
            done += len(chunk)
            progress("download", done, stream.total, part.stem.removeprefix(OWN_PREFIX))
    if done < stream.total:
        raise _broken_off(url, f"{done} of {stream.total} bytes arrived")


def _open(url: str, start: int) -> _Stream:
    """Open `url` at byte `start`, or at its beginning if the server does not support that."""
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310  # scheme was checked
    try:
        if request.type == "file":
            return _open_file(Path(url2pathname(urlsplit(url).path)), start)
        response = urlopen(request, timeout=_TIMEOUT_SECONDS)  # noqa: S310  # scheme was checked
    except HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _Stream(BytesIO(), start, start)  # All of it is there already; the checksum decides.
        raise _broken_off(url, f"the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise _broken_off(url, str(getattr(error, "reason", error))) from error
    length = int(response.headers.get("Content-Length") or 0)
    first = start if response.status == HTTPStatus.PARTIAL_CONTENT else 0
    return _Stream(response, first, first + length if length else 0)


def _open_file(path: Path, start: int) -> _Stream:
    source = path.open("rb")
    source.seek(start)
    return _Stream(source, start, path.stat().st_size)


def _chunks(stream: _Stream, url: str) -> Iterator[bytes]:
    """Read a stream in chunks; its errors are distinguished from those of the disk they are written to."""
    try:
        while chunk := stream.source.read(_CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _broken_off(url, str(error)) from error


def _broken_off(url: str, reason: str) -> DataError:
    hint = "check the connection and the address, then run the same command again: it continues where it stopped"
    return DataError(f"cannot download {url}: {reason}", hint=hint)


def _verify(archive: Path, md5: str, url: str) -> None:
    """Check the archive's checksum; if it differs, remove the archive and raise."""
    with archive.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5.lower():
        discard(archive)
        raise DataError(
            f"the archive from {url} has the MD5 checksum {found}, not {md5.lower()}; it was removed",
            hint="run the same command again; if it fails again, the archive at this address has changed",
        )


def _extract(archive: Path, target: Path, url: str, progress: Progress) -> None:
    """Unpack `archive` into a folder beside `target`, and move it there when complete.

    Raises:
        DataError: If it is damaged, or a member would land outside; the archive is removed.
        OSError: If the folder cannot be written.
    """
    progress("extract", 0, 1, target.name)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        content = Path(temporary) / "content"
        content.mkdir()
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(content, filter=_member)  # noqa: S202  # the filter refuses what is unsafe
        except _DAMAGED as error:
            discard(archive)
            raise DataError(
                f"the archive from {url} cannot be unpacked: {error}; it was removed",
                hint="check that the address is that of a complete tar archive, then run the same command again",
            ) from error
        move_folder(_root(content), target)
    progress("extract", 1, 1, target.name)


def _member(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Filter the members of an archive: nothing outside `folder` (PEP 706), and no AppleDouble files.

    The Decathlon was packed on a Mac: beside each file there is a "._" one that has the same suffix and is not an
    image.
    """
    if Path(member.name).name.startswith("._"):
        return None
    return tarfile.data_filter(member, folder)


def _root(content: Path) -> Path:
    """Return the only top-level folder, if there is one."""
    entries = list(content.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else content
