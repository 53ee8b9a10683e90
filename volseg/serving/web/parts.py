"""What requests need: the store, the configuration, and a user who may."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import FormData, UploadFile  # what a form holds; FastAPI's is a subclass

from volseg.serving.config import ServerConfig
from volseg.serving.store import Store
from volseg.serving.store.users import Role, Session
from volseg.serving.uploads import Upload
from volseg.serving.web.access import Access


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _config(request: Request) -> ServerConfig:
    config: ServerConfig = request.app.state.config
    return config


def access_of(request: Request) -> Access:
    """Return what knows who may do what."""
    access: Access = request.app.state.access
    return access


def _viewer(request: Request) -> Session:
    return _page_user(request, Role.VIEWER)


def _reviewer(request: Request) -> Session:
    return _page_user(request, Role.REVIEWER)


def _admin(request: Request) -> Session:
    return _page_user(request, Role.ADMIN)


def _page_user(request: Request, role: Role) -> Session:
    access = access_of(request)
    session = access.user(request, role)
    access.check_page(request, session)
    return session


def check_room(request: Request, store: Store, config: ServerConfig) -> None:
    """Check that what a request brings has room on the disk.

    Raises:
        HTTPException: 507 if it has not.
    """
    if store.free_bytes < config.keep.reserve_gb * 1e9 + int(request.headers.get("Content-Length", "0")):
        raise HTTPException(507, "the disk of the server is full")


def uploads_in(form: FormData, name: str) -> list[Upload]:
    """Return the files of a form under a name; what clients call them may be a path of their machine."""
    return [Upload(item.filename or "image", item.file) for item in form.getlist(name) if isinstance(item, UploadFile)]


StoreOf = Annotated[Store, Depends(_store)]
ConfigOf = Annotated[ServerConfig, Depends(_config)]
Viewer = Annotated[Session, Depends(_viewer)]
Reviewer = Annotated[Session, Depends(_reviewer)]
Admin = Annotated[Session, Depends(_admin)]
