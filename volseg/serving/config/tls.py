"""Encryption of connections."""

from __future__ import annotations

import ssl

from volseg.config.section import Section
from volseg.errors import ConfigError
from volseg.serving.config.names import StatedPath


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
