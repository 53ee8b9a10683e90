"""How uvicorn serves a connection here."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from volseg.serving.config import WebConfig

#: How long the head of a request may take.
HEAD_SECONDS = 20.0


class ImpatientProtocol(H11Protocol):
    """Ends connections whose request does not begin in time: a few hundred silent ones would leave room for no more."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Wait for a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop waiting if the request is known now."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._end)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


def settings(web: WebConfig) -> dict[str, Any]:
    """Return uvicorn's settings: nothing is logged that somebody sends, and nothing believed but a proxy's word.

    Raises:
        ConfigError: If a certificate cannot be used.
    """
    told = {
        "http": ImpatientProtocol,
        "ws": "none",
        "lifespan": "off",
        "proxy_headers": web.behind_proxy is not None,
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "h11_max_incomplete_event_size": 2**16,
    }
    if web.tls is None:
        return told
    web.tls.for_server()  # says in a sentence what is wrong with it
    return told | {
        "ssl_certfile": web.tls.certificate,
        "ssl_keyfile": web.tls.key,
        "ssl_ca_certs": str(web.tls.authority) if web.tls.authority else None,
        "ssl_cert_reqs": ssl.CERT_REQUIRED if web.tls.authority else ssl.CERT_NONE,
    }
