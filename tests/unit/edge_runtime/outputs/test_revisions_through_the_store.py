"""What the store hands to the sinks, where only both together can be right."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.hand_clock import HandClock
from simulators.scores import scored

from dicom_node.instance import StoredInstance, StudyIdentity
from edge_runtime.model.delivery import Channel, DeliveryEvent
from edge_runtime.model.study import CompletionReason
from edge_runtime.outputs.contract import ReportingDevice
from edge_runtime.outputs.structured_report import render_report
from edge_runtime.store.analyses import (
    PlannedAnalysis,
    claim_analysis,
    complete_study,
    finish_analysis,
)
from edge_runtime.store.database import connect
from edge_runtime.store.deliveries import (
    DeliveryJob,
    StudyInstance,
    claim_delivery,
    record_delivery,
)
from edge_runtime.store.inbox import SqliteInbox
from engines.package import ModelPackage

REPORT = Channel.STRUCTURED_REPORT


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = connect(tmp_path / "triage.db")
    yield opened
    opened.close()


@pytest.fixture
def receive(
    connection: sqlite3.Connection, make_instance: Callable[..., StudyInstance]
) -> Callable[[int], None]:
    inbox = SqliteInbox(connection, HandClock(), reopens=lambda _header: True)

    def record(number: int) -> None:
        header = make_instance(number).header
        inbox.association_opened("a1", "CT01", "192.0.2.1")
        inbox.record(
            StoredInstance(
                header=header,
                identity=StudyIdentity(patient_name="Doe^Jane"),
                path=f"{number}.dcm",
                file_bytes=1,
                calling_ae_title="CT01",
                association_id="a1",
            )
        )

    return record


def decide(connection: sqlite3.Connection, package: ModelPackage, *, probability: float) -> None:
    """Complete the one study, and let the model answer."""
    at = HandClock().now()
    (study,) = connection.execute("SELECT id, instances FROM study").fetchall()
    assert complete_study(
        connection,
        study["id"],
        instances_seen=study["instances"],
        reason=CompletionReason.QUIET,
        models=[PlannedAnalysis(model_name=package.name, model_version=package.version, urgency=3)],
        channels=[],
        at=at,
    )
    claim = claim_analysis(connection, owner="w", at=at, lease_us=1_000_000)
    assert claim is not None
    result = scored(probability)
    finish_analysis(
        connection, claim, result, owner="w", engine="onnxruntime", channels=[REPORT], at=at
    )


def claim_report(connection: sqlite3.Connection) -> DeliveryJob:
    job = claim_delivery(connection, REPORT, owner="c", at=HandClock().now(), lease_us=1_000_000)
    assert job is not None
    return job


def test_the_report_of_a_reopened_study_refers_to_the_one_that_was_sent(
    connection: sqlite3.Connection,
    receive: Callable[[int], None],
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    receive(1)
    decide(connection, package, probability=0.1)
    first_job = claim_report(connection)
    first: Any = render_report(first_job, package, device)
    record_delivery(
        connection,
        first_job.delivery_id,
        (DeliveryEvent.ACCEPTED,),
        owner="c",
        at=HandClock().now(),
    )

    receive(2)
    decide(connection, package, probability=0.9)
    second: Any = render_report(claim_report(connection), package, device)

    assert first.SeriesDescription == "AI TRIAGE - ICH NOT SUSPECTED"
    assert second.SeriesDescription == "AI TRIAGE - ICH SUSPECTED (REVISION 2)"
    series = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
