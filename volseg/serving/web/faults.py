"""What is answered when something goes wrong: a sentence, and nothing of what was sent."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import traceback
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.requests import ClientDisconnect

from volseg.errors import VolsegError

logger = logging.getLogger(__name__)


def add_fault_handlers(app: FastAPI) -> None:
    """Let an application answer errors with a sentence."""
    app.add_exception_handler(VolsegError, _explain)
    app.add_exception_handler(RequestValidationError, _refuse)
    app.add_exception_handler(OSError, _explain_disk)
    app.add_exception_handler(sqlite3.OperationalError, _explain_store)


async def answer_defects(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer 500 to a defect of volseg, and log where it is; what the exception says may name the patient."""
    try:
        return await proceed(request)
    except ClientDisconnect:  # nobody reads the answer
        return Response(status_code=400)
    except Exception as error:  # noqa: BLE001  it is logged and answered
        place = "; ".join(
            f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-6:]
        )
        route = getattr(request.scope.get("route"), "path", "")
        logger.error("a defect of volseg: %s of %s: %s at %s", request.method, route, type(error).__name__, place)  # noqa: TRY400
        return JSONResponse({"detail": "a defect of volseg; its log says where"}, 500)


def _explain(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong, but not where on this machine the store is."""
    sentence = error.explanation if isinstance(error, VolsegError) else str(error)
    return JSONResponse({"detail": sentence.replace(f"{request.app.state.store.folder}{os.sep}", "")}, 400)


def _refuse(_: Request, error: Exception) -> Response:
    """Say which part of a request is not possible, without repeating it: it may hold a password, or be no Unicode."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    told = [{"loc": each["loc"], "msg": each["msg"], "type": each["type"]} for each in found]
    return Response(json.dumps({"detail": told}), 422, media_type="application/json")


def _explain_disk(_: Request, error: Exception) -> JSONResponse:
    why = error.strerror if isinstance(error, OSError) else ""
    logger.error("the files of the store cannot be used: %s", why)
    return JSONResponse({"detail": f"the server cannot use its disk: {why}"}, 507)


def _explain_store(_: Request, error: Exception) -> JSONResponse:
    logger.error("the store cannot be used: %s", error)
    return JSONResponse({"detail": "the server cannot use its store now; try again"}, 503, {"Retry-After": "10"})
