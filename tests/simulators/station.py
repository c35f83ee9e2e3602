"""A node for one test, and how to see that whatever was done to it left nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from dicom_node.file_meta import read_file_meta
from dicom_node.scp import NodeSettings, StorageNode
from simulators.memory_inbox import MemoryInbox
from simulators.rogue_modality import Instance, Released, RogueModality, make_instance
from simulators.waiting import wait_until

_SETTINGS = {
    "ae_title": "NODE",
    "bind_address": "127.0.0.1",
    "port": 0,
    "admit_unknown_peers": True,
    "min_free_bytes": 0,
}
_numbers = count(1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """A node, and how to see that nothing is wrong with it."""

    node: StorageNode
    inbox: MemoryInbox
    threads_before: frozenset[threading.Thread]

    @property
    def port(self) -> int:
        """Where to call."""
        return self.node.port

    def stored(self) -> list[bytes]:
        """The data sets of the published files, each of which has a row that points to it."""
        assert not any((self.node.spool.root / "quarantine").iterdir())
        paths = sorted(self.node.spool.iter_files())
        assert paths == sorted(row.path for row in self.inbox.rows.values())
        return [_data_set(self.node.spool.absolute(path)) for path in paths]

    def forget(self) -> None:
        """Remove what is stored, as a device does that has delivered it."""
        for row in self.inbox.rows.values():
            self.node.spool.remove(row.path)
        self.inbox.rows.clear()

    def is_idle(self) -> bool:
        """Whether no association is left, and nothing of one."""
        alive = set(threading.enumerate()) - self.threads_before
        return not alive and not any((self.node.spool.root / "incoming").iterdir())

    def check_sound(self, *expected: Instance) -> None:
        """Nothing but ``expected`` is stored, nothing is left over, and the node works."""
        wait_until(self.is_idle)
        assert sorted(self.stored()) == sorted({each.data_set for each in expected})
        with RogueModality(self.port) as modality:
            modality.associate()
            assert modality.store(make_instance(next(_numbers))) == 0
            assert isinstance(modality.release(), Released)
        assert len(self.inbox.rows) == len({each.data_set for each in expected}) + 1
        self.forget()


def _data_set(path: Path) -> bytes:
    with path.open("rb") as stream:
        offset = read_file_meta(stream.fileno()).data_set_offset
    return path.read_bytes()[offset:]


@contextmanager
def started(folder: Path, **settings: object) -> Iterator[Station]:
    """A running node with its spool in ``folder``; keyword arguments are its settings."""
    given: dict[str, Any] = {**_SETTINGS, **settings}
    inbox = MemoryInbox()
    with StorageNode(NodeSettings(**given), spool_folder=folder, inbox=inbox) as node:
        yield Station(node=node, inbox=inbox, threads_before=frozenset(threading.enumerate()))
