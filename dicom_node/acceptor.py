"""Stock pynetdicom with four seams of ours; nothing else here knows its insides.

* ``BoundedSocket``: no PDU larger than the bound is read, no small answer waits for Nagle.
* ``SpoolingDimse``: the data set of a C-STORE goes to a ``Reception`` as it arrives, undecoded;
  no other message may grow in memory.
* ``NodeAssociation``: admission, C-STORE for any class that was negotiated, and a session that
  ends when the association does, however it ends.
* ``NodeServer``: builds the above, sharing one table of contexts between associations.
"""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from socketserver import BaseServer
from typing import Any, cast

import structlog
from pynetdicom import AE, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom._handlers import (
    standard_dimse_recv_handler,
    standard_dimse_sent_handler,
    standard_pdu_recv_handler,
    standard_pdu_sent_handler,
)
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import A_ASSOCIATE, P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import (
    AddressInformation,
    RequestHandler,
    ThreadedAssociationServer,
)

from dicom_node.admission import Admitted, Rejection
from dicom_node.errors import ProtocolViolationError
from dicom_node.reception import Caller, Reception, StoreCommand, StoreSession
from dicom_node.status import StoreStatus
from dicom_node.transport import ClosingSocket

_log = structlog.get_logger()

# An A-ASSOCIATE-RQ with 128 contexts of 40 transfer syntaxes each is about 150 KB.
_MIN_PDU_BOUND_BYTES = 1 << 20
# A command set has about ten short elements; no message but C-STORE has a data set for us.
_MAX_MESSAGE_BYTES = 64 * 1024
# The asynchronous operations window is 1 (PS3.7 D.3.3.3): a peer waits for each answer.
# A few messages of slack, then the peer is breaking the protocol.
_MAX_WAITING_MESSAGES = 8
_READ_BYTES = 256 * 1024
_INVALID_PDU_EVENT = "Evt19"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptorPolicy:
    """What the node decides for pynetdicom."""

    admit: Callable[[str, str, str], Admitted | Rejection]
    """``(calling AE title, called AE title, address)``."""
    open_session: Callable[[str, Caller], StoreSession]
    """``(association id, caller)``."""
    contexts: list[PresentationContext]
    max_pdu_bytes: int
    stalled_timeout_s: float
    """A peer that stops in the middle of a PDU is cut off after this long."""


class BoundedSocket(ClosingSocket):
    """A connection that cannot make us allocate by a declared length."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, *, policy: AcceptorPolicy
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._max_read_bytes = max(_MIN_PDU_BOUND_BYTES, policy.max_pdu_bytes)
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Long idle associations are normal; vanished peers are found by the kernel's probes.
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client_socket.settimeout(policy.stalled_timeout_s)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly ``nr_bytes``, or less if the peer closes the connection.

        Raises:
            ConnectionError: More is announced than any PDU may have; the connection is closed.
            TimeoutError: The peer stalled.
        """
        if nr_bytes > self._max_read_bytes:
            raise ConnectionError("the peer announces a PDU larger than the bound")
        data = bytearray()
        connection = cast("socket.socket", self.socket)
        while len(data) < nr_bytes:
            piece = connection.recv(min(nr_bytes - len(data), _READ_BYTES))
            if not piece:
                break
            data += piece
        return data


class _Sink:
    """The shape of file that pynetdicom writes a data set to."""

    def __init__(self, reception: Reception) -> None:
        self.reception = reception
        self.file = self
        self.write = reception.write

    def flush(self) -> None:
        """Called after every fragment; the spool decides when to write."""


class SpoolingDimse(DIMSEServiceProvider):
    """Hands each C-STORE's data set on while it arrives."""

    def __init__(self, assoc: NodeAssociation) -> None:
        super().__init__(assoc)
        self._association = assoc

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Process one P-DATA; what cannot be processed ends the association, not the thread."""
        try:
            for fragment in primitive.presentation_data_value_list:
                self._receive_fragment(fragment)
        except Exception as error:  # noqa: BLE001  boundary: any bytes may come from the peer
            _log.warning("node.message_invalid", error=type(error).__name__)
            self.message = None
            self.dul.event_queue.put(_INVALID_PDU_EVENT)

    def _receive_fragment(self, fragment: tuple[int, bytes]) -> None:
        """Process one fragment of a message.

        Between the last fragment of a command and the first of its data set the message gets its
        sink; both may stand in the same PDU.
        """
        part = P_DATA()
        part.presentation_data_value_list.append(fragment)
        super().receive_primitive(part)
        if isinstance(self.message, C_STORE_RQ) and self.message._data_set_file is None:  # noqa: SLF001  pynetdicom's seam for chunked reception
            sink = _Sink(self._association.begin_store(self.message))
            self.message._data_set_file = cast("Any", sink)  # noqa: SLF001  same
        if self._is_beyond_bounds():
            raise ProtocolViolationError("more is waiting or held than the protocol needs")

    def _is_beyond_bounds(self) -> bool:
        if self.msg_queue.qsize() > _MAX_WAITING_MESSAGES:
            return True
        message = self.message
        if message is None:
            return False
        held = message.encoded_command_set.tell()
        held += message.data_set.tell() if message.data_set is not None else 0
        return held > _MAX_MESSAGE_BYTES


class NodeAssociation(Association):
    """One accepted connection."""

    def __init__(self, ae: AE, policy: AcceptorPolicy) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        self.association_id = secrets.token_hex(8)
        # The server finds its associations by this part of their threads' names.
        self.name = f"AcceptorThread@{self.association_id}"
        self._policy = policy
        self._session: StoreSession | None = None
        self.dimse = SpoolingDimse(self)
        self._unbind_loggers()
        self.bind(evt.EVT_REQUESTED, self._on_requested)
        self.bind(evt.EVT_CONN_CLOSE, self._on_connection_closed)

    def _unbind_loggers(self) -> None:
        """The standard handlers format every PDU into log text, at a cost; nobody may read it."""
        self.unbind(evt.EVT_DIMSE_RECV, standard_dimse_recv_handler)
        self.unbind(evt.EVT_DIMSE_SENT, standard_dimse_sent_handler)
        self.unbind(evt.EVT_PDU_RECV, standard_pdu_recv_handler)
        self.unbind(evt.EVT_PDU_SENT, standard_pdu_sent_handler)

    def run_reactor(self) -> None:
        """The association's thread."""
        try:
            super().run_reactor()
        finally:
            if self._session is not None:
                self._session.close(released=self.is_released)

    def _on_requested(self, _event: evt.Event) -> None:
        """Admit or reject; pynetdicom would go on to accept after an exception in here."""
        try:
            decision = self._decide()
        except Exception as error:  # noqa: BLE001  boundary: whatever happens, nobody slips in
            _log.error("node.admission_failed", error=type(error).__name__)
            decision = Rejection.CALLING_AE_NOT_RECOGNISED
        if isinstance(decision, Rejection):
            _log.warning("node.association_rejected", reason=decision.name.lower())
            self.acse.send_reject(*decision.value)
            self.kill()

    def _decide(self) -> Admitted | Rejection:
        request = cast("A_ASSOCIATE", self.requestor.primitive)
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        address = cast("AddressInformation", self.requestor.address_info).address
        decision = self._policy.admit(calling, called, address)
        if isinstance(decision, Admitted):
            caller = Caller(ae_title=calling, address=address, may_store=decision.may_store)
            self._session = self._policy.open_session(self.association_id, caller)
        return decision

    def _on_connection_closed(self, _event: evt.Event) -> None:
        """Wake the thread that waits for an A-ASSOCIATE-RQ of a peer that has gone.

        Otherwise each probe of the port would count as an association until the ARTIM time.
        """
        if self.requestor.primitive is None:
            self.dul.to_user_queue.put(cast("Any", None))

    def begin_store(self, message: C_STORE_RQ) -> Reception:
        """Open a reception for a C-STORE whose command has arrived; runs in the DUL's thread.

        Whatever is wrong with the command, there is a reception: the data set must go somewhere
        until the answer.
        """
        session = cast("StoreSession", self._session)
        command = message.command_set
        context = self._accepted_cx.get(cast("int", message.context_id))
        return session.begin(
            StoreCommand(
                sop_class_uid=str(command.get("AffectedSOPClassUID") or ""),
                sop_instance_uid=str(command.get("AffectedSOPInstanceUID") or ""),
                context_class_uid=str(context.abstract_syntax) if context else "",
                transfer_syntax_uid=context.transfer_syntax[0] if context else "",
            )
        )

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Serve one message; C-STORE is served here for private classes too."""
        if (
            not isinstance(msg, C_STORE)
            or msg.MessageID is None
            or context_id not in self._accepted_cx
        ):
            super()._serve_request(msg, context_id)
            return
        response = C_STORE()
        response.MessageIDBeingRespondedTo = msg.MessageID
        response.AffectedSOPClassUID = msg.AffectedSOPClassUID
        response.AffectedSOPInstanceUID = msg.AffectedSOPInstanceUID
        response.Status = int(self._store(msg))
        self.dimse.send_msg(response, context_id)

    def _store(self, request: C_STORE) -> StoreStatus:
        sink = cast("_Sink | None", request._dataset_file)  # noqa: SLF001  set in SpoolingDimse
        if sink is None:
            return StoreStatus.CANNOT_UNDERSTAND
        return cast("StoreSession", self._session).finish(sink.reception)

    def end(self) -> None:
        """Ask the association to end, from another thread; its own thread ends soon after."""
        if self.is_established:
            self.abort(block=False)
        else:
            self.cut()

    def cut(self) -> None:
        """Close the connection without a word."""
        cast("ClosingSocket", self.dul.socket).interrupt()


class _NodeRequestHandler(RequestHandler):
    """Makes the association for one connection."""

    def _create_association(self) -> Association:
        server = cast("NodeServer", self.server)
        policy, ae = server.policy, self.ae
        assoc = NodeAssociation(ae, policy)
        assoc._server = server  # noqa: SLF001  as pynetdicom's own handler does
        connection = cast("socket.socket", self.request)
        assoc.set_socket(BoundedSocket(assoc, connection, policy=policy))
        assoc.acceptor.maximum_length = policy.max_pdu_bytes
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = ae.implementation_version_name
        # Negotiation only reads them, so all associations share one list.
        assoc.acceptor.supported_contexts = policy.contexts
        assoc.requestor.address_info = self.remote
        return assoc


class NodeServer(ThreadedAssociationServer):
    """Listens; each connection gets a ``NodeAssociation``."""

    # The kernel's backlog: many scanners may connect in the same moment after an outage.
    request_queue_size = 64

    def __init__(
        self,
        ae: AE,
        address: tuple[str, int],
        policy: AcceptorPolicy,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.policy = policy
        super().__init__(
            ae,
            address,
            ae.ae_title,
            policy.contexts,
            ssl_context=ssl_context,
            request_handler=_NodeRequestHandler,
        )

    def shutdown(self) -> None:
        """Stop listening and free the port; associations go on."""
        BaseServer.shutdown(self)
        self.server_close()

    @property
    def node_associations(self) -> list[NodeAssociation]:
        """The associations whose threads are alive."""
        return [each for each in self.active_associations if isinstance(each, NodeAssociation)]
