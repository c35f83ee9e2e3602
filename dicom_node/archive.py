"""A small PACS that keeps what it gets as ``<SOPInstanceUID>.dcm`` in one folder.

It is the demonstration's PACS and a peer in tests: a real SCP that writes plain files which any
DICOM tool opens. It is no archive for patients' images.
"""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from dicom_node.durable import durable_rename
from dicom_node.inbox import ConflictNote, Held
from dicom_node.instance import StoredInstance
from dicom_node.scp import NodeSettings, StorageNode
from dicom_node.uids import is_valid_uid

_SPOOL_FOLDER = ".incoming"


class FolderArchive:
    """An SCP over a folder; a context manager like the node."""

    def __init__(
        self, folder: Path, *, ae_title: str, bind_address: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Make the folder; anybody may store."""
        self.folder = folder
        self._spool_folder = folder / _SPOOL_FOLDER
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        settings = NodeSettings(
            ae_title=ae_title,
            bind_address=bind_address,
            port=port,
            admit_unknown_peers=True,
            min_free_bytes=0,
        )
        self._node = StorageNode(settings, spool_folder=self._spool_folder, inbox=self)

    def __enter__(self) -> FolderArchive:
        """Start to listen; see ``StorageNode`` for what it raises."""
        self._node.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop, and leave nothing but the stored files."""
        self._node.__exit__(exc_type, exc, traceback)
        shutil.rmtree(self._spool_folder, ignore_errors=True)

    @property
    def port(self) -> int:
        """The port that the archive listens on."""
        return self._node.port

    @property
    def arrivals(self) -> Mapping[str, int]:
        """How often each SOP instance has arrived, by UID."""
        with self._lock:
            return dict(self._counts)

    def wait_for(self, instances: int, timeout_s: float) -> bool:
        """Wait until at least so many different instances are there.

        Returns:
            False if the time ran out first.
        """
        with self._lock:
            return self._arrived.wait_for(lambda: len(self._counts) >= instances, timeout_s)

    def path_of(self, sop_instance_uid: str) -> Path:
        """Where an instance stands or would stand.

        Raises:
            ValueError: It is no UID, so it may not become a part of a path.
        """
        if not is_valid_uid(sop_instance_uid):
            raise ValueError("not a UID")
        return self.folder / f"{sop_instance_uid}.dcm"

    def association_opened(self, association_id: str, calling_ae_title: str, address: str) -> None:
        """Nothing to note: the archive keeps no record of peers."""

    def record(self, instance: StoredInstance) -> Held | None:
        """Move the received file to its name; what arrives again replaces what was there."""
        sop_instance_uid = instance.header.sop_instance_uid
        source = self._node.spool.absolute(instance.path)
        durable_rename(source, self.path_of(sop_instance_uid))
        with self._lock:
            self._counts[sop_instance_uid] += 1
            self._arrived.notify_all()
        return None

    def record_conflict(self, instance: StoredInstance, held: Held, digest: str) -> ConflictNote:
        """Nothing contradicts anything here: the newest file stands."""
        del instance, held, digest
        return ConflictNote.KNOWN

    def replace_file(self, instance: StoredInstance, held: Held) -> bool:
        """Nothing to replace: no row is kept."""
        del instance, held
        return False

    def held_bytes(self, calling_ae_title: str) -> int:
        """Nobody has a quota here."""
        del calling_ae_title
        return 0

    def association_closed(self, association_id: str, *, released: bool) -> None:
        """Nothing to note."""
