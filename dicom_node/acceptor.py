"""One accepted connection: pynetdicom's association with the node's seams.

Admission, C-STORE for any class that was negotiated, and a session that ends when the association
does, however it ends. What a message is read by stands in ``fast_path`` and ``stock_path``.
"""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

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
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_STORE, N_ACTION, N_CREATE, N_SET
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation

from dicom_node.admission import Admitted, Call, Rejection
from dicom_node.contexts import (
    PROCEDURE_STEP_CLASS,
    STORAGE_COMMITMENT_CLASS,
    VERIFICATION_CLASS,
)
from dicom_node.fast_path import FastDul, StoreRequest
from dicom_node.reactor import Activity, idle_wait_s
from dicom_node.reception import Caller, Reception, StoreCommand, StoreSession
from dicom_node.status import StoreStatus
from dicom_node.stock_path import BoundedSocket, GuardedDul, Sink, SpoolingDimse
from dicom_node.tls import certificate_sha256
from dicom_node.transport import cut
from dicom_node.wire import AnsweringSocket, Wire

if TYPE_CHECKING:
    from dicom_node.server import NodeServer

_log = structlog.get_logger()

# An A-ASSOCIATE-RQ with 128 contexts of 40 transfer syntaxes each is about 150 KB.
_MIN_PDU_BOUND_BYTES = 1 << 20
# PS3.7 A.2.1; PS3.8 7.1.1.2.
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
# What each service that is not Storage understands (PS3.4 A, J, F).
_MESSAGES: dict[str, tuple[type, ...]] = {
    str(VERIFICATION_CLASS): (C_ECHO,),
    str(STORAGE_COMMITMENT_CLASS): (N_ACTION,),
    str(PROCEDURE_STEP_CLASS): (N_CREATE, N_SET),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptorPolicy:
    """What the node decides for pynetdicom."""

    admit: Callable[[Call], Admitted | Rejection]
    open_session: Callable[[str, Caller], StoreSession]
    """``(association id, caller)``."""
    contexts: list[PresentationContext]
    max_pdu_bytes: int
    stalled_timeout_s: float
    """A peer that stops in the middle of a PDU is cut off after this long."""
    fast_path: bool = True
    max_pending_per_address: int = 32
    """Connections of one address that have not associated yet; one more is closed at once."""
    max_pending: int = 128
    """The same, of all addresses."""
    handshake_timeout_s: float = 30.0
    """For a TLS handshake; the A-ASSOCIATE-RQ has its own time after it."""
    services: tuple[tuple[evt.EventType, Callable[[evt.Event], Any]], ...] = ()
    """Handlers of other services, such as ``(evt.EVT_N_ACTION, handler)``; the caller of an event
    is ``event.assoc.caller``."""

    @property
    def max_read_bytes(self) -> int:
        """The largest PDU that is read, whatever its type."""
        return max(_MIN_PDU_BOUND_BYTES, self.max_pdu_bytes)


class NodeAssociation(Association):
    """One accepted connection."""

    def __init__(self, ae: AE, server: NodeServer, connection: socket.socket) -> None:
        super().__init__(ae, MODE_ACCEPTOR)
        policy = server.policy
        self.association_id = secrets.token_hex(8)
        self.name = f"node-connection-{self.association_id}"
        self._server = server
        self._policy = policy
        self._connection = connection
        self._session: StoreSession | None = None
        self.caller: Caller | None = None
        """Set when the peer was admitted."""
        self.dimse = SpoolingDimse(self)
        self.activity = Activity(
            lambda: not self.dimse.msg_queue.empty(), idle_s=idle_wait_s(ae.network_timeout)
        )
        self._unbind_loggers()
        self.bind(evt.EVT_REQUESTED, self._on_requested)
        self.bind(evt.EVT_CONN_CLOSE, self._on_connection_closed)
        for event, handler in policy.services:
            self.bind(event, handler)
        self._attach(connection)

    def _attach(self, connection: socket.socket) -> None:
        """Put the upper layer on the connection."""
        policy = self._policy
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Long idle associations are normal; vanished peers are found by the kernel's probes.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if policy.fast_path:
            wire = Wire(connection, stalled_timeout_s=policy.stalled_timeout_s)
            self.dul = FastDul(self, wire, max_pdu_bytes=policy.max_read_bytes)
        else:
            self.dul = GuardedDul(self)
        # An upper layer has timers of its own, which these two set.
        self.network_timeout = self.ae.network_timeout
        self.acse_timeout = self.ae.acse_timeout
        if not policy.fast_path:
            self.set_socket(BoundedSocket(self, connection, policy=policy))
            return
        self._reactor_checkpoint = cast("Any", self.activity)
        self.set_socket(
            AnsweringSocket(self, connection, stalled_timeout_s=policy.stalled_timeout_s)
        )

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
        except Exception as error:  # noqa: BLE001  boundary: any bytes may come from the peer
            _log.warning("node.association_ended", error=type(error).__name__)
            cast("GuardedDul", self.dul).send_abort()
        finally:
            self._end_upper_layer()
            if self._session is not None:
                self._session.close(released=self.is_released)
            cast("NodeServer", self._server).forget(self)

    def _end_upper_layer(self) -> None:
        """Wait for the other thread: it may still write into what the session is about to drop."""
        self.cut()
        self.dul.kill_dul()
        if self._started_dul:
            self.dul.join()
        self._connection.close()

    def is_accepted(self, context_id: int) -> bool:
        """Whether a presentation context was accepted."""
        return context_id in self._accepted_cx

    def is_for_service(self, context_id: int) -> bool:
        """Whether a presentation context is for a service whose messages may be long."""
        context = self._accepted_cx.get(context_id)
        return context is not None and str(context.abstract_syntax) in _MESSAGES

    def _on_requested(self, _event: evt.Event) -> None:
        """Admit or reject; pynetdicom would go on to accept after an exception in here."""
        # pynetdicom counts its associations by this part of their threads' names.
        self.name = f"AcceptorThread@{self.association_id}"
        cast("NodeServer", self._server).no_longer_pending(self)
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
        if request.application_context_name != _APPLICATION_CONTEXT:
            return Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED
        call = Call(
            calling_ae_title=request.calling_ae_title.strip(),
            called_ae_title=request.called_ae_title.strip(),
            address=cast("AddressInformation", self.requestor.address_info).address,
            is_encrypted=isinstance(self._connection, ssl.SSLSocket),
            certificate_sha256=certificate_sha256(self._connection),
        )
        decision = self._policy.admit(call)
        if isinstance(decision, Admitted):
            self.caller = Caller(
                ae_title=call.calling_ae_title, address=call.address, rule=decision.rule
            )
            self._session = self._policy.open_session(self.association_id, self.caller)
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
        command = message.command_set
        return self._begin_store(
            str(command.get("AffectedSOPClassUID") or ""),
            str(command.get("AffectedSOPInstanceUID") or ""),
            cast("int", message.context_id),
        )

    def begin_fast_store(self, request: StoreRequest, context_id: int) -> Reception:
        """The same for a C-STORE that the fast path receives."""
        return self._begin_store(request.sop_class_uid, request.sop_instance_uid, context_id)

    def _begin_store(self, sop_class_uid: str, sop_instance_uid: str, context_id: int) -> Reception:
        context = self._accepted_cx.get(context_id)
        return cast("StoreSession", self._session).begin(
            StoreCommand(
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                context_class_uid=str(context.abstract_syntax) if context else "",
                transfer_syntax_uid=context.transfer_syntax[0] if context else "",
            )
        )

    def finish_store(self, reception: Reception) -> StoreStatus:
        """Make a received instance durable and say what to answer; see ``StoreSession``."""
        return cast("StoreSession", self._session).finish(reception)

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Serve one message; C-STORE is served here for private classes too."""
        if getattr(msg, "MessageIDBeingRespondedTo", None) is not None:
            return  # an answer to nothing that was asked
        if getattr(msg, "MessageID", None) is None or not self._is_offered(msg, context_id):
            # There is nothing to answer to, or no answer that its sender would understand.
            _log.warning("node.message_not_offered", message=type(msg).__name__)
            self.abort(block=False)
            return
        if not isinstance(msg, C_STORE):
            super()._serve_request(msg, context_id)
            return
        response = C_STORE()
        response.MessageIDBeingRespondedTo = msg.MessageID
        response.AffectedSOPClassUID = msg.AffectedSOPClassUID
        response.AffectedSOPInstanceUID = msg.AffectedSOPInstanceUID
        response.Status = int(self._store(msg))
        self.dimse.send_msg(response, context_id)

    def _is_offered(self, message: object, context_id: int) -> bool:
        """Whether the context's service has such a message; a C-STORE has a status for that."""
        context = self._accepted_cx.get(context_id)
        if context is None:
            return False
        return isinstance(message, (C_STORE, *_MESSAGES.get(str(context.abstract_syntax), ())))

    def _store(self, request: C_STORE) -> StoreStatus:
        sink = cast("Sink | None", request._dataset_file)  # noqa: SLF001  set in SpoolingDimse
        if sink is None:
            return StoreStatus.CANNOT_UNDERSTAND
        return self.finish_store(sink.reception)

    def end(self) -> None:
        """Ask the association to end, from another thread; its own thread ends soon after."""
        if self.is_established:
            self.abort(block=False)
        else:
            self.cut()

    def cut(self) -> None:
        """End the connection without a word; the thread that reads it closes it."""
        cut(self._connection)
