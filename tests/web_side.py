"""The web side of a server in this process, and a client that sends whatever bytes a test wants."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from volseg.serving import read_server_config
from volseg.serving.config import ServerConfig
from volseg.serving.store import Store, open_store
from volseg.serving.web.app import run_web

COOKIE = "volseg_session"
PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Answer:
    """What was answered.

    Attributes:
        status: Of HTTP.
        headers: By name.
        body: The content.
    """

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Somebody who sends requests.

    Attributes:
        port: Of the server.
        headers: Sent with every request.
        host: Address of the server.
        tls: If it encrypts.
        source: The address that it comes from.
    """

    port: int
    headers: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    source: str = "127.0.0.1"

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request; a body that is no bytes is sent as JSON. Underscores in names of headers are dashes."""
        kind = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        extra = {"context": self.tls} if self.tls else {}
        connection = kind(self.host, self.port, timeout=60, source_address=(self.source, 0), **extra)
        told = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None and not isinstance(body, bytes):
            body, told = json.dumps(body).encode(), {"Content-Type": "application/json"} | told
        try:
            connection.request(method, path, body, told)
            with connection.getresponse() as response:
                return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.ask("POST", path, body if body is not None else b"", **headers)

    def upload(self, files: Sequence[tuple[str, bytes]], fields: Mapping[str, str] | None = None) -> Answer:
        """Upload files, as (name, content)."""
        kind, body = form(files, fields or {})
        return self.post("/api/cases", body, Content_Type=kind)

    def page(self) -> Client:
        """Return one that sends what the page sends along."""
        return self.with_headers(X_CSRF_Token=self.get("/api/session").json["csrf"])

    def with_headers(self, **headers: str) -> Client:
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers=self.headers | told)

    def logged_in(self, name: str, password: str = PASSWORD) -> Client:
        """Return one with the cookie of a session, as the page has it."""
        answer = self.post("/api/login", {"name": name, "password": password})
        assert answer.status == 200, answer.body
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return self.with_headers(Cookie=cookie).page()


def form(files: Sequence[tuple[str, bytes]], fields: Mapping[str, str]) -> tuple[str, bytes]:
    """Return the type and the bytes of a form (RFC 7578)."""
    boundary = uuid.uuid4().hex
    parts = [
        f'Content-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode() + content
        for name, content in files
    ]
    parts += [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields.items()
    ]
    body = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", body


@dataclass(frozen=True)
class WebSide:
    """A running web side.

    Attributes:
        config: What it was started with.
        store: Its store.
        client: Somebody at this machine.
    """

    config: ServerConfig
    store: Store
    client: Client


@contextmanager
def serving(folder: Path, web: Mapping[str, Any] | None = None, **others: Any) -> Iterator[WebSide]:
    """Serve the web side.

    Args:
        folder: Of the store.
        web: The section of the configuration.
        **others: The other sections.
    """
    tree = {
        "models": {"ball": "run"},
        "store": folder.absolute(),
        "web": {"port": free_port(), **(web or {})},
        "keep": {"reserve_gb": 0.0},
        **others,
    }
    config = read_server_config(None, tree)
    store, stop, ready = open_store(config.store), threading.Event(), threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", None)  # the web side sets its own
        thread = threading.Thread(target=run_web, args=(config, store, stop, lambda _: ready.set()), daemon=True)
        thread.start()
        assert ready.wait(30), "the web side did not start"
        try:
            yield WebSide(config, store, Client(config.web.port))
        finally:
            stop.set()
            thread.join(30)
            store.close()
