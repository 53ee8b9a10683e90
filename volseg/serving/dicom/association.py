"""Associations, from the side that is called (PS3.8): who is there, and which messages arrive, one at a time.

pynetdicom reads the request and negotiates. The messages are read here, since its reactor takes several times as long
over a small object as the object takes to be sent, understood and written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from socket import socket
from typing import cast

from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext, build_context, negotiate_unrestricted
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made when the module is loaded

from volseg.io.dicom.header import BROKEN
from volseg.io.dicom.quiet import quiet_dicom

#: Command fields of requests (PS3.7 section E.1); that of a response has the first bit set, too.
C_STORE, C_ECHO = 0x0001, 0x0030
_RESPONSE = 0x8000
#: Reasons to reject an association (PS3.8 section 9.3.4): result, source and reason.
UNKNOWN_CALLER, UNKNOWN_NAME, TOO_MANY = (1, 1, 3), (1, 1, 7), (2, 3, 2)

#: Types of PDU (PS3.8 section 9.3).
_REQUEST, _REJECT, _DATA, _RELEASE, _RELEASED, _ABORT = 1, 3, 4, 5, 6, 7
#: Bits of the message control header of a piece of a message (PS3.8 section E.2).
_OF_COMMAND, _IS_LAST = 1, 2
#: Elements of a command set (PS3.7 section E.1).
_SOP_CLASS, _COMMAND, _MESSAGE_ID, _ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
_HAS_DATASET, _STATUS, _SOP_INSTANCE = 0x0800, 0x0900, 0x1000
_NO_DATASET = 0x0101
#: The longest PDU that is asked for, and that is accepted: a longer one is an attack on memory.
_PDU_BYTES, _LARGEST_BYTES = 2**17, 2**24
#: The longest message that is taken; a file of more than 4 GB is beyond most of its readers.
_LARGEST_COMMAND, _LARGEST_DATASET = 2**16, 2**32


@dataclass(frozen=True)
class Message:
    """A request that arrived.

    Attributes:
        command: What is asked for: its Command Field.
        message_id: Its number.
        sop_class: SOP class of what it speaks of.
        sop_uid: SOPInstanceUID of what it speaks of; empty for an echo.
        context_id: The presentation context that it came in.
        syntax: Transfer syntax of its data set.
        dataset: Its data set, encoded; empty if it has none.
    """

    command: int
    message_id: int
    sop_class: str
    sop_uid: str
    context_id: int
    syntax: UID
    dataset: bytearray


class Association:
    """An association that somebody asks for.

    Args:
        connection: From them.

    Attributes:
        calling: AE title of whoever asks.
        called: AE title that they ask for.

    Raises:
        OSError: If the connection breaks, or carries something else.
    """

    def __init__(self, connection: socket) -> None:
        self._connection = connection
        self._syntaxes: dict[int, UID] = {}
        kind, body = self._read()
        if kind != _REQUEST:
            raise ConnectionError("it does not ask for an association")
        self._asked = _decode_request(body)
        self.calling, self.called = self._asked.calling_ae_title.strip(), self._asked.called_ae_title.strip()

    def reject(self, answer: tuple[int, int, int]) -> None:
        """Refuse it (PS3.8 section 9.3.4)."""
        self._send(_REJECT, bytes((0, *answer)))

    def accept(self) -> None:
        """Accept it, with every class of objects and every transfer syntax, those of tomorrow, too.

        PS3.8 section 9.3.3.
        """
        with _understood():
            contexts, roles = _negotiate(self._asked)
            answer = A_ASSOCIATE_AC(_acceptance(self._asked, contexts, roles)).encode()
        accepted = (each for each in contexts if each.result == 0)
        self._syntaxes = {cast("int", each.context_id): each.transfer_syntax[0] for each in accepted}
        self._connection.sendall(answer)

    def messages(self) -> Iterator[Message]:
        """Yield what arrives until the association ends; each is to be answered before the next.

        Raises:
            OSError: If the connection breaks, or carries something else.
        """
        command, dataset = dict[int, bytes](), bytearray()
        encoded = bytearray()
        for context_id, flags, piece in self._pieces():
            if flags & _OF_COMMAND:
                encoded += piece
            else:
                dataset += piece
            if len(encoded) > _LARGEST_COMMAND or len(dataset) > _LARGEST_DATASET:
                raise ConnectionError("a message without an end")
            if not flags & _IS_LAST:
                continue
            if flags & _OF_COMMAND:
                command, encoded = _decode_command(encoded), bytearray()
                if _number(command, _HAS_DATASET) != _NO_DATASET:
                    continue
            yield Message(
                _number(command, _COMMAND),
                _number(command, _MESSAGE_ID),
                _uid(command, _SOP_CLASS),
                _uid(command, _SOP_INSTANCE),
                context_id,
                self._syntaxes[context_id],
                dataset,
            )
            command, dataset = {}, bytearray()

    def answer(self, message: Message, status: int) -> None:
        """Answer a message (PS3.7 section 9.3)."""
        elements = {
            _SOP_CLASS: _even(message.sop_class),
            _COMMAND: struct.pack("<H", message.command | _RESPONSE),
            _ANSWERED_ID: struct.pack("<H", message.message_id),
            _HAS_DATASET: struct.pack("<H", _NO_DATASET),
            _STATUS: struct.pack("<H", status),
        }
        if message.sop_uid:
            elements[_SOP_INSTANCE] = _even(message.sop_uid)
        command = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements.items())
        command = struct.pack("<HHLL", 0, 0, 4, len(command)) + command
        piece = struct.pack(">LBB", len(command) + 2, message.context_id, _OF_COMMAND | _IS_LAST) + command
        self._send(_DATA, piece)

    def abort(self) -> None:
        """Tell the other side that it ends at once (PS3.8 section 9.3.8)."""
        with suppress(OSError):  # it may have ended already
            self._send(_ABORT, bytes(4))

    def _pieces(self) -> Iterator[tuple[int, int, memoryview]]:
        """Yield the pieces of messages until it is released or aborted: context, control header and value."""
        while True:
            kind, body = self._read()
            if kind == _RELEASE:
                self._send(_RELEASED, bytes(4))
                return
            if kind == _ABORT:
                return
            if kind != _DATA:
                raise ConnectionError(f"a PDU of type {kind:02X}H")
            begin = 0
            while begin < len(body):
                size, context_id, flags = struct.unpack_from(">LBB", _whole(body, begin, 6))
                if context_id not in self._syntaxes:
                    raise ConnectionError(f"no presentation context {context_id}")
                yield context_id, flags, _whole(body, begin + 6, size - 2)
                begin += 4 + size

    def _read(self) -> tuple[int, bytearray]:
        """Read a PDU: its type and its value."""
        kind, size = struct.unpack(">BxL", self._receive(6))
        if size > _LARGEST_BYTES:
            raise ConnectionError(f"a PDU of {size} bytes")
        return kind, self._receive(size)

    def _receive(self, size: int) -> bytearray:
        received = bytearray(size)
        rest = memoryview(received)
        while rest:
            count = self._connection.recv_into(rest)
            if count == 0:
                raise ConnectionError("it hung up")
            rest = rest[count:]
        return received

    def _send(self, kind: int, body: bytes) -> None:
        self._connection.sendall(struct.pack(">BxL", kind, len(body)) + body)


def _decode_request(body: bytearray) -> A_ASSOCIATE:
    request = A_ASSOCIATE_RQ()
    with _understood():
        request.decode(struct.pack(">BxL", _REQUEST, len(body)) + body)
        return request.to_primitive()


def _negotiate(asked: A_ASSOCIATE) -> tuple[list[PresentationContext], list[SCP_SCU_RoleSelectionNegotiation]]:
    """Return the presentation contexts, accepted or not, and who may send what (PS3.7 section D.3.3.4)."""
    roles = {
        item.sop_class_uid: (item.scu_role, item.scp_role)
        for item in asked.user_information
        if isinstance(item, SCP_SCU_RoleSelectionNegotiation)
    }
    return negotiate_unrestricted(asked.presentation_context_definition_list, [build_context(Verification)], roles)


def _acceptance(
    asked: A_ASSOCIATE, contexts: list[PresentationContext], roles: list[SCP_SCU_RoleSelectionNegotiation]
) -> A_ASSOCIATE:
    largest, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    largest.maximum_length_received = _PDU_BYTES
    implementation.implementation_class_uid = PYDICOM_IMPLEMENTATION_UID
    answer = A_ASSOCIATE()
    answer.application_context_name = asked.application_context_name
    answer.calling_ae_title, answer.called_ae_title = asked.calling_ae_title, asked.called_ae_title
    answer.result, answer.result_source = 0, 1
    answer.presentation_context_definition_results_list = contexts
    answer.user_information = [largest, implementation, *roles]
    return answer


@contextmanager
def _understood() -> Iterator[None]:
    """Turn what pynetdicom raises about a request of nonsense into one kind of error."""
    try:
        with quiet_dicom():
            yield
    except (*BROKEN, AssertionError, struct.error) as error:
        raise ConnectionError("its request cannot be read") from error


def _decode_command(encoded: bytearray) -> dict[int, bytes]:
    """Return the elements of a command set, which are those of group 0000 in Implicit VR (PS3.7 section 6.3.1)."""
    elements, begin = dict[int, bytes](), 0
    while begin < len(encoded):
        _, number, size = struct.unpack_from("<HHL", _whole(encoded, begin, 8))
        elements[number] = bytes(_whole(encoded, begin + 8, size))
        begin += 8 + size
    return elements


def _whole(body: bytearray, begin: int, size: int) -> memoryview:
    """Return a part of a message.

    Raises:
        ConnectionError: If it is not all there.
    """
    if size < 0 or begin + size > len(body):
        raise ConnectionError("a message is cut short")
    return memoryview(body)[begin : begin + size]


def _number(command: dict[int, bytes], element: int) -> int:
    value = command.get(element, b"")
    if len(value) != 2:
        raise ConnectionError(f"a message lacks element 0000,{element:04X}")
    return int.from_bytes(value, "little")


def _uid(command: dict[int, bytes], element: int) -> str:
    return command.get(element, b"").decode("ascii", "replace").strip(" \0")


def _even(uid: str) -> bytes:
    encoded = uid.encode("ascii", "replace")
    return encoded + b"\0" * (len(encoded) % 2)
