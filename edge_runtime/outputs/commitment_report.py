"""Tells a scanner which of its images we hold (PS3.4 J.3.3), and keeps them for a while.

What is held: a row of that SOP class, and its whole file on the disk. An instance that is not here
is waited for until the request's patience ends: scanners ask before their last image has arrived.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from dicom_node.commitment import CommitmentReport, FailureReason, Reference, send_report
from dicom_node.errors import DicomNodeError
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.model.clock import Instant
from edge_runtime.model.errand import ErrandKind
from edge_runtime.outputs.errands import NotYet
from edge_runtime.outputs.transport import delivery_error
from edge_runtime.store.commitments import (
    Commitment,
    HeldInstance,
    held_instances,
    read_commitment,
    record_verdict,
)
from edge_runtime.store.errands import ErrandJob

FindPeer = Callable[[str, str], PeerAddress]
"""``(AE title, address that the request came from)`` to where its report goes."""

_LOOK_AGAIN_S = 1.0


class CommitmentReporter:
    """Judges a request once, then sends its report until the scanner has it."""

    kind = ErrandKind.COMMITMENT_REPORT

    def __init__(
        self,
        find_peer: FindPeer,
        *,
        calling_ae_title: str,
        spool_dir: Path,
        hold_us: int,
        timeouts: RequestorTimeouts,
    ) -> None:
        """``hold_us``: how long retention keeps its hands off what was committed."""
        self._find_peer = find_peer
        self._calling_ae_title = calling_ae_title
        self._spool_dir = spool_dir
        self._hold_us = hold_us
        self._timeouts = timeouts

    def perform(self, connection: sqlite3.Connection, job: ErrandJob, at: Instant) -> NotYet | None:
        """Send the report of one request.

        Raises:
            DeliveryError: the scanner does not have it.
        """
        commitment = read_commitment(connection, job.commitment_id or 0)
        verdict = commitment.verdict
        if verdict is None:
            verdict = self._judge(connection, commitment, at)
        if verdict is None:
            return NotYet(delay_s=_LOOK_AGAIN_S)
        try:
            send_report(
                _report_of(commitment, verdict),
                self._find_peer(commitment.ae_title, commitment.address),
                calling_ae_title=self._calling_ae_title,
                timeouts=self._timeouts,
            )
        except DicomNodeError as error:
            raise delivery_error(error) from error
        return None

    def _judge(
        self, connection: sqlite3.Connection, commitment: Commitment, at: Instant
    ) -> Mapping[Reference, FailureReason] | None:
        """Judge and keep the verdict; None while it is too early for one, or just became wrong."""
        held = held_instances(connection, (item.sop_instance_uid for item in commitment.references))
        verdict = judge(commitment.references, held, self._is_whole)
        is_short = FailureReason.NO_SUCH_OBJECT_INSTANCE in verdict.values()
        if is_short and _is_patient(commitment, at):
            return None
        is_kept = record_verdict(
            connection,
            commitment,
            verdict,
            studies=_studies(commitment.references, held, verdict),
            hold_until_wall_us=at.wall_us + self._hold_us,
        )
        return verdict if is_kept else None

    def _is_whole(self, instance: HeldInstance) -> bool:
        try:
            return (self._spool_dir / instance.path).stat().st_size == instance.file_bytes
        except OSError:
            return False


def judge(
    references: Iterable[Reference],
    held: Mapping[str, Sequence[HeldInstance]],
    is_whole: Callable[[HeldInstance], bool],
) -> dict[Reference, FailureReason]:
    """Say which references cannot be committed, and why."""
    verdict = {}
    for reference in references:
        reason = _reason_against(reference, held.get(reference.sop_instance_uid, ()), is_whole)
        if reason is not None:
            verdict[reference] = reason
    return verdict


def _reason_against(
    reference: Reference,
    instances: Sequence[HeldInstance],
    is_whole: Callable[[HeldInstance], bool],
) -> FailureReason | None:
    if not instances:
        return FailureReason.NO_SUCH_OBJECT_INSTANCE
    fitting = [item for item in instances if item.sop_class_uid == reference.sop_class_uid]
    if not fitting:
        return FailureReason.CLASS_INSTANCE_CONFLICT
    if not any(is_whole(item) for item in fitting):
        return FailureReason.PROCESSING_FAILURE
    return None


def _is_patient(commitment: Commitment, at: Instant) -> bool:
    is_same_boot = commitment.patience_boot_id == at.boot_id
    return is_same_boot and at.mono_us < commitment.patience_mono_us


def _studies(
    references: Iterable[Reference],
    held: Mapping[str, Sequence[HeldInstance]],
    verdict: Mapping[Reference, FailureReason],
) -> set[int]:
    return {
        instance.study_id
        for reference in references
        if reference not in verdict
        for instance in held[reference.sop_instance_uid]
    }


def _report_of(
    commitment: Commitment, verdict: Mapping[Reference, FailureReason]
) -> CommitmentReport:
    return CommitmentReport(
        transaction_uid=commitment.transaction_uid,
        committed=[item for item in commitment.references if item not in verdict],
        failed=list(verdict.items()),
    )
