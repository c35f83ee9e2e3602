"""One association as a requestor; nothing else on the sending side knows pynetdicom's insides.

A data set goes from its file straight to the socket, fragment by fragment: nothing is decoded, and
memory does not grow with the size of the object (pynetdicom's own ``send_c_store`` queues all of
it, and reads what it sends in this way only under a switch for the whole process).
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from queue import Empty
from typing import Any, cast

from pydicom.uid import UID
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.dimse_messages import (
    C_STORE_RQ,
    N_CREATE_RQ,
    N_EVENT_REPORT_RQ,
    N_SET_RQ,
    DIMSEMessage,
)
from pynetdicom.dimse_primitives import C_STORE, N_CREATE, N_EVENT_REPORT, N_SET
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_node.contexts import VERIFICATION_CLASS
from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    ContextRejectedError,
    HandshakeError,
    PeerUnreachableError,
    RequestRefusedError,
)
from dicom_node.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.quiet import silence_dicom_libraries
from dicom_node.status import is_stored
from dicom_node.tls import RequestorContext, RequestorTls
from dicom_node.transport import ClosingSocket

ContextPair = tuple[str, str]
"""SOP class and transfer syntax."""

NormalizedPrimitive = N_EVENT_REPORT | N_CREATE | N_SET

MAX_CONTEXTS = 128
"""Context ids are odd numbers of one byte (PS3.8 9.3.2.2)."""

# PS3.8 9.3.5.1; a peer that names no limit still gets PDUs that fit its buffers.
_MAX_PDU_BYTES = 1 << 20
_PDU_HEADER = struct.Struct(">BBLLB")
_P_DATA_TF = 0x04
_MAX_MESSAGE_ID = 0xFFFF
_REACTOR_POLL_S = 0.01
_TRANSIENT = 0x02


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerAddress:
    """Where a peer listens."""

    ae_title: str
    host: str
    port: int
    tls: RequestorTls | None = None
    """How to call it by TLS; None: in clear text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestorTimeouts:
    """How long a peer may take."""

    connect_s: float = 10.0
    association_s: float = 30.0
    answer_s: float = 120.0
    """For the status of one instance; some PACS import before they answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One encoded data set: in a file from an offset on, or in memory."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: tuple[Path, int] | bytes

    @property
    def pair(self) -> ContextPair:
        """The presentation context that it needs."""
        return self.sop_class_uid, self.transfer_syntax_uid


class Connection:
    """An established association; use it from one thread at a time."""

    def __init__(
        self,
        peer: PeerAddress,
        *,
        calling_ae_title: str,
        pairs: Sequence[ContextPair],
        timeouts: RequestorTimeouts,
        scp_classes: Sequence[str] = (),
    ) -> None:
        """Open the association.

        ``scp_classes`` are those whose SCP we are although we open it (PS3.7 D.3.3.4).

        Raises:
            PeerUnreachableError: The host has no such name or does not answer.
            HandshakeError: It answers, but no TLS connection came about, and why.
            TlsFileError: Our own certificates cannot be used.
            AssociationRejectedError: The peer said no, and why.
        """
        silence_dicom_libraries()
        self._association = _associate(peer, calling_ae_title, pairs, timeouts, scp_classes)
        self._checkpoint = ReactorCheckpoint.of(self._association)
        self._message_id = 0
        self.accepted: Mapping[ContextPair, int] = {
            (str(context.abstract_syntax), str(context.transfer_syntax[0])): cast(
                "int", context.context_id
            )
            for context in self._association.accepted_contexts
        }

    @property
    def is_open(self) -> bool:
        """Neither side has ended the association, as far as is known."""
        return bool(self._association.is_established)

    def close(self) -> None:
        """Release the association; a second call does nothing."""
        with self._checkpoint.held():
            self._association.release()

    def echo(self) -> None:
        """C-ECHO.

        Raises:
            AssociationLostError: No good answer came.
        """
        try:
            with self._checkpoint.held():
                status = self._association.send_c_echo().get("Status")
        except (RuntimeError, ValueError) as error:
            raise AssociationLostError("the peer does not offer C-ECHO") from error
        if status != 0:
            raise AssociationLostError("the peer did not answer C-ECHO with Success")

    def store(self, outgoing: Outgoing) -> int:
        """C-STORE one instance.

        Returns:
            The peer's status.

        Raises:
            ContextRejectedError: The peer did not accept the instance's context.
            AssociationLostError: The association ended before the answer.
        """
        response = self._exchange(partial(_message, outgoing), outgoing.pair)
        return cast("int", response.Status)

    def request(self, primitive: NormalizedPrimitive, pair: ContextPair) -> None:
        """Send one request of DIMSE-N (PS3.7 10.1).

        Raises:
            ContextRejectedError: The peer did not accept ``pair``.
            AssociationLostError: The association ended before the answer.
            RequestRefusedError: The peer answered with a failure.
        """
        response = self._exchange(partial(_normalized_message, primitive), pair)
        status = cast("int", response.Status)
        if not is_stored(status):
            raise RequestRefusedError(status, getattr(response, "ErrorID", None))

    def _exchange(self, build: Callable[[int], DIMSEMessage], pair: ContextPair) -> Any:
        """Send the message that ``build`` makes with an id, and return the response to it."""
        context_id = self.accepted.get(pair)
        if context_id is None:
            raise ContextRejectedError("the peer does not take this class in this syntax")
        self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
        with self._checkpoint.held():
            try:
                self._transmit(build(self._message_id), context_id)
            except OSError as error:
                self._association.abort(block=False)
                raise AssociationLostError("the connection broke while sending") from error
            _, response = self._association.dimse.get_msg(block=True)
        status = getattr(response, "Status", None)
        answered = getattr(response, "MessageIDBeingRespondedTo", None)
        if not isinstance(status, int) or answered != self._message_id:
            self._association.abort(block=False)
            raise AssociationLostError("the association ended, or timed out, before the answer")
        return response

    def _transmit(self, message: DIMSEMessage, context_id: int) -> None:
        """Write a message to the socket as P-DATA-TF PDUs (PS3.8 9.3.5).

        The state machine stays in Sta6 while data is sent (PS3.8 9.2.3, DT-1), so it need not
        hear of it; pynetdicom's own thread writes only when a primitive is queued, which nobody
        does meanwhile.
        """
        transport = cast("_RequestorSocket | None", self._association.dul.socket)
        if transport is None or not self.is_open:
            raise ConnectionError("the association has ended")
        limit = self._association.dimse.maximum_pdu_size or _MAX_PDU_BYTES
        for part in message.encode_msg(context_id, min(limit, _MAX_PDU_BYTES)):
            for number, data in part.presentation_data_value_list:
                value_bytes = len(data) + 1
                head = _PDU_HEADER.pack(_P_DATA_TF, 0, value_bytes + 4, value_bytes, number)
                transport.transmit(head + data)


def _message(outgoing: Outgoing, message_id: int) -> C_STORE_RQ:
    request = C_STORE()
    request.MessageID = message_id
    request.Priority = 0
    request.AffectedSOPClassUID = UID(outgoing.sop_class_uid)
    request.AffectedSOPInstanceUID = UID(outgoing.sop_instance_uid)
    if isinstance(outgoing.data_set, bytes):
        request.DataSet = BytesIO(outgoing.data_set)
    else:
        request._dataset_path = cast("Any", outgoing.data_set)  # noqa: SLF001  pynetdicom's seam for chunked sending
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    return message


def _normalized_message(primitive: NormalizedPrimitive, message_id: int) -> DIMSEMessage:
    primitive.MessageID = message_id
    message = _REQUESTS[type(primitive)]()
    message.primitive_to_message(primitive)
    return message


_REQUESTS: Mapping[type[NormalizedPrimitive], type[DIMSEMessage]] = {
    N_EVENT_REPORT: N_EVENT_REPORT_RQ,
    N_CREATE: N_CREATE_RQ,
    N_SET: N_SET_RQ,
}


class ReactorCheckpoint:
    """Where pynetdicom's thread stands while another thread uses its association.

    Stock pynetdicom says that its thread is paused a moment before it is. If the thread goes on in
    that moment, it takes the next answer for itself, and who asked waits until the timeout. Here
    being held and going on are told apart under one lock.
    """

    def __init__(self, is_alive: Callable[[], bool]) -> None:
        """The way is open.

        Args:
            is_alive: Whether there is still a thread to be held.
        """
        self._is_alive = is_alive
        self._changed = threading.Condition()
        self._is_open = True
        self._is_held = False

    @classmethod
    def of(cls, association: Association) -> ReactorCheckpoint:
        """Put one in the place of an association's own."""
        made = cls(association.is_alive)
        association._reactor_checkpoint = cast("Any", made)  # noqa: SLF001  no public way
        return made

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep pynetdicom's thread from taking the answer."""
        self.hold()
        try:
            yield
        finally:
            self.set()

    def set(self) -> None:
        """Let the thread go on."""
        with self._changed:
            self._is_open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Stop the thread when it comes by."""
        with self._changed:
            self._is_open = False

    def wait(self) -> None:
        """Stand here until the way is open; called by pynetdicom's thread."""
        with self._changed:
            self._is_held = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_open)
            self._is_held = False

    def hold(self) -> None:
        """Stop the thread and wait until it stands here, or has ended."""
        with self._changed:
            self._is_open = False
            while not self._is_held and self._is_alive():
                self._changed.wait(_REACTOR_POLL_S)


class _RequestorSocket(ClosingSocket):
    """The connection, for pynetdicom's thread that reads it and for ours that sends.

    OpenSSL allows one thread at a time, so that with TLS they take turns; while we send, nothing
    seems to be there to read.
    """

    def __init__(self, assoc: Association, address: AddressInformation) -> None:
        super().__init__(assoc, address=address)
        self._turn = threading.Lock()

    def tune(self, timeout_s: float) -> None:
        """Set up a connection that has just been made."""
        connection = cast("socket.socket", self.socket)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(timeout_s)

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        if not self._is_encrypted:
            return super().ready
        if not self._turn.acquire(blocking=False):
            return False
        try:
            return super().ready
        finally:
            self._turn.release()

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, or less where the peer closes the connection."""
        with self._taking_turns():
            return super().recv(nr_bytes)

    def send(self, bytestream: bytes) -> None:
        """Send what pynetdicom's thread has to say."""
        with self._taking_turns():
            super().send(bytestream)

    def transmit(self, data: bytes) -> None:
        """Send from another thread than pynetdicom's.

        Raises:
            OSError: The connection is gone, or the peer takes nothing any more.
        """
        connection = self.socket
        if connection is None:
            raise ConnectionError("the connection is closed")
        with self._taking_turns():
            connection.sendall(data)

    @property
    def _is_encrypted(self) -> bool:
        return self.tls_args is not None

    def _taking_turns(self) -> AbstractContextManager[object]:
        return self._turn if self._is_encrypted else nullcontext()


class _RequestorAE(AE):
    def _create_socket(
        self,
        assoc: Association,
        address: AddressInformation,
        tls_args: tuple[ssl.SSLContext, str] | None,
    ) -> AssociationSocket:
        transport = _RequestorSocket(assoc, address)
        transport.tls_args = tls_args
        return transport


def _associate(
    peer: PeerAddress,
    calling_ae_title: str,
    pairs: Iterable[ContextPair],
    timeouts: RequestorTimeouts,
    scp_classes: Iterable[str],
) -> Association:
    ae = _RequestorAE(calling_ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.connection_timeout = timeouts.connect_s
    ae.acse_timeout = timeouts.association_s
    ae.dimse_timeout = timeouts.answer_s
    ae.network_timeout = None  # how long it stays idle is the caller's decision

    def tune(event: evt.Event) -> None:
        cast("_RequestorSocket", event.assoc.dul.socket).tune(timeouts.answer_s)

    context = None if peer.tls is None else peer.tls.context()
    try:
        association = ae.associate(
            peer.host,
            peer.port,
            contexts=[build_context(*pair) for pair in pairs],
            ae_title=peer.ae_title,
            max_pdu=_MAX_PDU_BYTES,
            ext_neg=[build_role(each, scp_role=True) for each in scp_classes],
            tls_args=_tls_args(peer, context),
            evt_handlers=[(evt.EVT_CONN_OPEN, tune)],
        )
    except OSError as error:
        raise PeerUnreachableError("the peer's host name is unknown here") from error
    if association.is_established:
        return association
    answer = association.acceptor.primitive
    rejection = answer if association.is_rejected else _unread_rejection(association)
    if isinstance(rejection, A_ASSOCIATE):
        transient = rejection.result == _TRANSIENT
        raise AssociationRejectedError(rejection.reason_str, transient=transient)
    if isinstance(answer, A_ASSOCIATE):
        raise ContextRejectedError("the peer accepts none of the proposed classes and syntaxes")
    if context is not None and context.fault is not None:
        raise HandshakeError(context.fault)
    raise PeerUnreachableError("the peer does not answer; check host, port and firewall")


def _unread_rejection(association: Association) -> A_ASSOCIATE | None:
    """Return a rejection that pynetdicom has received and did not look at.

    It gives up when the connection is closed already, and a peer may close it right behind its
    answer.
    """
    with suppress(Empty):
        while True:
            primitive: object = association.dul.to_user_queue.get_nowait()
            if isinstance(primitive, A_ASSOCIATE) and primitive.result:
                return primitive
    return None


def _tls_args(
    peer: PeerAddress, context: RequestorContext | None
) -> tuple[ssl.SSLContext, str] | None:
    if peer.tls is None or context is None:
        return None
    return context, peer.tls.server_name or peer.host


VERIFICATION_PAIR: ContextPair = (str(VERIFICATION_CLASS), "1.2.840.10008.1.2")
