"""Threads beside the main one, for what libraries do without holding Python's lock: reading, resampling, drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
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
    executor = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def side_by_side(work: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """Do the same work on several items at a time.

    Args:
        work: On one item; what it raises comes out in place of its result.
        items: All of them.

    Yields:
        The results in the order of the items.
    """
    with helpers(min(torch.get_num_threads(), _MOST_THREADS)) as executor:
        yield from executor.map(work, items)
