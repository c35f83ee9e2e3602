"""One association of the sender, and the plain connection that stands beside it as the limit."""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol

from tools.bench.ingest.errors import ProtocolError, SenderFailedError
from tools.bench.ingest.loads import (
    INSTANCE_PLACEHOLDER,
    SERIES_PLACEHOLDER,
    STUDY_PLACEHOLDER,
    FreshUids,
)
from tools.bench.ingest.messages import (
    PDU_HEADER_BYTES,
    RELEASE_REQUEST,
    Parts,
    PduType,
    encode_association_request,
    find_all,
    read_acceptance,
    read_pdu_header,
    read_status,
)
from tools.bench.ingest.orders import Address

CALLING_AE_TITLE = "BENCHSCANNER"
_SUCCESS = 0x0000
_SILENCE_LIMIT_S = 120.0  # pynetdicom takes half a minute to store 2 GB
_LARGEST_ANSWER_BYTES = 1 << 20


class Lane(Protocol):
    """A connection over which objects go, one at a time, each after the answer to the last."""

    max_pdu_bytes: int
    """Largest PDU that the receiver takes; 0 where there are none."""

    def store(self, parts: OutgoingObject) -> int:
        """Send one object and return the status of the answer."""

    def close(self) -> None:
        """End in order."""


class OutgoingObject:
    """An encoded object, into which fresh UIDs are written before each sending."""

    def __init__(self, parts: Parts, uids: FreshUids, *, association: int) -> None:
        self._first = bytearray(parts.first)
        self._parts = parts
        self._uids = uids
        self._instances = find_all(parts.first, INSTANCE_PLACEHOLDER.encode())
        self._write(find_all(parts.first, STUDY_PLACEHOLDER.encode()), uids.study)
        self._write(find_all(parts.first, SERIES_PLACEHOLDER.encode()), uids.series(association))

    def become(self, number: int) -> None:
        """Take the UID of another instance."""
        self._write(self._instances, self._uids.instance(number))

    def send(self, to: socket.socket) -> None:
        """Write it to a socket."""
        to.sendall(self._first)
        for _ in range(self._parts.repeats):
            to.sendall(self._parts.block)
        if self._parts.last:
            to.sendall(self._parts.last)

    def _write(self, offsets: tuple[int, ...], uid: str) -> None:
        encoded = uid.encode()
        for at in offsets:
            self._first[at : at + len(encoded)] = encoded


class Association:
    """A DICOM association with one presentation context; use it from one thread at a time."""

    def __init__(self, address: Address, sop_class_uid: str) -> None:
        """Connect and negotiate.

        Raises:
            SenderFailedError: nobody listens, or the receiver refuses.
            ProtocolError: it does not take the SOP class.
        """
        self._socket = _connect(address)
        try:
            self._socket.sendall(
                encode_association_request(
                    called=address.ae_title,
                    calling=CALLING_AE_TITLE,
                    sop_class_uid=sop_class_uid,
                )
            )
            self.max_pdu_bytes = read_acceptance(self._receive(PduType.ASSOCIATE_AC))
        except BaseException:
            self._socket.close()
            raise

    def store(self, parts: OutgoingObject) -> int:
        """Send one object and return the status of the answer.

        Raises:
            SenderFailedError: the receiver broke the association.
            ProtocolError: its answer makes no sense.
        """
        try:
            parts.send(self._socket)
        except OSError as error:
            raise SenderFailedError(f"the receiver stopped reading: {error}") from error
        while True:
            status = read_status(self._receive(PduType.DATA))
            if status is not None:
                return status

    def close(self) -> None:
        """Release the association and close the connection."""
        with self._socket, contextlib.suppress(OSError, SenderFailedError):
            self._socket.sendall(RELEASE_REQUEST)
            self._receive(PduType.RELEASE_RP)

    def _receive(self, expected: PduType) -> bytes:
        kind, length = read_pdu_header(_read(self._socket, PDU_HEADER_BYTES))
        if kind == PduType.ASSOCIATE_RJ:
            raise SenderFailedError("the receiver rejected the association")
        if kind == PduType.ABORT:
            raise SenderFailedError("the receiver aborted the association")
        if kind != expected or length > _LARGEST_ANSWER_BYTES:
            raise ProtocolError(f"the receiver sent a PDU of type {kind} with {length} bytes")
        return _read(self._socket, length)


class PlainConnection:
    """A connection to the plain receiver."""

    max_pdu_bytes = 0

    def __init__(self, address: Address) -> None:
        """Connect.

        Raises:
            SenderFailedError: nobody listens.
        """
        self._socket = _connect(address)

    def store(self, parts: OutgoingObject) -> int:
        """Send one object and wait for the byte that says that it is durable.

        Raises:
            SenderFailedError: the receiver broke the connection.
        """
        try:
            parts.send(self._socket)
        except OSError as error:
            raise SenderFailedError(f"the receiver stopped reading: {error}") from error
        _read(self._socket, 1)
        return _SUCCESS

    def close(self) -> None:
        """Close."""
        self._socket.close()


def _connect(address: Address) -> socket.socket:
    try:
        connected = socket.create_connection((address.host, address.port), _SILENCE_LIMIT_S)
    except OSError as error:
        raise SenderFailedError(f"port {address.port} cannot be reached: {error}") from error
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _read(source: socket.socket, length: int) -> bytes:
    """Read exactly so many bytes.

    Raises:
        SenderFailedError: the receiver closed, or was silent for too long.
    """
    pieces: list[bytes] = []
    while length > 0:
        try:
            piece = source.recv(length)
        except OSError as error:
            raise SenderFailedError(f"no answer from the receiver: {error}") from error
        if not piece:
            raise SenderFailedError("the receiver closed the connection")
        pieces.append(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
