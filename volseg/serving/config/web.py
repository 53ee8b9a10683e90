"""The web side."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from volseg.config.section import Section
from volseg.serving.config.names import StatedPath
from volseg.serving.config.tls import TlsConfig


class ProxyConfig(Section):
    """A reverse proxy that encrypts, and says who the user is.

    Attributes:
        secret: File with what the proxy states in the header X-Proxy-Secret, so that nobody goes round it.
        user_header: Header with the name of the user; what users send under this name the proxy must remove.
    """

    secret: StatedPath
    user_header: str = "X-Remote-User"


class WebConfig(Section):
    """The web page, and the interface of MONAI Label.

    Attributes:
        host: Address that it listens on.
        port: Port that it listens on.
        tls: Encryption.
        behind_proxy: A reverse proxy in front of it, which encrypts.
        session_hours: After how long a user has to log in again.
        largest_upload_gb: Largest upload, in 10^9 bytes; what it unpacks to may be four times as large.
        dicomweb: Name of the destination whose DICOMweb service images are taken from, for MONAI Label and OHIF.
        ohif: Folder of a built OHIF viewer, which is served at /ohif/; or the https:// address of one.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    tls: TlsConfig | None = None
    behind_proxy: ProxyConfig | None = None
    session_hours: float = Field(default=12.0, gt=0)
    largest_upload_gb: float = Field(default=4.0, gt=0)
    dicomweb: str | None = None
    ohif: str | None = None
