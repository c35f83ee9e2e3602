"""Passes procedure steps on to the information system that waits for them, in the scanner's order.

The data sets go out byte for byte. A message that is sent again after a crash is refused by an
upstream that has it already; that counts as delivered.
"""

from __future__ import annotations

import sqlite3

from dicom_node.errors import DicomNodeError, RequestRefusedError
from dicom_node.mpps import NO_LONGER_UPDATED, StepOperation, send_step
from dicom_node.normalized import NormalizedStatus
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from edge_runtime.model.clock import Instant
from edge_runtime.model.errand import ErrandKind
from edge_runtime.outputs.transport import delivery_error
from edge_runtime.store.errands import ErrandJob
from edge_runtime.store.procedure_steps import read_step_message


class MppsRelay:
    """Sends one message over one association: a step has two or three in an hour."""

    kind = ErrandKind.MPPS_RELAY

    def __init__(
        self, peer: PeerAddress, *, calling_ae_title: str, timeouts: RequestorTimeouts
    ) -> None:
        """``peer`` is the system upstream."""
        self._peer = peer
        self._calling_ae_title = calling_ae_title
        self._timeouts = timeouts

    def perform(self, connection: sqlite3.Connection, job: ErrandJob, at: Instant) -> None:
        """Send one message.

        Raises:
            DeliveryError: the system upstream does not have it.
        """
        del at
        message = read_step_message(connection, job.errand_id)
        try:
            send_step(
                message,
                self._peer,
                calling_ae_title=self._calling_ae_title,
                timeouts=self._timeouts,
            )
        except DicomNodeError as error:
            if not is_there_already(message.operation, error, attempts=job.attempts):
                raise delivery_error(error) from error


def is_there_already(operation: StepOperation, error: DicomNodeError, *, attempts: int) -> bool:
    """Whether a refusal says that an earlier try had arrived."""
    if not isinstance(error, RequestRefusedError):
        return False
    if operation is StepOperation.CREATE:
        return error.status == NormalizedStatus.DUPLICATE_SOP_INSTANCE
    return attempts > 1 and error.error_id == NO_LONGER_UPDATED
