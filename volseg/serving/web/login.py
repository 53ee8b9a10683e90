"""Logging in and out of the page."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, Response
from pydantic import BaseModel, Field

from volseg.serving.store.audit import note
from volseg.serving.store.users import add_token, is_password, remove_token
from volseg.serving.web.access import COOKIE, address_of
from volseg.serving.web.parts import ConfigOf, StoreOf, access_of

router = APIRouter(prefix="/api", tags=["login"])


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


@router.post("/login", responses={401: {}, 429: {}})
def log_in(login: Login, request: Request, response: Response, store: StoreOf, config: ConfigOf) -> SessionInfo:
    """Log in."""
    access, names = access_of(request), (f"address {address_of(request)}", f"name {login.name}")
    if (wait := access.attempts.wait_seconds(*names)) > 0:
        raise HTTPException(429, f"too many attempts; wait {wait:.0f} s", {"Retry-After": f"{wait + 1:.0f}"})
    if not is_password(store, login.name, login.password):
        access.attempts.note(*names)
        note(store, "somebody", "failed to log in", detail=address_of(request))
        raise HTTPException(401, "the name or the password is wrong")
    access.attempts.forget(*names)
    token = add_token(store, login.name, config.web.session_hours * 3600, is_session=True)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=bool(config.web.tls), path="/")
    note(store, login.name, "logged in", detail=address_of(request))
    return SessionInfo(needs_login=False)


@router.post("/logout")
def log_out(request: Request, response: Response, store: StoreOf) -> SessionInfo:
    """Log out."""
    access = access_of(request)
    if (session := access.session(request)) is not None:
        access.check_page(request, session)
    remove_token(store, request.cookies.get(COOKIE, ""))
    response.delete_cookie(COOKIE, path="/")
    return SessionInfo(needs_login=not access.is_open)
