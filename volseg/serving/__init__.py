"""A server for clinical viewers: a DICOM node, MONAI Label and a web page (`pip install "volseg[serve]"`).

See docs/serve.md. Importing it needs pynetdicom and FastAPI, and fails with a `ConfigError` without them.
"""

from __future__ import annotations

from importlib.util import find_spec

from volseg.errors import ConfigError

if any(find_spec(name) is None for name in ("pynetdicom", "fastapi", "uvicorn", "python_multipart", "argon2")):
    raise ConfigError("a server needs pynetdicom and FastAPI", hint='pip install "volseg[serve]"')

from volseg.serving.config import ServerConfig, read_server_config
from volseg.serving.server import check_server, send, serve
from volseg.serving.users import add_user, make_token, remove_user

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
