"""DICOMweb, as a client: store, search and retrieve (PS3.18 sections 10.4 to 10.6)."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from volseg.errors import DeliveryError
from volseg.serving.config import DestinationConfig

_ANSWER_SECONDS = 120.0
_JSON = "application/dicom+json"
#: What a service says of an object rather than of itself.
_ABOUT_THE_OBJECT = frozenset({400, 409, 415})
#: What it says of a search or an object that somebody else wants.
_FOR_WHO_ASKS = frozenset({400, 404, 406, 410, 413, 415})
_ABOUT_THE_BODY = ("Content-Type", "Content-Length")
_CHUNK = 2**18
_BOUNDARY = re.compile(r'boundary="?([^";,]+)')
#: Attributes of an answer to a store request, and of an object that was not stored (PS3.18 section 10.5.3).
_FAILED, _REASON = "00081198", "00081197"


class _NoRedirect(HTTPRedirectHandler):
    """A service that sends us elsewhere gets neither images nor passwords there."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Refuse."""


def store(file: Path, service: DestinationConfig) -> str:
    """Store an object (STOW-RS).

    Returns:
        The reason why it was not accepted; empty if it was.

    Raises:
        DeliveryError: If the service cannot be reached, or does not let us in.
    """
    boundary = uuid.uuid4().hex
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = head + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    try:
        answer, _ = _request(service, "studies", {"Accept": _JSON, "Content-Type": kind}, body)
    except HTTPError as error:
        return f"it answers {error.code} {error.reason}"
    failed = _parsed(service, answer or b"{}").get(_FAILED, {}).get("Value")
    if not failed:
        return ""
    return f"it refuses the object: {int(failed[0].get(_REASON, {}).get('Value', [0])[0]):04X}"


def search(service: DestinationConfig, level: str, **match: str) -> list[dict[str, Any]]:
    """Search (QIDO-RS).

    Args:
        service: The service.
        level: "studies", "series" or "instances", or a path of these.
        **match: Attribute -> the value that it has.

    Returns:
        What matches, as DICOM JSON (PS3.18 annex F).

    Raises:
        DeliveryError: If the service cannot be reached, or does not let us in.
    """
    try:
        answer, _ = _request(service, f"{level}?{urlencode(match)}", {"Accept": _JSON})
    except HTTPError as error:
        raise DeliveryError(f"{service.to} answers {error.code} {error.reason}", hint="check its log") from error
    return list(_parsed(service, answer or b"[]"))


def retrieve_series(service: DestinationConfig, study_uid: str, series_uid: str) -> Iterator[bytes]:
    """Retrieve a series (WADO-RS).

    Yields:
        Each object as a whole DICOM file, in the transfer syntax that the service keeps it in.

    Raises:
        DeliveryError: If the service cannot be reached, or has no such series.
    """
    place = f"studies/{quote(study_uid, safe='')}/series/{quote(series_uid, safe='')}"
    wanted = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    try:
        answer, kind = _request(service, place, {"Accept": wanted})
    except HTTPError as error:
        raise DeliveryError(f"{service.to} answers {error.code} {error.reason}", hint="check its log") from error
    found = _BOUNDARY.search(kind)
    if found is None:
        raise DeliveryError(f"{service.to} answers {kind or 'nothing'}, no series", hint="check its address")
    # The parts are binary, so that no parser of mails may touch them (RFC 2046 section 5.1).
    for part in (b"\r\n" + answer).split(f"\r\n--{found[1]}".encode())[1:-1]:
        yield part.partition(b"\r\n\r\n")[2]


@dataclass(frozen=True)
class Relayed:
    """What a service answers, to be passed on as it comes.

    Attributes:
        status: HTTP status.
        headers: Those that say what the body is.
        body: The body, piece by piece; it has to be read to its end, or closed.
    """

    status: int
    headers: dict[str, str]
    body: Iterator[bytes]


def relay(service: DestinationConfig, place: str, accept: str) -> Relayed:
    """Ask a service for something that somebody else wants.

    Args:
        service: The service.
        place: Path and query below its address.
        accept: Types that are wanted.

    Raises:
        DeliveryError: If the service cannot be reached, does not let us in, or sends us elsewhere.
    """
    try:
        answer = _open(service, place, {"Accept": accept})
    except HTTPError as error:
        if error.code not in _FOR_WHO_ASKS:
            raise _refused(service, error) from error
        answer = error
    headers = {name: value for name in _ABOUT_THE_BODY if (value := answer.headers.get(name))}
    return Relayed(answer.status or 200, headers, _pieces(answer))


def _pieces(answer: Any) -> Iterator[bytes]:
    with answer:
        while piece := answer.read(_CHUNK):
            yield piece


def _request(
    service: DestinationConfig, place: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[bytes, str]:
    """Return the answer to a request, and its type.

    Raises:
        HTTPError: If the service answers that something is wrong with the object.
        DeliveryError: If anything else is wrong.
    """
    try:
        with _open(service, place, headers, body) as answer:
            return answer.read(), answer.headers.get("Content-Type", "")
    except HTTPError as error:
        if error.code in _ABOUT_THE_OBJECT:
            raise
        raise _refused(service, error) from error
    except (OSError, HTTPException) as error:
        raise _lost(service, error) from error


def _open(service: DestinationConfig, place: str, headers: dict[str, str], body: bytes | None = None) -> Any:
    """Send a request.

    Raises:
        HTTPError: If the service answers that something is wrong.
        DeliveryError: If it cannot be reached.
    """
    if service.authorization is not None:
        headers = headers | {"Authorization": _secret(service.authorization)}
    handlers: list[Any] = [_NoRedirect()]
    if service.tls is not None:
        handlers.append(HTTPSHandler(context=service.tls.for_client()))
    request = Request(f"{service.to.rstrip('/')}/{place}", body, headers)  # noqa: S310  http or https: config checks it
    try:
        return build_opener(*handlers).open(request, timeout=_ANSWER_SECONDS)
    except HTTPError:
        raise
    except (URLError, OSError, HTTPException) as error:
        raise _lost(service, error) from error


def _refused(service: DestinationConfig, error: HTTPError) -> DeliveryError:
    return DeliveryError(f"{service.to} answers {error.code} {error.reason}", hint="check its log")


def _lost(service: DestinationConfig, error: Exception) -> DeliveryError:
    cause = error.reason if isinstance(error, URLError) else error
    said = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return DeliveryError(f"{service.to} cannot be reached: {said}", hint="is it running?")


def _secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise DeliveryError(f"{file} cannot be read: {error.strerror}", hint="it holds the authorization") from error


def _parsed(service: DestinationConfig, answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError as error:
        raise DeliveryError(f"{service.to} answers what is no JSON", hint="does its address end so?") from error
