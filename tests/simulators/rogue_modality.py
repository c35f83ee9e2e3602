"""A scripted modality on a raw socket, which breaks the rules of PS3.7 and PS3.8 as it is told.

It shares no code with the node: every PDU is put together here by hand, so each length, flag and
value can lie. The functions encode; ``RogueModality`` sends bytes and decodes what comes back.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA_TF, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

# Message control header (PS3.8 E.2).
COMMAND, LAST = 1, 2

# Elements of the command set (PS3.7 E.1), all of group 0000.
AFFECTED_SOP_CLASS_UID = 0x0002
COMMAND_FIELD = 0x0100
MESSAGE_ID = 0x0110
MESSAGE_ID_RESPONDED_TO = 0x0120
PRIORITY = 0x0700
DATA_SET_TYPE = 0x0800
STATUS = 0x0900
AFFECTED_SOP_INSTANCE_UID = 0x1000
MOVE_ORIGINATOR_AE_TITLE = 0x1030
MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

C_STORE_RQ, C_STORE_RSP = 0x0001, 0x8001
C_ECHO_RQ, C_ECHO_RSP = 0x0030, 0x8030
C_CANCEL_RQ = 0x0FFF
NO_DATA_SET, SOME_DATA_SET = 0x0101, 0x0001

_PDU_HEAD = struct.Struct(">BBI")
_APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
# UUID-derived (PS3.5 B.2): version 5 of the name "rogue.modality" in the DNS name space.
_IMPLEMENTATION_CLASS = "2.25.149551253352574192663126054547149969384"


# ---------------------------------------------------------------- upper layer (PS3.8 9.3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposed:
    """One presentation context of a request."""

    number: int = 1
    abstract_syntax: str = CT
    transfer_syntaxes: tuple[str, ...] = (EXPLICIT,)


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """A PDU; ``length`` is announced instead of the true one."""
    return _PDU_HEAD.pack(kind, 0, len(body) if length is None else length) + body


def associate_request(
    contexts: Sequence[Proposed] = (Proposed(),),
    *,
    called: bytes = b"NODE",
    calling: bytes = b"ROGUE",
    max_pdu_bytes: int = 16_384,
    window: tuple[int, int] | None = None,
    application_context: str = _APPLICATION_CONTEXT,
) -> bytes:
    """An A-ASSOCIATE-RQ PDU.

    Args:
        contexts: What is proposed.
        called: AE title, padded with spaces here, cut at 16 bytes.
        calling: The same of the caller.
        max_pdu_bytes: Of the PDUs that the modality wants to get.
        window: Asynchronous operations invoked and performed (PS3.7 D.3.3.3); 0 is unlimited.
        application_context: PS3.8 7.1.1.2 knows one.
    """
    user = _item(0x51, struct.pack(">I", max_pdu_bytes))
    user += _item(0x52, _IMPLEMENTATION_CLASS.encode())
    if window is not None:
        user += _item(0x53, struct.pack(">HH", *window))
    body = struct.pack(">HH", 1, 0)
    body += called[:16].ljust(16) + calling[:16].ljust(16) + bytes(32)
    body += _item(0x10, application_context.encode())
    body += b"".join(_context_item(each) for each in contexts)
    return pdu(ASSOCIATE_RQ, body + _item(0x50, user))


def _context_item(context: Proposed) -> bytes:
    syntaxes = b"".join(_item(0x40, each.encode()) for each in context.transfer_syntaxes)
    head = struct.pack("BBBB", context.number, 0, 0, 0)
    return _item(0x20, head + _item(0x30, context.abstract_syntax.encode()) + syntaxes)


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def release_request() -> bytes:
    """An A-RELEASE-RQ PDU."""
    return pdu(RELEASE_RQ, bytes(4))


def abort(source: int = 0, reason: int = 0) -> bytes:
    """An A-ABORT PDU."""
    return pdu(ABORT, bytes((0, 0, source, reason)))


def pdv(context: int, control: int, data: bytes, *, length: int | None = None) -> bytes:
    """A presentation data value; ``length`` is announced instead of the true one."""
    announced = len(data) + 2 if length is None else length
    return struct.pack(">IBB", announced, context, control) + data


def p_data(*values: bytes, length: int | None = None) -> bytes:
    """A P-DATA-TF PDU of the given presentation data values."""
    return pdu(P_DATA_TF, b"".join(values), length=length)


# ---------------------------------------------------------------- messages (PS3.7 9, E.1)


def us(number: int) -> bytes:
    """A US value."""
    return struct.pack("<H", number)


def ui(uid: str | bytes) -> bytes:
    """A UI value with the padding of PS3.5 9.1; bytes stay as they are."""
    if isinstance(uid, bytes):
        return uid
    value = uid.encode()
    return value + b"\0" * (len(value) % 2)


def command_set(elements: Mapping[int, bytes]) -> bytes:
    """A command set: implicit VR little endian, with its group length."""
    group = b"".join(
        struct.pack("<HHI", 0, number, len(value)) + value
        for number, value in sorted(elements.items())
    )
    return struct.pack("<HHII", 0, 0, 4, len(group)) + group


_NOTHING_MORE: Mapping[int, bytes] = MappingProxyType({})


def store_request(
    sop_instance: str | bytes,
    *,
    sop_class: str | bytes = CT,
    message_id: int = 1,
    data_set_type: int = SOME_DATA_SET,
    more: Mapping[int, bytes] = _NOTHING_MORE,
) -> bytes:
    """The command set of a C-STORE-RQ; ``more`` adds and replaces elements."""
    return command_set(
        {
            AFFECTED_SOP_CLASS_UID: ui(sop_class),
            COMMAND_FIELD: us(C_STORE_RQ),
            MESSAGE_ID: us(message_id),
            PRIORITY: us(0),
            DATA_SET_TYPE: us(data_set_type),
            AFFECTED_SOP_INSTANCE_UID: ui(sop_instance),
            **more,
        }
    )


def echo_request(message_id: int = 1) -> bytes:
    """The command set of a C-ECHO-RQ."""
    return command_set(
        {
            AFFECTED_SOP_CLASS_UID: ui(VERIFICATION),
            COMMAND_FIELD: us(C_ECHO_RQ),
            MESSAGE_ID: us(message_id),
            DATA_SET_TYPE: us(NO_DATA_SET),
        }
    )


def cancel_request(message_id: int = 1) -> bytes:
    """The command set of a C-CANCEL-RQ (PS3.7 9.3.2.3)."""
    return command_set(
        {
            COMMAND_FIELD: us(C_CANCEL_RQ),
            MESSAGE_ID_RESPONDED_TO: us(message_id),
            DATA_SET_TYPE: us(NO_DATA_SET),
        }
    )


def fragments(context: int, control: int, data: bytes, size: int) -> list[bytes]:
    """P-DATA-TF PDUs of one value each, with ``size`` bytes in it; the last is flagged so."""
    pieces = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    last = len(pieces) - 1
    return [
        p_data(pdv(context, control | (LAST if index == last else 0), piece))
        for index, piece in enumerate(pieces)
    ]


# ---------------------------------------------------------------- instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What a modality sends: made up, and the same for the same arguments."""

    sop_instance: str
    data_set: bytes = field(repr=False)
    sop_class: str = CT

    def message(self, *, context: int = 1, message_id: int = 1, size: int = 16_000) -> list[bytes]:
        """The PDUs of an orderly C-STORE."""
        command = store_request(self.sop_instance, sop_class=self.sop_class, message_id=message_id)
        return [
            p_data(pdv(context, COMMAND | LAST, command)),
            *fragments(context, 0, self.data_set, size),
        ]


def explicit_element(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element in explicit VR little endian (PS3.5 7.1.2)."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def make_instance(number: int, *, pixel_bytes: int = 2048, sop_class: str = CT) -> Instance:
    """A small valid image: one row of 16-bit pixels."""
    uid = f"1.2.3.4.{number}"
    elements = (
        (0x00080016, b"UI", ui(sop_class)),
        (0x00080018, b"UI", ui(uid)),
        (0x00080060, b"CS", b"CT"),
        (0x00100010, b"PN", b"Rogue^Image "),
        (0x0020000D, b"UI", ui("1.2.3.4")),
        (0x0020000E, b"UI", ui("1.2.3.4.0")),
        (0x00280002, b"US", us(1)),
        (0x00280010, b"US", us(1)),
        (0x00280011, b"US", us(min(pixel_bytes // 2, 0xFFFF))),
        (0x00280100, b"US", us(16)),
        (0x00280101, b"US", us(16)),
        (0x7FE00010, b"OW", bytes(number % 251 for _ in range(pixel_bytes))),
    )
    data_set = b"".join(explicit_element(*each) for each in elements)
    return Instance(sop_instance=uid, data_set=data_set, sop_class=sop_class)


# ---------------------------------------------------------------- answers


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A-ASSOCIATE-AC."""

    contexts: Mapping[int, str | None]
    """Context to transfer syntax; None if it was not accepted."""
    max_pdu_bytes: int
    window: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A-ASSOCIATE-RJ."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The command set of a DIMSE response."""

    context: int
    command_field: int
    message_id: int
    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A-RELEASE-RP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aborted:
    """A-ABORT."""

    source: int
    reason: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The end of the connection, in whatever way."""


Answer = Accepted | Rejected | Response | Released | Aborted | Closed


class RogueModality:
    """One connection to the node; leaving the block closes it.

    Args:
        port: Of the node, on this machine.
        deadline_s: After that an answer that does not come is an error of the test.
    """

    def __init__(self, port: int, *, deadline_s: float = 15.0) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection.settimeout(deadline_s)

    def __enter__(self) -> RogueModality:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def set_deadline(self, seconds: float) -> None:
        """From now on an answer has to come within ``seconds``."""
        self._connection.settimeout(seconds)

    def send(self, *pieces: bytes) -> None:
        """Send bytes; a node that has hung up meanwhile is none of the sender's business."""
        try:
            for piece in pieces:
                self._connection.sendall(piece)
        except (BrokenPipeError, ConnectionResetError):
            return

    def associate(self, *contexts: Proposed) -> Accepted:
        """Open an association in order; with no argument for CT and verification."""
        proposed = contexts or (Proposed(), Proposed(number=3, abstract_syntax=VERIFICATION))
        self.send(associate_request(proposed))
        answer = self.answer()
        assert isinstance(answer, Accepted), answer
        return answer

    def store(self, instance: Instance, *, context: int = 1, message_id: int = 1) -> int:
        """Store in order and return the status."""
        self.send(*instance.message(context=context, message_id=message_id))
        answer = self.answer()
        assert isinstance(answer, Response), answer
        assert (answer.command_field, answer.message_id) == (C_STORE_RSP, message_id)
        return answer.status

    def echo(self, *, context: int = 3, message_id: int = 7) -> Answer:
        """Ask for a C-ECHO and return what comes."""
        self.send(p_data(pdv(context, COMMAND | LAST, echo_request(message_id))))
        return self.answer()

    def release(self) -> Answer:
        """Ask to end the association and return what comes."""
        self.send(release_request())
        return self.answer()

    def half_close(self) -> None:
        """Send FIN; the node may still answer."""
        self._connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send RST: unsent and unread bytes are lost on both sides."""
        linger = struct.pack("ii", 1, 0)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._connection.close()

    def answers(self) -> Iterator[Answer]:
        """Everything until the node ends the connection; ``Closed`` is the last."""
        while True:
            answer = self.answer()
            yield answer
            if isinstance(answer, Closed):
                return

    def answer(self) -> Answer:
        """The next answer."""
        try:
            kind, _, length = _PDU_HEAD.unpack(self._exactly(_PDU_HEAD.size))
            return _decoded(kind, self._exactly(length))
        except (ConnectionError, EOFError):
            return Closed()

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            piece = self._connection.recv(count - len(got))
            if not piece:
                raise EOFError
            got += piece
        return got


def _decoded(kind: int, body: bytes) -> Answer:
    if kind == ASSOCIATE_AC:
        return _accepted(body)
    if kind == ASSOCIATE_RJ:
        return Rejected(result=body[1], source=body[2], reason=body[3])
    if kind == RELEASE_RP:
        return Released()
    if kind == ABORT:
        return Aborted(source=body[2], reason=body[3])
    assert kind == P_DATA_TF, f"the node sent a PDU of type {kind}"
    return _response(body)


def _response(body: bytes) -> Response:
    """The answer of one PDU with one value: the node's responses are that short."""
    length, context, control = struct.unpack_from(">IBB", body)
    assert length + 4 == len(body), "the node's responses have one value"
    assert control == COMMAND | LAST, "the node's responses have no data set"
    elements = dict(_command_elements(body[6:]))
    return Response(
        context=context,
        command_field=_number(elements[COMMAND_FIELD]),
        message_id=_number(elements[MESSAGE_ID_RESPONDED_TO]),
        status=_number(elements[STATUS]),
    )


def _command_elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        _, number, length = struct.unpack_from("<HHI", data, at)
        yield number, data[at + 8 : at + 8 + length]
        at += 8 + length


def _number(value: bytes) -> int:
    return int.from_bytes(value, "little")


def _accepted(body: bytes) -> Accepted:
    contexts: dict[int, str | None] = {}
    user: dict[int, bytes] = {}
    for kind, value in _items(body[68:]):
        if kind == 0x21:
            ((_, syntax),) = _items(value[4:])
            contexts[value[0]] = syntax.decode() if value[2] == 0 else None
        elif kind == 0x50:
            user = dict(_items(value))
    window = struct.unpack(">HH", user[0x53]) if 0x53 in user else None
    (max_pdu_bytes,) = struct.unpack(">I", user[0x51])
    return Accepted(contexts=contexts, max_pdu_bytes=max_pdu_bytes, window=window)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        kind, _, length = struct.unpack_from(">BBH", data, at)
        yield kind, data[at + 4 : at + 4 + length]
        at += 4 + length
