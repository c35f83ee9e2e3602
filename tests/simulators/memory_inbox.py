"""The index of a device, in memory: one row per identity, and what it was told."""

from __future__ import annotations

import threading

from dicom_node.inbox import ConflictNote, Held
from dicom_node.instance import StoredInstance


class MemoryInbox:
    """Implements ``dicom_node.inbox.Inbox``; ``failures_left`` records fail."""

    def __init__(self) -> None:
        self.rows: dict[str, StoredInstance] = {}
        """By SOP Instance UID."""
        self.conflicts: dict[str, StoredInstance] = {}
        """By digest of the data set."""
        self.opened: list[tuple[str, str, str]] = []
        self.closed: list[tuple[str, bool]] = []
        self.failures_left = 0
        self._changed = threading.Condition()

    def association_opened(self, association_id: str, calling_ae_title: str, address: str) -> None:
        with self._changed:
            self.opened.append((association_id, calling_ae_title, address))

    def record(self, instance: StoredInstance) -> Held | None:
        with self._changed:
            if self.failures_left:
                self.failures_left -= 1
                raise OSError("the index cannot be written")
            known = self.rows.setdefault(instance.header.sop_instance_uid, instance)
            self._changed.notify_all()
            return None if known.path == instance.path else Held(path=known.path)

    def record_conflict(self, instance: StoredInstance, held: Held, digest: str) -> ConflictNote:
        with self._changed:
            known = self.rows.get(instance.header.sop_instance_uid)
            if known is None or known.path != held.path:
                return ConflictNote.ROW_GONE
            noted = self.conflicts.setdefault(digest, instance)
            return ConflictNote.NOTED if noted.path == instance.path else ConflictNote.KNOWN

    def replace_file(self, instance: StoredInstance, held: Held) -> bool:
        with self._changed:
            known = self.rows.get(instance.header.sop_instance_uid)
            if known is None or known.path != held.path:
                return False
            self.rows[instance.header.sop_instance_uid] = instance
            return True

    def held_bytes(self, calling_ae_title: str) -> int:
        with self._changed:
            return sum(
                row.file_bytes
                for row in self.rows.values()
                if row.calling_ae_title == calling_ae_title
            )

    def association_closed(self, association_id: str, *, released: bool) -> None:
        with self._changed:
            self.closed.append((association_id, released))
            self._changed.notify_all()

    def wait_closed(self, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.closed) >= count, timeout=10)

    def wait_stored(self, count: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.rows) >= count, timeout=30)
