"""Sessions: images that a client works on for a while."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse

from volseg.serving.images import begin_session, end_session, file_name, image_file, session_image
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.uploads import Upload
from volseg.serving.web.monai_label.parts import ClientReviewer, ClientViewer
from volseg.serving.web.parts import ConfigOf, StoreOf, check_room, uploads_in

router = APIRouter(prefix="/session", tags=["MONAI Label"])

_USUAL_SECONDS, _LONGEST_SECONDS = 3600, 7 * 86400
_MOST_FILES = 20_000


@router.put("/", responses={400: {}, 507: {}})
async def begin(
    request: Request, user: ClientReviewer, store: StoreOf, config: ConfigOf, expiry: int = 0
) -> dict[str, Any]:
    """Keep an image for a while: one file, or the slices of a DICOM series."""
    check_room(request, store, config)
    async with request.form(max_files=_MOST_FILES) as form:
        files = uploads_in(form, "files")
        if not files:
            raise HTTPException(400, "send the image as `files`")
        seconds = min(expiry, _LONGEST_SECONDS) if expiry > 0 else _USUAL_SECONDS
        session_id = await run_in_threadpool(_begin, store, files, seconds, user.user)
    return {"session_id": session_id, "session_info": _info(store, session_id)}


@router.get("/{session_id}", responses={404: {}})
def show(session_id: str, _: ClientViewer, store: StoreOf, *, image: bool = False) -> Any:
    """Return a session, or its image."""
    info = _info(store, session_id)
    known = session_image(store, session_id)
    if not image or known is None:
        return info
    file = image_file(store, known)
    return FileResponse(file, filename=file_name(known, file))


@router.delete("/{session_id}", responses={404: {}})
def end(session_id: str, _: ClientReviewer, store: StoreOf) -> dict[str, Any]:
    """Remove a session and its image."""
    info = _info(store, session_id)
    end_session(store, session_id)
    return info


def _begin(store: Store, files: list[Upload], seconds: float, user: str) -> str:
    session_id = begin_session(store, files, seconds)
    image = session_image(store, session_id)
    note(store, user, "uploaded", "" if image is None else image.case_id)
    return session_id


def _info(store: Store, session_id: str) -> dict[str, Any]:
    row = store.row(
        "SELECT seconds, used, created FROM image_sessions JOIN cases ON cases.id = case_id"
        " WHERE image_sessions.id = ?",
        session_id,
    )
    if row is None:
        raise HTTPException(404, "there is no such session")
    return {
        "name": session_id,
        "meta": {},
        "create_ts": int(row["created"]),
        "last_access_ts": int(row["used"]),
        "expiry": int(row["seconds"]),
    }
