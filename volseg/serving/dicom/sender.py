"""Sending of objects: C-STORE to a DICOM node (PS3.4 annex B), STOW-RS to a DICOMweb service (PS3.18 section 10.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pydicom
from pydicom.uid import UID
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when the module is loaded

from volseg.errors import DeliveryError
from volseg.io.dicom.header import BROKEN, one_line
from volseg.serving.config import DestinationConfig, Node, TlsConfig, node_of
from volseg.serving.dicom import web
from volseg.serving.dicom.pausing import pause_for_certain

#: Most presentation contexts of an association (PS3.8 section 9.3.2.2).
_MOST_CONTEXTS = 128
_CONNECT_SECONDS, _ANSWER_SECONDS = 15.0, 120.0


def send(files: Sequence[Path], destination: DestinationConfig, ae_title: str) -> Iterator[tuple[Path, str]]:
    """Send objects, as they are on disk.

    Args:
        files: DICOM files.
        destination: Where to.
        ae_title: What this side is called.

    Yields:
        Each file with the reason why it was not accepted; empty if it was. A file that follows a lost connection is not
        yielded.

    Raises:
        DeliveryError: If the destination cannot be reached.
    """
    contexts = dict[Path, PresentationContext]()
    for file in files:
        try:
            meta = pydicom.filereader.read_file_meta_info(file)
            contexts[file] = build_context(UID(meta.MediaStorageSOPClassUID), UID(meta.TransferSyntaxUID))
        except BROKEN as error:
            yield file, f"it is no DICOM file: {one_line(error)}"
    if destination.is_web:
        for file in contexts:
            yield file, web.store(file, destination)
        return
    for some in _by_association(contexts):
        yield from _store(some, node_of(destination.to), destination.tls, ae_title)


def echo(destination: DestinationConfig, ae_title: str) -> None:
    """Ask whether a destination is there.

    Raises:
        DeliveryError: If it is not, or does not let us in.
    """
    if destination.is_web:
        web.search(destination, "studies", limit="1")
        return
    node = node_of(destination.to)
    association = associate(node, [build_context(Verification)], destination.tls, ae_title)
    try:
        status = association.send_c_echo().get("Status")
    finally:
        association.release()
    if status != 0:
        raise DeliveryError(f"{node.ae_title} does not answer an echo", hint="is it a DICOM node?")


def _store(
    files: Mapping[Path, PresentationContext], node: Node, tls: TlsConfig | None, ae_title: str
) -> Iterator[tuple[Path, str]]:
    association = associate(node, list({str(each): each for each in files.values()}.values()), tls, ae_title)
    try:
        for file in files:
            try:
                answer = association.send_c_store(file)
            except ValueError as error:  # no context was accepted for it
                yield file, f"{node.ae_title} does not take it: {one_line(error)}"
                continue
            except RuntimeError as error:
                raise DeliveryError(f"{node.ae_title} has ended the association", hint="it is tried again") from error
            status = answer.get("Status")
            if status is None:
                raise DeliveryError(f"{node.ae_title} does not answer", hint="it is tried again")
            # Warnings B000, B006 and B007 say that it was stored (PS3.4 table B.2-1).
            is_stored = status == 0 or status >> 12 == 0xB
            comment = answer.get("ErrorComment", "")
            yield file, "" if is_stored else f"{node.ae_title} answers {status:04X} {comment}".strip()
    finally:
        if association.is_established:
            association.release()


def associate(node: Node, contexts: Sequence[PresentationContext], tls: TlsConfig | None, ae_title: str) -> Association:
    """Open an association.

    Raises:
        DeliveryError: If the node cannot be reached, or rejects it.
    """
    entity = AE(ae_title)
    entity.connection_timeout = entity.acse_timeout = _CONNECT_SECONDS
    entity.dimse_timeout = entity.network_timeout = _ANSWER_SECONDS
    secured = None if tls is None else (tls.for_client(), node.host)
    association = entity.associate(
        node.host, node.port, contexts=list(contexts), ae_title=node.ae_title, tls_args=secured
    )
    if association.is_established:
        pause_for_certain(association)
        return association
    rejected = association.acceptor.primitive
    if association.is_rejected and rejected is not None:
        why = rejected.reason_str
        raise DeliveryError(f"{node.ae_title} rejects {ae_title}: {why}", hint="make it known there; check both names")
    raise DeliveryError(
        f"{node.ae_title} at {node.host}:{node.port} cannot be reached", hint="is it running, and does it use TLS?"
    )


def _by_association(contexts: Mapping[Path, PresentationContext]) -> Iterator[dict[Path, PresentationContext]]:
    """Yield files that fit into one association each."""
    some = dict[Path, PresentationContext]()
    kinds = set[str]()
    for file, context in contexts.items():
        if len(kinds | {str(context)}) > _MOST_CONTEXTS:
            yield some
            some, kinds = {}, set()
        kinds.add(str(context))
        some[file] = context
    if some:
        yield some
