"""The node's door without a network: commands and data sets go straight to a ``StoreSession``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dicom_node.admission import PeerRule
from dicom_node.headers import read_headers
from dicom_node.reception import Caller, StoreCommand, StoreSession
from dicom_node.reconcile import reconcile
from dicom_node.spool import Spool
from dicom_node.status import StoreStatus
from simulators.memory_inbox import MemoryInbox

_AE_TITLE = "ROGUE"
_PREAMBLE = bytes(128) + b"DICM"


@dataclass(slots=True)
class Door:
    """One spool with its index, and one session that stores into them."""

    folder: Path
    max_instance_bytes: int = 1 << 30
    spool: Spool = field(init=False)
    inbox: MemoryInbox = field(init=False, default_factory=MemoryInbox)
    session: StoreSession = field(init=False)

    def __post_init__(self) -> None:
        self.spool = Spool(self.folder)
        self.session = StoreSession(
            association_id="0123456789abcdef",
            caller=Caller(
                ae_title=_AE_TITLE, address="127.0.0.1", rule=PeerRule(ae_title=_AE_TITLE)
            ),
            spool=self.spool,
            inbox=self.inbox,
            max_instance_bytes=self.max_instance_bytes,
        )

    def push(
        self,
        data_set: bytes,
        *,
        sop_class: str,
        sop_instance: str,
        syntax: str,
        piece_bytes: int = 100_000,
    ) -> StoreStatus:
        """Store one instance as the network does, in pieces; returns the status."""
        reception = self.session.begin(
            StoreCommand(
                sop_class_uid=sop_class,
                sop_instance_uid=sop_instance,
                context_class_uid=sop_class,
                transfer_syntax_uid=syntax,
            )
        )
        for at in range(0, len(data_set), piece_bytes):
            reception.write(data_set[at : at + piece_bytes])
        return self.session.finish(reception)

    def take(self) -> Path | None:
        """The one stored file, or None; everything that must hold of the spool is checked.

        Whatever was let in, the start-up scan reads from the file what the node read on arrival.
        """
        assert not any((self.spool.root / "incoming").iterdir()), "something unfinished is left"
        paths = list(self.spool.iter_files())
        rows = list(self.inbox.rows.values())
        assert paths == [row.path for row in rows]
        if not rows:
            return None
        ((path,), (row,)) = paths, rows
        stored = self.spool.absolute(path)
        assert stored.stat().st_size == row.file_bytes
        assert stored.read_bytes().startswith(_PREAMBLE)
        assert read_headers(stored) == (row.header, row.identity)
        found = MemoryInbox()
        assert reconcile(self.spool, found, frozenset()).recorded == 1
        return stored

    def forget(self) -> None:
        """Empty spool and index for the next instance."""
        for path in list(self.spool.iter_files()):
            self.spool.remove(path)
        self.inbox.rows.clear()
