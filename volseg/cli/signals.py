"""Signals that end a run: each acts like Ctrl-C, so that finished work is kept and no file is left half-written."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Ctrl-C; `kill`, systemd, Docker and SLURM; a terminal that closes; Ctrl-Break of Windows.
_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")


class _Stop:
    """Records whether this process was asked to end. The first signal raises; later ones are ignored.

    They must not tear what the first has begun to put in order, and that takes no longer than a case.
    """

    def __init__(self) -> None:
        self.is_requested = False

    def __call__(self, *_: object) -> None:
        if not self.is_requested:
            self.is_requested = True
            raise KeyboardInterrupt


_stop = _Stop()


def stop_is_requested() -> bool:
    """Return whether a signal has asked this process to end."""
    return _stop.is_requested


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in a block when a signal asks the process to end.

    Signals that whoever started the process has ignored stay so: SIGHUP under nohup, SIGINT behind a shell's `&`. After
    one that ended the block all are ignored, until the process has ended, too. Code that cannot raise, a destructor
    say, swallows the exception, which is no news for a terminal: `stop_is_requested` still says so.
    """
    _stop.is_requested = False
    if threading.current_thread() is not threading.main_thread():  # no other may handle signals
        yield
        return
    numbers = [signal.Signals[name] for name in _ENDING if name in signal.Signals.__members__]
    earlier = {number: signal.getsignal(number) for number in numbers}
    handled = [number for number in numbers if earlier[number] is not signal.SIG_IGN]
    report = sys.unraisablehook

    def report_others(swallowed: sys.UnraisableHookArgs) -> None:
        if not (_stop.is_requested and swallowed.exc_type is KeyboardInterrupt):
            report(swallowed)

    sys.unraisablehook = report_others
    try:
        for number in handled:
            signal.signal(number, _stop)
        yield
    finally:
        sys.unraisablehook = report
        for number in handled:
            signal.signal(number, signal.SIG_IGN if _stop.is_requested else earlier[number])
