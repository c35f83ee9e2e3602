from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest
from pydicom import Dataset

from dicom_node import inbox as inbox_module
from dicom_node.errors import PeerError
from dicom_node.instance import StoredInstance
from dicom_node.reconcile import reconcile
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.scp import StorageNode
from dicom_node.scu import Sender, outgoing_file, send_files
from dicom_node.spool import Spool

# A node in its own process whose index is a file of lines, synced before it answers, and which
# kills itself at the third instance: at the point that its argument names. The acceptance tests
# kill the real device at every system call; here stand the steps that only we know.
_NODE = """
import json, os, signal, sys
from pathlib import Path
import structlog
from simulators.waiting import wait_until
from dicom_node.incoming import IncomingFile
from dicom_node.journal import Place
from dicom_node.scp import NodeSettings, StorageNode
from dicom_node.spool import Spool

# Other threads log: on standard output a line of theirs could stand inside that of the port.
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
folder, point = Path(sys.argv[1]), sys.argv[2]
count = 0

def reach(name):
    global count
    if name == point:
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGKILL)

class FileInbox:
    def association_opened(self, association_id, calling_ae_title, address):
        pass
    def record(self, instance):
        reach("before_row")
        with (folder / "rows").open("a") as stream:
            stream.write(json.dumps([instance.header.sop_instance_uid, instance.path]) + "\\n")
            stream.flush()
            os.fsync(stream.fileno())
        reach("after_row")
        return None
    def association_closed(self, association_id, *, released):
        pass

def around(owner, method, name):
    inner = getattr(owner, method)
    def wrapped(*args):
        reach("before_" + name)
        result = inner(*args)
        reach("after_" + name)
        return result
    setattr(owner, method, wrapped)

around(IncomingFile, "sync", "sync")
around(Place, "write", "record")
around(IncomingFile, "write_cached", "file")
around(Spool, "keep", "keep")
has_journal = sys.argv[4] == "journal"
settings = NodeSettings(
    ae_title="NODE", bind_address="127.0.0.1", port=0, admit_unknown_peers=True,
    min_free_bytes=0, fast_path=sys.argv[3] == "fast", journal_bytes=(4 << 20) * has_journal,
)
with StorageNode(settings, spool_folder=folder / "spool", inbox=FileInbox()) as node:
    if has_journal:
        wait_until(lambda: node.spool.has_journal)
    print(node.port, flush=True)
    sys.stdin.read()
"""


# How files get durable, where the node is killed, and how many rows the scan then has to make.
_POINTS = [
    ("file", "before_sync", 0),
    ("file", "after_sync", 0),
    ("file", "after_keep", 1),
    ("file", "before_row", 1),
    ("file", "after_row", 0),
    ("journal", "before_record", 0),
    ("journal", "after_record", 1),
    ("journal", "before_file", 1),
    ("journal", "after_file", 1),
    ("journal", "before_row", 1),
    ("journal", "after_row", 0),
]


class Inbox(inbox_module.Inbox, Protocol):
    """What these tests use of ``conftest.MemoryInbox``."""

    rows: dict[str, StoredInstance]
    opened: list[tuple[str, str, str]]
    closed: list[tuple[str, bool]]


@contextmanager
def _node_process(
    folder: Path, point: str, way: str, syncing: str
) -> Iterator[tuple[subprocess.Popen[str], PeerAddress]]:
    with subprocess.Popen(
        [sys.executable, "-c", _NODE, str(folder), point, way, syncing],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield process, PeerAddress(ae_title="NODE", host="127.0.0.1", port=port)


@pytest.mark.parametrize("way", ["fast", "stock"])
@pytest.mark.parametrize(("syncing", "point", "recorded"), _POINTS)
def test_killed_node_loses_nothing_that_it_acknowledged(
    tmp_path: Path,
    make_file: Callable[..., Path],
    inbox: Inbox,
    *,
    syncing: str,
    point: str,
    recorded: int,
    way: str,
) -> None:
    acknowledged: list[str] = []
    timeouts = RequestorTimeouts(connect_s=5, association_s=5, answer_s=10)
    with _node_process(tmp_path, point, way, syncing) as (process, peer):
        with Sender(peer, calling_ae_title="CT", timeouts=timeouts) as sender:
            for _ in range(5):
                item = outgoing_file(make_file())
                try:
                    status = sender.store(item).status
                except PeerError:
                    break
                assert status == 0
                acknowledged.append(item.sop_instance_uid)
        assert process.wait(10) == -signal.SIGKILL
    assert acknowledged

    rows = dict(json.loads(line) for line in (tmp_path / "rows").read_text().splitlines())
    spool = Spool(tmp_path / "spool")
    report = reconcile(spool, inbox, frozenset(rows.values()))
    indexed = {**rows, **{uid: row.path for uid, row in inbox.rows.items()}}
    assert report.missing == ()
    assert set(acknowledged) <= set(indexed)
    assert sorted(indexed.values()) == sorted(spool.iter_files())
    assert list((spool.root / "incoming").iterdir()) == []
    assert report.recorded == recorded


def test_orphan_gets_the_row_that_the_node_would_have_made(
    start_node: Callable[..., StorageNode],
    peer_of: Callable[[StorageNode], PeerAddress],
    make_file: Callable[..., Path],
    inbox: Inbox,
) -> None:
    node = start_node()
    send_files([make_file()], peer_of(node), calling_ae_title="CT")
    (before,) = inbox.rows.values()
    inbox.rows.clear()
    inbox.opened.clear()
    report = reconcile(node.spool, inbox, frozenset())
    (after,) = inbox.rows.values()
    assert report.recorded == 1
    assert (after.header, after.identity, after.path) == (
        before.header,
        before.identity,
        before.path,
    )
    assert after.calling_ae_title == before.calling_ae_title == "CT"
    assert inbox.opened == [(after.association_id, "CT", "")]
    assert inbox.closed[-1] == (after.association_id, False)


def test_orphans_that_repeat_or_contradict_a_row_are_settled_like_arrivals(
    start_node: Callable[..., StorageNode],
    peer_of: Callable[[StorageNode], PeerAddress],
    make_file: Callable[..., Path],
    inbox: Inbox,
) -> None:
    def blacken(ds: Dataset) -> None:
        ds.PixelData = bytes(len(ds.PixelData))

    node = start_node()
    send_files([make_file(new_uid=False)], peer_of(node), calling_ae_title="CT")
    kept = {row.header.sop_instance_uid: row for row in inbox.rows.values()}
    for path in (make_file(new_uid=False), make_file(blacken, new_uid=False)):
        inbox.rows.clear()  # the node takes each for a new one
        send_files([path], peer_of(node), calling_ae_title="CT")
    inbox.rows.clear()
    inbox.rows.update(kept)
    (row,) = kept.values()
    report = reconcile(node.spool, inbox, {row.path})
    assert (report.recorded, report.duplicates, report.conflicts) == (0, 1, 1)
    assert list(node.spool.iter_files()) == [row.path]
    assert len(list((node.spool.root / "quarantine").iterdir())) == 1


def test_unreadable_orphan_goes_to_quarantine_and_a_missing_file_is_reported(
    tmp_path: Path, inbox: Inbox
) -> None:
    spool = Spool(tmp_path / "spool")
    incoming = spool.begin(b"not a DICOM file", max_bytes=100)
    spool.keep(incoming)
    gone = "ab/" + "0" * 30 + ".dcm"
    report = reconcile(spool, inbox, {gone})
    assert report.unreadable == 1
    assert report.missing == (gone,)
    assert list(spool.iter_files()) == []
    assert not inbox.rows
