"""When a study is complete, and which models segment it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from sqlite3 import Row

from volseg.errors import DataError
from volseg.serving.config import RuleConfig, ServerConfig
from volseg.serving.dicom.objects import read_tags
from volseg.serving.store import Store
from volseg.serving.store.jobs import Job, add_job


def plan_jobs(store: Store, config: ServerConfig) -> int:
    """Add the jobs for every study that is complete.

    A study is complete when nothing of it has arrived for a while, in any of its series, and none of its senders has an
    association open, which may have paused.

    Returns:
        The number of studies that jobs were planned for, or that no rule fits.
    """
    quiet_since = time.time() - config.dicom.quiet_seconds
    changed = store.rows("SELECT * FROM cases WHERE origin = 'dicom' AND planned < revision")
    return sum(_plan(store, config, case) for case in changed if case["changed"] <= quiet_since)


def _plan(store: Store, config: ServerConfig, case: Row) -> bool:
    case_id, revision = case["id"], case["revision"]
    busy = store.row(
        "SELECT sender FROM associations WHERE sender IN (SELECT sender FROM objects WHERE case_id = ?)", case_id
    )
    if busy is not None:
        return _state(store, case, f"{busy['sender']} is still connected")
    series = store.rows(
        "SELECT series_uid, sender, min(file) AS file FROM objects WHERE case_id = ? GROUP BY series_uid", case_id
    )
    try:
        fitting = [rule for rule in config.applied_rules if _fits(rule, series, store.case_folder(case_id))]
    except DataError as error:
        return _state(store, case, error.explanation, is_planned=True)
    except FileNotFoundError:  # it was replaced since the rows were read
        return False
    needed = max((rule.required_series for rule in fitting), default=1)
    if len(series) < needed:
        what = f"{len(series)} of {needed} series arrived"
        is_late = case["changed"] <= time.time() - config.dicom.wait_seconds
        return _state(store, case, f"failed: {what}" if is_late else what, is_planned=is_late)
    with store.transaction():
        current = store.row("SELECT revision FROM cases WHERE id = ?", case_id)
        if current is None or current["revision"] != revision:
            return False
        for rule in fitting:
            add_job(store, _job(rule, config, case_id, revision))
        return _state(store, case, "" if fitting else "no rule fits it", is_planned=True)


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


def _state(store: Store, case: Row, state: str, *, is_planned: bool = False) -> bool:
    """Note what a study waits for, or that the rules were applied to this revision of it; return the latter."""
    planned = case["revision"] if is_planned else case["planned"]
    if (state, planned) != (case["state"], case["planned"]):
        store.change("UPDATE cases SET state = ?, planned = ? WHERE id = ?", state, planned, case["id"])
    return is_planned
