"""A node on a free port, an index in memory, and real instances to send."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from dicom_node.inbox import RecordResult
from dicom_node.instance import StoredInstance
from dicom_node.requestor import PeerAddress
from dicom_node.scp import NodeSettings, StorageNode


class MemoryInbox:
    """The index of a device, in memory: one row per identity, and what it was told."""

    def __init__(self) -> None:
        self.rows: dict[str, StoredInstance] = {}
        self.opened: list[tuple[str, str, str]] = []
        self.closed: list[tuple[str, bool]] = []
        self.failures_left = 0
        self._changed = threading.Condition()

    def association_opened(self, association_id: str, calling_ae_title: str, address: str) -> None:
        self.opened.append((association_id, calling_ae_title, address))

    def record(self, instance: StoredInstance) -> RecordResult:
        with self._changed:
            if self.failures_left:
                self.failures_left -= 1
                raise OSError("the index cannot be written")
            known = self.rows.setdefault(instance.header.sop_instance_uid, instance)
            if known is instance:
                return RecordResult.STORED
            if known.data_set_digest == instance.data_set_digest:
                return RecordResult.DUPLICATE
            return RecordResult.CONFLICT

    def association_closed(self, association_id: str, *, released: bool) -> None:
        with self._changed:
            self.closed.append((association_id, released))
            self._changed.notify_all()

    def wait_closed(self, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.closed) >= count, timeout=10)


@pytest.fixture
def inbox() -> MemoryInbox:
    return MemoryInbox()


@pytest.fixture
def start_node(tmp_path: Path, inbox: MemoryInbox) -> Iterator[Callable[..., StorageNode]]:
    """Starts a node; keyword arguments are settings."""
    with ExitStack() as stack:

        def start(**settings: object) -> StorageNode:
            given: dict[str, object] = {
                "ae_title": "NODE",
                "bind_address": "127.0.0.1",
                "port": 0,
                "admit_unknown_peers": True,
                "min_free_bytes": 0,
            }
            node_settings = NodeSettings(**{**given, **settings})  # type: ignore[arg-type]  # any
            node = StorageNode(node_settings, spool_folder=tmp_path / "spool", inbox=inbox)
            return stack.enter_context(node)

        yield start


@pytest.fixture
def peer_of() -> Callable[[StorageNode], PeerAddress]:
    return lambda node: PeerAddress(ae_title="NODE", host="127.0.0.1", port=node.port)


@pytest.fixture
def ct_path() -> Path:
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    return Path(path)


@pytest.fixture
def make_file(tmp_path: Path, ct_path: Path) -> Callable[..., Path]:
    """Writes a variant of a real CT slice; a callable argument changes the data set."""

    def make(change: Callable[[Dataset], None] | None = None, *, new_uid: bool = True) -> Path:
        ds = dcmread(ct_path)
        if new_uid:
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        if change is not None:
            change(ds)
        path = tmp_path / f"{generate_uid()}.dcm"
        ds.save_as(path)
        return path

    return make


@pytest.fixture(scope="session")
def real_files() -> list[Path]:
    """Every file of pydicom's wheel, and of the extra data if there is any."""
    assert pydicom.data.__file__ is not None
    folders = [Path(pydicom.data.__file__).parent]
    if extra := os.environ.get("EDGE_TRIAGE_TEST_DATA"):
        folders.append(Path(extra))
    return sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
