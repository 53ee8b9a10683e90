"""The database, and where files lie."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from volseg.errors import DataError, OutputError, OutputExistsError
from volseg.io.files import make_folder

#: The version of the tables, kept in SQLite's own field for it.
_VERSION = 1
_BUSY_SECONDS = 60.0
DATABASE = "store.sqlite"
_TABLES = """
CREATE TABLE cases (
    id TEXT PRIMARY KEY,                 -- a hash: what files and addresses call it
    origin TEXT NOT NULL,                -- dicom, or upload
    name TEXT NOT NULL,                  -- StudyInstanceUID, or what whoever uploaded it calls it
    digest TEXT NOT NULL DEFAULT '',     -- of an uploaded image
    patient TEXT NOT NULL DEFAULT '',
    patient_id TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    date TEXT NOT NULL DEFAULT '',
    revision INTEGER NOT NULL DEFAULT 0, -- counts the changes of its objects
    planned INTEGER NOT NULL DEFAULT 0,  -- the revision that the rules were last applied to
    state TEXT NOT NULL DEFAULT '',      -- what came of that, for the work list
    created REAL NOT NULL,
    changed REAL NOT NULL
);
CREATE TABLE objects (
    id TEXT PRIMARY KEY,                 -- a hash of the SOPInstanceUID
    case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
    series_uid TEXT NOT NULL,
    sender TEXT NOT NULL,                -- its AE title
    digest TEXT NOT NULL,                -- of its data set
    file TEXT NOT NULL,                  -- name within the folder of the case
    size INTEGER NOT NULL
);
CREATE TABLE series (
    case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
    uid TEXT NOT NULL,
    modality TEXT NOT NULL,
    description TEXT NOT NULL,
    PRIMARY KEY (case_id, uid)
);
CREATE INDEX objects_of_case ON objects (case_id, series_uid);
CREATE TABLE associations (id TEXT PRIMARY KEY, sender TEXT NOT NULL, opened REAL NOT NULL);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
    revision INTEGER NOT NULL,
    rule TEXT NOT NULL,                  -- empty if a person asked for it
    model TEXT NOT NULL,
    formats TEXT NOT NULL,               -- JSON
    destinations TEXT NOT NULL,          -- JSON
    series_description TEXT,
    series_uid TEXT NOT NULL DEFAULT '', -- of a study: which series; empty for all
    probabilities INTEGER NOT NULL DEFAULT 0,
    status TEXT NOT NULL DEFAULT 'waiting',
    reason TEXT NOT NULL DEFAULT '',
    priority INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0, -- how often a worker began it
    progress REAL NOT NULL DEFAULT 0,
    due REAL NOT NULL,                   -- not to be started earlier
    created REAL NOT NULL,
    started REAL,
    ended REAL
);
CREATE INDEX jobs_of_case ON jobs (case_id);
CREATE UNIQUE INDEX jobs_of_rule ON jobs (case_id, revision, rule) WHERE rule != '';
CREATE TABLE results (
    id INTEGER PRIMARY KEY,
    job_id TEXT NOT NULL REFERENCES jobs ON DELETE CASCADE,
    case_name TEXT NOT NULL,             -- of one of the volumes of a study
    format TEXT NOT NULL,
    file TEXT NOT NULL,                  -- below the folder of the job
    labels TEXT NOT NULL,                -- JSON: value, name, color and volume_ml of each
    remark TEXT NOT NULL,                -- why somebody should look at it
    seconds REAL NOT NULL,
    uid TEXT NOT NULL,                   -- SOPInstanceUID; empty if it is no DICOM object
    uncertainty REAL                     -- 1 less the mean probability of what was drawn; if it was asked for
);
CREATE INDEX results_of_uid ON results (uid);
CREATE INDEX results_of_job ON results (job_id);
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    result_id INTEGER NOT NULL REFERENCES results ON DELETE CASCADE,
    destination TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'waiting',
    reason TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL,
    ended REAL,
    UNIQUE (result_id, destination)
);
CREATE INDEX deliveries_due ON deliveries (status, due);
CREATE TABLE models (                    -- what is served, noted by whatever process loaded it last
    name TEXT PRIMARY KEY,
    labels TEXT NOT NULL                 -- JSON: value and name of each
);
CREATE TABLE annotations (               -- masks that people have saved
    id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
    series_uid TEXT NOT NULL,            -- empty for an uploaded image
    tag TEXT NOT NULL,
    labels TEXT NOT NULL,                -- JSON: value and name of each
    info TEXT NOT NULL,                  -- JSON: what the client told of it
    user TEXT NOT NULL,
    created REAL NOT NULL,
    UNIQUE (case_id, series_uid, tag)
);
CREATE TABLE image_sessions (            -- images that a client works on for a while
    id TEXT PRIMARY KEY,
    case_id TEXT NOT NULL REFERENCES cases ON DELETE CASCADE,
    seconds REAL NOT NULL,               -- how long it is kept after its last use
    used REAL NOT NULL
);
CREATE TABLE trainings (
    id TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    origin TEXT NOT NULL,                -- the run that the configuration of the server names for the model
    epochs INTEGER NOT NULL,
    user TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'waiting',
    remark TEXT NOT NULL DEFAULT '',
    epoch INTEGER NOT NULL DEFAULT 0,
    dice REAL,                           -- on the validation cases, the best so far
    is_served INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0, -- how often a trainer began it
    created REAL NOT NULL,
    started REAL,
    ended REAL
);
CREATE TABLE users (name TEXT PRIMARY KEY, password TEXT NOT NULL, role TEXT NOT NULL);
CREATE TABLE tokens (                    -- of users, sessions and scripts
    hash TEXT PRIMARY KEY,
    user TEXT NOT NULL REFERENCES users ON DELETE CASCADE,
    csrf TEXT NOT NULL,                  -- empty if it is no session of a browser
    expires REAL NOT NULL
);
CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    case_id TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""


class Store:
    """The database and the files of a server.

    Args:
        folder: Where they are.

    Attributes:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._connections = threading.local()

    def case_folder(self, case_id: str) -> Path:
        """Return the folder of the images of a case."""
        return self.folder / "cases" / case_id

    def job_folder(self, job_id: str) -> Path:
        """Return the folder of the results of a job."""
        return self.folder / "results" / job_id

    def annotation_folder(self, case_id: str) -> Path:
        """Return the folder of the masks that people have saved for a case."""
        return self.folder / "annotations" / case_id

    def run_folder(self, training_id: str) -> Path:
        """Return the run folder of a training."""
        return self.folder / "runs" / training_id

    @property
    def incoming(self) -> Path:
        """The folder of files that are being received; what is in it when a receiver starts is of no use."""
        return self.folder / "incoming"

    @property
    def work(self) -> Path:
        """The folder of what a running job needs."""
        return self.folder / "work"

    @property
    def free_bytes(self) -> int:
        """Free space on its disk."""
        return shutil.disk_usage(self.folder).free

    def rows(self, query: str, *values: Any) -> list[sqlite3.Row]:
        """Run a query."""
        return self._connection.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> sqlite3.Row | None:
        """Run a query for one row."""
        found: sqlite3.Row | None = self._connection.execute(query, values).fetchone()
        return found

    def change(self, statement: str, *values: Any) -> int:
        """Run a statement, and return the number of rows it changed."""
        return self._connection.execute(statement, values).rowcount

    def insert(self, statement: str, *values: Any) -> int:
        """Insert a row, and return its number."""
        return self._connection.execute(statement, values).lastrowid or 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make changes of this thread appear together or not at all; no other process changes anything meanwhile."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    @property
    def _connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        connection: sqlite3.Connection | None = getattr(self._connections, "held", None)
        if connection is None:
            connection = sqlite3.connect(self.folder / DATABASE, timeout=_BUSY_SECONDS, isolation_level=None)
            connection.row_factory = sqlite3.Row
            # A power failure may undo the last changes; what they spoke of is on disk, and is found or made again.
            connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")
            self._connections.held = connection
        return connection

    def close(self) -> None:
        """Close the connection of this thread."""
        connection: sqlite3.Connection | None = self._connections.__dict__.pop("held", None)
        if connection is not None:
            connection.close()


def open_store(folder: Path) -> Store:
    """Open a store, and create it if there is none.

    Raises:
        OutputError: If it cannot be written, or holds something else.
        DataError: If it is damaged, or of a later version.
    """
    if folder.is_dir() and list(folder.iterdir()) and not (folder / DATABASE).exists():
        raise OutputExistsError(f"{folder} holds files, but no store", hint="choose an empty or a new folder")
    make_folder(folder)
    store = Store(folder)
    try:
        folder.chmod(0o700)  # it holds names of patients
        (folder / DATABASE).touch(0o600)  # its copies, too; SQLite gives its other files the same mode
        for name in ("cases", "results", "annotations", "runs", "incoming", "work"):
            (folder / name).mkdir(exist_ok=True)
        with store.transaction():
            found = store.row("PRAGMA user_version")
            version = found[0] if found else 0
            if version == 0:
                for statement in _TABLES.split(";\n"):
                    store.change(statement)
                store.change(f"PRAGMA user_version = {_VERSION}")
    except sqlite3.OperationalError as error:
        raise OutputError(f"cannot write to the store in {folder}: {error}", hint="is its disk full?") from error
    except sqlite3.DatabaseError as error:
        raise DataError(f"the store in {folder} cannot be used: {error}", hint="restore it from a backup") from error
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}", hint="choose another --store") from error
    if version > _VERSION:
        raise DataError(f"{folder} was written by a later version of volseg", hint="use that version, or a new --store")
    return store


def new_id() -> str:
    """Return a name that nobody can guess."""
    return secrets.token_hex(8)
