"""The senders against real receivers: all arrives under its own UIDs, refusals are counted."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from simulators.refusing_pacs import RefusingPacs
from simulators.waiting import wait_until

from dicom_node.archive import FolderArchive
from tools.bench.ingest import process_tree
from tools.bench.ingest.blast import Arsenal, carry_out
from tools.bench.ingest.loads import LOADS, make_head, make_noise
from tools.bench.ingest.names import LoadName, ReceiverName
from tools.bench.ingest.orders import (
    Address,
    Answer,
    Order,
    decode_answer,
    decode_order,
    encode,
)
from tools.bench.ingest.receivers import find_program, running
from tools.bench.ingest.senders import Blast, Storescu
from tools.bench.ingest.stored import takes_direct_writes

INSTANCES = 7
SMALL = LOADS[LoadName.SMALL]


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FolderArchive]:
    folder = tmp_path / "archive"
    folder.mkdir()
    with FolderArchive(folder, ae_title="ARCHIVE") as archive:
        yield archive


def _order(port: int, *, associations: int = 1, ae_title: str = "ARCHIVE") -> Order:
    return Order(
        address=Address(host="127.0.0.1", port=port, ae_title=ae_title),
        load=LoadName.SMALL,
        instances=INSTANCES,
        associations=associations,
    )


def _check_files(folder: Path, series: int) -> None:
    found = [pydicom.dcmread(path) for path in folder.glob("*.dcm")]
    assert len({ds.SOPInstanceUID for ds in found}) == INSTANCES
    assert len({ds.StudyInstanceUID for ds in found}) >= 1
    assert len({ds.SeriesInstanceUID for ds in found}) == series
    assert all(ds.PixelData == make_noise(SMALL) for ds in found)


@pytest.mark.parametrize("associations", [1, 3])
def test_every_object_arrives_whole_and_under_its_own_uid(
    archive: FolderArchive, associations: int
) -> None:
    answer = carry_out(_order(archive.port, associations=associations), Arsenal())
    assert (answer.sent, answer.statuses, answer.error) == (INSTANCES, {"0000": INSTANCES}, "")
    assert answer.data_set_bytes > INSTANCES * SMALL.pixel_bytes
    assert answer.wall_s > 0
    _check_files(archive.folder, associations)


def test_refusals_are_counted_and_the_association_goes_on(tmp_path: Path) -> None:
    with RefusingPacs(tmp_path / "pacs", ae_title="REFUSING", port=0) as pacs:
        answer = carry_out(_order(pacs.port, ae_title="REFUSING"), Arsenal())
    assert answer.statuses == {"C000": INSTANCES}


def test_a_rejected_association_is_an_error_and_no_crash(archive: FolderArchive) -> None:
    answer = carry_out(_order(archive.port, ae_title="NOBODY"), Arsenal())
    assert answer.sent == 0
    assert "rejected" in answer.error


def test_nobody_listening_is_an_error_and_no_crash() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        answer = carry_out(_order(unused.getsockname()[1]), Arsenal())
    assert answer.sent == 0
    assert "cannot be reached" in answer.error


def test_a_receiver_that_hangs_up_is_an_error_and_no_crash() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.close()

        thread = threading.Thread(target=hang_up, name="hang-up")
        thread.start()
        answer = carry_out(_order(server.getsockname()[1]), Arsenal())
        thread.join()
    assert answer.sent == 0
    assert answer.error


def test_the_senders_process_does_what_the_function_does(archive: FolderArchive) -> None:
    with Blast() as blast:
        answers = [blast.send(_order(archive.port)) for _ in range(2)]
    assert [answer.statuses for answer in answers] == [{"0000": INSTANCES}] * 2


def test_dcmtks_program_is_found_although_pynetdicoms_stands_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "storescu"
    program.touch(0o700)
    ours = Path(sys.executable).parent
    monkeypatch.setenv("PATH", os.pathsep.join([str(ours), str(tmp_path)]))
    assert find_program(ours.joinpath("python").name) != str(ours / "python")
    assert find_program("storescu") == str(program)


@pytest.mark.peer
@pytest.mark.skipif(find_program("storescu") is None, reason="dcmtk is not installed")
def test_storescu_sends_as_many_objects_with_uids_of_its_own(
    archive: FolderArchive, tmp_path: Path
) -> None:
    sender = Storescu(find_program("storescu") or "", tmp_path)
    answer = sender.send(_order(archive.port, associations=2))
    assert (answer.sent, answer.statuses, answer.error) == (INSTANCES, {"0000": INSTANCES}, "")
    assert answer.cpu_s > 0
    _check_files(archive.folder, 2)


@pytest.mark.peer
@pytest.mark.skipif(find_program("storescu") is None, reason="dcmtk is not installed")
def test_storescus_failure_is_told_in_its_words(archive: FolderArchive, tmp_path: Path) -> None:
    sender = Storescu(find_program("storescu") or "", tmp_path)
    answer = sender.send(_order(archive.port, ae_title="NOBODY"))
    assert answer.sent == 0
    assert "Rejected" in answer.error


@pytest.mark.parametrize("name", [ReceiverName.SINK, ReceiverName.SINK_DIRECT])
@pytest.mark.parametrize("load", [LoadName.SMALL, LoadName.CT])
def test_the_plain_receiver_keeps_the_same_bytes(
    name: ReceiverName, load: LoadName, tmp_path: Path
) -> None:
    if name is ReceiverName.SINK_DIRECT and not takes_direct_writes(tmp_path):
        pytest.skip("this file system takes no O_DIRECT")
    with running(name, tmp_path / "sink") as receiver:
        order = Order(address=receiver.address, load=load, instances=4, associations=2)
        answer = carry_out(order, Arsenal())
        assert answer.statuses == {"0000": 4}
        assert receiver.stored.count() == 4
        expected = make_head(LOADS[load]) + make_noise(LOADS[load])
        sizes = {path.stat().st_size for path in (tmp_path / "sink" / "files").iterdir()}
        assert sizes == {len(expected)}
        assert (tmp_path / "sink" / "files" / "0").read_bytes().endswith(make_noise(LOADS[load]))
        receiver.stored.clear()
        assert receiver.stored.count() == 0


def test_a_receivers_cost_holds_its_children_after_their_end() -> None:
    work = """
import os, time
if os.fork():
    os.wait()
    input()
else:
    while time.process_time() < 0.3:
        pass
"""
    with subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE) as process:
        wait_until(lambda: process_tree.cpu_s(process.pid) >= 0.25)
        assert process_tree.peak_rss_bytes(process.pid) > 1_000_000
        process_tree.reset_peak(process.pid)
        process.communicate(b"\n")
    assert process_tree.peak_rss_bytes(process.pid) == 0, "it has ended"


def test_orders_and_answers_survive_their_line() -> None:
    order = _order(104, associations=3)
    assert decode_order(encode(order)) == order
    answer = Answer(sent=2, wall_s=0.5, statuses={"0000": 1, "A700": 1}, error="x")
    assert decode_answer(encode(answer)) == answer


def test_each_instance_is_sent_by_exactly_one_association() -> None:
    shares = _order(104, associations=3).shares()
    assert sorted(number for share in shares for number in share) == list(range(INSTANCES))
