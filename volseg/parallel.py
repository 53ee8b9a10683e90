"""How many threads this process computes with; and those beside the main one.

The latter are for what libraries do without holding Python's lock: reading, resampling, drawing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import zip_longest
from typing import TypeVar

from volseg.errors import ConfigError
from volseg.system import cores, usable_cores

_Item = TypeVar("_Item")
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

#: Each thread may hold a whole scan.
_MOST_THREADS = 4
#: What PyTorch, NumPy and the rest ask when they are loaded, in this process and in those that it starts.
_STATED = "OMP_NUM_THREADS"
_asked: int | None = None


def use_threads(count: int | None = None) -> None:
    """Let this process compute with a number of threads, from now on.

    It bounds what PyTorch and OpenVINO take for a network, the threads that make patches, and the cases that are looked
    at side by side.

    Args:
        count: How many; may be more than there are cores. Without it nothing changes, unless nobody stated a number and
            the container has less processor time than there are cores: then as many as it has time for.

    Raises:
        ConfigError: If it is less than one.
    """
    global _asked  # noqa: PLW0603  what PyTorch keeps for itself is the process's, too
    torch = sys.modules.get("torch")
    if count is None:
        taken = cores() if torch is None else torch.get_num_threads()
        if os.environ.get(_STATED) or taken <= usable_cores():
            return
        count = usable_cores()
    elif count < 1:
        raise ConfigError(
            f"threads: {count} threads compute nothing", hint="give 1 or more, or leave it out for all there are"
        )
    else:
        _asked = count
    os.environ[_STATED] = str(count)
    if torch is not None:
        torch.set_num_threads(count)


def allowed_threads() -> int:
    """How many threads of one core each may be busy: as many as `use_threads` was asked for, else all usable cores.

    OMP_NUM_THREADS does not count: it is about what one thread divides among others, and `torchrun` sets it to 1.
    """
    return _asked or usable_cores()


def _thread_count() -> int:
    """How many threads this one computes with: what PyTorch was told where it is loaded, else what it would take."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    stated = os.environ.get(_STATED, "").partition(",")[0].strip()  # of nested regions the outermost
    return int(stated) if stated.isdecimal() and int(stated) else usable_cores()


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


def side_by_side(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Do the same work on several items at a time.

    Args:
        work: On one item; what it raises comes out in place of its result.
        items: All of them.

    Yields:
        The results in the order of the items.
    """
    with helpers(min(_thread_count(), _MOST_THREADS)) as executor:
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
