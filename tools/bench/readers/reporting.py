"""From a folder to a structured report, as this device does it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from datetime import timezone
from pathlib import Path
from typing import Any

from dicom_node.headers import read_headers
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import Broken, Refused, Result, Scored
from edge_runtime.outputs.contract import ReportingDevice
from edge_runtime.outputs.structured_report import render_report
from edge_runtime.pipeline.heap import keep_freed_images
from edge_runtime.pipeline.trial import examine
from edge_runtime.store.deliveries import DecidedAnalysis, DeliveryJob, StudyInstance
from engines.backends import Backend, open_engine
from engines.contract import EngineOptions
from engines.loading import LoadedPackage, load_package
from engines.package import ModelPackage
from engines.shipped import shipped_packages
from tools.bench.readers.answers import Read, Report
from tools.bench.readers.names import HEAD_CT

_DEVICE = ReportingDevice(
    token="benchmark",  # noqa: S106  names a device, opens nothing
    name="benchmark",
    manufacturer="edge-triage",
    model_name="edge-triage",
    serial_number="benchmark",
    software_version="benchmark",
    timezone=timezone.utc,
)


def load_model() -> LoadedPackage:
    """Open the shipped package that all are compared on."""
    return load_package(shipped_packages()[HEAD_CT])


@contextlib.contextmanager
def own_examination() -> Iterator[Read]:
    """Select, check, preprocess, infer, decide and report, as the device does."""
    keep_freed_images()
    package = load_model()
    with open_engine(Backend.ONNXRUNTIME, package.model, EngineOptions()) as engine:

        def read(folder: Path) -> Report:
            paths = sorted(folder.iterdir())
            result = examine(paths, package.manifest, engine)
            dataset = render_report(
                _job(paths, package.manifest, result), package.manifest, _DEVICE
            )
            return Report(
                outcome=_outcome(result).value,
                probability=result.leading.probability if isinstance(result, Scored) else None,
                report_bytes=saved_bytes(dataset),
            )

        yield read


def _job(paths: list[Path], package: ModelPackage, result: Result) -> DeliveryJob:
    instances = []
    for number, path in enumerate(paths):
        header, identity = read_headers(path)
        instances.append(
            StudyInstance(instance_id=number, revision=1, header=header, path=path.name)
        )
    return DeliveryJob(
        delivery_id=1,
        channel=Channel.STRUCTURED_REPORT,
        attempts=0,
        study_id=1,
        study_key="benchmark",
        study_instance_uid=header.study_instance_uid,
        identity=identity,
        analysis=_decided(package, result),
        revision=1,
        instances=tuple(instances),
        stamps=(),
    )


def _decided(package: ModelPackage, result: Result) -> DecidedAnalysis:
    return DecidedAnalysis(
        analysis_id=1,
        revision=1,
        model_name=package.name,
        model_version=package.version,
        outcome=_outcome(result),
        reason=None if isinstance(result, Scored) else result.reason,
        reason_detail="" if isinstance(result, Scored) else result.detail,
        probability=result.leading.probability if isinstance(result, Scored) else None,
        threshold=result.leading.threshold if isinstance(result, Scored) else None,
        findings=result.findings if isinstance(result, Scored) else (),
        series_instance_uid=None if isinstance(result, Broken) else result.series_instance_uid,
        engine=Backend.ONNXRUNTIME.value,
        decided_wall_us=0,
    )


def _outcome(result: Result) -> AnalysisState:
    if isinstance(result, Scored):
        return AnalysisState.SUSPECTED if result.suspected else AnalysisState.NOT_SUSPECTED
    return AnalysisState.NOT_ANALYSED if isinstance(result, Refused) else AnalysisState.FAILED


def saved_bytes(dataset: Any) -> int:
    """Write the report as a file would hold it; returns its length."""
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.tell()
