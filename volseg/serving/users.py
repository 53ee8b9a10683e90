"""Users of a server: what the command `user` calls."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from volseg.config import one_of
from volseg.errors import ConfigError
from volseg.serving.store import open_store
from volseg.serving.store import users as stored

_DAY_SECONDS = 86400.0


def add_user(store: str | PathLike[str], name: str, password: str, role: str = "viewer") -> None:
    """Add a user, or change the password and role of one.

    Args:
        store: Folder of the server.
        name: Of the user.
        password: Ten characters or more.
        role: "viewer", "reviewer" or "admin".

    Raises:
        ConfigError: If the role is unknown, or the name or password is not possible.
        OutputError: If the store cannot be written.
    """
    known = stored.Role(one_of("role", role, tuple(stored.Role)))
    if not name.strip() or not name.isprintable():
        raise ConfigError(f"{name!r} cannot be the name of a user", hint="use letters and digits")
    stored.set_user(open_store(Path(store)), name, password, known)


def remove_user(store: str | PathLike[str], name: str) -> None:
    """Remove a user, who is logged out at once.

    Raises:
        ConfigError: If there is none of that name.
    """
    if not stored.remove_user(open_store(Path(store)), name):
        raise ConfigError(f"there is no user {name!r}", hint="check the name, and --store")


def make_token(store: str | PathLike[str], name: str, days: float) -> str:
    """Make a token with which a script may do what a user may: "Authorization: Bearer TOKEN".

    Raises:
        ConfigError: If there is no user of that name.
    """
    opened = open_store(Path(store))
    if stored.role_of(opened, name) is None:
        raise ConfigError(f"there is no user {name!r}", hint="add the user first")
    return stored.add_token(opened, name, days * _DAY_SECONDS)
