"""The hot path: the data set of a C-STORE goes from the socket to the spool in one thread.

``FastDul`` is pynetdicom's upper layer (PS3.8) with another way to wait and to read. Negotiation,
C-ECHO, release, abort, every other service and every odd or fragmented command go through stock
pynetdicom, PDU by PDU. Only "C-STORE-RQ and its data set" on an established association is taken
over: headers of PDUs and PDVs are parsed in place, what they carry is received or copied straight
into the buffer that goes to the disk, and the answer is sent from here.

Invariants: a PDU is given to pynetdicom whole or not at all; between two messages nothing of ours
is left in a half-done state; whatever the bytes are, they end in a status, in an A-ABORT or in a
closed connection.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, cast

import structlog

from dicom_node.errors import ProtocolViolationError
from dicom_node.reactor import idle_wait_s
from dicom_node.stock_path import GuardedDul
from dicom_node.wire import BUFFER_BYTES, AnsweringSocket, Wire, WireClosedError, WireStalledError

if TYPE_CHECKING:
    from dicom_node.acceptor import NodeAssociation
    from dicom_node.reception import Reception

_log = structlog.get_logger()

# PS3.8 9.3.1: type, reserved, length. 9.3.5.1: item length, context id, message control header.
_PDU = struct.Struct(">BBI")
_PDV = struct.Struct(">IBB")
_P_DATA_TF = 4
_PDU_TYPES = range(1, 8)
_PDV_OVERHEAD = 2
_LENGTH_BYTES = 4
# PS3.8 Annex E.2: bit 0 command, bit 1 last fragment.
_COMMAND, _LAST = 1, 2
# A C-STORE-RQ has about 300 bytes; a longer one is stock pynetdicom's.
_MAX_COMMAND_BYTES = 4096
# From here on it pays to receive past the wire's buffer.
_DIRECT_BYTES = 32 * 1024

# PS3.7 9.3.1 and E.1, implicit VR little endian: group 0000, element, length.
_ELEMENT = struct.Struct("<HHI")
_SOP_CLASS, _FIELD, _MESSAGE_ID, _ANSWERED_ID = 0x0002, 0x0100, 0x0110, 0x0120
_DATA_SET_TYPE, _STATUS, _SOP_INSTANCE = 0x0800, 0x0900, 0x1000
_C_STORE_RQ, _C_STORE_RSP = b"\x01\x00", b"\x01\x80"
_NO_DATA_SET = b"\x01\x01"
_US_BYTES = 2


class _Event(str, Enum):
    """Events of the upper layer's state machine (PS3.8 9.2.1) that reading can cause."""

    CLOSED = "Evt17"
    ARTIM_EXPIRED = "Evt18"
    INVALID_PDU = "Evt19"


_ESTABLISHED, _AWAITING_CLOSE = "Sta6", "Sta13"
# PS3.8 9.2: after the last PDU the requestor closes; we wait for it so long.
_LINGER_S = 0.5
_CLOSED_WAIT_S = 0.05
# How often the ARTIM timer is looked at.
_NEGOTIATION_WAIT_S = 1.0
# PS3.8 allows a fragment without a byte, but no sender has a use for many.
_MAX_EMPTY_FRAGMENTS = 64


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE-RQ (PS3.7 9.3.1.1), as far as the answer and the store need it."""

    message_id: bytes
    sop_class: bytes
    """As sent, with padding: the answer repeats it."""
    sop_instance: bytes

    @property
    def sop_class_uid(self) -> str:
        """Without padding; not yet checked."""
        return _uid(self.sop_class)

    @property
    def sop_instance_uid(self) -> str:
        """Without padding; not yet checked."""
        return _uid(self.sop_instance)


def _uid(raw: bytes) -> str:
    return raw.rstrip(b"\0 ").decode("ascii", "replace")


def parse_store_request(command: bytes) -> StoreRequest | None:
    """Read a whole command set.

    Returns:
        None: it is no C-STORE-RQ with a data set, or it is odd; stock pynetdicom then decides.
    """
    values: dict[int, bytes] = {}
    position, size = 0, len(command)
    while position + _ELEMENT.size <= size:
        group, element, length = _ELEMENT.unpack_from(command, position)
        position += _ELEMENT.size
        if group or position + length > size or element in values:
            return None
        values[element] = command[position : position + length]
        position += length
    message_id = values.get(_MESSAGE_ID, b"")
    sop_class, sop_instance = values.get(_SOP_CLASS), values.get(_SOP_INSTANCE)
    if (
        position != size
        or values.get(_FIELD) != _C_STORE_RQ
        or values.get(_DATA_SET_TYPE, _NO_DATA_SET) == _NO_DATA_SET
        or len(message_id) != _US_BYTES
        or sop_class is None
        or sop_instance is None
    ):
        return None
    return StoreRequest(message_id, sop_class, sop_instance)


def encode_store_response(request: StoreRequest, context_id: int, status: int) -> bytes:
    """A C-STORE-RSP (PS3.7 9.3.1.2) as one P-DATA-TF PDU."""
    body = b"".join(
        (
            _encode(_SOP_CLASS, request.sop_class),
            _encode(_FIELD, _C_STORE_RSP),
            _encode(_ANSWERED_ID, request.message_id),
            _encode(_DATA_SET_TYPE, _NO_DATA_SET),
            _encode(_STATUS, status.to_bytes(_US_BYTES, "little")),
            _encode(_SOP_INSTANCE, request.sop_instance),
        )
    )
    command = _encode(0x0000, len(body).to_bytes(4, "little")) + body
    value_length = len(command) + _PDV_OVERHEAD
    return (
        _PDU.pack(_P_DATA_TF, 0, value_length + _LENGTH_BYTES)
        + _PDV.pack(value_length, context_id, _COMMAND | _LAST)
        + command
    )


def _encode(element: int, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0"
    return _ELEMENT.pack(0, element, len(value)) + value


class _InterruptedError(Exception):
    """Another PDU than P-DATA-TF is next, inside a data set; it stays in the wire."""


class FastDul(GuardedDul):
    """The upper layer of one accepted association."""

    def __init__(self, association: NodeAssociation, wire: Wire, *, max_pdu_bytes: int) -> None:
        """``max_pdu_bytes`` bounds what is read for stock pynetdicom in one piece."""
        super().__init__(association)
        self._node_association = association
        self._wire = wire
        self._max_pdu_bytes = max_pdu_bytes

    def send_pdu(self, primitive: object) -> None:
        """Queue a primitive, and wake the thread that sends it."""
        super().send_pdu(primitive)  # type: ignore[arg-type]  # pynetdicom's union of primitives
        self._wire.wake()

    def kill_dul(self) -> None:
        """Ask the thread to end."""
        super().kill_dul()
        self._wire.wake()

    def stop_dul(self) -> bool:
        """End the thread if the state machine is idle; pynetdicom asks again until it is."""
        self._wire.wake()
        return super().stop_dul()

    def run_guarded(self) -> None:
        """One event of the state machine after the other, until killed."""
        self._idle_timer.start()
        self.assoc._dul_ready.set()  # noqa: SLF001  as the stock reactor does
        try:
            while not self._kill_thread:
                self._find_event()
                self._act()
        finally:
            self._wire.close()
            self._node_association.activity.notify()

    def _find_event(self) -> None:
        """Put the next event into the queue, unless one is there."""
        if self.artim_timer.expired:
            self.event_queue.put(_Event.ARTIM_EXPIRED.value)
        elif not self.event_queue.empty() or self._process_recv_primitive():
            return
        elif self._socket.socket is None:
            self._wire.forget_connection()
            self._wire.wait(_CLOSED_WAIT_S)
        elif self.state_machine.current_state == _AWAITING_CLOSE:
            self._linger()
        else:
            self._receive()

    def _act(self) -> None:
        if not self.event_queue.empty():
            self.state_machine.do_action(self.event_queue.get(block=False))
            self._node_association.activity.notify()

    @property
    def _socket(self) -> AnsweringSocket:
        return cast("AnsweringSocket", self.socket)

    def _linger(self) -> None:
        """Throw away what still comes, until the peer closes or has had its time."""
        try:
            while self._wire.poll_first(_LINGER_S):
                self._wire.start = self._wire.end
                if self.artim_timer.expired:
                    return
        except WireClosedError:
            pass
        self._socket.close()

    def _receive(self) -> None:
        """Take the next PDU, or wait for it for a while."""
        try:
            if not self._wire.poll_first(self._patience_s()):
                return
            self._wire.begin_message()
            self._take_pdu()
            self._idle_timer.restart()
            self._wire.end_message()
        except (WireClosedError, OSError):
            self.event_queue.put(_Event.CLOSED.value)
        except WireStalledError:
            _log.warning("node.peer_stalled")
            self._socket.close()
        except ProtocolViolationError:
            _log.warning("node.protocol_violated")
            self.event_queue.put(_Event.INVALID_PDU.value)

    def _patience_s(self) -> float:
        """How long to wait for the next PDU before the timers are looked at."""
        if self.state_machine.current_state == _ESTABLISHED:
            return idle_wait_s(self.network_timeout)
        return _NEGOTIATION_WAIT_S

    def _take_pdu(self) -> None:
        wire = self._wire
        wire.require(_PDU.size)
        kind, _, length = _PDU.unpack_from(wire.view, wire.start)
        if kind not in _PDU_TYPES:
            raise ProtocolViolationError("unknown type of PDU")
        if length > self._max_pdu_bytes:
            raise ProtocolViolationError("the peer announces a PDU larger than the bound")
        if kind == _P_DATA_TF and self.state_machine.current_state == _ESTABLISHED:
            request, context_id = self._peek_store_request(length)
            if request is not None:
                self._store(request, context_id, length)
                return
        self._take_stock_pdu(_PDU.size + length)

    def _peek_store_request(self, pdu_length: int) -> tuple[StoreRequest | None, int]:
        """Look whether a PDU begins with a whole C-STORE-RQ, without using it."""
        if pdu_length < _PDV.size or self.assoc.dimse.message is not None:
            return None, 0
        wire = self._wire
        wire.require(_PDU.size + _PDV.size)
        value_length, context_id, control = _PDV.unpack_from(wire.view, wire.start + _PDU.size)
        if (
            control != _COMMAND | _LAST
            or not _PDV_OVERHEAD
            < value_length
            <= min(pdu_length - _LENGTH_BYTES, _MAX_COMMAND_BYTES)
            or not self._node_association.is_accepted(context_id)
        ):
            return None, 0
        wire.require(_PDU.size + _LENGTH_BYTES + value_length)
        begin = wire.start + _PDU.size + _PDV.size
        end = wire.start + _PDU.size + _LENGTH_BYTES + value_length
        return parse_store_request(bytes(wire.view[begin:end])), context_id

    def _take_stock_pdu(self, size: int) -> None:
        """Give one whole PDU to pynetdicom."""
        wire = self._wire
        whole = bytearray()
        while len(whole) < size:
            wire.require(1 if size > BUFFER_BYTES // 2 else size)
            count = min(wire.available, size - len(whole))
            whole += wire.view[wire.start : wire.start + count]
            wire.start += count
        try:
            pdu, event = self._decode_pdu(whole)
        except Exception as error:
            raise ProtocolViolationError("the PDU cannot be decoded") from error
        self._recv_pdu.put(pdu)
        self.event_queue.put(event)

    def _store(self, request: StoreRequest, context_id: int, pdu_length: int) -> None:
        """Receive and store one instance, and answer."""
        wire = self._wire
        (command_length,) = struct.unpack_from(">I", wire.view, wire.start + _PDU.size)
        wire.start += _PDU.size + _LENGTH_BYTES + command_length
        pdu_left = pdu_length - _LENGTH_BYTES - command_length
        reception = self._node_association.begin_fast_store(request, context_id)
        try:
            self._receive_data_set(reception, context_id, pdu_left)
            status = self._node_association.finish_store(reception)
        except _InterruptedError:
            return
        finally:
            reception.drop()
        self._socket.transmit(encode_store_response(request, context_id, int(status)))

    def _receive_data_set(self, reception: Reception, context_id: int, pdu_left: int) -> None:
        """Receive the fragments of one data set (PS3.7 6.3.1, PS3.8 Annex E).

        Raises:
            _InterruptedError: A PDU of another type is next.
            ProtocolViolationError: The fragments are not those of one data set.
        """
        wire = self._wire
        is_last = empty = 0
        while not is_last:
            if not pdu_left:
                pdu_left = self._next_p_data()
            wire.require(_PDV.size)
            value_length, fragment_context, control = _PDV.unpack_from(wire.view, wire.start)
            left = value_length - _PDV_OVERHEAD
            pdu_left -= _LENGTH_BYTES + value_length
            empty += not left
            if (
                left < 0
                or pdu_left < 0
                or fragment_context != context_id
                or control & _COMMAND
                or empty > _MAX_EMPTY_FRAGMENTS
            ):
                raise ProtocolViolationError("the fragments are not those of one data set")
            wire.start += _PDV.size
            is_last = control & _LAST
            next_header = _PDV.size if pdu_left else _PDU.size + _PDV.size
            self._receive_fragment(reception, left, 0 if is_last else next_header)
        if pdu_left:
            # Another message begins in the same PDU: it gets a PDU header of its own.
            wire.put_back(_PDU.pack(_P_DATA_TF, 0, pdu_left))

    def _next_p_data(self) -> int:
        """Use the header of the next P-DATA-TF PDU; its length."""
        wire = self._wire
        wire.require(_PDU.size)
        kind, _, length = _PDU.unpack_from(wire.view, wire.start)
        if kind != _P_DATA_TF:
            raise _InterruptedError
        if not _PDV.size <= length <= self._max_pdu_bytes:
            raise ProtocolViolationError("the peer announces a PDU out of bounds")
        wire.start += _PDU.size
        return cast("int", length)

    def _receive_fragment(self, reception: Reception, left: int, follows: int) -> None:
        """Receive ``left`` bytes of a fragment; ``follows``: those of the header after it."""
        wire = self._wire
        while left:
            count = min(wire.end - wire.start, left)
            if count:
                reception.write(wire.view[wire.start : wire.start + count])
                wire.start += count
                left -= count
            elif left >= _DIRECT_BYTES:
                target = reception.space()[:left]
                count = wire.receive_past(target, ahead=follows if len(target) == left else 0)
                reception.advance(count)
                left -= count
            else:
                wire.require(1)
