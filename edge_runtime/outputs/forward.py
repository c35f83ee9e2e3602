"""The study's files to a PACS, byte for byte as the scanner sent them; off by default.

A job carries what its revision added: late images travel with the revision that they opened.
"""

from __future__ import annotations

from pathlib import Path
from threading import Event

from dicom_node.errors import DicomNodeError
from dicom_node.requestor import ContextPair, PeerAddress, RequestorTimeouts
from dicom_node.scu import Sender
from edge_runtime.errors import DeliveryError
from edge_runtime.model.delivery import Channel
from edge_runtime.outputs.contract import Receipt
from edge_runtime.outputs.transport import DeliveryCode, delivery_error
from edge_runtime.store.deliveries import DeliveryJob, StudyInstance


class ForwardSink:
    """Sends the files of a study over one association for each job, with just its contexts."""

    channel = Channel.FORWARD

    def __init__(
        self,
        peer: PeerAddress,
        *,
        calling_ae_title: str,
        spool_dir: Path,
        stop: Event,
        timeouts: RequestorTimeouts,
    ) -> None:
        """``stop`` ends a long study between two files; it is sent again after the restart."""
        self._peer = peer
        self._calling_ae_title = calling_ae_title
        self._spool_dir = spool_dir
        self._stop = stop
        self._timeouts = timeouts

    def deliver(self, job: DeliveryJob) -> Receipt:
        """Send every file of the job's revision; a file that is refused keeps back no other.

        Raises:
            DeliveryError: at least one file did not arrive. Sending all of them again is harmless:
                they carry their own UIDs.
        """
        instances = [i for i in job.instances if i.revision == job.revision]
        refusal: DeliveryError | None = None
        refused_pairs: set[ContextPair] = set()
        with Sender(
            self._peer, calling_ae_title=self._calling_ae_title, timeouts=self._timeouts
        ) as sender:
            sender.propose(dict.fromkeys(map(_pair, instances)))
            for instance in instances:
                if self._stop.is_set():
                    raise DeliveryError(
                        "the device is stopping; the study is sent again after its start",
                        code=DeliveryCode.INTERRUPTED.value,
                    )
                if _pair(instance) in refused_pairs:
                    continue
                found = self._send(sender, instance)
                if found is not None:
                    refusal = found
                    if found.code == DeliveryCode.CONTEXT_REJECTED.value:
                        refused_pairs.add(_pair(instance))
        if refusal is not None:
            raise refusal
        return Receipt.SENT

    def rest(self) -> None:
        """Nothing is held: each job has an association of its own."""

    def _send(self, sender: Sender, instance: StudyInstance) -> DeliveryError | None:
        """Send one file; return why it alone cannot arrive.

        Raises:
            DeliveryError: the others cannot arrive now either.
        """
        try:
            sender.store_file(self._spool_dir / instance.path).raise_for_refusal()
        except (DicomNodeError, OSError) as error:
            translated = delivery_error(error)
            if translated.permanent:
                return translated
            raise translated from error
        return None


def _pair(instance: StudyInstance) -> ContextPair:
    return instance.header.sop_class_uid, instance.header.transfer_syntax_uid
