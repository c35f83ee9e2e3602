"""A node on a free port, an index in memory, and real instances to send."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from simulators.memory_inbox import MemoryInbox

from dicom_node.admission import Call, Reason
from dicom_node.normalized import Service
from dicom_node.requestor import PeerAddress
from dicom_node.scp import NodeSettings, StorageNode

_JOURNAL_BYTES = 4 << 20


@pytest.fixture
def inbox() -> MemoryInbox:
    return MemoryInbox()


@pytest.fixture(params=[True, False], ids=["fast", "stock"])
def fast_path(request: pytest.FixtureRequest) -> bool:
    """Both ways to the disk: every test of a node's behaviour runs through each.

    The fast one has the journal, the other syncs each file.
    """
    return bool(request.param)


@pytest.fixture
def start_node(
    tmp_path: Path, inbox: MemoryInbox, *, fast_path: bool
) -> Iterator[Callable[..., StorageNode]]:
    """Starts a node; keyword arguments are settings, but for the first two."""
    with ExitStack() as stack:

        def start(
            on_refused: Callable[[Call, Reason], None] | None = None,
            services: tuple[Service, ...] = (),
            **settings: object,
        ) -> StorageNode:
            given: dict[str, object] = {
                "ae_title": "NODE",
                "bind_address": "127.0.0.1",
                "port": 0,
                "admit_unknown_peers": True,
                "min_free_bytes": 0,
                "fast_path": fast_path,
                "journal_bytes": _JOURNAL_BYTES if fast_path else 0,
            }
            node_settings = NodeSettings(**{**given, **settings})  # type: ignore[arg-type]  # any
            node = StorageNode(
                node_settings,
                spool_folder=tmp_path / "spool",
                inbox=inbox,
                on_refused=on_refused,
                services=services,
            )
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
