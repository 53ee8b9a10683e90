"""Threads: how many this process computes with, helper threads, and a three-stage pipeline.

Helper threads run what libraries do without holding Python's lock (GIL): reading, resampling, drawing.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import zip_longest
from typing import TypeVar

from volseg.errors import ConfigError, WorkerLostError
from volseg.system import cores, usable_cores

_Item = TypeVar("_Item")
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

#: Each thread may hold a whole scan.
_MOST_THREADS = 4
#: The variable that PyTorch, NumPy and others read when loaded, in this process and in its children.
_STATED = "OMP_NUM_THREADS"
_asked: int | None = None


def use_threads(count: int | None = None) -> None:
    """Set the number of threads this process computes with from now on.

    It limits the threads PyTorch and OpenVINO use for a network, the threads that make patches, and the number of cases
    examined in parallel.

    Args:
        count: Number of threads; may exceed the number of cores. None changes nothing, unless OMP_NUM_THREADS is unset
            and the container has less processor time than there are cores: then it is as many as it has time for.

    Raises:
        ConfigError: If `count` is less than one.
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
            f"threads: must be at least 1, got {count}", hint="give 1 or more, or leave it out to use all cores"
        )
    else:
        _asked = count
    os.environ[_STATED] = str(count)
    if torch is not None:
        torch.set_num_threads(count)


def allowed_threads() -> int:
    """Return how many single-core threads may be busy: the number given to `use_threads`, else all usable cores.

    OMP_NUM_THREADS is ignored: it limits the threads within one parallel region, and `torchrun` sets it to 1.
    """
    return _asked or usable_cores()


def _thread_count() -> int:
    """Return the number of threads this thread computes with: PyTorch's if it is loaded, else what it would use."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    stated = os.environ.get(_STATED, "").partition(",")[0].strip()  # the outermost of nested regions
    return int(stated) if stated.isdecimal() and int(stated) else usable_cores()


@contextmanager
def helpers(count: int) -> Iterator[ThreadPoolExecutor]:
    """Run threads that each use one core, so that they do not compete with each other.

    Args:
        count: Number of threads.

    Yields:
        Their executor; on exit, tasks not yet started are cancelled.
    """
    torch = sys.modules.get("torch")
    if torch is None:  # nothing that would take more than one core, and importing it takes seconds
        executor, own = ThreadPoolExecutor(count), 0
    else:
        # A thread gets its number on first use: the one that any thread set last. So this one is used first.
        own = torch.get_num_threads()
        executor = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)
        if torch is not None:
            torch.set_num_threads(own)


def side_by_side(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    executor: Executor | None = None,
    if_lost: Callable[[_Item, WorkerLostError], _Result] | None = None,
) -> Iterator[_Result]:
    """Map a function over items in parallel.

    Args:
        work: Called on each item; an exception is raised in place of its result.
        items: All items.
        executor: Where `work` and the items are sent; by default threads of this process.
        if_lost: Makes the result of an item that ended every worker that had it; by default that is raised, too.

    Yields:
        The results, in the order of the items.
    """
    if executor is None:
        with helpers(min(_thread_count(), _MOST_THREADS)) as threads:
            yield from threads.map(work, items)
        return
    calls = deque((item, executor.submit(work, item)) for item in items)
    try:
        while calls:
            item, future = calls.popleft()
            try:
                yield future.result()
            except WorkerLostError as error:
                if if_lost is None:
                    raise
                yield if_lost(item, error)
    finally:
        for _, future in calls:
            future.cancel()


def unordered(
    executor: Executor, work: Callable[[_Item], _Result], items: Iterable[_Item], tick: Callable[[], None]
) -> Generator[tuple[_Item, _Result | WorkerLostError], None, None]:
    """Call a function on an executor, once per item.

    Args:
        executor: Begins the items in their order.
        work: What is called; it and the items are sent to other processes if the executor has some.
        items: All items.
        tick: Called every second while nothing is done; if it raises, that ends the work.

    Yields:
        Each item with its result as soon as that is there, or with the error if the item ended every worker that had
        it. If the caller closes the generator, items that have not begun are cancelled.
    """
    futures = {executor.submit(work, item): item for item in items}
    try:
        while futures:
            done = wait(futures, timeout=1.0, return_when=FIRST_COMPLETED).done
            if not done:
                tick()
            for future in done:
                item, error = futures.pop(future), future.exception()
                yield item, error if isinstance(error, WorkerLostError) else future.result()
    finally:
        for future in futures:
            future.cancel()


def pipeline(
    items: Sequence[_Item],
    read: Callable[[_Item], _Job],
    work: Callable[[_Job], _Job],
    write: Callable[[_Job], _Result],
    executor: Executor,
    fits_beside: Callable[[_Job], bool],
) -> Iterator[_Result]:
    """Process items one by one, reading the next one and writing the previous one meanwhile.

    Args:
        items: The input of the first stage.
        read: First stage, on the executor.
        work: Second stage, in this thread: one item at a time, which may use all cores or the GPU.
        write: Third stage, on the executor.
        executor: Runs one first and one third stage at a time; any executor whose workers see the same files.
        fits_beside: Whether there is memory to read the next item while this job is processed.

    Yields:
        The results of the third stage, in the order of the items.
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
