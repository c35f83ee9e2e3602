"""The pure parts of the hot path, and what can only be seen from inside."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import P_DATA_TF
from simulators.memory_inbox import MemoryInbox
from simulators.rogue_modality import (
    Closed,
    Response,
    RogueModality,
    abort,
    fragments,
    make_instance,
    p_data,
    pdv,
)
from simulators.station import started

from dicom_node.fast_path import StoreRequest, encode_store_response, parse_store_request
from dicom_node.requestor import PeerAddress
from dicom_node.scp import StorageNode
from dicom_node.scu import Sender, outgoing_file

CT = "1.2.840.10008.5.1.4.1.1.2"


def _command(**changes: object) -> bytes:
    """A C-STORE-RQ as pynetdicom encodes it."""
    request = C_STORE()
    request.MessageID = 7
    request.AffectedSOPClassUID = CT
    request.AffectedSOPInstanceUID = "1.2.3"
    request.Priority = 2
    request.DataSet = BytesIO(b"\0\0")
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    for keyword, value in changes.items():
        setattr(message.command_set, keyword, value)
    encoded = encode(message.command_set, is_implicit_vr=True, is_little_endian=True)
    assert encoded is not None
    return encoded


def test_request_of_a_real_sender_is_understood() -> None:
    assert parse_store_request(_command()) == StoreRequest(b"\7\0", CT.encode() + b"\0", b"1.2.3\0")


@pytest.mark.parametrize(
    "changes",
    [
        {"CommandField": 0x0030},
        {"CommandField": 0x8001},
        {"CommandDataSetType": 0x0101},
    ],
)
def test_other_messages_are_left_to_pynetdicom(changes: dict[str, object]) -> None:
    assert parse_store_request(_command(**changes)) is None


@given(cut=st.integers(min_value=0, max_value=len(_command()) - 1))
def test_cut_command_is_left_to_pynetdicom(cut: int) -> None:
    assert parse_store_request(_command()[:cut]) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_not(command: bytes) -> None:
    found = parse_store_request(command)
    assert found is None or len(found.message_id) == 2


@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xB000, 0xC000])
@pytest.mark.parametrize("instance", [b"1.2.3\0", b"1.2.3"])
def test_answer_is_the_one_that_pynetdicom_reads(status: int, instance: bytes) -> None:
    request = StoreRequest(b"\x39\x30", CT.encode() + b"\0", instance)
    pdu = P_DATA_TF()
    pdu.decode(encode_store_response(request, 5, status))
    primitive = pdu.to_primitive()
    ((context_id, fragment),) = primitive.presentation_data_value_list
    assert (context_id, fragment[0]) == (5, 3)
    command = decode(BytesIO(fragment[1:]), is_implicit_vr=True, is_little_endian=True)
    assert command.CommandGroupLength == len(fragment) - 1 - 12
    assert command.CommandField == 0x8001
    assert command.MessageIDBeingRespondedTo == 12345
    assert command.Status == status
    assert command.AffectedSOPClassUID == CT
    assert command.AffectedSOPInstanceUID == "1.2.3"


def test_object_larger_than_every_buffer_is_stored_as_it_is(
    start_node: Callable[..., StorageNode],
    peer_of: Callable[[StorageNode], PeerAddress],
    make_file: Callable[..., Path],
    inbox: MemoryInbox,
) -> None:
    def grow(ds: Dataset) -> None:
        ds.add_new(0x00091010, "OB", bytes(range(256)) * 20_000)

    node = start_node()
    item = outgoing_file(make_file(grow))
    with Sender(peer_of(node), calling_ae_title="CT") as sender:
        assert sender.store(item).status == 0
    (row,) = inbox.rows.values()
    assert isinstance(item.data_set, tuple)
    sent, offset = item.data_set
    stored = node.spool.absolute(row.path).read_bytes()
    assert stored.endswith(sent.read_bytes()[offset:])
    assert row.header.rows is not None  # found behind five megabytes


def test_header_sizes_are_those_of_the_standard() -> None:
    answer = encode_store_response(StoreRequest(b"\1\0", b"1.2", b"1.3"), 1, 0)
    (length,) = struct.unpack_from(">I", answer, 2)
    assert length == len(answer) - 6


_LARGE = make_instance(7, pixel_bytes=400_000)
_LARGE_COMMAND = _LARGE.message()[0]


def _in_several_values() -> bytes:
    """PDUs with more than one value, short ones between long ones."""
    data = _LARGE.data_set
    return (
        p_data(pdv(1, 0, data[:40_000]), pdv(1, 0, b""), pdv(1, 0, data[40_000:80_000]))
        + p_data(pdv(1, 0, data[80_000:80_100]), pdv(1, 0, data[80_100:200_000]))
        + b"".join(fragments(1, 0, data[200_000:], 100_000))
    )


@pytest.mark.parametrize(
    "data_set",
    [
        *(b"".join(fragments(1, 0, _LARGE.data_set, size)) for size in (16_378, 40_000, 131_066)),
        _in_several_values(),
    ],
    ids=["16 KB", "40 KB", "128 KB", "several values"],
)
def test_fragments_of_every_size_make_one_data_set(tmp_path: Path, data_set: bytes) -> None:
    with started(tmp_path / "spool", fast_path=True) as station:
        with RogueModality(station.port) as modality:
            modality.associate()
            for _ in range(2):  # the second message begins where the first one ended
                modality.send(_LARGE_COMMAND, data_set)
                answer = modality.answer()
                assert isinstance(answer, Response)
                assert answer.status == 0
        station.check_sound(_LARGE)


def test_abort_in_place_of_the_next_long_fragment_ends_the_association(tmp_path: Path) -> None:
    with started(tmp_path / "spool", fast_path=True) as station:
        with RogueModality(station.port, deadline_s=5) as modality:
            modality.associate()
            first = p_data(pdv(1, 0, _LARGE.data_set[:100_000]))
            modality.send(_LARGE_COMMAND, first, abort())
            assert isinstance(modality.answer(), Closed)
        station.check_sound()
