"""Who may do what: users, sessions, tokens and a proxy; and requests that another web site makes a browser send."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse, Response

from volseg.errors import ConfigError
from volseg.serving.config import WebConfig
from volseg.serving.store import Store
from volseg.serving.store.users import Role, Session, has_users, role_of, session_of
from volseg.system import is_loopback

COOKIE = "volseg_session"
#: Requests that change nothing.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
#: Who it is where nobody has to log in: whoever sits at this machine.
_LOCAL = "local"
#: Failed logins of an address or a name after which it has to wait, longer each time.
_FREE_ATTEMPTS, _LONGEST_WAIT_SECONDS, _MOST_REMEMBERED = 5, 900.0, 10_000
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


@dataclass
class Attempts:
    """Counts failed logins of an address or a name.

    Attributes:
        failures: When each of them failed, in seconds of the monotonic clock: number and time of the last.
    """

    failures: dict[str, tuple[int, float]] = field(default_factory=dict)

    def wait_seconds(self, *names: str) -> float:
        """Return how long these have to wait before they may try again."""
        return max(map(self._wait, names))

    def note(self, *names: str) -> None:
        """Note a failure."""
        if len(self.failures) > _MOST_REMEMBERED:
            self.failures.clear()
        for name in names:
            self.failures[name] = (self.failures.get(name, (0, 0.0))[0] + 1, time.monotonic())

    def forget(self, *names: str) -> None:
        """Forget failures, after a success."""
        for name in names:
            self.failures.pop(name, None)

    def _wait(self, name: str) -> float:
        count, last = self.failures.get(name, (0, 0.0))
        if count < _FREE_ATTEMPTS:
            return 0.0
        wait = min(2.0 ** (count - _FREE_ATTEMPTS), _LONGEST_WAIT_SECONDS)
        return max(0.0, last + wait - time.monotonic())


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
        self._open_csrf = secrets.token_urlsafe(16)
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
            return Session(name, role, self._open_csrf) if name else self._by_token(request)
        if self.is_open:
            return Session(_LOCAL, Role.ADMIN, self._open_csrf)
        return self._by_token(request) or session_of(self._store, request.cookies.get(COOKIE, ""))

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
        if not hmac.compare_digest(request.headers.get("X-CSRF-Token", ""), session.csrf):
            raise HTTPException(403, "the page is out of date; load it again")

    def grant(self, request: Request, image: str) -> None:
        """Let the address of a request fetch an image without a token for a while; 3D Slicer does not send any."""
        now = time.monotonic()
        self._grants = {key: until for key, until in self._grants.items() if until > now}
        self._grants[address_of(request), image] = now + _GRANT_SECONDS

    def is_granted(self, request: Request, image: str) -> bool:
        """Return whether the address of a request may fetch an image."""
        return self._grants.get((address_of(request), image), 0.0) > time.monotonic()

    async def guard(self, request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        """Refuse what another web site makes a browser send, and add the headers that protect the page."""
        refusal = self._refusal(request)
        response = JSONResponse({"detail": refusal}, 403) if refusal else await proceed(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if request.url.path.startswith("/ohif"):
            response.headers["Content-Security-Policy"] = _OHIF_POLICY
        if self._config.tls or self._config.behind_proxy:
            response.headers["Strict-Transport-Security"] = "max-age=31536000"
        return response

    def _refusal(self, request: Request) -> str:
        """Return why a request is refused, whoever sends it; empty if it is not."""
        proxy = self._config.behind_proxy
        if proxy and not hmac.compare_digest(request.headers.get("X-Proxy-Secret", ""), self._secret):
            return "this server answers its reverse proxy only"
        host = request.headers.get("Host", "")
        name = urlsplit(f"//{host}").hostname or ""
        if not proxy and is_loopback(self._config.host) and not is_loopback(name):
            # Else any web site could read everything here, under a name that it lets point to this machine.
            return f"this server is {self._config.host}, not {name}"
        origin = request.headers.get("Origin")
        expected = request.headers.get("X-Forwarded-Host", host) if proxy else host
        is_foreign = origin is not None and urlsplit(origin).netloc != expected
        if request.method not in _SAFE and (is_foreign or request.headers.get("Sec-Fetch-Site") == "cross-site"):
            return "another web site may not change anything here"
        return ""

    def _by_token(self, request: Request) -> Session | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return session_of(self._store, token.strip()) if kind.lower() == "bearer" else None


def address_of(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host if request.client else ""


def _read_secret(path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="it holds the proxy's secret") from error
    if len(secret) < 16:
        raise ConfigError(f"the secret in {path} is too short", hint="use 16 characters or more")
    return secret
