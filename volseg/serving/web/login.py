"""Logging in and out of the page."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, Field

from volseg.serving.config import ServerConfig
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.users import add_token, is_password, remove_token
from volseg.serving.web.access import COOKIE, address_of
from volseg.serving.web.attempts import network_of
from volseg.serving.web.parts import ConfigOf, StoreOf, access_of

router = APIRouter(prefix="/api", tags=["login"])

#: What the audit calls it.
_LOGGED_IN = "logged in"


class Login(BaseModel):
    """What a user enters."""

    name: str = Field(max_length=200)
    password: str = Field(max_length=1000)


class SessionInfo(BaseModel):
    """Who looks at the page.

    Attributes:
        user: Name; empty if nobody has logged in.
        role: What the user may do.
        csrf: What the page states in X-CSRF-Token when it changes something.
        needs_login: Whether somebody has to log in.
        can_log_out: Whether the user has logged in here, and not at a proxy.
    """

    user: str = ""
    role: str = ""
    csrf: str = ""
    needs_login: bool
    can_log_out: bool = False


@router.get("/session")
def show_session(request: Request) -> SessionInfo:
    """Return who looks at the page."""
    access = access_of(request)
    session = access.session(request)
    if session is None:
        return SessionInfo(needs_login=True)
    can_log_out = COOKIE in request.cookies and not access.is_open
    return SessionInfo(
        user=session.user, role=session.role, csrf=session.csrf, needs_login=False, can_log_out=can_log_out
    )


@router.post("/login", responses={401: {}, 403: {}, 429: {}})
def log_in(login: Login, request: Request, response: Response, store: StoreOf, config: ConfigOf) -> SessionInfo:
    """Log in."""
    check_login(login, request, store, config)
    remove_token(store, request.cookies.get(COOKIE, ""))
    token = add_token(store, login.name, config.web.session_hours * 3600, is_session=True)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=bool(config.web.tls), path="/")
    return SessionInfo(needs_login=False)


@router.post("/logout", responses={403: {}})
def log_out(request: Request, response: Response, store: StoreOf) -> SessionInfo:
    """Log out."""
    access = access_of(request)
    if (session := access.session(request)) is not None:
        access.check_page(request, session)
    remove_token(store, request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE, path="/")
    return SessionInfo(needs_login=not access.is_open)


def check_login(login: Login, request: Request, store: Store, config: ServerConfig) -> None:
    """Check the name and the password of a user; who guesses has to wait.

    Raises:
        HTTPException: 401 if they are wrong, 429 if there were too many attempts, 403 if a proxy asks for them.
    """
    if config.web.behind_proxy:
        raise HTTPException(403, "the reverse proxy says who you are; log in there")
    attempts, address = access_of(request).attempts, network_of(address_of(request))
    keys = [f"address {address}"]
    if not _is_usual(store, login.name, address):
        keys.append(f"name {login.name}")
    if (wait := attempts.begin(*keys)) > 0:
        raise HTTPException(429, f"too many attempts; wait {wait:.0f} s", {"Retry-After": f"{wait + 1:.0f}"})
    if not is_password(store, login.name, login.password):
        note(store, "somebody", "failed to log in", detail=address)
        raise HTTPException(401, "the name or the password is wrong")
    attempts.forget(*keys)
    note(store, login.name, _LOGGED_IN, detail=address)


def _is_usual(store: Store, name: str, address: str) -> bool:
    """Return whether a user has logged in from an address before, who then does not wait for what others try."""
    found = store.row("SELECT 1 FROM audit WHERE who = ? AND what = ? AND detail = ?", name, _LOGGED_IN, address)
    return found is not None
