"""Everything about a server, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from volseg.config import merge
from volseg.config.section import ContradictionError, Section
from volseg.errors import ConfigError
from volseg.serving.config.dicom import DestinationConfig, DicomConfig, RuleConfig
from volseg.serving.config.names import Name, StatedPath
from volseg.serving.config.web import WebConfig
from volseg.system import is_loopback

SectionType = TypeVar("SectionType", bound=Section)


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
        if self.dicom.count_at is not None and self.dicom.count_at not in self.destinations:
            raise ContradictionError(
                f"dicom.count_at: {self.dicom.count_at!r} is no destination", hint="name one of `destinations`"
            )
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
