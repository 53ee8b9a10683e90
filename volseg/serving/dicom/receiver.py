"""The storage service: whatever is sent is on disk before it is answered (PS3.4 annex B)."""

from __future__ import annotations

import logging
import sqlite3
import ssl
import struct
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from socket import IPPROTO_TCP, TCP_NODELAY, socket
from socketserver import TCPServer
from threading import Event, Lock, Thread
from typing import Any, cast

from pydicom.uid import PYDICOM_IMPLEMENTATION_UID
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when the module is loaded
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from volseg.errors import DataError, OutputError
from volseg.serving.config import DicomConfig, ServerConfig
from volseg.serving.dicom.keeping import keep_object
from volseg.serving.dicom.objects import read_description, read_place, read_sender
from volseg.serving.processes import Ready
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.cases import Place, recover, study_id
from volseg.serving.store.database import new_id

#: Statuses of C-STORE (PS3.4 section B.2.3).
_STORED, _OUT_OF_RESOURCES, _OTHER_INSTANCE, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
#: Longest piece of an object that is asked for, and of anything that is accepted: a longer one is an attack on memory.
_PDU_BYTES, _LARGEST_BYTES = 2**17, 2**24
#: How long to wait for whoever connects to say who they are.
_HELLO_SECONDS = 10.0
#: How many connections there may be besides associations: of those who have not said it yet.
_CONNECTIONS = 100
_SWEEP_SECONDS = 1.0

logger = logging.getLogger(__name__)


class Receiver:
    """A storage service provider.

    Args:
        store: Where objects are kept.
        config: Who may send, and how much of the disk stays free.
    """

    def __init__(self, store: Store, config: ServerConfig) -> None:
        self._store, self._config = store, config.dicom
        self._reserve_bytes = config.keep.reserve_gb * 1e9
        self._lock = Lock()
        self._open: dict[str, Association] = {}
        self._received = Counter[tuple[str, str]]()

    def run(self, stop: Event, ready: Ready) -> None:
        """Receive until `stop` is set.

        Raises:
            OutputError: If it cannot listen at its address.
            ConfigError: If its certificate cannot be used.
        """
        self._store.change("DELETE FROM associations")
        if lost := recover(self._store, _read_kept, read_description):
            logger.warning("%d objects were received before a crash, and are there", lost)
        server = self._listen()
        ready(f"DICOM: {self._config.ae_title}@{self._config.host}:{self._config.port}")
        while not stop.wait(_SWEEP_SECONDS):
            self._sweep()
        server.end()
        for association in server.ae.active_associations:
            association.abort()  # what was answered is on disk
        self._sweep()

    def _listen(self) -> _Server:
        _config.UNRESTRICTED_STORAGE_SERVICE = True  # every class and transfer syntax, those of tomorrow, too
        node = AE(self._config.ae_title)
        node.add_supported_context(Verification)
        node.maximum_associations = 10**6  # our own limit is on those that are established
        node.maximum_pdu_size = _PDU_BYTES
        node.acse_timeout = _HELLO_SECONDS
        node.network_timeout = node.dimse_timeout = self._config.idle_seconds
        handlers: list[evt.EventHandlerType] = [
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_ESTABLISHED, self._note_open),
            (evt.EVT_C_STORE, self._receive),
        ]
        place = (self._config.host, self._config.port)
        context = self._config.tls.for_server() if self._config.tls else None
        try:
            server = _Server(
                node,
                place,
                self._config.ae_title,
                node.supported_contexts,
                evt_handlers=handlers,
                request_handler=_Handler,
            )
        except OSError as error:
            raise OutputError(
                f"cannot listen at {place[0]}:{place[1]}: {error.strerror}", hint="choose another --dicom-port"
            ) from error
        server.tls, server.config = context, self._config
        Thread(target=server.serve_forever, name="receiver", daemon=True).start()
        return server

    def _admit(self, event: evt.Event) -> None:
        """Reject those who may not send (PS3.8 section 9.3.4)."""
        association, config = event.assoc, self._config
        asked = cast("A_ASSOCIATE", association.requestor.primitive)
        calling, called = asked.calling_ae_title.strip(), asked.called_ae_title.strip()
        address = association.requestor.address
        if config.senders and not any(sender.admits(calling, address) for sender in config.senders):
            why, answer = "it is not one of dicom.senders", (1, 1, 3)
        elif config.is_called_by_name and called != config.ae_title:
            why, answer = f"it calls {called}", (1, 1, 7)
        elif sum(each.is_established for each in event.assoc.ae.active_associations) >= config.associations:
            why, answer = "too many associations are open", (2, 3, 2)
        else:
            return
        logger.warning("rejected %s at %s: %s", calling, address, why)
        note(self._store, calling, "rejected", detail=why)
        association.acse.send_reject(*answer)
        association.kill()  # which waits until the answer is sent

    def _note_open(self, event: evt.Event) -> None:
        """Note an association, since a study is not complete while its sender is connected."""
        with self._lock:
            self._open[new_id()] = event.assoc
        self._sweep()

    def _sweep(self) -> None:
        """Note who is connected and what was received, and forget associations that have ended, in whatever way."""
        with self._lock:
            try:
                self._note_all()
            except sqlite3.OperationalError as error:  # the disk is full; the next sweep notes it all
                logger.error("the database cannot be written: %s", error)  # noqa: TRY400  there is no more to say

    def _note_all(self) -> None:
        self._open = {name: each for name, each in self._open.items() if each.is_alive() and each.is_established}
        noted = {row["id"] for row in self._store.rows("SELECT id FROM associations")}
        for name in self._open.keys() - noted:
            values = name, _sender(self._open[name]), time.time()
            self._store.change("INSERT INTO associations (id, sender, opened) VALUES (?, ?, ?)", *values)
        for name in noted - self._open.keys():
            self._store.change("DELETE FROM associations WHERE id = ?", name)
        for sender, case_id in list(self._received):
            note(self._store, sender, "received", case_id, f"{self._received[sender, case_id]} objects")
            del self._received[sender, case_id]

    def _receive(self, event: evt.Event) -> int:
        """Keep an object, and answer what became of it."""
        dataset = event.encoded_dataset(include_meta=False)
        if self._store.free_bytes < self._reserve_bytes + len(dataset):
            logger.error("nothing is received: the disk of %s is full", self._store.folder)
            return _OUT_OF_RESOURCES
        sender, request = _sender(event.assoc), cast("C_STORE", event.request)
        content = _file(request, event.context.transfer_syntax, sender, dataset)
        try:
            is_kept = self._keep(sender, content, str(request.AffectedSOPInstanceUID))
        except DataError as error:
            logger.warning("%s sent an object that is refused: %s", sender, error)
            return _NOT_UNDERSTOOD
        except (OSError, sqlite3.OperationalError) as error:
            logger.error("an object cannot be kept: %s", error)  # noqa: TRY400  the traceback says no more
            return _OUT_OF_RESOURCES
        return _STORED if is_kept else _OTHER_INSTANCE

    def _keep(self, sender: str, content: bytes, announced_uid: str) -> bool:
        """Keep an image; return False if it is another object than was announced."""
        place = read_place(BytesIO(content))
        if not place.is_image:  # results, perhaps our own
            return True
        if place.sop_uid != announced_uid:
            return False
        if keep_object(self._store, place, content, sender):
            with self._lock:
                self._received[sender, study_id(place.study_uid)] += 1
        return True


class _Server(ThreadedAssociationServer):
    """Accepts connections; whoever is slow to shake hands, or silent, holds up nobody else."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None
    config: DicomConfig

    def end(self) -> None:
        """Accept no more connections, and let the port go."""
        TCPServer.shutdown(self)  # pynetdicom's own is for servers that its entity has started
        self.server_close()

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002  socketserver's signature
        """Return whether there is room for one more connection."""
        return len(self.ae.active_associations) < self.config.associations + _CONNECTIONS

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the connection's own thread, and serve it."""
        connection: socket = request
        connection.settimeout(_HELLO_SECONDS)
        if self.tls is not None:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except OSError as error:
                logger.warning("%s has no TLS that is accepted here: %s", client_address[0], error)
                self.shutdown_request(connection)
                return
        connection.settimeout(self.config.idle_seconds)
        connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # answers are short, and waited for
        super().finish_request(connection, client_address)


class _Handler(RequestHandler):
    """Serves a connection."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        _limit(cast("AssociationSocket", association.dul.socket))
        return association


def _limit(connection: AssociationSocket) -> None:
    """Let nobody make this side reserve gigabytes for what is announced as one PDU."""
    receive = connection.recv

    def receive_some(size: int) -> bytearray:
        if size > _LARGEST_BYTES:
            raise OSError(f"a PDU of {size} bytes")
        return receive(size)

    connection.recv = receive_some  # type: ignore[assignment, method-assign]


def _sender(association: Association) -> str:
    return association.requestor.ae_title.strip()


def _file(request: C_STORE, syntax: str, sender: str, dataset: bytes) -> bytes:
    """Return a whole file with the data set as it was sent: preamble and File Meta Information (PS3.10 section 7.1)."""
    elements = [
        (0x0001, b"OB", b"\0\1"),  # FileMetaInformationVersion
        (0x0002, b"UI", str(request.AffectedSOPClassUID).encode()),
        (0x0003, b"UI", str(request.AffectedSOPInstanceUID).encode()),
        (0x0010, b"UI", syntax.encode()),
        (0x0012, b"UI", PYDICOM_IMPLEMENTATION_UID.encode()),
        (0x0016, b"AE", sender.encode()),  # SourceApplicationEntityTitle
    ]
    meta = b"".join(_element(*element) for element in elements)
    return b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(meta))) + meta + dataset


def _element(number: int, kind: bytes, value: bytes) -> bytes:
    """Return an element of group 0002 in Explicit VR Little Endian (PS3.5 section 7.1.2)."""
    value += (b" " if kind == b"AE" else b"\0") * (len(value) % 2)
    length = struct.pack("<HL", 0, len(value)) if kind == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH2s", 2, number, kind) + length + value


def _read_kept(path: Path) -> tuple[Place, str]:
    return read_place(path), read_sender(path)


def run_receiver(config: ServerConfig, store: Store, stop: Event, ready: Ready) -> None:
    """Receive until `stop` is set."""
    Receiver(store, config).run(stop, ready)
