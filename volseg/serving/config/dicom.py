"""The DICOM node: who may send, what is segmented, and where results go."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from volseg.config.section import ContradictionError, Section
from volseg.exporting import Format
from volseg.serving.config.names import AeTitle, Name, Pattern, Port, Seconds, StatedPath, node_of
from volseg.serving.config.tls import TlsConfig
from volseg.system import is_loopback


class SenderConfig(Section):
    """Somebody who may send DICOM objects.

    Attributes:
        ae_title: Its application entity title.
        address: Its IP address, or a network such as 10.1.0.0/16; by default any.
    """

    ae_title: AeTitle
    address: str | None = None

    @model_validator(mode="after")
    def _is_address(self) -> Self:
        if self.address is not None:
            try:
                ipaddress.ip_network(self.address)
            except ValueError as error:
                raise ContradictionError(
                    f"{self.address!r} is no IP address or network", hint="for example 10.1.0.0/16"
                ) from error
        return self

    def admits(self, ae_title: str, address: str) -> bool:
        """Return whether this is who connects."""
        if ae_title.strip() != self.ae_title:
            return False
        if self.address is None:
            return True
        caller = ipaddress.ip_address(address)
        # Where addresses of both versions are listened on, one of version 4 comes in the other's form.
        mapped = caller.ipv4_mapped if isinstance(caller, ipaddress.IPv6Address) else None
        return (mapped or caller) in ipaddress.ip_network(self.address)


class DestinationConfig(Section):
    """Where results are sent.

    Attributes:
        to: AE@host:port of a DICOM node, or the https:// address of a DICOMweb service.
        formats: Which results it gets; by default all that are DICOM objects.
        tls: Encryption of a DICOM association, or the client certificate of a DICOMweb service.
        authorization: File that holds the value of the HTTP header Authorization, such as "Bearer ...".
        attempts: How many times to try before a delivery is given up; it can be retried by hand.
        retry_seconds: How long to wait after the first failure; each time twice as long, an hour at most.
    """

    to: str
    formats: tuple[Format, ...] = ("dicom-seg", "rtstruct", "dicom-sr")
    tls: TlsConfig | None = None
    authorization: StatedPath | None = None
    attempts: int = Field(default=12, ge=1)
    retry_seconds: Seconds = 10.0

    @model_validator(mode="after")
    def _is_destination(self) -> Self:
        if self.is_web:
            parts = urlsplit(self.to)
            if not parts.hostname or parts.username or parts.password:
                raise ContradictionError(
                    f"{self.to!r} is no address of a DICOMweb service",
                    hint="give https://host/dicom-web, and a password in the file `authorization`",
                )
            if self.authorization is not None and parts.scheme == "http" and not is_loopback(parts.hostname):
                raise ContradictionError(f"{self.to} would send the password in the clear", hint="use https://")
        else:
            node_of(self.to)
        return self

    @property
    def is_web(self) -> bool:
        """Whether this is a DICOMweb service."""
        return self.to.startswith(("http://", "https://"))


class RuleConfig(Section):
    """Which studies a model segments, and what becomes of the masks.

    Attributes:
        name: Shown in the work list.
        model: Name of the model; by default the first one.
        tags: DICOM keyword -> regular expression; a study fits if one of its series matches them all, ignoring case.
        senders: AE titles that the study may come from; by default any.
        formats: Of the results.
        destinations: Names of the destinations of the results.
        required_series: Number of series without which a study is not complete; quiet time has to pass, too.
        series_description: Of DICOM objects; {format}, {labels} and {model} are filled in.
        priority: Higher ones first.
    """

    name: Name
    model: str | None = None
    tags: Mapping[str, Pattern] = Field(default_factory=dict)
    senders: tuple[AeTitle, ...] = ()
    formats: tuple[Format, ...] = ("dicom-seg",)
    destinations: tuple[str, ...] = ()
    required_series: int = Field(default=1, ge=1)
    series_description: str | None = None
    priority: int = 0


class DicomConfig(Section):
    """The DICOM node.

    Attributes:
        host: Address that it listens on.
        port: Port that it listens on; 0 for none.
        ae_title: What it is called. Beyond this machine, or if `senders` are stated, others must call it so.
        senders: Who may send; by default anybody on this machine.
        tls: Encryption of associations.
        associations: Number of associations at the same time.
        idle_seconds: After how long an association without traffic is ended.
        quiet_seconds: How long after its last object a study is complete, if its sender has no association open.
        wait_seconds: How long to wait for slices that a series lacks before its study fails.
        count_at: Name of the destination that is asked how many objects a study has, so that it is complete as soon as
            all of them are there.
    """

    host: str = "127.0.0.1"
    port: Port = 11112
    ae_title: AeTitle = "VOLSEG"
    senders: tuple[SenderConfig, ...] = ()
    tls: TlsConfig | None = None
    associations: int = Field(default=20, ge=1)
    idle_seconds: Seconds = 300.0
    quiet_seconds: Seconds = 60.0
    wait_seconds: Seconds = 600.0
    count_at: str | None = None

    @property
    def is_called_by_name(self) -> bool:
        """Whether others must use its AE title."""
        return bool(self.senders) or not is_loopback(self.host)
