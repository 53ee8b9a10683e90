"""Associations: what arrives on a connection, whoever speaks and however it is cut into pieces."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("pynetdicom")
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, MaximumLengthNotification
from pynetdicom.presentation import build_context

from volseg.serving.dicom.association import C_ECHO, C_STORE, TOO_MANY, Association, Message

CT_IMAGE, VERIFICATION = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ACCEPT, REJECT, DATA, RELEASE, RELEASED, ABORT = 2, 3, 4, 5, 6, 7


def request() -> bytes:
    """An A-ASSOCIATE-RQ for CT images (context 1) and echoes (context 3)."""
    asked = A_ASSOCIATE()
    asked.application_context_name = "1.2.840.10008.3.1.1.1"
    asked.calling_ae_title, asked.called_ae_title = "CT1", "VOLSEG"
    contexts = [build_context(CT_IMAGE, EXPLICIT_LITTLE), build_context(VERIFICATION)]
    contexts[0].context_id, contexts[1].context_id = 1, 3
    asked.presentation_context_definition_list = contexts
    largest = MaximumLengthNotification()
    largest.maximum_length_received = 16384
    asked.user_information = [largest]
    return A_ASSOCIATE_RQ(asked).encode()


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BxL", kind, len(body)) + body


def piece(context: int, flags: int, value: bytes) -> bytes:
    return struct.pack(">LBB", len(value) + 2, context, flags) + value


def command(kind: int, *, has_dataset: bool, uid: bytes = b"1.2\0") -> bytes:
    """A command set, its elements as PS3.7 table 9.3-1 lists them."""
    elements = {
        0x0002: CT_IMAGE.encode() + b"\0",
        0x0100: struct.pack("<H", kind),
        0x0110: struct.pack("<H", 7),
        0x0800: struct.pack("<H", 1 if has_dataset else 0x0101),
        0x1000: uid,
    }
    encoded = b"".join(struct.pack("<HHL", 0, number, len(value)) + value for number, value in elements.items())
    return struct.pack("<HHLL", 0, 0, 4, len(encoded)) + encoded


class Peer:
    """Whoever calls, on the other side of a connection."""

    def __init__(self) -> None:
        self.connection, self.theirs = socket.socketpair()
        self.connection.settimeout(60)
        self.theirs.settimeout(60)

    def send(self, *parts: bytes) -> None:
        self.connection.sendall(b"".join(parts))

    def receive(self) -> tuple[int, bytes]:
        file = self.connection.makefile("rb")
        kind, size = struct.unpack(">BxL", file.read(6))
        return kind, file.read(size)

    def close(self) -> None:
        self.connection.close()
        self.theirs.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    it = Peer()
    yield it
    it.close()


def accepted(peer: Peer) -> Association:
    peer.send(request())
    association = Association(peer.theirs)
    association.accept()
    kind, _ = peer.receive()
    assert kind == ACCEPT
    return association


def messages_of(peer: Peer, *parts: bytes) -> list[Message]:
    """What arrives of what is sent, until it is released."""
    association = accepted(peer)
    sender = threading.Thread(target=peer.send, args=(*parts, pdu(RELEASE, bytes(4))))
    sender.start()
    messages = list(association.messages())
    sender.join()
    assert peer.receive() == (RELEASED, bytes(4))
    return messages


def test_who_asks_is_known_before_it_is_accepted(peer: Peer) -> None:
    peer.send(request())
    association = Association(peer.theirs)
    assert (association.calling, association.called) == ("CT1", "VOLSEG")
    association.reject(TOO_MANY)
    assert peer.receive() == (REJECT, bytes((0, 2, 3, 2)))


def cut(value: bytes, sizes: Sequence[int]) -> list[bytes]:
    """A value in pieces of these sizes, and one of what is left."""
    parts, begin = [], 0
    for size in sizes:
        parts.append(value[begin : begin + size])
        begin += size
    return [*parts, value[begin:]]


def pieces(flags: int, value: bytes, sizes: Sequence[int]) -> list[bytes]:
    *parts, last = cut(value, sizes)
    return [*(piece(1, flags, part) for part in parts), piece(1, flags | 2, last)]


SIZES = st.lists(st.integers(0, 60), max_size=4)


@given(dataset=st.binary(min_size=1, max_size=300), of_command=SIZES, of_dataset=SIZES, in_one=st.booleans())
def test_a_message_is_whole_however_it_is_cut(
    dataset: bytes, of_command: list[int], of_dataset: list[int], in_one: bool
) -> None:
    peer = Peer()
    parts = [*pieces(1, command(C_STORE, has_dataset=True), of_command), *pieces(0, dataset, of_dataset)]
    sent = [pdu(DATA, b"".join(parts))] if in_one else [pdu(DATA, part) for part in parts]
    (message,) = messages_of(peer, *sent)
    peer.close()
    assert message == Message(C_STORE, 7, CT_IMAGE, "1.2", 1, EXPLICIT_LITTLE, bytearray(dataset))


def test_messages_follow_each_other(peer: Peer) -> None:
    echo = pdu(DATA, piece(3, 3, command(C_ECHO, has_dataset=False)))
    image = pdu(DATA, piece(1, 3, command(C_STORE, has_dataset=True)) + piece(1, 2, b"data"))
    found = messages_of(peer, echo, image, echo)
    assert [(each.command, each.context_id, bytes(each.dataset)) for each in found] == [
        (C_ECHO, 3, b""),
        (C_STORE, 1, b"data"),
        (C_ECHO, 3, b""),
    ]


def test_an_answer_speaks_of_its_message(peer: Peer) -> None:
    association = accepted(peer)
    association.answer(Message(C_STORE, 7, CT_IMAGE, "1.2", 1, EXPLICIT_LITTLE, bytearray()), 0xA700)
    kind, body = peer.receive()
    expected = bytes.fromhex("00000000 04000000 48000000")  # PS3.7 section 9.3.1.2: its length, then its elements
    expected += bytes.fromhex("00000200 1A000000") + CT_IMAGE.encode() + b"\0"
    expected += bytes.fromhex("00000001 02000000 0180")
    expected += bytes.fromhex("00002001 02000000 0700")
    expected += bytes.fromhex("00000008 02000000 0101")
    expected += bytes.fromhex("00000009 02000000 00A7")
    expected += bytes.fromhex("00000010 04000000") + b"1.2\0"
    expected = expected[:8] + struct.pack("<L", len(expected) - 12) + expected[12:]
    assert (kind, body) == (DATA, piece(1, 3, expected))


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "PDU of", id="another protocol"),
        pytest.param(pdu(DATA, b"x" * 80), "does not ask", id="no request"),
        pytest.param(pdu(1, b"x" * 80), "cannot be read", id="a request of nonsense"),
        pytest.param(pdu(1, b""), "cannot be read", id="an empty request"),
        pytest.param(b"\1\0\0", "hung up", id="half a head"),
        pytest.param(request()[:-5], "hung up", id="half a request"),
    ],
)
def test_what_is_no_request_is_said(peer: Peer, sent: bytes, said: str) -> None:
    peer.send(sent)
    peer.connection.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match=said):
        Association(peer.theirs)


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        pytest.param(request(), "PDU of type 01H", id="a second request"),
        pytest.param(pdu(DATA, piece(5, 3, command(C_ECHO, has_dataset=False))), "context 5", id="another context"),
        pytest.param(pdu(DATA, piece(1, 2, b"data")), "lacks element", id="data without a command"),
        pytest.param(pdu(DATA, piece(1, 3, b"")), "lacks element", id="an empty command"),
        pytest.param(pdu(DATA, piece(1, 3, command(C_ECHO, has_dataset=False)[:-1])), "cut short", id="half a value"),
        pytest.param(pdu(DATA, piece(1, 3, command(C_ECHO, has_dataset=False))[:-9]), "cut short", id="half a piece"),
        pytest.param(pdu(DATA, b"\0\0\0\0\1\3"), "cut short", id="a piece without a head"),
        pytest.param(pdu(DATA, b"\0\0"), "cut short", id="half a head"),
        pytest.param(struct.pack(">BxL", DATA, 2**31), "PDU of 2147483648 bytes", id="gigabytes"),
        pytest.param(pdu(DATA, piece(1, 1, bytes(2**16 + 1))), "without an end", id="an endless command"),
        pytest.param(b"", "hung up", id="a lost connection"),
    ],
)
def test_what_breaks_the_protocol_is_said(peer: Peer, sent: bytes, said: str) -> None:
    association = accepted(peer)
    peer.send(sent)
    peer.connection.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionError, match=said):
        list(association.messages())
    association.abort()
    assert peer.receive() == (ABORT, bytes(4))


def test_the_other_side_may_abort(peer: Peer) -> None:
    association = accepted(peer)
    peer.send(pdu(ABORT, bytes(4)))
    assert list(association.messages()) == []


def arbitrary(make: Callable[[Peer], Association], sent: bytes) -> None:
    peer = Peer()
    try:
        association = make(peer)
        peer.send(sent)
        peer.connection.shutdown(socket.SHUT_WR)
        list(association.messages())
    finally:
        peer.close()


@given(sent=st.binary(max_size=200))
def test_nothing_that_arrives_raises_anything_else(sent: bytes) -> None:
    with suppress(OSError):
        arbitrary(accepted, pdu(DATA, sent))


@given(place=st.integers(0, len(request()) - 1), value=st.integers(0, 255))
def test_no_request_raises_anything_else(place: int, value: int) -> None:
    changed = bytearray(request())
    changed[place] = value

    def make(peer: Peer) -> Association:
        peer.send(bytes(changed))
        peer.connection.shutdown(socket.SHUT_WR)
        association = Association(peer.theirs)
        association.accept()
        return association

    with suppress(OSError):
        arbitrary(make, b"")
