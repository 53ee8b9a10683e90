"""`--cluster`: the same work on the workers of a cluster."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from volseg.cli.console import progress_shown
from volseg.progress import Progress

if TYPE_CHECKING:
    from volseg.cluster import ClusterExecutor


@contextmanager
def work_shown(cluster: str | None, threads: int | None = None) -> Iterator[tuple[Progress, ClusterExecutor | None]]:
    """Show progress, and connect to a cluster if one is given.

    Args:
        cluster: What `--cluster` says.
        threads: What `--threads` says, which local workers share.

    Yields:
        The progress callback, and the executor if there is a cluster.
    """
    with progress_shown() as progress:
        if cluster is None:
            yield progress, None
            return
        from volseg import use_threads
        from volseg.cluster import connect

        use_threads(threads)
        with connect(cluster) as executor:
            yield _with_state(progress, executor), executor


def _with_state(progress: Progress, executor: ClusterExecutor) -> Progress:
    """Return a callback that adds how fast the cluster works, and what its workers do."""
    began: dict[str, tuple[float, int]] = {}

    def update(stage: str, done: int, total: int, note: str = "") -> None:
        start, first = began.setdefault(stage, (time.monotonic(), done))
        hours = (time.monotonic() - start) / 3600
        rate = f"{(done - first) / hours:.0f} an hour" if done > first and hours else ""
        progress(stage, done, total, "; ".join(filter(None, (note, rate, executor.state))))

    return update
