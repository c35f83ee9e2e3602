"""The index of received instances, as the node sees it; the caller supplies it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from dicom_node.instance import StoredInstance


class RecordResult(str, Enum):
    """What became of an instance whose file was already durable."""

    STORED = "stored"
    """A new row points to the file."""
    DUPLICATE = "duplicate"
    """Same identity, same bytes: the row of before stays, the new file is gone."""
    CONFLICT = "conflict"
    """Same identity, other bytes: the row of before stays, the new file is in quarantine."""


class ConflictNote(str, Enum):
    """What the index made of a conflicting duplicate."""

    NOTED = "noted"
    """The note points to this file."""
    KNOWN = "known"
    """The same bytes are in quarantine already."""
    ROW_GONE = "row_gone"
    """Nothing is noted: the row that it contradicted has left the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The file that the index already has for an identity."""

    path: str
    """Relative to the spool folder."""


class Inbox(Protocol):
    """Called from one thread per association, from several at the same time.

    When a method returns, what it wrote survives a power failure; of ``record`` it is enough that
    the start-up scan can make the row again from its file. When a method raises, the node answers
    A700 and leaves the file in the spool, because a commit whose outcome is unknown may have
    happened; the start-up scan settles it.
    """

    def association_opened(self, association_id: str, calling_ae_title: str, address: str) -> None:
        """Note an association that is about to record its first instance.

        Args:
            association_id: Opaque id made by the node.
            calling_ae_title: As announced by the peer, without padding.
            address: The peer's IP address, or "" for instances found by the start-up scan.
        """
        ...

    def record(self, instance: StoredInstance) -> Held | None:
        """Make a row for ``instance``.

        Returns:
            None: there is a row, and it points to this file. Otherwise the file of the row that
            stood there before, and nothing was written.
        """
        ...

    def record_conflict(self, instance: StoredInstance, held: Held, digest: str) -> ConflictNote:
        """Note that ``instance`` has the identity of ``held`` and other bytes, and raise an alarm.

        Args:
            instance: The newcomer.
            held: What ``record`` returned.
            digest: Of the newcomer's data set; the same bytes are noted once.
        """
        ...

    def replace_file(self, instance: StoredInstance, held: Held) -> bool:
        """Let the row of ``held``, whose file is gone, point to the file of ``instance``.

        Returns:
            Whether there was such a row.
        """
        ...

    def held_bytes(self, calling_ae_title: str) -> int:
        """Bytes in the spool that came from a peer; a few seconds old at most."""
        ...

    def association_closed(self, association_id: str, *, released: bool) -> None:
        """Note the end of an association that was opened.

        Args:
            association_id: The id given to ``association_opened``.
            released: The peer released it in order; False for an abort or a broken connection.
        """
        ...
