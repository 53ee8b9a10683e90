"""What a server does and for whom: its models, addresses, rules and destinations; one YAML file states it all."""

from __future__ import annotations

from volseg.serving.config.dicom import DestinationConfig, DicomConfig, RuleConfig, SenderConfig
from volseg.serving.config.names import Node, node_of
from volseg.serving.config.server import KeepConfig, ServerConfig, destination_of, read_server_config
from volseg.serving.config.tls import TlsConfig
from volseg.serving.config.web import ProxyConfig, WebConfig

__all__ = [
    "DestinationConfig",
    "DicomConfig",
    "KeepConfig",
    "Node",
    "ProxyConfig",
    "RuleConfig",
    "SenderConfig",
    "ServerConfig",
    "TlsConfig",
    "WebConfig",
    "destination_of",
    "node_of",
    "read_server_config",
]
