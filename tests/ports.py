"""Ports for the servers of tests."""

from __future__ import annotations

import secrets
import socket

#: Below what systems give to connections (Linux: 32768 and up), one of which would take a port before its server does.
_FIRST, _COUNT = 20_000, 10_000


def free_port() -> int:
    """Return a port that nobody listens on, at any address."""
    while True:
        port = _FIRST + secrets.randbelow(_COUNT)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
