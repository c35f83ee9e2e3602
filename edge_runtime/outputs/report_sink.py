"""Structured reports to a PACS, over one association that is kept.

Opening an association for each report costs more than the report itself (NUMBERS.md: 106 ms, kept
and with TCP_NODELAY 48 ms).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from dicom_node.errors import DicomNodeError
from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.scu import Sender
from edge_runtime.errors import BugError, DeliveryError
from edge_runtime.model.delivery import Channel
from edge_runtime.outputs.contract import Receipt, ReportingDevice
from edge_runtime.outputs.structured_report import render_report, warm_up
from edge_runtime.outputs.transport import DeliveryCode, delivery_error
from edge_runtime.store.deliveries import DeliveryJob
from engines.package import ModelPackage


class ReportSink:
    """Renders and sends the report of a decided analysis; use it from one thread at a time."""

    channel = Channel.STRUCTURED_REPORT

    def __init__(
        self,
        peer: PeerAddress,
        *,
        calling_ae_title: str,
        device: ReportingDevice,
        packages: Mapping[tuple[str, str], ModelPackage],
        timeouts: RequestorTimeouts,
    ) -> None:
        """``packages`` maps the name and version of a model to its package."""
        self._sender = Sender(peer, calling_ae_title=calling_ae_title, timeouts=timeouts)
        self._device = device
        self._packages = packages
        self._is_warm = False

    def __enter__(self) -> ReportSink:
        """Prepare rendering; the association is opened by the first report."""
        self.prepare()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the association."""
        self._sender.close()

    def prepare(self) -> None:
        """Spare the first report the seconds that the libraries take, once a package is known."""
        if not self._is_warm:
            for package in self._packages.values():
                warm_up(package, self._device)
                self._is_warm = True
                break

    def deliver(self, job: DeliveryJob) -> Receipt:
        """Send the report; sent again it has the same UIDs and bytes.

        Raises:
            DeliveryError: the PACS does not have it, or the model's package is not installed.
            BugError: the job has no decided analysis.
        """
        if job.analysis is None:
            raise BugError("a structured report needs a decided analysis")
        package = self._packages.get((job.analysis.model_name, job.analysis.model_version))
        if package is None:
            raise DeliveryError(
                "the model's package is not installed any more; install it and send again",
                code=DeliveryCode.MODEL_PACKAGE_MISSING.value,
                permanent=True,
            )
        report = render_report(job, package, self._device)
        try:
            self._sender.store_dataset(report).raise_for_refusal()
        except DicomNodeError as error:
            raise delivery_error(error) from error
        return Receipt.SENT

    def rest(self) -> None:
        """Release the association; some PACS wait for it when they are stopped."""
        self._sender.close()
