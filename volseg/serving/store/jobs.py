"""Jobs: a model, a case, and what becomes of the masks."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum

from volseg.serving.store.database import Store, new_id

#: A job that ended the worker so often (out of memory?) would end the next one, too; once or twice may be chance.
MOST_ATTEMPTS = 5
#: How long a job waits that has ended the worker twice, so that others are done first; each time four times as long.
_WAIT_SECONDS = 10.0


class JobStatus(StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    OUTDATED = "outdated"


@dataclass(frozen=True)
class Job:
    """A model, a case, and what becomes of the masks.

    Attributes:
        case_id: The case.
        model: Name of the model.
        formats: Of the results.
        destinations: Names of the destinations of the results.
        revision: State of the case that it was planned for.
        rule: Name of the rule that planned it; empty if a person asked for it.
        series_description: Of DICOM objects; None for the usual one.
        series_uid: Of a study: the series that is segmented; empty for all.
        probabilities: Whether to also write the probability of each label.
        priority: Higher ones first.
        id: Its name.
    """

    case_id: str
    model: str
    formats: tuple[str, ...]
    destinations: tuple[str, ...] = ()
    revision: int = 0
    rule: str = ""
    series_description: str | None = None
    series_uid: str = ""
    probabilities: bool = False
    priority: int = 0
    id: str = field(default_factory=new_id)


@dataclass(frozen=True)
class Result:
    """A file that a job has made.

    Attributes:
        case_name: Which volume of a study it belongs to.
        format: Its format.
        file: Its path below the folder of the job.
        labels: JSON: value, name, color and volume_ml of each label.
        remark: Why somebody should look at it; empty if there is no reason.
        seconds: Time that the mask took.
        uid: SOPInstanceUID; empty if it is no DICOM object.
        uncertainty: 1 less the mean probability of what was drawn; None if it was not asked for.
        destinations: Where it is sent.
    """

    case_name: str
    labels: str
    remark: str
    seconds: float
    format: str = ""
    file: str = ""
    uid: str = ""
    uncertainty: float | None = None
    destinations: tuple[str, ...] = ()


def add_job(store: Store, job: Job) -> None:
    """Add a job; a rule is applied to a revision of a case once."""
    now = time.time()
    store.change(
        "INSERT OR IGNORE INTO jobs (id, case_id, revision, rule, model, formats, destinations, series_description,"
        " series_uid, probabilities, priority, due, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        *(job.id, job.case_id, job.revision, job.rule, job.model, json.dumps(job.formats)),
        *(json.dumps(job.destinations), job.series_description, job.series_uid, job.probabilities, job.priority),
        *(now, now),
    )


def take_back(store: Store) -> None:
    """Put jobs that a worker had begun back into the queue; call it when a worker starts, of which there is one."""
    now = time.time()
    for row in store.rows("SELECT id, attempts FROM jobs WHERE status = 'running'"):
        if row["attempts"] >= MOST_ATTEMPTS:
            reason = f"it ended the worker {row['attempts']} times (out of memory?)"
            store.change(
                "UPDATE jobs SET status = 'failed', reason = ?, ended = ? WHERE id = ?", reason, now, row["id"]
            )
        else:
            wait = _WAIT_SECONDS * 4.0 ** (row["attempts"] - 2) if row["attempts"] > 1 else 0.0
            store.change(
                "UPDATE jobs SET status = 'waiting', progress = 0, due = ? WHERE id = ?", now + wait, row["id"]
            )


def claim_job(store: Store) -> Job | None:
    """Take the next job; one whose case has changed since it was planned is outdated, for another one will follow."""
    with store.transaction():
        store.change(
            "UPDATE jobs SET status = 'outdated', reason = 'more images arrived', ended = ? WHERE status = 'waiting'"
            " AND rule != '' AND revision < (SELECT revision FROM cases WHERE cases.id = case_id)",
            time.time(),
        )
        row = store.row(
            "SELECT * FROM jobs WHERE status = 'waiting' AND due <= ? ORDER BY priority DESC, created LIMIT 1",
            time.time(),
        )
        if row is None:
            return None
        store.change(
            "UPDATE jobs SET status = 'running', reason = '', progress = 0, attempts = attempts + 1, started = ?"
            " WHERE id = ?",
            *(time.time(), row["id"]),
        )
    stated = {each.name: row[each.name] for each in fields(Job)}
    return Job(**stated | {name: tuple(json.loads(row[name])) for name in ("formats", "destinations")})


def finish_job(store: Store, job: Job, results: Sequence[Result]) -> bool:
    """Note the results of a job whose files are in its folder, and that they are to be delivered, at once.

    Returns:
        False if the job was cancelled meanwhile, so that there are none.
    """
    now = time.time()
    with store.transaction():
        done = store.change(
            "UPDATE jobs SET status = 'done', progress = 1, ended = ? WHERE id = ? AND status = 'running'", now, job.id
        )
        for result in results if done else ():
            result_id = store.insert(
                "INSERT INTO results (job_id, case_name, format, file, labels, remark, seconds, uid, uncertainty)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(job.id, result.case_name, result.format, result.file, result.labels, result.remark, result.seconds),
                *(result.uid, result.uncertainty),
            )
            for destination in result.destinations:
                if result.uid and _has(store, destination, result.uid):
                    continue  # the same mask of the same images is the same object
                store.change(
                    "INSERT INTO deliveries (result_id, destination, due) VALUES (?, ?, ?)",
                    *(result_id, destination, now),
                )
    return bool(done)


def _has(store: Store, destination: str, uid: str) -> bool:
    """Return whether a destination was sent an object, or will be."""
    found = store.row(
        "SELECT 1 FROM deliveries JOIN results ON results.id = result_id WHERE destination = ? AND uid = ?"
        " AND status != 'failed'",
        *(destination, uid),
    )
    return found is not None


def fail_job(store: Store, job: Job, reason: str) -> None:
    """Note why a job failed."""
    store.change(
        "UPDATE jobs SET status = 'failed', reason = ?, ended = ? WHERE id = ? AND status = 'running'",
        *(reason, time.time(), job.id),
    )


def postpone_job(store: Store, job: Job, seconds: float, reason: str) -> None:
    """Put a job back into the queue: it is not its fault, so the attempt does not count."""
    store.change(
        "UPDATE jobs SET status = 'waiting', attempts = attempts - 1, progress = 0, due = ?, reason = ? WHERE id = ?"
        " AND status = 'running'",
        *(time.time() + seconds, reason, job.id),
    )


def cancel_job(store: Store, job_id: str) -> bool:
    """Cancel a job; one that is running stops at its next window."""
    return bool(
        store.change(
            "UPDATE jobs SET status = 'cancelled', ended = ? WHERE id = ? AND status IN ('waiting', 'running')",
            *(time.time(), job_id),
        )
    )


def retry_job(store: Store, job_id: str) -> bool:
    """Put a job that failed or was cancelled into the queue again."""
    return bool(
        store.change(
            "UPDATE jobs SET status = 'waiting', attempts = 0, reason = '', due = ? WHERE id = ?"
            " AND status IN ('failed', 'cancelled')",
            *(time.time(), job_id),
        )
    )


def note_progress(store: Store, job: Job, share: float) -> bool:
    """Note how far a job is.

    Returns:
        False if it was cancelled.
    """
    return bool(store.change("UPDATE jobs SET progress = ? WHERE id = ? AND status = 'running'", share, job.id))
