"""What a server does and for whom: its models, addresses, rules and destinations; one YAML file states it all."""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, model_validator

from volseg.config import merge
from volseg.config.section import ContradictionError, Section
from volseg.errors import ConfigError
from volseg.exporting import Format
from volseg.system import is_loopback

_AE_TITLE = re.compile(r"[^\\\x00-\x1f\x7f-\uffff]{1,16}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ADDRESS = re.compile(r"(?P<ae>[^@]+)@(?P<host>[^@:]+|\[[0-9A-Fa-f:]+\]):(?P<port>\d{1,5})")


def _ae_title(text: str) -> str:
    """Check an application entity title (PS3.5 section 6.2, value representation AE)."""
    if not _AE_TITLE.fullmatch(text) or not text.strip():
        raise ContradictionError(f"{text!r} is not an AE title", hint="use 1 to 16 ASCII characters, no backslash")
    return text.strip()


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ContradictionError(f"{text!r} cannot be a name", hint="use letters, digits, dot, dash and underscore")
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ContradictionError(f"{text!r} is no regular expression: {error}", hint="escape it: \\( for (") from error
    return text


def _relative_to_its_file(path: Path, info: ValidationInfo) -> Path:
    return (info.context or Path()) / path.expanduser()


AeTitle = Annotated[str, AfterValidator(_ae_title)]
Name = Annotated[str, AfterValidator(_name)]
Pattern = Annotated[str, AfterValidator(_pattern)]
#: In a file, relative to the folder of the file.
StatedPath = Annotated[Path, AfterValidator(_relative_to_its_file)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
SectionType = TypeVar("SectionType", bound=Section)


class TlsConfig(Section):
    """Encryption of connections.

    Attributes:
        certificate: PEM file of the certificate, with the chain.
        key: PEM file of its key.
        authority: PEM file of the authority that signs the certificates of the others; with it, only they may connect.
    """

    certificate: StatedPath
    key: StatedPath
    authority: StatedPath | None = None

    def for_server(self) -> ssl.SSLContext:
        """Return the settings of the side that is connected to.

        Raises:
            ConfigError: If a file is missing or damaged.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load(context)
        if self.authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def for_client(self) -> ssl.SSLContext:
        """Return the settings of the side that connects; the other side needs a certificate that is valid for it.

        Raises:
            ConfigError: If a file is missing or damaged.
        """
        context = ssl.create_default_context()
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # BCP 195, as PS3.15 section B.9 asks
        try:
            context.load_cert_chain(self.certificate, self.key)
            if self.authority is not None:
                context.load_verify_locations(self.authority)
        except OSError as error:  # of which ssl.SSLError is one
            raise ConfigError(
                f"the certificate {self.certificate} cannot be used: {error}", hint="give PEM files, and the right key"
            ) from error


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
        return self.address is None or ipaddress.ip_address(address) in ipaddress.ip_network(self.address)


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


@dataclass(frozen=True)
class Node:
    """A DICOM node.

    Attributes:
        ae_title: Its application entity title.
        host: Name or IP address.
        port: Where it listens.
    """

    ae_title: str
    host: str
    port: int


def node_of(text: str) -> Node:
    """Parse the address of a DICOM node.

    Args:
        text: AE@host:port.

    Raises:
        ContradictionError: If it has another form.
    """
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found["port"]) < 65536:
        raise ContradictionError(f"{text!r} is not the address of a DICOM node", hint="for example PACS@10.1.0.7:104")
    return Node(_ae_title(found["ae"]), found["host"].strip("[]"), int(found["port"]))


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

    @property
    def is_called_by_name(self) -> bool:
        """Whether others must use its AE title."""
        return bool(self.senders) or not is_loopback(self.host)


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


class KeepConfig(Section):
    """How long things are kept, and how much of the disk is left to others.

    Attributes:
        days: Days after which a case is removed with its images and results; never by default. Cases with results that
            are not delivered stay.
        reserve_gb: Disk space that stays free, in 10^9 bytes: below it nothing is received (status A700).
    """

    days: float | None = Field(default=None, gt=0)
    reserve_gb: float = Field(default=2.0, ge=0)


class ServerConfig(Section):
    """Everything about a server.

    Attributes:
        models: Name -> run folder or model file.
        store: Folder for what it receives and makes.
        dicom: The DICOM node.
        web: The web page, and the interface of MONAI Label.
        rules: Which studies are segmented; by default all, with the first model.
        destinations: Name -> where results are sent.
        keep: How long things are kept.
        device: Where networks run: cpu, cuda, cuda:N or mps.
    """

    models: Mapping[Name, StatedPath]
    store: StatedPath = Path("volseg-store")
    dicom: DicomConfig = DicomConfig()
    web: WebConfig = WebConfig()
    rules: tuple[RuleConfig, ...] = ()
    destinations: Mapping[Name, DestinationConfig] = Field(default_factory=dict)
    keep: KeepConfig = KeepConfig()
    device: str | None = None

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if not self.models:
            raise ContradictionError("there is no model", hint="name one: `volseg serve --model runs/liver`")
        for rule in self.rules:
            _known("model", (rule.model,) if rule.model else (), self.models, rule)
            _known("destination", rule.destinations, self.destinations, rule)
        dicomweb = self.web.dicomweb
        if dicomweb is not None and not (dicomweb in self.destinations and self.destinations[dicomweb].is_web):
            raise ContradictionError(
                f"web.dicomweb: {dicomweb!r} is no destination with a DICOMweb service", hint="name one"
            )
        if len({rule.name for rule in self.rules}) < len(self.rules):
            raise ContradictionError("two rules have the same name", hint="name them differently")
        return self

    @property
    def applied_rules(self) -> tuple[RuleConfig, ...]:
        """The rules, or the default one: every study, with the first model, to every destination."""
        return self.rules or (RuleConfig(name="all", destinations=tuple(self.destinations)),)

    def check_protection(self, *, has_users: bool) -> None:
        """Check that nobody on the network can use it who should not.

        Args:
            has_users: Whether users have to log in.

        Raises:
            ConfigError: If it listens beyond this machine without protection.
        """
        dicom = self.dicom
        listed = bool(dicom.senders) and all(sender.address for sender in dicom.senders)
        if dicom.port and not is_loopback(dicom.host) and not listed and not (dicom.tls and dicom.tls.authority):
            raise ConfigError(
                f"anybody who reaches {dicom.host}:{dicom.port} could send images",
                hint="list dicom.senders with their addresses, or state dicom.tls with an authority",
            )
        web = self.web
        if is_loopback(web.host) or web.behind_proxy:
            return
        if not web.tls:
            raise ConfigError(
                f"passwords and images would cross the network in the clear at {web.host}:{web.port}",
                hint="state web.tls, or web.behind_proxy",
            )
        if not has_users:
            raise ConfigError(
                f"anybody who reaches {web.host}:{web.port} could see all images",
                hint="add a user first: `volseg user NAME --role admin`",
            )


def _known(kind: str, stated: tuple[str, ...], names: Mapping[str, Any], rule: RuleConfig) -> None:
    for name in stated:
        if name not in names:
            raise ContradictionError(
                f"rule {rule.name}: there is no {kind} {name!r}", hint=f"it has {', '.join(names) or 'none'}"
            )


def read_server_config(path: Path | None, stated: Mapping[str, Any]) -> ServerConfig:
    """Read a configuration; paths in it are relative to the folder of the file.

    Args:
        path: YAML file, if any.
        stated: Keys that override those of the file, nested as in it; paths are relative to the current folder.

    Raises:
        ConfigError: If a key is unknown or its value is not possible.
    """
    tree: Any = {}
    if path is not None:
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"{path} is not a YAML file: {error}", hint="docs/serve.md shows one") from error
        if not isinstance(tree, dict):
            raise ConfigError(f"{path} has no keys", hint=f"possible keys: {', '.join(ServerConfig.model_fields)}")
    return _validated(ServerConfig, merge(tree, stated), str(path or "the command"), path.parent if path else Path())


def destination_of(to: str) -> DestinationConfig:
    """Return the destination with an address.

    Args:
        to: AE@host:port, or the https:// address of a DICOMweb service.

    Raises:
        ConfigError: If it has another form.
    """
    return _validated(DestinationConfig, {"to": to}, "the destination", Path())


def _validated(kind: type[SectionType], tree: Mapping[str, Any], place: str, folder: Path) -> SectionType:
    """Build a section; what is wrong with it becomes one sentence."""
    try:
        return kind.model_validate(tree, context=folder)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        cause = first.get("ctx", {}).get("error")
        message, hint = first["msg"], "docs/serve.md lists all keys"
        if isinstance(cause, ContradictionError):
            message, hint = str(cause), cause.hint
        raise ConfigError(f"{place}: {where + ': ' if where else ''}{message}", hint=hint) from error
