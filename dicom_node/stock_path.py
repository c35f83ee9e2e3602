"""What stock pynetdicom reads, with bounds: the way of all that the fast path does not take.

* ``BoundedSocket``: no PDU larger than the bound is read, and none may drip in.
* ``GuardedDul``: whatever the bytes, the upper layer's thread ends in order.
* ``SpoolingDimse``: the data set of a C-STORE goes to a ``Reception`` as it arrives, undecoded; no
  other message may grow in memory, and no two messages mix.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, cast

import structlog
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.errors import ProtocolViolationError
from dicom_node.reception import Reception
from dicom_node.transport import ClosingSocket
from dicom_node.wire import MIN_BYTES_PER_S

if TYPE_CHECKING:
    from dicom_node.acceptor import AcceptorPolicy, NodeAssociation

_log = structlog.get_logger()

# A command set has about ten short elements; no message but C-STORE has a data set for us.
_MAX_MESSAGE_BYTES = 64 * 1024
# A commitment request or a performed procedure step names each instance, in about 200 bytes.
_MAX_SERVICE_MESSAGE_BYTES = 16 << 20
# The asynchronous operations window is 1 (PS3.7 D.3.3.3): a peer waits for each answer.
# A few messages of slack, then the peer is breaking the protocol.
_MAX_WAITING_MESSAGES = 8
_READ_BYTES = 256 * 1024
_INVALID_PDU_EVENT = "Evt19"
# PS3.8 Annex E.2, message control header: bit 0 command, bit 1 last fragment.
_COMMAND, _LAST = 1, 2


class GuardedDul(DULServiceProvider):
    """pynetdicom's upper layer; an event that its state machine does not expect ends it quietly."""

    def run_reactor(self) -> None:
        """The thread."""
        try:
            self.run_guarded()
        except Exception as error:  # noqa: BLE001  boundary: any bytes may come from the peer
            _log.warning("node.upper_layer_ended", error=type(error).__name__)
            self._give_up()

    def run_guarded(self) -> None:
        """The reactor itself."""
        super().run_reactor()

    def _give_up(self) -> None:
        """As the stock reactor does after an exception: A-ABORT past the state machine."""
        self.send_abort()
        self.assoc.is_aborted = True
        self.assoc.is_established = False
        self.assoc._kill = True  # noqa: SLF001  as the stock reactor does
        self._kill_thread = True
        if self.assoc.requestor.primitive is None:
            # The association's thread waits for a request that will not come.
            self.to_user_queue.put(cast("Any", None))

    def send_abort(self) -> None:
        """Say A-ABORT past the state machine (PS3.8 9.3.8: by the provider, no reason given)."""
        abort = A_ABORT_RQ()
        abort.source, abort.reason_diagnostic = 0x02, 0x00
        if self.socket is not None and self.socket.socket is not None:
            self.socket.send(abort.encode())


class BoundedSocket(ClosingSocket):
    """A connection that cannot make us allocate by a declared length."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, *, policy: AcceptorPolicy
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._max_read_bytes = policy.max_read_bytes
        self._stalled_timeout_s = policy.stalled_timeout_s
        client_socket.settimeout(policy.stalled_timeout_s)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly ``nr_bytes``, or less if the peer closes the connection.

        Raises:
            ConnectionError: More is announced than any PDU may have; the connection is closed.
            TimeoutError: The peer stalled, or drips.
        """
        if nr_bytes > self._max_read_bytes:
            raise ConnectionError("the peer announces a PDU larger than the bound")
        data = bytearray()
        connection = cast("socket.socket", self.socket)
        deadline_s = time.monotonic() + self._stalled_timeout_s + nr_bytes / MIN_BYTES_PER_S
        while len(data) < nr_bytes:
            piece = connection.recv(min(nr_bytes - len(data), _READ_BYTES))
            if not piece:
                break
            data += piece
            if time.monotonic() > deadline_s:
                raise TimeoutError("the peer drips")
        return data


class Sink:
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
        self._has_command = False
        self._context_id = 0

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
        self._check_order(fragment[0], fragment[1][0])
        part = P_DATA()
        part.presentation_data_value_list.append(fragment)
        super().receive_primitive(part)
        if isinstance(self.message, C_STORE_RQ) and self.message._data_set_file is None:  # noqa: SLF001  pynetdicom's seam for chunked reception
            sink = Sink(self._association.begin_store(self.message))
            self.message._data_set_file = cast("Any", sink)  # noqa: SLF001  same
        if self._is_beyond_bounds():
            raise ProtocolViolationError("more is waiting or held than the protocol needs")

    def _check_order(self, context_id: int, control: int) -> None:
        """Fragments of two messages may not mix (PS3.7 6.3.1, PS3.8 Annex E)."""
        is_command = bool(control & _COMMAND)
        if self.message is None:
            is_in_order, self._has_command, self._context_id = is_command, False, context_id
        else:
            is_in_order = context_id == self._context_id and is_command != self._has_command
        if not is_in_order:
            raise ProtocolViolationError("the fragments are not those of one message")
        self._has_command = self._has_command or bool(is_command and control & _LAST)

    def _is_beyond_bounds(self) -> bool:
        if self.msg_queue.qsize() > _MAX_WAITING_MESSAGES:
            return True
        message = self.message
        if message is None:
            return False
        bound = _MAX_MESSAGE_BYTES
        if self._association.is_for_service(self._context_id):
            bound = _MAX_SERVICE_MESSAGE_BYTES
        held = message.encoded_command_set.tell()
        held += message.data_set.tell() if message.data_set is not None else 0
        return held > bound
