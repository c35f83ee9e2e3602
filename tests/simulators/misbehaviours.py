"""What the rogue modality does, and what the node must answer: the table of the documentation.

Every row is played against both ways of receiving. What depends on time or number stands in tests
of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulators.rogue_modality import (
    ABORT,
    AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    ASSOCIATE_RQ,
    COMMAND,
    COMMAND_FIELD,
    CT,
    DATA_SET_TYPE,
    EXPLICIT,
    LAST,
    MESSAGE_ID,
    MESSAGE_ID_RESPONDED_TO,
    MOVE_ORIGINATOR_AE_TITLE,
    MOVE_ORIGINATOR_MESSAGE_ID,
    MR,
    NO_DATA_SET,
    P_DATA_TF,
    PRIORITY,
    RELEASE_RP,
    RELEASE_RQ,
    SOME_DATA_SET,
    STATUS,
    VERIFICATION,
    Instance,
    Proposed,
    abort,
    associate_request,
    cancel_request,
    command_set,
    echo_request,
    fragments,
    make_instance,
    p_data,
    pdu,
    pdv,
    release_request,
    store_request,
    ui,
    us,
)

GOES_ON = "the association goes on"
A_ABORT = "A-ABORT"
CLOSED = "the connection is closed"
ENDED = "A-ABORT, or the connection is closed"
RELEASED = "A-RELEASE-RP"
ACCEPTED = "A-ASSOCIATE-AC"
STORED = "0000"
OTHER_CLASS = "0122"
MISMATCH = "A900"
NOT_UNDERSTOOD = "C000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaviour:
    """One row."""

    what: str
    """In the documentation's words."""
    sent: bytes
    """In one piece: as fast as a peer can be."""
    answers: tuple[str, ...]
    """In this order, and nothing else."""
    stores: tuple[Instance, ...] = ()
    """What must stand in the spool afterwards, byte by byte."""


def _rows(
    answers: Sequence[str], stores: Sequence[Instance], table: Sequence[tuple[str, bytes]]
) -> list[Misbehaviour]:
    return [
        Misbehaviour(what=what, sent=sent, answers=tuple(answers), stores=tuple(stores))
        for what, sent in table
    ]


def _command(command: bytes, context: int = 1) -> bytes:
    return p_data(pdv(context, COMMAND | LAST, command))


def _without(*left_out: int) -> bytes:
    """A C-STORE-RQ that lacks some elements."""
    elements = {
        AFFECTED_SOP_CLASS_UID: ui(CT),
        COMMAND_FIELD: us(0x0001),
        MESSAGE_ID: us(1),
        PRIORITY: us(0),
        DATA_SET_TYPE: us(SOME_DATA_SET),
        AFFECTED_SOP_INSTANCE_UID: ui(IMAGE.sop_instance),
    }
    return command_set({key: value for key, value in elements.items() if key not in left_out})


def _other_request(command_field: int) -> bytes:
    """A DIMSE-N request to the class of images."""
    return command_set(
        {
            AFFECTED_SOP_CLASS_UID: ui(CT),
            0x0003: ui(CT),
            COMMAND_FIELD: us(command_field),
            MESSAGE_ID: us(1),
            DATA_SET_TYPE: us(NO_DATA_SET),
            AFFECTED_SOP_INSTANCE_UID: ui("1.2.3"),
            0x1001: ui("1.2.3"),
            0x1002: us(1),
            0x1008: us(1),
        }
    )


IMAGE = make_instance(1)
OTHER_IMAGE = make_instance(2)
# Several times the largest PDU that the node asks for, and far below what it will read at most.
LONG_IMAGE = make_instance(3, pixel_bytes=400_000)
_COMMAND = store_request(IMAGE.sop_instance)
_FIRST, *_DATA = IMAGE.message(size=500)
_REST = b"".join(_DATA)
_HALF = _FIRST + _DATA[0]
_WHOLE_DATA = p_data(pdv(1, LAST, IMAGE.data_set))
_MANY_SYNTAXES = (*(f"1.2.3.{number}" for number in range(39)), EXPLICIT)
_ODD_NUMBERS = range(1, 256, 2)


BEFORE_AN_ASSOCIATION = [
    *_rows(
        [A_ABORT],
        [],
        [
            ("P-DATA before an association", _command(echo_request())),
            ("A-RELEASE-RQ before an association", release_request()),
            ("A-ASSOCIATE-AC instead of a request", pdu(ASSOCIATE_AC, bytes(100))),
            ("A-ASSOCIATE-RJ instead of a request", pdu(ASSOCIATE_RJ, bytes(4))),
            ("A-RELEASE-RP instead of a request", pdu(RELEASE_RP, bytes(4))),
            ("a PDU of unknown type", pdu(0x08, b"")),
            ("a PDU of type 0", pdu(0, b"")),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"),
            ("an A-ASSOCIATE-RQ of length 0", pdu(ASSOCIATE_RQ, b"")),
            ("a blank calling AE title", associate_request(calling=b"")),
            ("control characters in the calling AE title", associate_request(calling=b"\0\1\n")),
            ("no ASCII in the calling AE title", associate_request(calling=b"\xe9\xff")),
            ("a blank called AE title", associate_request(called=b"")),
            ("control characters in the called AE title", associate_request(called=b"NODE\0\n")),
            (
                "an abstract syntax of 201 characters",
                associate_request([Proposed(abstract_syntax="1." * 100 + "1")]),
            ),
            ("a context with an even number", associate_request([Proposed(number=2)])),
            ("a context with the number 0", associate_request([Proposed(number=0)])),
            (
                "a context without transfer syntax",
                associate_request([Proposed(transfer_syntaxes=())]),
            ),
            ("A-RELEASE-RQ right behind the request", associate_request() + release_request()),
            ("A-ASSOCIATE-RQ twice", associate_request() * 2),
        ],
    ),
    *_rows(
        [CLOSED],
        [],
        [("A-ABORT before an association", abort())],
    ),
    *_rows(
        [ENDED],
        [],
        [("an A-ASSOCIATE-RQ of 4 GB", pdu(ASSOCIATE_RQ, b"", length=0xFFFFFFFF))],
    ),
    *_rows(
        [ACCEPTED],
        [],
        [
            ("`../` and slashes in the calling AE title", associate_request(calling=b"../../x/y")),
            ("spaces before the called AE title", associate_request(called=b"   NODE")),
            (
                "128 contexts with 40 transfer syntaxes each",
                associate_request(
                    [
                        Proposed(number=number, transfer_syntaxes=_MANY_SYNTAXES)
                        for number in _ODD_NUMBERS
                    ]
                ),
            ),
            ("the same context twice", associate_request([Proposed(), Proposed()])),
            (
                "an abstract syntax that is a path (the context is not accepted)",
                associate_request([Proposed(abstract_syntax="../../etc")]),
            ),
            ("asks for PDUs of at most 1 byte", associate_request(max_pdu_bytes=1)),
            ("asks for unlimited operations at a time", associate_request(window=(0, 0))),
        ],
    ),
]

BROKEN_PDUS = [
    *_rows(
        [A_ABORT],
        [],
        [
            ("A-ASSOCIATE-RQ on an open association", associate_request()),
            ("A-ASSOCIATE-AC on an open association", pdu(ASSOCIATE_AC, bytes(100))),
            ("A-RELEASE-RP without a request", pdu(RELEASE_RP, bytes(4))),
            ("a PDU of unknown type on an association", pdu(0x08, b"")),
            ("a value of length 0", p_data(pdv(1, COMMAND | LAST, b"", length=0))),
            ("a value of length 1", p_data(pdv(1, COMMAND | LAST, b"", length=1))),
            ("a value that is longer than its PDU", p_data(pdv(1, 3, _COMMAND, length=5000))),
            ("a value of 4 GB", p_data(pdv(1, 3, _COMMAND, length=0xFFFFFFFF))),
            ("a value whose length is negative", p_data(pdv(1, 3, _COMMAND, length=0x80000000))),
            (
                "a value that ends before its bytes do",
                p_data(pdv(1, 3, _COMMAND, length=len(_COMMAND) - 8)),
            ),
            (
                "a PDU that ends before its value does",
                p_data(pdv(1, 3, _COMMAND), length=len(_COMMAND) + 5),
            ),
            (
                "a PDU that takes in the first byte of the next one",
                p_data(pdv(1, 3, _COMMAND), length=len(_COMMAND) + 7) + pdu(P_DATA_TF, b"\1"),
            ),
            (
                "a value of a data set that reaches into the next PDU",
                _FIRST + p_data(pdv(1, LAST, IMAGE.data_set), length=100),
            ),
            ("a data set of 4 GB in one value", _FIRST + p_data(pdv(1, 2, b"", length=0xFFFFFFFF))),
        ],
    ),
    *_rows(
        [CLOSED],
        [],
        [
            ("A-ABORT in the middle of a data set", _HALF + abort()),
        ],
    ),
    *_rows(
        [ENDED],
        [],
        [
            ("a PDU of 4 GB", pdu(P_DATA_TF, bytes(100), length=0xFFFFFFFF)),
            ("a PDU of 4 GB in a data set", _HALF + pdu(P_DATA_TF, b"", length=0xFFFFFFFF)),
            ("an A-ABORT of wrong length", pdu(ABORT, bytes(10))),
            ("A-ABORT with a reason that is none", abort(source=9, reason=9)),
        ],
    ),
    *_rows(
        [RELEASED],
        [],
        [
            ("A-RELEASE-RQ in the middle of a data set", _HALF + release_request()),
            ("an A-RELEASE-RQ of wrong length", pdu(RELEASE_RQ, bytes(100))),
            ("an A-RELEASE-RQ of length 0", pdu(RELEASE_RQ, b"")),
        ],
    ),
]

ODD_BUT_LEGAL = [
    *_rows(
        [STORED, GOES_ON],
        [IMAGE],
        [
            ("a command in PDUs of one byte", b"".join(fragments(1, COMMAND, _COMMAND, 1)) + _REST),
            (
                "a data set in PDUs of one byte",
                _FIRST + b"".join(fragments(1, 0, IMAGE.data_set, 1)),
            ),
            (
                "several values in each PDU",
                p_data(pdv(1, 1, _COMMAND[:20]), pdv(1, 3, _COMMAND[20:]))
                + p_data(pdv(1, 0, IMAGE.data_set[:99]), pdv(1, 2, IMAGE.data_set[99:])),
            ),
            (
                "command and data set in one PDU",
                p_data(pdv(1, 3, _COMMAND), pdv(1, 2, IMAGE.data_set)),
            ),
            (
                "the end of a data set and nothing else in its PDU",
                _FIRST + p_data(pdv(1, 0, IMAGE.data_set)) + p_data(pdv(1, LAST, b"")),
            ),
            (
                "empty values between the others",
                p_data(pdv(1, COMMAND, b"")) + _FIRST + p_data(pdv(1, 0, b"")) * 20 + _REST,
            ),
            ("a UID of odd length without padding", _command(store_request(b"1.2.3.4.1")) + _REST),
            ("a C-STORE without Priority", _command(_without(PRIORITY)) + _REST),
            (
                "Move Originator in the command",
                _command(
                    store_request(
                        IMAGE.sop_instance,
                        more={
                            MOVE_ORIGINATOR_AE_TITLE: b"OTHER ",
                            MOVE_ORIGINATOR_MESSAGE_ID: us(5),
                        },
                    )
                )
                + _REST,
            ),
            (
                "a group length in the command that is wrong",
                _command(_COMMAND[:8] + b"\xff\xff\0\0" + _COMMAND[12:]) + _REST,
            ),
            (
                "reserved bits set in the message control header",
                p_data(pdv(1, 0xFF, _COMMAND), pdv(1, 0xFE, IMAGE.data_set)),
            ),
        ],
    ),
    *_rows(
        [STORED, GOES_ON],
        [LONG_IMAGE],
        [
            (
                "a PDU three times as long as negotiated",
                LONG_IMAGE.message()[0] + p_data(pdv(1, LAST, LONG_IMAGE.data_set)),
            )
        ],
    ),
    *_rows(
        [STORED, STORED, GOES_ON],
        [IMAGE],
        [("the same message again, with its Message ID", (_FIRST + _REST) * 2)],
    ),
    *_rows(
        [STORED, STORED, GOES_ON],
        [IMAGE, OTHER_IMAGE],
        [
            (
                "the next C-STORE before the answer to the last one",
                _FIRST + _REST + b"".join(OTHER_IMAGE.message(message_id=1)),
            )
        ],
    ),
]

WRONG_MESSAGES = [
    *_rows(
        [OTHER_CLASS, GOES_ON],
        [],
        [
            (
                "C-STORE of another class than its context's",
                _command(store_request(IMAGE.sop_instance, sop_class=MR)) + _REST,
            ),
            (
                "C-STORE on the context of Verification",
                _command(_COMMAND, 3) + p_data(pdv(3, LAST, IMAGE.data_set)),
            ),
        ],
    ),
    *_rows(
        [NOT_UNDERSTOOD, GOES_ON],
        [],
        [
            (
                "C-STORE without a data set (0101H)",
                _command(store_request(IMAGE.sop_instance, data_set_type=NO_DATA_SET)),
            ),
            ("C-STORE with an empty data set", _FIRST + p_data(pdv(1, LAST, b""))),
            (
                "C-STORE without Affected SOP Instance UID",
                _command(_without(AFFECTED_SOP_INSTANCE_UID)) + _REST,
            ),
            (
                "C-STORE without Affected SOP Class UID",
                _command(_without(AFFECTED_SOP_CLASS_UID)) + _REST,
            ),
            *(
                (f"a UID that {words}", _command(store_request(uid)) + _REST)
                for words, uid in (
                    ("is a path", b"../../etc/passwd"),
                    ("has an empty component", b"1..2"),
                    ("is a dot", b"."),
                    ("is empty", b""),
                    ("has a NUL inside", b"1.2\x003.4\0"),
                    ("has two values", b"1.2\\1.3 "),
                    ("has digits beyond ASCII", "1.\u0661.2".encode()),
                )
            ),
        ],
    ),
    *_rows(
        [MISMATCH, GOES_ON],
        [],
        [
            (
                "a data set of another instance than announced",
                _command(store_request("1.2.3.99")) + _REST,
            )
        ],
    ),
    *_rows(
        [GOES_ON],
        [],
        [
            ("C-CANCEL of nothing", _command(cancel_request())),
            (
                "a C-STORE-RSP that nobody asked for",
                _command(
                    command_set(
                        {
                            AFFECTED_SOP_CLASS_UID: ui(CT),
                            COMMAND_FIELD: us(0x8001),
                            MESSAGE_ID_RESPONDED_TO: us(1),
                            DATA_SET_TYPE: us(NO_DATA_SET),
                            STATUS: us(0),
                        }
                    )
                ),
            ),
        ],
    ),
    *_rows(
        [A_ABORT],
        [],
        [
            ("an unknown command", _command(store_request("1.2", more={COMMAND_FIELD: us(0x77)}))),
            ("a command set that is none", _command(b"no command set at all")),
            ("an empty command set", _command(b"")),
            ("a command set of 100 KB", p_data(pdv(1, COMMAND, bytes(100_000)))),
            ("C-STORE without Command Data Set Type", _command(_without(DATA_SET_TYPE)) + _REST),
            ("C-STORE without Message ID", _command(_without(MESSAGE_ID)) + _REST),
            (
                "C-STORE on a context that was not accepted",
                _command(_COMMAND, 5) + p_data(pdv(5, LAST, IMAGE.data_set)),
            ),
            ("a data set without a command", _WHOLE_DATA),
            (
                "a data set although none was announced (0101H)",
                _command(store_request(IMAGE.sop_instance, data_set_type=NO_DATA_SET)) + _REST,
            ),
            ("the beginning of a data set without a command", p_data(pdv(1, 0, b"bytes"))),
            ("a data set on another context than its command", _FIRST + p_data(pdv(3, 2, b"x"))),
            ("a data set on an unknown context", _FIRST + p_data(pdv(99, 2, IMAGE.data_set))),
            ("a command on two contexts", p_data(pdv(1, 1, _COMMAND[:20]), pdv(3, 3, b"x" * 20))),
            (
                "a second C-STORE in the middle of a data set",
                _HALF + _command(store_request(IMAGE.sop_instance, message_id=2)) + _REST,
            ),
            (
                "fragments of two images in turns",
                _HALF + b"".join(OTHER_IMAGE.message(message_id=2)) + _REST,
            ),
            ("C-ECHO in the middle of a data set", _HALF + _command(echo_request(), 3) + _REST),
            *(
                (f"{name} to a class of images", _command(_other_request(field)))
                for name, field in (
                    ("N-ACTION", 0x0130),
                    ("N-CREATE", 0x0140),
                    ("N-EVENT-REPORT", 0x0100),
                )
            ),
        ],
    ),
]

SECTIONS: dict[str, list[Misbehaviour]] = {
    "Before an association": BEFORE_AN_ASSOCIATION,
    "PDUs that are broken or out of turn": BROKEN_PDUS,
    "Odd, but legal or harmless": ODD_BUT_LEGAL,
    "Messages that are wrong": WRONG_MESSAGES,
}

CONTEXTS = (Proposed(), Proposed(number=3, abstract_syntax=VERIFICATION))
"""What the association of all rows but those of the first section has."""
