"""The index of received instances, as the node sees it; the caller supplies it."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from dicom_node.instance import StoredInstance


class RecordResult(str, Enum):
    """What the index made of an instance whose file is already durable."""

    STORED = "stored"
    """A new row points to the file."""
    DUPLICATE = "duplicate"
    """Same identity, same bytes: the row of before stays, the node removes the new file."""
    CONFLICT = "conflict"
    """Same identity, other bytes: the row of before stays, the node quarantines the new file."""


class Inbox(Protocol):
    """Called from one thread per association, from several at the same time."""

    def association_opened(self, association_id: str, calling_ae_title: str, address: str) -> None:
        """Note an association that is about to record its first instance.

        Args:
            association_id: Opaque id made by the node.
            calling_ae_title: As announced by the peer, without padding.
            address: The peer's IP address, or "" for instances found by the start-up scan.
        """
        ...

    def record(self, instance: StoredInstance) -> RecordResult:
        """Make a durable row for ``instance``.

        When this returns, the answer survives a power failure. When it raises, the node answers
        A700 and leaves the file in the spool, because a commit whose outcome is unknown may have
        happened; the start-up scan settles it.
        """
        ...

    def association_closed(self, association_id: str, *, released: bool) -> None:
        """Note the end of an association that was opened.

        Args:
            association_id: The id given to ``association_opened``.
            released: The peer released it in order; False for an abort or a broken connection.
        """
        ...
