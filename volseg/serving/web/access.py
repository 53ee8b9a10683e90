"""Who may do what: users, sessions, tokens and a proxy; and requests that another web site makes a browser send."""

from __future__ import annotations

import hmac
import os
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse, Response

from volseg.errors import ConfigError
from volseg.serving.config import WebConfig
from volseg.serving.store import Store
from volseg.serving.store.users import Role, Session, has_users, role_of, session_of
from volseg.serving.web.attempts import Attempts
from volseg.system import is_loopback

COOKIE = "volseg_session"
#: Requests that change nothing.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Who it is where nobody has to log in: whoever sits at this machine.
_LOCAL = "local"
_SHORTEST_SECRET = 16
#: Longest request that brings no file, and where others go besides /api/cases: MONAI Label's clients.
_MOST_BYTES, _TAKE_FILES = 10**6, ("/datastore/", "/session/", "/infer/")
#: How long an image may be fetched that was just told to somebody who has logged in.
_GRANT_SECONDS = 600.0
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:;"
        " connect-src 'self' blob: data:; script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none';"
        " form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
#: OHIF was built with what a strict policy forbids; it still talks to this server alone.
_OHIF_POLICY = (
    "default-src 'self' blob: data:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self'"
    " 'unsafe-inline'; object-src 'none'; base-uri 'self'; frame-ancestors 'none'"
)


class Access:
    """Knows who sends a request, and what they may do.

    Args:
        store: With the users.
        config: How the server is reached.

    Raises:
        ConfigError: If the secret of the proxy cannot be read.
    """

    def __init__(self, store: Store, config: WebConfig) -> None:
        self._store, self._config = store, config
        self._secret = _read_secret(config.behind_proxy.secret) if config.behind_proxy else ""
        self._csrf_key = secrets.token_bytes(32)
        self._grants: dict[tuple[str, str], float] = {}
        self.attempts = Attempts()

    @property
    def is_open(self) -> bool:
        """Whether nobody has to log in: this machine alone reaches it, and there are no users."""
        return self._config.behind_proxy is None and is_loopback(self._config.host) and not has_users(self._store)

    def session(self, request: Request) -> Session | None:
        """Return who sends a request; None if nobody known does."""
        if self._config.behind_proxy:
            name = request.headers.get(self._config.behind_proxy.user_header, "")
            role = role_of(self._store, name) or Role.VIEWER
            return Session(name, role, self._csrf(name)) if name else self._by_token(request)
        if self.is_open:
            return Session(_LOCAL, Role.ADMIN, self._csrf(_LOCAL))
        return self._by_token(request) or self._by_cookie(request)

    def user(self, request: Request, role: Role = Role.VIEWER) -> Session:
        """Return who sends a request, if they may.

        Raises:
            HTTPException: 401 if nobody is logged in, 403 if they may not.
        """
        session = self.session(request)
        if session is None:
            raise HTTPException(401, "log in first", {"WWW-Authenticate": "Bearer"})
        if not session.role.includes(role):
            raise HTTPException(403, f"only a {role} may do this; {session.user} is a {session.role}")
        return session

    def check_page(self, request: Request, session: Session) -> None:
        """Check that a change was asked for by our page, not by another one that the browser has open.

        Raises:
            HTTPException: 403 if it was not.
        """
        if request.method in _SAFE or not session.csrf:
            return
        if not _is_same(request.headers.get("X-CSRF-Token", ""), session.csrf):
            raise HTTPException(403, "the page is out of date; load it again")

    def grant(self, request: Request, image: str) -> None:
        """Let the address of a request fetch an image without a token for a while; 3D Slicer does not send any."""
        now = time.monotonic()
        self._grants = {key: until for key, until in self._grants.items() if until > now}
        self._grants[address_of(request), image] = now + _GRANT_SECONDS

    def is_granted(self, request: Request, image: str) -> bool:
        """Return whether the address of a request may fetch an image."""
        return self._grants.get((address_of(request), image), 0.0) > time.monotonic()

    def may_see_numbers(self, request: Request) -> bool:
        """Return whether a request comes from this machine, or a user; behind a proxy the machine says nothing."""
        is_here = self._config.behind_proxy is None and is_loopback(address_of(request))
        return is_here or self.session(request) is not None

    async def guard(self, request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse what another web site makes a browser send, and add the headers that protect the page."""
        try:
            self._check(request)
            response = await proceed(request)
        except HTTPException as refusal:
            response = JSONResponse({"detail": refusal.detail}, refusal.status_code, refusal.headers)
        path = request.scope["path"]
        if path.startswith(("/page", "/ohif")):
            response.headers["Cache-Control"] = "no-cache"  # files of the program: asked for by their tags
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if path.startswith("/ohif"):
            response.headers["Content-Security-Policy"] = _OHIF_POLICY
        if self._config.tls or self._config.behind_proxy:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        return response

    def _check(self, request: Request) -> None:
        """Check what is the same for all requests, whoever sends them.

        Raises:
            HTTPException: If nothing of it is read.
        """
        proxy = self._config.behind_proxy
        if proxy and not _is_same(request.headers.get("X-Proxy-Secret", ""), self._secret):
            raise HTTPException(403, "this server answers its reverse proxy only")
        if proxy and len(request.headers.getlist(proxy.user_header)) > 1:
            raise HTTPException(403, f"two headers say who the user is; the proxy has to remove {proxy.user_header}")
        host = request.headers.get("Host", "")
        name = _host_name(host)
        if not proxy and is_loopback(self._config.host) and not is_loopback(name):
            # Else any web site could read everything here, under a name that it lets point to this machine.
            raise HTTPException(403, f"this server is {self._config.host}, not {name!r}")
        expected = request.headers.get("X-Forwarded-Host", host) if proxy else host
        if _is_foreign(request, expected):
            raise HTTPException(403, "another web site may not do anything here")
        self._check_length(request)

    def _check_length(self, request: Request) -> None:
        """Check that a request brings no more than it may: bodies are read before anything else is known of them."""
        length = request.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in request.headers or not length.isdigit():
            raise HTTPException(411, "a request has to say how long it is")
        path = request.scope["path"]
        takes_files = path == "/api/cases" or path.startswith(_TAKE_FILES)
        most = self._config.largest_upload_gb * 1e9 if takes_files else _MOST_BYTES
        if int(length) > most:
            raise HTTPException(413, f"this is larger than {most / 1e9:g} GB")
        if int(length) > _MOST_BYTES:
            self.user(request, Role.REVIEWER)

    def _csrf(self, name: str) -> str:
        return hmac.new(self._csrf_key, name.encode(), "sha256").hexdigest()

    def _by_token(self, request: Request) -> Session | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return session_of(self._store, token.strip()) if kind.lower() == "bearer" else None

    def _by_cookie(self, request: Request) -> Session | None:
        """Return the session of a browser; a token for scripts is none, since pages need not state it."""
        session = session_of(self._store, request.cookies.get(COOKIE, ""))
        return session if session is not None and session.csrf else None


def _is_same(stated: str, secret: str) -> bool:
    """Compare in a time that says nothing of the secret."""
    return hmac.compare_digest(stated.encode(), secret.encode())


def _host_name(host: str) -> str:
    """Return the name in a Host header, without the port; empty if it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_foreign(request: Request, expected: str) -> bool:
    """Return whether another web site makes a browser send this; it may link to our page, and no more."""
    is_safe = request.method in _SAFE
    site = request.headers.get("Sec-Fetch-Site")
    is_link = is_safe and request.headers.get("Sec-Fetch-Mode") == "navigate"
    origin = request.headers.get("Origin")
    is_elsewhere = origin is not None and origin.partition("://")[2] != expected
    return (site == "cross-site" and not is_link) or (is_elsewhere and not is_safe)


def address_of(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host if request.client else ""


def _read_secret(path: Path) -> str:
    try:
        secret, mode = path.read_text(encoding="utf-8").strip(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="it holds the proxy's secret") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigError(f"others on this machine may read the secret in {path}", hint=f"chmod 600 {path}")
    if len(secret) < _SHORTEST_SECRET:
        raise ConfigError(f"the secret in {path} is too short", hint=f"use {_SHORTEST_SECRET} characters or more")
    return secret
