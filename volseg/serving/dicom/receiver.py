"""The storage service: whatever is sent is on disk before it is answered (PS3.4 annex B)."""

from __future__ import annotations

import logging
import sqlite3
import ssl
import struct
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from socket import AF_INET, AF_INET6, IPPROTO_TCP, SHUT_RDWR, TCP_NODELAY, socket
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Lock, Thread
from typing import Any

from pydicom.uid import PYDICOM_IMPLEMENTATION_UID

from volseg.errors import DataError, OutputError
from volseg.serving.config import DicomConfig, ServerConfig
from volseg.serving.dicom.association import (
    C_ECHO,
    C_STORE,
    TOO_MANY,
    UNKNOWN_CALLER,
    UNKNOWN_NAME,
    Association,
    Message,
)
from volseg.serving.dicom.keeping import keep_object
from volseg.serving.dicom.objects import place_of, read_description, read_place, read_sender
from volseg.serving.processes import Ready
from volseg.serving.store import Store
from volseg.serving.store.audit import note
from volseg.serving.store.cases import Place, recover, restart_quiet_time, study_id
from volseg.serving.store.database import new_id

#: Statuses of answers (PS3.4 section B.2.3, PS3.7 section C.5.10).
_DONE, _OUT_OF_RESOURCES, _OTHER_INSTANCE, _NOT_UNDERSTOOD = 0x0000, 0xA700, 0xA900, 0xC000
_NO_SUCH_OPERATION = 0x0211
#: How long to wait for whoever connects to say who they are.
_HELLO_SECONDS = 10.0
#: How many connections there may be besides associations: of those who have not said it yet.
_CONNECTIONS = 100
_SWEEP_SECONDS = 1.0
#: How long it takes at most until no more connections are accepted.
_POLL_SECONDS = 0.1

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
        self._open: dict[str, str] = {}  # the AE title of each open association
        self._received = Counter[tuple[str, str]]()

    def run(self, stop: Event, ready: Ready) -> None:
        """Receive until `stop` is set.

        Raises:
            OutputError: If it cannot listen at its address.
            ConfigError: If its certificate cannot be used.
        """
        if lost := recover(self._store, _read_kept, read_description):
            logger.warning("%d objects were received before a crash, and are there", lost)
        with self._store.transaction():
            restart_quiet_time(self._store)
            self._store.change("DELETE FROM associations")
        server = self._listen()
        ready(f"DICOM: {self._config.ae_title}@{self._config.host}:{self._config.port}")
        while not stop.wait(_SWEEP_SECONDS):
            server.hang_up_on_the_silent()
            self._sweep()
        server.end()  # what was answered is on disk
        self._sweep()

    def _listen(self) -> _Server:
        host, port = self._config.host, self._config.port
        try:
            server = _Server(self, self._config)
        except OSError as error:
            raise OutputError(
                f"cannot listen at {host}:{port}: {error.strerror}", hint="choose another --dicom-port"
            ) from error
        Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="receiver", daemon=True).start()
        return server

    def serve(self, association: Association, address: str) -> None:
        """Serve an association until it ends.

        Args:
            association: It was asked for, and is not accepted yet.
            address: IP address of whoever asks.

        Raises:
            OSError: If its connection breaks.
        """
        name = new_id()
        try:
            if not self._admit(name, association, address):
                return
            association.accept()
            self._sweep()
            for message in association.messages():
                association.answer(message, self._status(association.calling, message))
        finally:
            self._open.pop(name, None)
            self._store.close()  # the connection of this thread, which ends here

    def _admit(self, name: str, association: Association, address: str) -> bool:
        """Note an association, since a study is not complete while its sender is connected; or reject it."""
        config, calling, called = self._config, association.calling, association.called
        with self._lock:
            if config.senders and not any(sender.admits(calling, address) for sender in config.senders):
                why, answer = "it is not one of dicom.senders", UNKNOWN_CALLER
            elif config.is_called_by_name and called != config.ae_title:
                why, answer = f"it calls {called}", UNKNOWN_NAME
            elif len(self._open) >= config.associations:
                why, answer = "too many associations are open", TOO_MANY
            else:
                self._open[name] = calling
                return True
        logger.warning("rejected %s at %s: %s", calling, address, why)
        note(self._store, calling, "rejected", detail=why)
        association.reject(answer)
        return False

    def _sweep(self) -> None:
        """Note who is connected and what was received, and forget associations that have ended, in whatever way."""
        with self._lock:
            try:
                self._note_all()
            except sqlite3.OperationalError as error:  # the disk is full; the next sweep notes it all
                logger.error("the database cannot be written: %s", error)  # noqa: TRY400  there is no more to say

    def _note_all(self) -> None:
        open_ones = dict(self._open)
        noted = {row["id"] for row in self._store.rows("SELECT id FROM associations")}
        for name in open_ones.keys() - noted:
            values = name, open_ones[name], time.time()
            self._store.change("INSERT INTO associations (id, sender, opened) VALUES (?, ?, ?)", *values)
        for name in noted - open_ones.keys():
            self._store.change("DELETE FROM associations WHERE id = ?", name)
        for sender, case_id in list(self._received):
            note(self._store, sender, "received", case_id, f"{self._received[sender, case_id]} objects")
            del self._received[sender, case_id]

    def _status(self, sender: str, message: Message) -> int:
        """Do what a message asks for, and return what became of it."""
        if message.command == C_STORE:
            return self._receive(sender, message)
        return _DONE if message.command == C_ECHO else _NO_SUCH_OPERATION

    def _receive(self, sender: str, message: Message) -> int:
        """Keep an object."""
        if self._store.free_bytes < self._reserve_bytes + len(message.dataset):
            logger.error("nothing is received: the disk of %s is full", self._store.folder)
            return _OUT_OF_RESOURCES
        try:
            is_kept = self._keep(sender, message)
        except DataError as error:
            logger.warning("%s sent an object that is refused: %s", sender, error)
            return _NOT_UNDERSTOOD
        except (OSError, sqlite3.OperationalError) as error:
            logger.error("an object cannot be kept: %s", error)  # noqa: TRY400  the traceback says no more
            return _OUT_OF_RESOURCES
        return _DONE if is_kept else _OTHER_INSTANCE

    def _keep(self, sender: str, message: Message) -> bool:
        """Keep an image; return False if it is another object than was announced."""
        place = place_of(message.dataset, message.syntax)
        if not place.is_image:  # results, perhaps our own
            return True
        if place.sop_uid != message.sop_uid:
            return False
        if keep_object(self._store, place, _file(message, sender), sender):
            with self._lock:
                self._received[sender, study_id(place.study_uid)] += 1
        return True


class _Server(ThreadingTCPServer):
    """Accepts connections; whoever is slow to shake hands, or silent, holds up nobody else."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = _CONNECTIONS

    def __init__(self, receiver: Receiver, config: DicomConfig) -> None:
        self.address_family = AF_INET6 if ":" in config.host else AF_INET
        self._receiver, self._config = receiver, config
        self._tls = config.tls.for_server() if config.tls else None
        self._begun: dict[socket, float] = {}
        self._introduced: set[socket] = set()
        super().__init__((config.host, config.port), BaseRequestHandler)

    def end(self) -> None:
        """Accept no more connections, let the port go, and hang up."""
        self.shutdown()
        self.server_close()
        for connection in list(self._begun):
            _hang_up(connection)

    def hang_up_on_the_silent(self) -> None:
        """Hang up on those who have not said in time who they are, however slowly they are saying it."""
        latest = time.monotonic() - _HELLO_SECONDS
        for connection, began in list(self._begun.items()):
            if began < latest and connection not in self._introduced:
                _hang_up(connection)

    def get_request(self) -> tuple[socket, Any]:
        """Accept a connection; hands are shaken later, in its own thread."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002  socketserver's signature
        """Return whether there is room for one more connection."""
        return len(self._begun) < self._config.associations + _CONNECTIONS

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its own thread."""
        self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, and serve the association that is asked for."""
        connection: socket = request
        connection.settimeout(self._config.idle_seconds)
        connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)  # answers are short, and waited for
        if isinstance(connection, ssl.SSLSocket):
            connection.do_handshake()
        association = Association(connection)
        self._introduced.add(connection)
        try:
            self._receiver.serve(association, client_address[0])
        except OSError:
            association.abort()
            raise

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        super().shutdown_request(request)
        self._begun.pop(request, None)
        self._introduced.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note that a connection broke; those who only look whether the port is open are not worth a warning."""
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            matters = request in self._introduced or isinstance(error, ssl.SSLError)
            level = logging.WARNING if matters else logging.INFO
            logger.log(level, "the connection from %s has ended: %s", client_address[0], error)
        else:
            logger.error("the connection from %s cannot be served", client_address[0], exc_info=error)


def _hang_up(connection: socket) -> None:
    with suppress(OSError):  # it has just been closed
        connection.shutdown(SHUT_RDWR)


def _file(message: Message, sender: str) -> bytes:
    """Return a whole file with the data set as it was sent: preamble and File Meta Information (PS3.10 section 7.1)."""
    elements = [
        (0x0001, b"OB", b"\0\1"),  # FileMetaInformationVersion
        (0x0002, b"UI", message.sop_class.encode()),
        (0x0003, b"UI", message.sop_uid.encode()),
        (0x0010, b"UI", message.syntax.encode()),
        (0x0012, b"UI", PYDICOM_IMPLEMENTATION_UID.encode()),
        (0x0016, b"AE", sender.encode()),  # SourceApplicationEntityTitle
    ]
    meta = b"".join(_element(*element) for element in elements)
    head = b"\0" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<L", len(meta)))
    return b"".join((head, meta, message.dataset))


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
