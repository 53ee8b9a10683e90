"""pynetdicom's reactor, paused for certain.

While pynetdicom waits for an answer, the thread of the association must not look for messages, or it takes the answer
and drops it. pynetdicom asks that thread to pause, but does not see whether it has just passed the place where it
pauses; on a busy machine, and with a peer that answers at once, one of a few thousand answers is lost, and is waited
for until the timeout.
"""

from __future__ import annotations

from threading import Condition
from typing import Any, cast

from pynetdicom.association import Association

#: How long a reactor takes to come to its checkpoint at most; later it has ended.
_SECONDS = 5.0


class Checkpoint:
    """What a reactor waits at; it takes the place of an event, and of its methods."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._is_open, self._is_waiting = True, False

    def is_set(self) -> bool:
        """Return whether the reactor may go on."""
        return self._is_open

    def set(self) -> None:
        """Let the reactor go on."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Pause the reactor: it waits when this returns, and does not go on before `set`."""
        with self._changed:
            self._is_open = False
            self._changed.wait_for(lambda: self._is_waiting, _SECONDS)

    def wait(self) -> None:
        """Wait until it may go on; called by the reactor."""
        with self._changed:
            self._is_waiting = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_open)
            self._is_waiting = False


def pause_for_certain(association: Association) -> None:
    """Make the reactor of an association pause for certain while an answer is waited for."""
    association._reactor_checkpoint = cast("Any", Checkpoint())  # noqa: SLF001  there is no other way in
