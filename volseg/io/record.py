"""The record in each folder of what volseg wrote into it: names and content hashes.

It is a hidden file beside the files it lists, so that it is moved and copied with them. Its first line is a JSON object
with everything known when the line was written; each further line states what is known of one file since, so that a
file among 50,000 costs as little to write as the first one. A folder that version 0.1.0 wrote has none; what is known
of it otherwise becomes its record when something is written there.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

from volseg.errors import OutputError
from volseg.io.earlier import is_batch_table, names_below, names_in

#: Prefix of volseg's internal files: the record, its lock, and files that are being written.
OWN_PREFIX = ".volseg-"
RECORD_FILE, LOCK_FILE = f"{OWN_PREFIX}written", f"{OWN_PREFIX}lock"
#: The lock that a process holds while a folder is reserved for it.
_OWNER_FILE = f"{OWN_PREFIX}owner"
#: Locks are held only while a table is read and written; waiting longer means that a process hangs.
_PATIENCE_SECONDS = 300
#: In bytes; names are short.
_LONGEST_LINE = 1 << 16
_ABOUT = "What volseg wrote into this folder. With it volseg tells its own files from yours, which it never replaces."

#: The role of a file: the result of a verb, or data to be read as input (the labels of a phantom).
Role = Literal["result", "data"]


@dataclass(frozen=True)
class Content:
    """The content of a file.

    Attributes:
        sha256: Hexadecimal; for a symbolic link, that of the path it holds.
        size: In bytes.
    """

    sha256: str
    size: int


@dataclass(frozen=True)
class Record:
    """The files of a folder that volseg wrote or may replace.

    Attributes:
        written: Name -> what volseg wrote: the present content, and the one about to replace it, since a process may be
            killed between the two.
        handed_over: Name -> the user's content that may be replaced with their consent.
        data: Those of `written` that are data rather than results, and are read like any other files.
        further_lines: Number of lines after the first one of the file it was read from.
    """

    written: Mapping[str, tuple[Content, ...]] = field(default_factory=dict)
    handed_over: Mapping[str, Content] = field(default_factory=dict)
    data: frozenset[str] = frozenset()
    further_lines: int = field(default=0, compare=False)

    def wrote(self, name: str, content: Content | None) -> bool:
        """Return whether volseg wrote this content under a name."""
        return content in self.written.get(name, ())

    def may_replace(self, name: str, content: Content) -> bool:
        """Return whether volseg wrote this content under a name, or the user allowed replacing it."""
        return self.wrote(name, content) or self.handed_over.get(name) == content

    def with_handed_over(self, name: str, content: Content) -> Record:
        """Return the record after a user allowed replacing a file."""
        return replace(self, handed_over={**self.handed_over, name: content})


def content_of(path: Path) -> Content | None:
    """Return the content of a file; None if there is none, or it is not a file, or it may not be read.

    Raises:
        OSError: If reading fails.
    """
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            return Content(hashlib.sha256(os.fsencode(path.readlink())).hexdigest(), 0)
        if not stat.S_ISREG(status.st_mode):
            return None
        with path.open("rb") as file:
            return Content(hashlib.file_digest(file, "sha256").hexdigest(), status.st_size)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the record and the tables of a folder against other processes and threads; may be nested.

    The operating system releases the lock when its owner dies.

    Raises:
        OSError: If the folder cannot be written, or another process holds the lock for minutes.
    """
    from filelock import FileLock

    path = Path(os.path.realpath(folder)) / LOCK_FILE
    # One shared instance with thread-local state: a thread may lock again, others wait.
    # Anyone who may write into the folder may lock it.
    with FileLock(path, _PATIENCE_SECONDS, mode=0o666, is_singleton=True, poll_interval=0.005):
        yield


@contextmanager
def owned(folder: Path) -> Iterator[bool]:
    """Reserve a folder for this process, for hours if needed; the operating system releases it when its owner dies.

    Yields:
        Whether it is reserved: not while another process or thread has it.

    Raises:
        OSError: If the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(Path(os.path.realpath(folder)) / _OWNER_FILE, mode=0o666)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def read_record(folder: Path) -> Record:
    """Read the record of a folder; for one that version 0.1.0 wrote, reconstruct it.

    Raises:
        OutputError: If it is damaged.
    """
    path = folder / RECORD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return _of_earlier_version(folder)
    except IsADirectoryError as error:
        raise OutputError(f"{path} is a folder", hint="choose another --output, or move it away") from error
    try:
        return _parsed(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise OutputError(
            f"{path} is damaged: {error}",
            hint="choose another --output, or delete it: then everything in the folder counts as yours",
        ) from error


def written_names(folder: Path) -> dict[str, frozenset[int]]:
    """Return name -> sizes of the results that volseg wrote into a folder; empty if its record cannot be read."""
    try:
        record = read_record(folder)
    except (OSError, OutputError):
        return {}
    results = {name: contents for name, contents in record.written.items() if name not in record.data}
    sizes = {name: frozenset(content.size for content in contents) for name, contents in results.items()}
    if sizes or (folder / RECORD_FILE).exists():
        return sizes
    # A batch that was copied without its record: its masks may not be replaced, and are no images either.
    copied = ((name, folder / name) for name in names_in(folder, is_batch_table))
    return {name: frozenset([path.stat().st_size]) for name, path in copied if path.is_file()}


def as_text(record: Record) -> str:
    """Format a record as one line of JSON; with indentation it would take ten times as long."""
    written = {
        name: [[content.sha256, content.size] for content in contents]
        for name, contents in sorted(record.written.items())
    }
    handed = {name: [content.sha256, content.size] for name, content in sorted(record.handed_over.items())}
    tree = {"about": _ABOUT, "written": written, "handed_over": handed, "data": sorted(record.data)}
    return json.dumps(tree) + "\n"


def line_about(name: str, contents: tuple[Content, ...], role: Role) -> str:
    """Format what is known of one file, as a further line of a record.

    Args:
        name: Of the file.
        contents: What volseg wrote under that name; nothing if the file was removed.
        role: Of the file.
    """
    return json.dumps([name, [[content.sha256, content.size] for content in contents], role == "data"]) + "\n"


def append_line(file: BinaryIO, line: str) -> None:
    """Append a line to the file of a record, in place of what a killed process has left of another one.

    Args:
        file: Open for reading and writing.
        line: With its end.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_LINE))
    tail = file.read()
    file.seek(size - len(tail) + tail.rfind(b"\n") + 1)
    file.truncate()
    file.write(line.encode())
    file.flush()
    os.fsync(file.fileno())


def _parsed(text: str) -> Record:
    first, *lines = text.split("\n")
    tree = json.loads(first)
    written = {
        str(name): tuple(_content(*content) for content in contents) for name, contents in tree["written"].items()
    }
    handed = {str(name): _content(*content) for name, content in tree["handed_over"].items()}
    data = set(map(str, tree["data"]))
    del lines[-1:]  # what follows the last line break is nothing, or of a process that was killed
    for line in lines:
        name, contents, is_data = json.loads(line)
        handed.pop(name, None)
        written.pop(name, None)
        data.discard(name)
        if contents:
            written[name] = tuple(_content(*content) for content in contents)
        if is_data:
            data.add(name)
    return Record(written, handed, frozenset(data), len(lines))


def _content(sha256: str, size: int) -> Content:
    return Content(str(sha256), int(size))


def _of_earlier_version(folder: Path) -> Record:
    names = names_in(folder)
    if not (folder.parent / RECORD_FILE).exists():  # otherwise its folders were examined when the record was created
        names |= names_below(folder.parent, folder.name)
    found = {name: _content_once(folder / name, *_stamp(folder / name)) for name in sorted(names)}
    return Record({name: (content,) for name, content in found.items() if content is not None})


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.lstat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=10_000)
def _content_once(path: Path, size: int, modified_ns: int) -> Content | None:  # noqa: ARG001  another stamp is another key
    return content_of(path)
