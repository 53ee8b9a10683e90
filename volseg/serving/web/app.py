"""The web application."""

from __future__ import annotations

import logging
import tempfile
from importlib import resources
from pathlib import Path
from threading import Event, Thread
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException  # what StaticFiles raises; FastAPI's is a subclass

from volseg.errors import ConfigError, OutputError
from volseg.serving.config import ServerConfig
from volseg.serving.processes import Ready
from volseg.serving.store import Store
from volseg.serving.web import cases, login, monai_label, ohif, operation, queue
from volseg.serving.web.access import Access
from volseg.serving.web.connection import settings
from volseg.serving.web.faults import add_fault_handlers, answer_defects
from volseg.version import __version__

_STOP_SECONDS = 5

logger = logging.getLogger(__name__)


def create_app(config: ServerConfig, store: Store) -> FastAPI:
    """Build the application.

    Args:
        config: Of the server.
        store: Of the server.

    Raises:
        ConfigError: If the secret of a proxy cannot be read, or there is no OHIF in its folder.
    """
    refusals: dict[int | str, dict[str, Any]] = {code: {} for code in (400, 401, 403, 411, 413, 503, 507)}
    app = FastAPI(title="volseg", version=__version__, docs_url=None, redoc_url=None, responses=refusals)
    app.state.config, app.state.store, app.state.access = config, store, Access(store, config.web)
    app.middleware("http")(answer_defects)
    app.middleware("http")(app.state.access.guard)
    add_fault_handlers(app)
    for router in (login.router, cases.router, queue.router, operation.router, ohif.router, *monai_label.routers):
        app.include_router(router)
    page = Path(str(resources.files("volseg.serving.web") / "page"))
    app.get("/", include_in_schema=False)(lambda: RedirectResponse("/page/"))
    app.mount("/page", StaticFiles(directory=page, html=True))
    if config.web.ohif and not config.web.ohif.startswith("https://"):
        folder = Path(config.web.ohif)
        if not (folder / "index.html").is_file():
            raise ConfigError(f"web.ohif: {folder} holds no index.html", hint="name the folder of a built OHIF")
        app.mount("/ohif", _SinglePage(directory=folder, html=True))
    return app


class _SinglePage(StaticFiles):
    """Files of an application that makes up its own addresses: where there is no file, its page answers."""

    async def get_response(self, path: str, scope):  # type: ignore[no-untyped-def]
        """Return a file, or the page."""
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or "." in path.rpartition("/")[2]:
                raise
            return await super().get_response("index.html", scope)


def run_web(config: ServerConfig, store: Store, stop: Event, ready: Ready) -> None:
    """Serve the page until `stop` is set.

    Raises:
        ConfigError: If its certificate cannot be used.
        OutputError: If it cannot listen at its address.
    """
    web = config.web
    tempfile.tempdir = str(store.work)  # uploads pass through temporary files: on the disk whose room is checked
    for library in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(library).setLevel(logging.WARNING)  # addresses of MONAI Label's clients name images
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(config, store),
            host=web.host,
            port=web.port,
            timeout_graceful_shutdown=_STOP_SECONDS,
            **settings(web),
        )
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # the process has its own

    def watch() -> None:
        while not (server.started or server.should_exit):
            if stop.wait(0.05):
                break
        if server.started:
            ready(f"web page: {'https' if web.tls else 'http'}://{web.host}:{web.port}")
        stop.wait()
        server.should_exit = True

    Thread(target=watch, daemon=True).start()
    try:
        server.run()
    except SystemExit as error:  # uvicorn's way to say that it cannot listen
        raise OutputError(f"cannot listen at {web.host}:{web.port}", hint="choose another --port") from error
