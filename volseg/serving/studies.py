"""When a study is complete, and which models segment it."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from sqlite3 import Row

from volseg.errors import DataError, DeliveryError
from volseg.serving.config import RuleConfig, ServerConfig
from volseg.serving.dicom.objects import read_tags
from volseg.serving.store import Store
from volseg.serving.store.jobs import Job, add_job

#: How often an archive is asked about a study, and how long after its last object at the earliest.
_ASK_SECONDS = 2.0

logger = logging.getLogger(__name__)


class Planner:
    """Adds the jobs for every study that is complete.

    A study is complete when nothing of it has arrived for a while, in any of its series, and none of its senders has an
    association open, which may have paused; or when an archive that is asked says that these are all of its objects.

    Args:
        store: The store.
        config: The rules, and how long to wait.
    """

    def __init__(self, store: Store, config: ServerConfig) -> None:
        self._store, self._config = store, config
        self._asked: dict[str, float] = {}

    def plan(self) -> None:
        """Look at every study that has changed since the rules were last applied to it."""
        for case in self._store.rows("SELECT * FROM cases WHERE origin = 'dicom' AND planned < revision"):
            self._plan(case)

    def _plan(self, case: Row) -> None:
        waited = time.time() - case["changed"]
        is_late = waited >= self._config.dicom.wait_seconds
        missing = self._missing(case, waited)
        if missing:
            self._wait(case, missing, is_late=is_late)
        elif missing is not None or (waited >= self._config.dicom.quiet_seconds and not self._is_connected(case)):
            self._apply_rules(case, is_late=is_late)

    def _missing(self, case: Row, waited: float) -> str | None:
        """Ask the archive what is missing; empty if nothing is, None if it is not asked or does not say."""
        name = self._config.dicom.count_at
        last = self._asked.get(case["id"], 0.0)
        if name is None or waited < _ASK_SECONDS:
            return None
        if time.monotonic() < last + _ASK_SECONDS:
            return case["state"] or None
        from volseg.serving.dicom.query import series_counts  # and pynetdicom, which a planner needs for nothing else

        self._asked[case["id"]] = time.monotonic()
        try:
            counts = series_counts(self._config.destinations[name], case["name"], self._config.dicom.ae_title)
        except DeliveryError as error:
            logger.warning("%s does not say how many objects a study has: %s", name, error)
            return None
        rows = self._store.rows(
            "SELECT series_uid, count(*) AS n FROM objects WHERE case_id = ? GROUP BY series_uid", case["id"]
        )
        here = {row["series_uid"]: row["n"] for row in rows}
        wanted = {uid: count for uid, count in counts.items() if uid in here}
        if not wanted:
            return None
        arrived = sum(min(here[uid], count) for uid, count in wanted.items())
        total = sum(wanted.values())
        return f"{arrived} of {total} objects arrived" if arrived < total else ""

    def _is_connected(self, case: Row) -> bool:
        """Return whether a sender of the study may still be sending."""
        busy = self._store.row(
            "SELECT sender FROM associations WHERE sender IN (SELECT sender FROM objects WHERE case_id = ?)", case["id"]
        )
        if busy is not None:
            _note(self._store, case, f"{busy['sender']} is still connected")
        return busy is not None

    def _apply_rules(self, case: Row, *, is_late: bool) -> None:
        store, config, case_id = self._store, self._config, case["id"]
        series = store.rows(
            "SELECT series_uid, sender, min(file) AS file FROM objects WHERE case_id = ? GROUP BY series_uid", case_id
        )
        try:
            fitting = [rule for rule in config.applied_rules if _fits(rule, series, store.case_folder(case_id))]
        except DataError as error:
            _note(store, case, error.explanation, is_planned=True)
            return
        except FileNotFoundError:  # it was replaced since the rows were read
            return
        needed = max((rule.required_series for rule in fitting), default=1)
        if len(series) < needed:
            self._wait(case, f"{len(series)} of {needed} series arrived", is_late=is_late)
            return
        with store.transaction():
            current = store.row("SELECT revision FROM cases WHERE id = ?", case_id)
            if current is not None and current["revision"] == case["revision"]:
                for rule in fitting:
                    add_job(store, _job(rule, config, case_id, case["revision"]))
                _note(store, case, "" if fitting else "no rule fits it", is_planned=True)

    def _wait(self, case: Row, missing: str, *, is_late: bool) -> None:
        """Note what a study waits for; after too long, that it came to nothing."""
        _note(self._store, case, f"failed: {missing}" if is_late else missing, is_planned=is_late)


def _job(rule: RuleConfig, config: ServerConfig, case_id: str, revision: int) -> Job:
    return Job(
        case_id,
        rule.model or next(iter(config.models)),
        rule.formats,
        rule.destinations,
        revision,
        rule.name,
        rule.series_description,
        priority=rule.priority,
    )


def _fits(rule: RuleConfig, series: Sequence[Row], folder: Path) -> bool:
    return any(
        (not rule.senders or row["sender"] in rule.senders)
        and (not rule.tags or _match(rule.tags, read_tags(folder / row["file"], tuple(rule.tags))))
        for row in series
    )


def _match(patterns: Mapping[str, str], values: Mapping[str, str]) -> bool:
    return all(re.search(pattern, values[keyword], re.IGNORECASE) for keyword, pattern in patterns.items())


def _note(store: Store, case: Row, state: str, *, is_planned: bool = False) -> None:
    """Note what a study waits for, or that the rules were applied to this revision of it."""
    planned = case["revision"] if is_planned else case["planned"]
    if (state, planned) != (case["state"], case["planned"]):
        store.change("UPDATE cases SET state = ?, planned = ? WHERE id = ?", state, planned, case["id"])
