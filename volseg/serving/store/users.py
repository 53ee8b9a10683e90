"""Users, and the tokens by which they are known. Of passwords and tokens only hashes are kept."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from threading import Lock

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from volseg.errors import ConfigError
from volseg.serving.store.database import Store

_SHORTEST_PASSWORD = 10
_hasher = PasswordHasher()
#: Of no password: unknown names take as long as wrong passwords.
_NOBODY = _hasher.hash(secrets.token_hex(16))
#: A hash takes 64 MB, so that many at once would take all memory.
_ONE_AT_A_TIME = Lock()


class Role(StrEnum):
    """What a user may do: look; also upload, correct, segment and send; or everything."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Return whether a user of this role may do what one of another role may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Session:
    """Who a token stands for.

    Attributes:
        user: Name.
        role: What the user may do.
        csrf: What a page of this session states when it changes something; empty if it is no session of a browser.
    """

    user: str
    role: Role
    csrf: str


def set_user(store: Store, name: str, password: str, role: Role) -> None:
    """Add a user, or change the password and role of one; who is logged in under that name no longer is.

    Raises:
        ConfigError: If the password is too short.
    """
    if len(password) < _SHORTEST_PASSWORD:
        raise ConfigError(f"the password has {len(password)} characters", hint=f"use {_SHORTEST_PASSWORD} or more")
    with store.transaction():
        store.change("DELETE FROM users WHERE name = ?", name)
        store.change("INSERT INTO users (name, password, role) VALUES (?, ?, ?)", name, _hasher.hash(password), role)


def remove_user(store: Store, name: str) -> bool:
    """Remove a user; return False if there is none of that name."""
    return bool(store.change("DELETE FROM users WHERE name = ?", name))


def has_users(store: Store) -> bool:
    """Return whether there are users, so that they have to log in."""
    return store.row("SELECT 1 FROM users LIMIT 1") is not None


def role_of(store: Store, name: str) -> Role | None:
    """Return the role of a user; None if there is none of that name."""
    row = store.row("SELECT role FROM users WHERE name = ?", name)
    return None if row is None else Role(row["role"])


def is_password(store: Store, name: str, password: str) -> bool:
    """Return whether this is the password of a user."""
    row = store.row("SELECT password FROM users WHERE name = ?", name)
    try:
        with _ONE_AT_A_TIME:
            return _hasher.verify(_NOBODY if row is None else row["password"], password) and row is not None
    except (VerificationError, InvalidHashError):
        return False


def add_token(store: Store, name: str, seconds: float, *, is_session: bool = False) -> str:
    """Make a token for a user.

    Args:
        store: The store.
        name: Of the user.
        seconds: How long it is valid.
        is_session: Whether it is kept by a browser, which sends it along whoever asks it to.
    """
    token = secrets.token_urlsafe(32)
    csrf = secrets.token_urlsafe(16) if is_session else ""
    store.change("DELETE FROM tokens WHERE expires < ?", time.time())
    store.change(
        "INSERT INTO tokens (hash, user, csrf, expires) VALUES (?, ?, ?, ?)",
        *(_hash(token), name, csrf, time.time() + seconds),
    )
    return token


def remove_token(store: Store, token: str) -> None:
    """Make a token invalid."""
    store.change("DELETE FROM tokens WHERE hash = ?", _hash(token))


def session_of(store: Store, token: str) -> Session | None:
    """Return who a token stands for; None if it is not valid."""
    row = store.row(
        "SELECT name, role, csrf FROM tokens JOIN users ON name = user WHERE hash = ? AND expires > ?",
        *(_hash(token), time.time()),
    )
    return None if row is None else Session(row["name"], Role(row["role"]), row["csrf"])


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
