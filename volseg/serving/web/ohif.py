"""What OHIF reads its images from: the DICOMweb service that the configuration names, and no other."""

from __future__ import annotations

import re

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import StreamingResponse

from volseg.errors import DeliveryError
from volseg.serving.dicom.web import relay
from volseg.serving.web.monai_label.parts import ClientViewer
from volseg.serving.web.parts import ConfigOf

router = APIRouter(prefix="/proxy/dicom", tags=["OHIF"])

_UID = r"[0-9][0-9.]{0,63}"
#: The resources that can be searched for and retrieved (PS3.18 tables 10.4.1-1 and 10.6.1-1).
_RESOURCE = re.compile(
    rf"(studies|series|instances|studies/{_UID}(/series(/{_UID}(/instances(/{_UID}(/frames/[0-9,]+)?)?)?)?|/instances)?"
    r"(/metadata|/rendered|/thumbnail|/bulk(data)?(/[A-Za-z0-9_-]+)*)?)"
)


@router.get("/{path:path}", responses={404: {}, 502: {}})
def relay_dicomweb(path: str, request: Request, _: ClientViewer, config: ConfigOf) -> StreamingResponse:
    """Pass on what the service answers; `qido` and `wado` before the path are the same service."""
    if config.web.dicomweb is None:
        raise HTTPException(404, "web.dicomweb names no DICOMweb service")
    place = re.sub(r"^(qido|wado)/", "", path)
    if not _RESOURCE.fullmatch(place):
        raise HTTPException(404, "DICOMweb has no such resource to search for or retrieve")
    query = f"?{request.url.query}" if request.url.query else ""
    try:
        answer = relay(config.destinations[config.web.dicomweb], place + query, request.headers.get("Accept", "*/*"))
    except DeliveryError as error:
        raise HTTPException(502, error.explanation) from error
    return StreamingResponse(answer.body, answer.status, answer.headers)
