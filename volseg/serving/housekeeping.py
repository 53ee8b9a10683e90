"""Planning of jobs as studies become complete, and removal of what has been kept long enough."""

from __future__ import annotations

import shutil
import time
from threading import Event

from volseg.serving.config import KeepConfig, ServerConfig
from volseg.serving.processes import Ready
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.cases import remove_case, restart_quiet_time
from volseg.serving.studies import Planner

_EVERY_SECONDS, _TIDY_SECONDS = 0.5, 60.0
_DAY_SECONDS = 86400.0


def run_planner(config: ServerConfig, store: Store, stop: Event, ready: Ready) -> None:
    """Plan jobs, and tidy up, until `stop` is set."""
    ready(f"rules: {', '.join(rule.name for rule in config.rules)}" if config.rules else "")
    restart_quiet_time(store)  # the whole server may have been down
    planner, tidied = Planner(store, config), 0.0
    while not stop.wait(_EVERY_SECONDS):
        planner.plan()
        if time.monotonic() > tidied + _TIDY_SECONDS:
            remove_old(store, config.keep)
            remove_strays(store)
            tidied = time.monotonic()


def remove_old(store: Store, keep: KeepConfig) -> None:
    """Remove cases that nothing has happened to for long enough; those with unfinished or undelivered work stay."""
    if keep.days is None:
        return
    old = store.rows(
        "SELECT id FROM cases WHERE changed < ?"
        " AND NOT EXISTS (SELECT 1 FROM jobs WHERE case_id = cases.id"
        "  AND (status IN ('waiting', 'running') OR ended > ?))"
        " AND NOT EXISTS (SELECT 1 FROM jobs JOIN results ON job_id = jobs.id JOIN deliveries ON result_id = results.id"
        "  WHERE case_id = cases.id AND deliveries.status != 'sent')",
        *[time.time() - keep.days * _DAY_SECONDS] * 2,
    )
    for row in old:
        remove_case(store, row["id"])
        note(store, "volseg", "removed", row["id"], f"kept for {keep.days:g} days")


def remove_strays(store: Store) -> None:
    """Remove folders of results that no row speaks of: of jobs that were killed, cancelled or removed."""
    for folder in (store.folder / "results").iterdir():
        job = store.row("SELECT status FROM jobs WHERE id = ?", folder.name)
        if job is None or job["status"] in {"failed", "cancelled", "outdated"}:
            shutil.rmtree(folder, ignore_errors=True)
