"""What the sender puts on the wire, read back by pynetdicom; what it understands of the answers."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dimse_messages import C_STORE_RSP, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import PresentationContext, build_context

from tools.bench.ingest.errors import ProtocolError
from tools.bench.ingest.loads import (
    INSTANCE_PLACEHOLDER,
    LOADS,
    SERIES_PLACEHOLDER,
    STUDY_PLACEHOLDER,
    fresh_uids,
    make_head,
    make_noise,
    write_file,
)
from tools.bench.ingest.messages import (
    LARGEST_PDU_BYTES,
    PDU_HEADER_BYTES,
    RELEASE_REQUEST,
    Parts,
    encode_association_request,
    encode_plain,
    encode_store,
    encode_store_command,
    find_all,
    noise_bytes,
    read_acceptance,
    read_pdu_header,
    read_status,
)
from tools.bench.ingest.names import LoadName

CT = LOADS[LoadName.CT]
BLOCK_BYTES = 16 * 1024 * 1024


def _joined(parts: Parts) -> bytes:
    return parts.first + parts.block * parts.repeats + parts.last


def _pdus(stream: bytes) -> list[bytes]:
    found = []
    at = 0
    while at < len(stream):
        _kind, length = read_pdu_header(stream[at : at + PDU_HEADER_BYTES])
        found.append(stream[at : at + PDU_HEADER_BYTES + length])
        at += PDU_HEADER_BYTES + length
    return found


def _received(stream: bytes) -> C_STORE:
    """Read a stream of PDUs as pynetdicom does; one C-STORE-RQ is in it."""
    message = DIMSEMessage()
    is_whole = False
    for encoded in _pdus(stream):
        assert not is_whole, "bytes after the last fragment"
        pdu = P_DATA_TF()
        pdu.decode(encoded)
        is_whole = message.decode_msg(pdu.to_primitive())
    assert is_whole
    request = message.message_to_primitive()
    assert isinstance(request, C_STORE)
    return request


def _store(head: bytes, pixel_bytes: int, max_pdu_bytes: int) -> Parts:
    command = encode_store_command(
        sop_class_uid=CT.sop_class_uid, sop_instance_uid=INSTANCE_PLACEHOLDER
    )
    noise = bytes(range(251)) * (noise_bytes(pixel_bytes) // 251 + 1)
    return encode_store(command, head, pixel_bytes, noise, max_pdu_bytes)


def test_association_request_says_what_pynetdicom_reads() -> None:
    encoded = encode_association_request(
        called="EDGETRIAGE", calling="SCANNER", sop_class_uid=CT.sop_class_uid
    )
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(encoded)
    request = pdu.to_primitive()
    assert (request.called_ae_title, request.calling_ae_title) == ("EDGETRIAGE", "SCANNER")
    assert request.application_context_name == "1.2.840.10008.3.1.1.1"
    assert request.maximum_length_received == 16_384
    (context,) = request.presentation_context_definition_list
    assert context.abstract_syntax == CT.sop_class_uid
    assert context.transfer_syntax == [ExplicitVRLittleEndian]


def _acceptance(max_pdu_bytes: int, result: int) -> bytes:
    answer = A_ASSOCIATE()
    answer.application_context_name = "1.2.840.10008.3.1.1.1"
    answer.calling_ae_title, answer.called_ae_title = "SCANNER", "EDGETRIAGE"
    answer.result, answer.result_source = 0, 1
    context: PresentationContext = build_context(CT.sop_class_uid, ExplicitVRLittleEndian)
    context.context_id, context.result = 1, result
    answer.presentation_context_definition_results_list = [context]
    length = MaximumLengthNotification()
    length.maximum_length_received = max_pdu_bytes
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = pydicom.uid.UID("1.2.3.4")
    answer.user_information = [length, implementation]
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(answer)
    encoded: bytes = pdu.encode()
    return encoded[PDU_HEADER_BYTES:]


@pytest.mark.parametrize(
    ("asked", "taken"), [(16_382, 16_382), (0, LARGEST_PDU_BYTES), (1 << 20, LARGEST_PDU_BYTES)]
)
def test_the_receivers_pdu_size_is_taken_up_to_our_own_limit(asked: int, taken: int) -> None:
    assert read_acceptance(_acceptance(asked, 0)) == taken


def test_a_refused_context_is_said() -> None:
    with pytest.raises(ProtocolError, match="presentation context"):
        read_acceptance(_acceptance(16_384, 3))


@pytest.mark.parametrize("max_pdu_bytes", [4_096, 16_382, 131_072])
@pytest.mark.parametrize("pixel_bytes", [0, 1, 4_090, 100_001, CT.pixel_bytes])
def test_a_store_comes_out_as_it_went_in(max_pdu_bytes: int, pixel_bytes: int) -> None:
    head = make_head(CT)
    stream = _joined(_store(head, pixel_bytes, max_pdu_bytes))
    assert all(len(pdu) <= max_pdu_bytes + PDU_HEADER_BYTES for pdu in _pdus(stream))
    request = _received(stream)
    assert request.AffectedSOPClassUID == CT.sop_class_uid
    assert request.AffectedSOPInstanceUID == INSTANCE_PLACEHOLDER
    assert isinstance(request.DataSet, BytesIO)
    data_set = request.DataSet.getvalue()
    assert data_set[: len(head)] == head
    assert len(data_set) == len(head) + pixel_bytes


def test_what_is_larger_than_a_block_is_one_block_sent_many_times() -> None:
    pixel_bytes = 5 * BLOCK_BYTES + 200_000
    parts = _store(b"head", pixel_bytes, 131_072)
    assert parts.repeats == 5
    assert len(parts.first) + len(parts.block) + len(parts.last) < 3 * BLOCK_BYTES
    stream = _joined(parts)
    pdus = _pdus(stream)
    assert sum(len(pdu) - 12 for pdu in pdus[1:]) == pixel_bytes + 4
    controls = [pdu[11] for pdu in pdus]
    assert controls[0] == 3, "a whole command"
    assert set(controls[1:-1]) == {0}
    assert controls[-1] == 2, "the last fragment of the data set"


@pytest.mark.parametrize("pixel_bytes", [10, 2 * BLOCK_BYTES, 3 * BLOCK_BYTES + 7])
def test_the_plain_receiver_gets_the_same_bytes_behind_their_length(pixel_bytes: int) -> None:
    stream = _joined(encode_plain(b"head", pixel_bytes, bytes(BLOCK_BYTES)))
    assert int.from_bytes(stream[:8], "little") == 4 + pixel_bytes
    assert len(stream) == 8 + 4 + pixel_bytes
    assert stream[8:12] == b"head"


def test_status_is_read_from_pynetdicoms_answer() -> None:
    answer = C_STORE()
    answer.MessageIDBeingRespondedTo = 1
    answer.AffectedSOPClassUID = CT.sop_class_uid
    answer.AffectedSOPInstanceUID = INSTANCE_PLACEHOLDER
    answer.Status = 0xA700
    message = C_STORE_RSP()
    message.primitive_to_message(answer)
    (fragment,) = message.encode_msg(1, 16_384)
    pdu = P_DATA_TF()
    pdu.from_primitive(fragment)
    body: bytes = pdu.encode()[PDU_HEADER_BYTES:]
    assert read_status(body) == 0xA700


def test_an_answer_in_pieces_has_a_status_only_at_its_end() -> None:
    fragment = b"\x00\x00\x00\x06\x01\x01abcd"
    assert read_status(fragment) is None


def test_an_answer_without_status_is_an_error() -> None:
    element = b"\x00\x00\x00\x01\x02\x00\x00\x00\x01\x80"
    body = (len(element) + 2).to_bytes(4, "big") + b"\x01\x03" + element
    with pytest.raises(ProtocolError, match="no status"):
        read_status(body)


def test_release_request_has_the_standards_ten_bytes() -> None:
    assert RELEASE_REQUEST == b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"


@pytest.mark.parametrize("name", LoadName)
def test_placeholders_lie_in_the_first_piece_and_fresh_uids_fit(name: LoadName) -> None:
    head = make_head(LOADS[name])
    assert len(head) < 4_096, "the smallest PDU that a receiver asks for is larger"
    uids = fresh_uids()
    for placeholder in (INSTANCE_PLACEHOLDER, SERIES_PLACEHOLDER, STUDY_PLACEHOLDER):
        assert len(find_all(head, placeholder.encode())) == 1
        assert len(placeholder) == len(uids.study) == len(uids.series(3)) == len(uids.instance(0))
        assert len(placeholder) % 2 == 0


def test_uids_are_valid_and_never_the_same() -> None:
    found = [
        uid
        for uids in (fresh_uids(), fresh_uids())
        for uid in (uids.study, uids.series(0), uids.series(1), uids.instance(0), uids.instance(1))
    ]
    assert len(set(found)) == len(found)
    assert all(pydicom.uid.UID(uid).is_valid for uid in found)


@pytest.mark.parametrize("name", [LoadName.CT, LoadName.SMALL, LoadName.RADIOGRAPH])
def test_the_file_for_other_senders_holds_the_same_object(name: LoadName, tmp_path: Path) -> None:
    load = LOADS[name]
    path = tmp_path / "object.dcm"
    write_file(load, path)
    ds = pydicom.dcmread(path)
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert ds.SOPInstanceUID == ds.file_meta.MediaStorageSOPInstanceUID == INSTANCE_PLACEHOLDER
    assert ds.SOPClassUID == load.sop_class_uid
    assert len(ds.PixelData) == ds.Rows * ds.Columns * 2 == load.pixel_bytes
    assert ds.PixelData == make_noise(load)
    assert path.read_bytes().endswith(make_head(load) + make_noise(load))
