"""Certificates for mutual TLS: whoever holds them belongs to the cluster, and nobody else can connect.

Scheduler, workers and coordinators prove to each other that their certificate was signed by the same authority. Its key
is used once and then forgotten, so that no further certificate can be signed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import distributed
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from volseg.errors import ConfigError, OutputExistsError
from volseg.io.files import make_folder, write_private_text

_AUTHORITY, _CERTIFICATE, _KEY = "ca.pem", "node.pem", "node-key.pem"


def write_certificates(folder: Path, days: int = 365) -> Path:
    """Write certificates for all machines of a cluster: copy the folder to each of them, readable by its user alone.

    Args:
        folder: Where to; it must not hold any yet.
        days: How long they are valid.

    Returns:
        The folder.

    Raises:
        OutputExistsError: If there are some.
        OutputError: If they cannot be written.
    """
    for name in (_AUTHORITY, _CERTIFICATE, _KEY):
        if (folder / name).exists():
            raise OutputExistsError(
                f"{folder} holds certificates already", hint="choose another folder, or remove them first"
            )
    make_folder(folder)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority_name, own_name = _name("volseg cluster authority"), _name("volseg cluster")
    begin = datetime.now(UTC) - timedelta(days=1)  # clocks may differ
    valid = x509.CertificateBuilder().not_valid_before(begin).not_valid_after(begin + timedelta(days=days + 1))
    authority = (
        valid.subject_name(authority_name)
        .issuer_name(authority_name)
        .public_key(authority_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        valid.subject_name(own_name)
        .issuer_name(authority_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for file, content in (
        (_AUTHORITY, authority.public_bytes(Encoding.PEM)),
        (_CERTIFICATE, certificate.public_bytes(Encoding.PEM)),
        (_KEY, private),
    ):
        write_private_text(folder / file, content.decode())
    return folder


def security_of(folder: Path) -> distributed.Security:
    """Return what Dask needs to prove that this process belongs to a cluster.

    Args:
        folder: Written by `write_certificates`.

    Raises:
        ConfigError: If a file is missing.
    """
    authority, certificate, key = (folder / name for name in (_AUTHORITY, _CERTIFICATE, _KEY))
    for path in (authority, certificate, key):
        if not path.is_file():
            raise ConfigError(
                f"{folder} holds no certificates: there is no {path.name}",
                hint="`volseg cluster certificates` makes them; copy the whole folder",
            )
    roles = {
        f"tls_{role}_{part}": str(path)
        for role in ("scheduler", "worker", "client")
        for part, path in (("cert", certificate), ("key", key))
    }
    return distributed.Security(require_encryption=True, tls_ca_file=str(authority), **roles)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
