"""A server for clinical viewers: a DICOM node, MONAI Label and a web page (`pip install "volseg[serve]"`).

See docs/serve.md. Importing it needs pynetdicom and FastAPI, and fails with a `ConfigError` without them.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg.serving.config import ServerConfig, read_server_config
    from volseg.serving.server import check_server, send, serve
    from volseg.serving.users import add_user, make_token, remove_user

if any(find_spec(name) is None for name in ("pynetdicom", "fastapi", "uvicorn", "python_multipart", "argon2")):
    raise ConfigError("a server needs pynetdicom and FastAPI", hint='pip install "volseg[serve]"')

#: Name -> its module, which is loaded when somebody asks for it: each process of a server needs a part of them only.
_MODULE_OF = {
    "ServerConfig": "volseg.serving.config",
    "add_user": "volseg.serving.users",
    "check_server": "volseg.serving.server",
    "make_token": "volseg.serving.users",
    "read_server_config": "volseg.serving.config",
    "remove_user": "volseg.serving.users",
    "send": "volseg.serving.server",
    "serve": "volseg.serving.server",
}

__all__ = [
    "ServerConfig",
    "add_user",
    "check_server",
    "make_token",
    "read_server_config",
    "remove_user",
    "send",
    "serve",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'volseg.serving' has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)
