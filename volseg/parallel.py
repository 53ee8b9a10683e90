"""Threads beside the main one, for what libraries do without holding Python's lock: reading, resampling, drawing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import zip_longest
from typing import TypeVar

_Item = TypeVar("_Item")
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

#: Each thread may hold a whole scan.
_MOST_THREADS = 4


@contextmanager
def helpers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that each keep to one core, so that they do not crowd the others out.

    Args:
        count: How many.

    Yields:
        Them; at the end what they have not begun is dropped.
    """
    torch = sys.modules.get("torch")
    if torch is None:  # nothing that would take more than one core, and importing it takes seconds
        executor, own = ThreadPoolExecutor(count), 0
    else:
        # A thread gets its number when it first asks: the one that any thread set last. So this one asks first.
        own = torch.get_num_threads()
        executor = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        if torch is not None:
            torch.set_num_threads(own)


def _cores() -> int:
    """How many cores this process is to use: what PyTorch was told where it is loaded, else what it would take."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    stated = os.environ.get("OMP_NUM_THREADS", "")
    return int(stated) if stated.isdecimal() else len(os.sched_getaffinity(0))


def side_by_side(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Do the same work on several items at a time.

    Args:
        work: On one item; what it raises comes out in place of its result.
        items: All of them.

    Yields:
        The results in the order of the items.
    """
    with helpers(min(_cores(), _MOST_THREADS)) as executor:
        yield from executor.map(work, items)


def pipeline(
    items: Sequence[_Item],
    read: Callable[[_Item], _Job],
    work: Callable[[_Job], _Job],
    write: Callable[[_Job], _Result],
    executor: Executor,
    fits_beside: Callable[[_Job], bool],
) -> Iterator[_Result]:
    """Read the next item and write the last one while the present one is worked on.

    Args:
        items: What goes through.
        read: First stage, on the executor.
        work: Second stage, here: one item at a time, which may use all cores or the GPU.
        write: Third stage, on the executor.
        executor: Runs a first and a third stage at the same time; anybody's, if its workers see the same files.
        fits_beside: Whether there is memory to read the next item while this job is worked on.

    Yields:
        What the third stage returned, in the order of the items.
    """
    reading: Future[_Job] | None = None
    writing: Future[_Result] | None = None
    for item, following in zip_longest(items, items[1:]):
        job = (reading or executor.submit(read, item)).result()
        reading = executor.submit(read, following) if following is not None and fits_beside(job) else None
        job = work(job)
        if writing:
            yield writing.result()
        writing = executor.submit(write, job)
    if writing:
        yield writing.result()
