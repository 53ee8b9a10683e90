"""What requests of MONAI Label's clients need."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request
from starlette.datastructures import FormData  # what a form holds; FastAPI's is a subclass

from volseg.serving.config import ServerConfig
from volseg.serving.images import Image, find_image
from volseg.serving.store import Store
from volseg.serving.store.models import labels_of_model
from volseg.serving.store.users import Role, Session
from volseg.serving.web.access import COOKIE
from volseg.serving.web.parts import access_of

_SAFE = frozenset({"GET", "HEAD"})


def client_user(request: Request, role: Role) -> Session:
    """Return who sends a request, if they may; these clients know nothing of our page's token against forgery.

    Raises:
        HTTPException: 401 if nobody is logged in, 403 if they may not.
    """
    session = access_of(request).user(request, role)
    is_sent_along = COOKIE in request.cookies and "Authorization" not in request.headers
    if request.method not in _SAFE and is_sent_along and "Origin" not in request.headers:
        raise HTTPException(403, "a browser has to say which page changes something")
    return session


def _viewer(request: Request) -> Session:
    return client_user(request, Role.VIEWER)


def _reviewer(request: Request) -> Session:
    return client_user(request, Role.REVIEWER)


def _admin(request: Request) -> Session:
    return client_user(request, Role.ADMIN)


ClientViewer = Annotated[Session, Depends(_viewer)]
ClientReviewer = Annotated[Session, Depends(_reviewer)]
ClientAdmin = Annotated[Session, Depends(_admin)]


def known_image(store: Store, name: str) -> Image:
    """Return an image.

    Raises:
        HTTPException: 404 if there is none of that name.
    """
    image = find_image(store, name)
    if image is None:
        raise HTTPException(404, "there is no such image")
    return image


def known_model(config: ServerConfig, name: str) -> str:
    """Return the name of a model.

    Raises:
        HTTPException: 404 if there is none of that name.
    """
    if name not in config.models:
        raise HTTPException(404, f"there is no model {name!r}; there are {', '.join(config.models)}")
    return name


def model_labels(store: Store, name: str) -> list[str]:
    """Return the names of a model's labels, in the order of their values."""
    return [label.name for label in labels_of_model(store, name)]


def all_labels(store: Store, config: ServerConfig) -> list[str]:
    """Return the names of the labels of all models, each once."""
    return list(dict.fromkeys(label for name in config.models for label in model_labels(store, name)))


def json_in(form: FormData, name: str) -> dict[str, Any]:
    """Return an object that a form holds as JSON; an empty one if it does not.

    Raises:
        HTTPException: 400 if it holds something else.
    """
    text = form.get(name) or "{}"
    try:
        content = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise HTTPException(400, f"{name} is no JSON object")
    return content
