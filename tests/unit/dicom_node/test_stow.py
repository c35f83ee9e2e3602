"""What becomes of instances that come by STOW-RS; who may come and how is in test_stow_door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID
from simulators.memory_inbox import MemoryInbox
from simulators.stow_door import data_set, opened_door, store, uid_of, unfinished
from simulators.stow_sender import BOUNDARY, StowSender, chunked, client, head, multipart

from dicom_node.admission import Coercion
from dicom_node.contexts import TRANSFER_SYNTAXES
from dicom_node.file_meta import encode_file_meta, parse_file_meta
from dicom_node.stow import StowDoor

StartDoor = Callable[..., StowDoor]
MakeFile = Callable[..., Path]
SYNTAX = "1.2.840.10008.1.2.1"


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def start_door(spool: Path, inbox: MemoryInbox) -> Iterator[StartDoor]:
    """Opens a door; see ``opened_door``."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(opened_door(spool, inbox, **settings))


# ---------------------------------------------------------------- what is stored


def test_an_instance_is_stored_with_the_same_data_set_and_a_file_meta_of_ours(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    path = make_file()
    answer = store(start_door(), multipart([path.read_bytes()]))
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/dicom+json"
    assert answer.headers["connection"] == "close"
    assert answer.stored == [uid_of(path)]
    (row,) = inbox.rows.values()
    stored = (spool / row.path).read_bytes()
    assert data_set(stored) == data_set(path.read_bytes())
    assert stored.startswith(
        encode_file_meta(
            sop_class_uid=row.header.sop_class_uid,
            sop_instance_uid=row.header.sop_instance_uid,
            transfer_syntax_uid=row.header.transfer_syntax_uid,
            source_ae_title="WEBCLIENT",
        )
    )


def test_a_preamble_that_is_a_program_never_reaches_the_disk(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    program = b"MZ" + b"\x90" * 126
    assert store(start_door(), multipart([program + make_file().read_bytes()[128:]])).status == 200
    (row,) = inbox.rows.values()
    assert (spool / row.path).read_bytes()[:128] == bytes(128)


def test_the_report_holds_what_the_standard_asks_for(
    start_door: StartDoor, make_file: MakeFile
) -> None:
    path = make_file()
    report = store(start_door(), multipart([path.read_bytes()])).report
    ds = Dataset.from_json(report)
    assert ds["RetrieveURL"].is_empty
    (item,) = ds.ReferencedSOPSequence
    assert (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) == (
        dcmread(path).SOPClassUID,
        uid_of(path),
    )
    assert item["RetrieveURL"].is_empty
    assert "FailedSOPSequence" not in ds


def test_every_real_file_is_stored_byte_for_byte_or_refused_with_a_reason(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, real_files: list[Path]
) -> None:
    files = [path.read_bytes() for path in real_files]
    answer = store(start_door(max_parts=len(files)), multipart(files))
    told = len(answer.stored) + len(answer.failed) + len(answer.other_failures)
    assert told <= len(files)  # one instance that fails twice is told under its UID
    assert len(answer.stored) > 50
    assert set(answer.stored) == set(inbox.rows)
    sent = {data_set(file) for file in files if file[128:132] == b"DICM"}
    stored = [path.read_bytes() for path in (*spool.glob("??/*.dcm"), *spool.glob("q*/*.dcm"))]
    assert len(stored) >= len(inbox.rows)
    assert {data_set(file) for file in stored} <= sent
    for uid, row in inbox.rows.items():
        assert parse_file_meta((spool / row.path).read_bytes()).sop_instance_uid == uid


@pytest.mark.parametrize("piece_bytes", [1, 7, 4096])
def test_it_does_not_matter_how_the_body_is_cut_into_chunks(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile, piece_bytes: int
) -> None:
    path = make_file(lambda ds: setattr(ds, "PixelData", bytes(2 * ds.Rows * ds.Columns)[:4000]))
    body = multipart([path.read_bytes()])
    pieces = [body[at : at + piece_bytes] for at in range(0, len(body), piece_bytes)]
    with StowSender(start_door().port) as sender:
        sender.send(head(headers={"Transfer-Encoding": "chunked"}), chunked(*pieces))
        assert sender.answer().stored == [uid_of(path)]
    (row,) = inbox.rows.values()
    assert data_set((spool / row.path).read_bytes()) == data_set(path.read_bytes())


def test_a_sender_that_waits_for_leave_gets_it(start_door: StartDoor, make_file: MakeFile) -> None:
    body = multipart([make_file().read_bytes()])
    with StowSender(start_door().port) as sender:
        headers = {"Content-Length": str(len(body)), "Expect": "100-continue"}
        sender.send(head(headers=headers))
        with sender.socket.makefile("rb") as lines:
            assert lines.readline().startswith(b"HTTP/1.1 100 ")
            assert lines.readline() == b"\r\n"
            sender.send(body)
            assert lines.readline().startswith(b"HTTP/1.1 200 ")


def test_a_request_is_to_the_index_what_an_association_is(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile
) -> None:
    door = start_door()
    assert (
        store(door, multipart([make_file().read_bytes(), make_file().read_bytes()])).status == 200
    )
    ((association_id, calling, address),) = inbox.opened
    assert (calling, address) == ("WEBCLIENT", "127.0.0.1")
    assert inbox.closed == [(association_id, True)]
    assert {row.association_id for row in inbox.rows.values()} == {association_id}
    assert store(door, multipart([make_file().read_bytes()])).status == 200
    assert len({each for each, _, _ in inbox.opened}) == 2


# ---------------------------------------------------------------- the statuses


def test_the_same_instance_again_is_a_success_and_stays_once(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    file = make_file().read_bytes()
    answer = store(start_door(), multipart([file, file]))
    assert (answer.status, len(answer.stored)) == (200, 2)
    assert len(inbox.rows) == 1
    assert len(list(spool.glob("??/*.dcm"))) == 1


def test_another_instance_under_a_known_uid_is_kept_beside_it(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    path, other = (
        make_file(lambda ds, at=at: setattr(ds, "WindowCenter", at), new_uid=False)
        for at in (40, 50)
    )
    door = start_door()
    assert store(door, multipart([path.read_bytes()])).status == 200
    assert store(door, multipart([other.read_bytes()])).status == 200
    assert len(inbox.rows) == 1
    (held,) = (spool / "quarantine").iterdir()
    assert data_set(held.read_bytes()) == data_set(other.read_bytes())


def test_a_study_in_the_path_lets_only_its_own_instances_in(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile
) -> None:
    mine, foreign = make_file(), make_file(lambda ds: setattr(ds, "StudyInstanceUID", "1.2.3"))
    study = dcmread(mine).StudyInstanceUID
    path = f"/dicom-web/studies/{study}"
    answer = store(start_door(), multipart([mine.read_bytes(), foreign.read_bytes()]), path=path)
    assert answer.status == 202
    assert answer.stored == [uid_of(mine)]
    assert answer.failed == {uid_of(foreign): 0xA900}
    assert set(inbox.rows) == {uid_of(mine)}


def _set_class(uid: str) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(uid)

    return change


def test_classes_are_taken_as_by_the_first_door(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile
) -> None:
    private, echo = "1.3.12.2.1107.5.9.1", "1.2.840.10008.1.1"
    files = [make_file(_set_class(uid)) for uid in (private, echo)]
    answer = store(start_door(), multipart([path.read_bytes() for path in files]))
    assert answer.status == 409
    assert answer.failed == {uid_of(path): 0x0122 for path in files}
    open_door = start_door(private_sop_classes=(private,))
    assert store(open_door, multipart([files[0].read_bytes()])).stored == [uid_of(files[0])]
    assert len(inbox.rows) == 1


def test_a_transfer_syntax_that_is_not_taken_is_told_so(
    start_door: StartDoor, make_file: MakeFile
) -> None:
    path = make_file()
    old, new = SYNTAX.encode() + b"\0", b"1.2.3.4.5.6.7.8.9.10"
    file = path.read_bytes().replace(old, new)
    assert len(new) == len(old)
    assert new.decode() not in TRANSFER_SYNTAXES
    answer = store(start_door(), multipart([file]))
    assert (answer.status, answer.failed) == (409, {uid_of(path): 0xC122})


def test_the_data_set_says_which_instance_a_file_is_and_not_a_stale_file_meta(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    path = make_file()
    file = path.read_bytes()
    stale = encode_file_meta(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid="1.2.3.4",
        transfer_syntax_uid=parse_file_meta(file).transfer_syntax_uid,
        source_ae_title="",
    )
    answer = store(start_door(), multipart([stale + data_set(file)]))
    assert (answer.status, answer.stored) == (200, [uid_of(path)])
    (row,) = inbox.rows.values()
    assert parse_file_meta((spool / row.path).read_bytes()).sop_instance_uid == uid_of(path)


def test_a_data_set_that_does_not_say_what_it_is_fails(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile
) -> None:
    path = make_file()
    uid = uid_of(path).encode()
    anonymous = path.read_bytes().replace(uid, b"x" * len(uid))
    without_study = make_file(lambda ds: ds.__delitem__("StudyInstanceUID"))
    answer = store(start_door(), multipart([anonymous, without_study.read_bytes()]))
    assert (answer.status, answer.other_failures) == (409, [0xC000])
    assert answer.failed == {uid_of(without_study): 0xC000}
    assert not inbox.rows


@pytest.mark.parametrize(
    "part",
    [b"", b"no image", bytes(128) + b"DICM", bytes(200), bytes(128) + b"DICM" + b"\xff" * 70_000],
    ids=["nothing", "text", "no meta", "no prefix", "broken meta"],
)
def test_what_is_no_dicom_file_fails_and_the_rest_goes_on(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile, part: bytes
) -> None:
    path = make_file()
    answer = store(start_door(), multipart([part, path.read_bytes()]))
    assert answer.status == 202
    assert answer.stored == [uid_of(path)] == list(inbox.rows)
    assert answer.other_failures == [0xC000]


@pytest.mark.parametrize("uid", ["../../etc/passwd", "1.2/../3", "1" * 65, "1.2.3\n", ""])
def test_a_uid_that_is_none_is_neither_stored_nor_told_back(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile, uid: str
) -> None:
    file = make_file(lambda ds: ds.__delitem__("SOPInstanceUID")).read_bytes()
    meta = encode_file_meta(
        sop_class_uid=parse_file_meta(file).sop_class_uid,
        sop_instance_uid=uid,
        transfer_syntax_uid=SYNTAX,
        source_ae_title="",
    )
    answer = store(start_door(), multipart([meta + data_set(file)]))
    assert (answer.status, answer.failed, answer.other_failures) == (409, {}, [0xC000])
    assert not uid or uid.encode() not in answer.body
    assert not inbox.rows
    assert not unfinished(spool)


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Type: application/dicom+json\r\n",
        b"Content-Type: multipart/mixed; boundary=inner\r\n",
        b"Content-Type: application/dicom\r\nContent-Transfer-Encoding: base64\r\n",
        b"Content-Type: nonsense\r\n",
    ],
    ids=["metadata", "nested", "encoded", "nonsense"],
)
def test_a_part_of_another_kind_fails_alone(
    start_door: StartDoor, make_file: MakeFile, headers: bytes
) -> None:
    path = make_file()
    good = multipart([path.read_bytes()])
    bad = multipart([make_file().read_bytes()], headers=headers)
    answer = store(start_door(), bad[: bad.rindex(b"--" + BOUNDARY.encode())] + good)
    assert (answer.status, answer.stored, answer.other_failures) == (
        202,
        [uid_of(path)],
        [0xC000],
    )


@pytest.mark.parametrize("headers", [b"", b"content-type: Application/DICOM;x=y\r\n"])
def test_part_headers_may_be_absent_or_oddly_written(
    start_door: StartDoor, make_file: MakeFile, headers: bytes
) -> None:
    assert store(start_door(), multipart([make_file().read_bytes()], headers=headers)).status == 200


def test_an_instance_beyond_the_bound_fails_alone_and_is_no_reason_to_try_later(
    start_door: StartDoor, spool: Path, make_file: MakeFile
) -> None:
    large = make_file(lambda ds: setattr(ds, "PixelData", bytes(300_000)))
    door = start_door(node={"max_instance_bytes": 200_000})
    alone = store(door, multipart([large.read_bytes()]))
    assert (alone.status, alone.failed) == (409, {uid_of(large): 0xA700})
    small = make_file()
    both = store(door, multipart([large.read_bytes(), small.read_bytes()]))
    assert (both.status, both.stored) == (202, [uid_of(small)])
    assert not unfinished(spool)


def test_an_instance_that_was_coerced_is_stored_with_a_warning(
    start_door: StartDoor, inbox: MemoryInbox, spool: Path, make_file: MakeFile
) -> None:
    coercion = Coercion(keyword="InstitutionName", value="Hill Clinic")
    path = make_file()
    door = start_door(clients=(client(coercions=(coercion,)),))
    answer = store(door, multipart([path.read_bytes()]))
    assert (answer.status, answer.stored) == (202, [uid_of(path)])
    (item,) = Dataset.from_json(answer.report).ReferencedSOPSequence
    assert item.WarningReason == 0xB000
    (row,) = inbox.rows.values()
    assert dcmread(spool / row.path).InstitutionName == "Hill Clinic"


def test_a_full_disk_is_told_before_the_body_is_read(start_door: StartDoor) -> None:
    door = start_door(node={"min_free_bytes": 1 << 60})
    with StowSender(door.port) as sender:
        sender.send(head(headers={"Content-Length": "1000000"}))
        answer = sender.answer()
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0


def test_a_quota_that_is_used_up_is_told_for_each_instance(
    start_door: StartDoor, make_file: MakeFile
) -> None:
    door = start_door(clients=(client(quota_bytes=1),))
    assert store(door, multipart([make_file().read_bytes()])).status == 200
    paths = [make_file(), make_file()]
    answer = store(door, multipart([path.read_bytes() for path in paths]))
    assert (answer.status, answer.failed) == (503, {uid_of(path): 0xA700 for path in paths})
    assert int(answer.headers["retry-after"]) > 0


def test_an_index_that_fails_costs_one_instance_and_no_false_success(
    start_door: StartDoor, inbox: MemoryInbox, make_file: MakeFile
) -> None:
    inbox.failures_left = 1
    first, second = make_file(), make_file()
    answer = store(start_door(), multipart([first.read_bytes(), second.read_bytes()]))
    assert answer.failed == {uid_of(first): 0xA700}
    assert answer.stored == [uid_of(second)]
