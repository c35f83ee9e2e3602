"""The start-up scan: files without rows get one, rows without files are reported."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass

import structlog

from dicom_node.errors import PeerError
from dicom_node.headers import header_of, identity_of, scan_file
from dicom_node.inbox import Inbox, RecordResult
from dicom_node.instance import StoredInstance
from dicom_node.reception import settle
from dicom_node.spool import Spool

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """What the scan found and did; counts of files."""

    recorded: int = 0
    duplicates: int = 0
    conflicts: int = 0
    unreadable: int = 0
    """Quarantined: without a header no row can be made."""
    unfinished_removed: int = 0
    missing: tuple[str, ...] = ()
    """Known paths whose file is gone; what that means is the index's decision."""


def reconcile(spool: Spool, inbox: Inbox, known: Collection[str]) -> ReconcileReport:
    """Bring spool and index together after a crash.

    Run it before any node accepts associations: a file between rename and row looks like one
    that a crash left behind.

    Args:
        spool: The spool.
        inbox: The index; the orphans of each caller are recorded as one broken association.
        known: The paths of all rows (a set, for speed).
    """
    unfinished = spool.clear_incoming()
    present = set(spool.iter_files())
    counts = _record_orphans(spool, inbox, sorted(present.difference(known)))
    report = ReconcileReport(
        recorded=counts[RecordResult.STORED],
        duplicates=counts[RecordResult.DUPLICATE],
        conflicts=counts[RecordResult.CONFLICT],
        unreadable=counts[None],
        unfinished_removed=unfinished,
        missing=tuple(sorted(set(known).difference(present))),
    )
    _log.info(
        "node.reconciled",
        recorded=report.recorded,
        duplicates=report.duplicates,
        conflicts=report.conflicts,
        unreadable=report.unreadable,
        unfinished_removed=report.unfinished_removed,
        missing=len(report.missing),
    )
    return report


def _record_orphans(
    spool: Spool, inbox: Inbox, orphans: list[str]
) -> dict[RecordResult | None, int]:
    counts: dict[RecordResult | None, int] = dict.fromkeys((*RecordResult, None), 0)
    associations: dict[str, str] = {}
    for path in orphans:
        try:
            found = scan_file(spool.absolute(path))
            header = header_of(found)
        except PeerError:
            spool.quarantine(path)
            counts[None] += 1
            continue
        caller = found.meta.source_ae_title
        if caller not in associations:
            associations[caller] = secrets.token_hex(8)
            inbox.association_opened(associations[caller], caller, "")
        instance = StoredInstance(
            header=header,
            identity=identity_of(found.scan),
            path=path,
            file_bytes=found.file_bytes,
            calling_ae_title=caller,
            association_id=associations[caller],
        )
        counts[settle(spool, inbox, instance)] += 1
    for association_id in associations.values():
        inbox.association_closed(association_id, released=False)
    return counts
