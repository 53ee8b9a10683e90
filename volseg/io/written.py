"""The only place that replaces and removes files: those that volseg wrote itself, and nothing else.

A file may be replaced if the record of its folder lists it and it is still what volseg wrote, byte for byte; a manually
corrected mask is the user's. Names that begin with `.volseg-` are volseg's own: the records, their locks, files that
are being written.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from volseg.errors import OutputExistsError
from volseg.io.disk_errors import output_error
from volseg.io.earlier import folders_below
from volseg.io.record import (
    LOCK_FILE,
    OWN_PREFIX,
    RECORD_FILE,
    Content,
    Record,
    Role,
    append_line,
    as_text,
    content_of,
    line_about,
    locked,
    read_record,
    written_names,
)
from volseg.system import flush, is_running

#: Prefix of files being written. Discovery never sees hidden files, and a killed run's leftovers are recognised.
TEMPORARY_PREFIX = f"{OWN_PREFIX}part-"
#: ID and machine of the writing process; version 0.1.0 stated no machine.
_UNFINISHED = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}(?P<process>\d+)(@(?P<machine>[0-9a-f]+))?-.*", re.DOTALL)
#: Characters of the final name that are kept in a temporary name: few enough in any script.
_END_OF_NAME = 48
_SPARE_LINES = 100  # how many more than files a record may have
_HINT = "choose another --output, or move the file away"
_counter = itertools.count()


@dataclass(frozen=True, eq=False)
class Inputs:
    """The inputs of a command, which it never replaces, whatever the options.

    Files are compared by identity, not by name: through links and on case-insensitive disks.

    Attributes:
        paths: Files, and folders with everything below them; what volseg itself wrote there is not an input.
    """

    paths: tuple[Path, ...] = ()

    @classmethod
    def of(cls, *given: object) -> Inputs:
        """Collect the paths among the arguments of a call."""
        return cls(tuple(Path(path) for path in given if isinstance(path, str | os.PathLike)))

    def hold(self, path: Path) -> bool:
        """Return whether a file is one of them."""
        number = _number(path)
        if number is not None and number in self._files:
            return True
        place = Path(os.path.realpath(path.parent)) / path.name
        if any(place.is_relative_to(folder) for folder in self._folders):
            return not is_result(path)
        return number is not None and number in self._below

    @cached_property
    def _folders(self) -> tuple[Path, ...]:
        return tuple(Path(os.path.realpath(path)) for path in self.paths if path.is_dir())

    @cached_property
    def _files(self) -> frozenset[tuple[int, int]]:
        return frozenset(filter(None, (_number(path) for path in self.paths if not path.is_dir())))

    @cached_property
    def _below(self) -> frozenset[tuple[int, int]]:
        """The files in the folders, following links."""
        return frozenset(filter(None, (_number(path) for folder in self._folders for path in _files_below(folder))))


NO_INPUTS = Inputs()


def claim(paths: Iterable[Path], inputs: Inputs = NO_INPUTS, *, overwrite: bool = False) -> None:
    """Check, before the work, that outputs can be written and replace no file of the user's.

    Args:
        paths: The files that will be written.
        inputs: What the command reads.
        overwrite: Whether the user allows replacing what is there. Inputs are never replaced.

    Raises:
        OutputExistsError: If a file is in the way that volseg did not write or that was changed since, or an input.
        OutputError: If a folder cannot be read or written.
    """
    for path in paths:
        if not os.path.lexists(path):
            continue
        try:
            _claim(path, inputs, overwrite=overwrite)
        except OSError as error:
            raise output_error(path, error) from error


def _claim(path: Path, inputs: Inputs, *, overwrite: bool) -> None:
    if inputs.hold(path):
        raise OutputExistsError(
            f"{path} would be replaced, but it is an input of this command", hint="choose another --output"
        )
    record, content = read_record(path.parent), content_of(path)
    if content is None:
        raise OutputExistsError(f"{path} is in the way, and is not a file that could be replaced", hint=_HINT)
    if record.may_replace(path.name, content):
        return
    if not overwrite:
        raise _not_ours(path, record)
    with locked(path.parent):
        _save(read_record(path.parent).with_handed_over(path.name, content), path.parent)


def claim_folder(folder: Path) -> None:
    """Check that a folder is not the user's own under the name of one of volseg's.

    Raises:
        OutputExistsError: If it holds something, and volseg never wrote anything into it.
    """
    if folder.is_dir() and any(folder.iterdir()) and not read_record(folder).written:
        raise OutputExistsError(
            f"{folder} is a folder that volseg did not create",
            hint="choose another --output, or write into it anyway with --overwrite",
        )


def put_in_place(temporary: Path, path: Path, role: Role) -> None:
    """Move a finished file to its place, and record that volseg wrote it.

    Raises:
        OutputExistsError: If a file is in the way that volseg did not write, or that was changed since.
        OSError: If it cannot be moved.
    """
    content = content_of(temporary)
    if content is None:
        raise FileNotFoundError(f"{temporary} was not written")
    with locked(path.parent):
        there: tuple[Content, ...] = ()
        if os.path.lexists(path):
            record = _shortened(read_record(path.parent), path.parent)
            found = content_of(path)
            if found is None:
                raise OutputExistsError(f"cannot write {path}: it is in the way, and is not a file", hint=_HINT)
            if not record.may_replace(path.name, found):
                raise _not_ours(path, record)
            there = (found,)
        # Recorded first: if killed before the file is moved, volseg still recognises the present file as its own.
        _note(path, (*there, content), role)
        temporary.replace(path)


def put_where_nothing_is(temporary: Path, path: Path) -> None:
    """Move a finished file to its place, if that is free.

    Raises:
        OutputExistsError: If there is something.
        OSError: If it cannot be moved.
    """
    if os.path.lexists(path):
        raise OutputExistsError(f"{path} already exists", hint="choose another --output, or move it away")
    temporary.replace(path)


def remove_written(path: Path, inputs: Inputs = NO_INPUTS) -> None:
    """Remove a file if volseg wrote it and it was not changed since; anything else stays, and so does any input.

    Raises:
        OutputError: If it cannot be removed.
    """
    try:
        if os.path.lexists(path) and path.name in read_record(path.parent).written and not inputs.hold(path):
            remove_written_files(path.parent, [path])
    except OSError as error:
        raise output_error(path, error) from error


def remove_written_files(folder: Path, paths: Sequence[Path]) -> None:
    """Remove several files of one folder as `remove_written` does.

    Raises:
        OutputError: If one cannot be removed.
    """
    try:
        with locked(folder):
            record = _shortened(read_record(folder), folder)
            for path in paths:
                if record.wrote(path.name, content_of(path)):
                    path.unlink()
                    _note(path, (), "result")
    except OSError as error:
        raise output_error(folder, error) from error


def remove_written_in(folder: Path, pattern: str) -> None:
    """Remove the unchanged files in a folder that volseg wrote, and the folder if nothing else is in it.

    Args:
        folder: Their folder.
        pattern: Of their names, such as "*.stl".

    Raises:
        OutputError: If one cannot be removed.
    """
    if not folder.is_dir() or not read_record(folder).written:
        return
    for path in sorted(folder.glob(pattern)):
        remove_written(path)
    remove_if_empty(folder)


def remove_scratch(folder: Path) -> None:
    """Remove volseg's temporary data, and the folder if nothing else is in it.

    The files are large and no user edits them: they are identified by recorded name and size, without reading them.

    Raises:
        OutputError: If one cannot be removed.
    """
    for name, sizes in written_names(folder).items():
        path = folder / name
        try:
            if path.is_file() and not path.is_symlink() and path.stat().st_size in sizes:
                path.unlink()
        except OSError as error:
            raise output_error(path, error) from error
    remove_if_empty(folder)


def is_unchanged(path: Path) -> bool:
    """Return whether a file is as volseg wrote it."""
    return read_record(path.parent).wrote(path.name, content_of(path))


def is_corrected(path: Path) -> bool:
    """Return whether a file was changed since volseg wrote it."""
    return is_result(path) and not is_unchanged(path)


def is_result(path: Path) -> bool:
    """Return whether the record of its folder lists a file as a result of volseg's, changed since or not."""
    return path.name in written_names(path.parent)


def unfinished(path: Path) -> Path:
    """Return a unique temporary name beside `path`, with its suffix, by which libraries choose the format."""
    return path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}@{_machine()}-{next(_counter)}-{path.name[-_END_OF_NAME:]}")


def own_path(folder: Path, name: str) -> Path:
    """Return the path of an internal file of volseg's in a folder."""
    return folder / f"{OWN_PREFIX}{name}"


def discard(path: Path) -> None:
    """Remove an internal file of volseg's, if it exists.

    Raises:
        OSError: If it cannot be removed.
    """
    if not path.name.startswith(OWN_PREFIX):
        raise ValueError(f"{path} is not an internal file of volseg")
    path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> int:
    """Remove the half-written files of killed processes; those of running processes stay.

    Returns:
        Number of remaining files of other machines, whose processes are unknown.

    Raises:
        OutputError: If one cannot be removed.
    """
    elsewhere = 0
    for leftover in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        writer = _UNFINISHED.fullmatch(leftover.name)
        if writer is None:
            continue
        if writer["machine"] not in {None, _machine()}:
            elsewhere += 1
        elif not is_running(int(writer["process"])):
            try:
                discard(leftover)
            except OSError as error:
                raise output_error(leftover, error) from error
    return elsewhere


def move_folder(made: Path, target: Path) -> None:
    """Move a folder to a place that is free or an empty folder.

    Raises:
        OSError: If there is something.
    """
    made.replace(target)


def _not_ours(path: Path, record: Record) -> OutputExistsError:
    what = "it was changed since volseg wrote it" if path.name in record.written else "volseg did not write it"
    return OutputExistsError(
        f"{path} would be replaced, but {what}", hint="choose another --output, or replace it with --overwrite"
    )


def _note(path: Path, contents: tuple[Content, ...], role: Role) -> None:
    """Add a line about a file, and what volseg wrote there, to the record of its folder; the lock must be held."""
    place = path.parent / RECORD_FILE
    if not place.exists():
        _save(read_record(path.parent), path.parent)
    with place.open("r+b") as file:
        append_line(file, line_about(path.name, contents, role))


def _shortened(record: Record, folder: Path) -> Record:
    """Return a record, and write it anew if it has many lines about few files; the lock must be held."""
    if record.further_lines > len(record.written) + _SPARE_LINES:
        _save(record, folder)
    return record


def _save(record: Record, folder: Path) -> None:
    """Write the record of a folder, whole or not at all; the lock must be held."""
    first = not (folder / RECORD_FILE).exists()
    below = {name: read_record(folder / name) for name in folders_below(folder)} if first else {}
    temporary = unfinished(folder / RECORD_FILE)
    try:
        temporary.write_text(as_text(record), encoding="utf-8")
        flush(temporary)
        temporary.replace(folder / RECORD_FILE)
    finally:
        temporary.unlink(missing_ok=True)
    for name, known in below.items():  # what an earlier version wrote there is known only as long as this has no record
        if known.written and not (folder / name / RECORD_FILE).exists():
            with locked(folder / name):
                _save(known, folder / name)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that holds nothing but its record, which then lists nothing.

    Raises:
        OutputError: If it cannot be removed.
    """
    if not folder.is_dir():
        return
    try:
        with locked(folder):  # nobody adds a file and its line in between
            if not {entry.name for entry in folder.iterdir()} <= {RECORD_FILE, LOCK_FILE}:
                return
            for name in (RECORD_FILE, LOCK_FILE):
                (folder / name).unlink(missing_ok=True)
        folder.rmdir()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY}:  # removed, or written into again, by another process
            raise output_error(folder, error) from error


def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _number(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which identify a file whatever its name; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _files_below(root: Path) -> Iterable[Path]:
    """Yield all files, following links to folders, no folder twice."""
    entered: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        yield from (Path(folder, name) for name in files)
