from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, Comprehensive3DSRStorage

from dicom_node.instance import StudyIdentity
from edge_runtime.config.settings import EngineBackend
from edge_runtime.errors import BugError
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Instant, Mark, Stamp
from edge_runtime.model.finding import TRIAGE_NOTICE, FindingScore
from edge_runtime.model.reasons import REASONS, ReasonCode, ReasonKind
from edge_runtime.outputs.contract import ReportingDevice
from edge_runtime.outputs.structured_report import (
    DEMONSTRATION_NOTICE,
    render_report,
    warm_up,
)
from edge_runtime.store.deliveries import DecidedAnalysis, DeliveryJob, StudyInstance
from edge_runtime.store.engine_names import EngineName
from engines.package import Code, ModelPackage

MakeAnalysis = Callable[..., DecidedAnalysis]
MakeJob = Callable[..., DeliveryJob]
MakeInstance = Callable[..., StudyInstance]

DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
PRESENT, ABSENT, UNDETERMINED = "52101004", "272519000", "373068000"
HAEMORRHAGE = "1386000"


def to_bytes(report: Dataset) -> bytes:
    file = io.BytesIO()
    report.save_as(file, enforce_file_format=True)
    return file.getvalue()


def items(dataset: Dataset) -> list[Dataset]:
    """Every content item of the tree, in order."""
    found: list[Dataset] = []
    for item in dataset.get("ContentSequence", []):
        found += [item, *items(item)]
    return found


def codes(report: Dataset) -> dict[str, str]:
    """Concept name to coded value, of every CODE item."""
    return {
        item.ConceptNameCodeSequence[0].CodeValue: item.ConceptCodeSequence[0].CodeValue
        for item in items(report)
        if item.ValueType == "CODE"
    }


def texts(report: Dataset) -> list[str]:
    return [str(item.TextValue) for item in items(report) if item.ValueType == "TEXT"]


def numbers(report: Dataset) -> dict[str, float]:
    return {
        item.ConceptNameCodeSequence[0].CodeValue: float(item.MeasuredValueSequence[0].NumericValue)
        for item in items(report)
        if item.ValueType == "NUM"
    }


def evidence(report: Dataset) -> dict[str, list[str]]:
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    return {
        series.SeriesInstanceUID: [
            str(reference.ReferencedSOPInstanceUID) for reference in series.ReferencedSOPSequence
        ]
        for series in study.ReferencedSeriesSequence
    }


# ---------------------------------------------------------------- outcomes


def test_a_suspicion_is_present_with_its_certainty(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    report = render_report(make_job(), package, device)

    assert report.SOPClassUID == Comprehensive3DSRStorage
    assert report.SeriesDescription == "AI TRIAGE - ICH SUSPECTED"
    assert codes(report)[HAEMORRHAGE] == PRESENT
    assert codes(report)["121071"] == HAEMORRHAGE
    assert codes(report)["111017"] == "111242"
    assert codes(report)["111065"] == "111222"
    assert numbers(report) == {"111012": 93.12}
    assert "ICH suspected: probability 93.1%, suspected from 50.0%." in texts(report)
    assert report.CompletionFlag == "COMPLETE"
    assert report.VerificationFlag == "UNVERIFIED"
    assert report.PreliminaryFlag == "PRELIMINARY"


def test_each_finding_has_a_group_of_its_own(
    make_job: MakeJob,
    make_analysis: MakeAnalysis,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    fracture = package.findings[0].model_copy(
        update={
            "key": "fracture",
            "code": Code(value="71642004", scheme="SCT", meaning="Fracture of skull"),
        }
    )
    both = package.model_copy(update={"findings": (*package.findings, fracture)})
    analysis = replace(
        make_analysis(),
        findings=(
            FindingScore(key="ich", probability=0.93124, threshold=0.5, urgency=3),
            FindingScore(key="fracture", probability=0.11, threshold=0.4, urgency=2),
        ),
    )
    report = render_report(make_job(analysis), both, device)

    assert report.SeriesDescription == "AI TRIAGE - ICH SUSPECTED"
    assert codes(report)[HAEMORRHAGE] == PRESENT
    assert codes(report)["71642004"] == ABSENT
    words = " ".join(texts(report))
    assert "Intracranial hemorrhage suspected: probability 93.1%, suspected from 50.0%." in words
    assert "Fracture of skull not suspected: probability 11.0%, suspected from 40.0%." in words
    trackers = [
        item.UID
        for item in items(report)
        if item.ValueType == "UIDREF" and item.ConceptNameCodeSequence[0].CodeValue == "112040"
    ]
    assert len(set(trackers)) == 2


def test_a_negative_is_absent_and_names_no_finding(
    make_job: MakeJob,
    make_analysis: MakeAnalysis,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    job = make_job(make_analysis(AnalysisState.NOT_SUSPECTED, probability=0.031))
    report = render_report(job, package, device)

    assert report.SeriesDescription == "AI TRIAGE - ICH NOT SUSPECTED"
    assert codes(report)[HAEMORRHAGE] == ABSENT
    assert "121071" not in codes(report)
    assert codes(report)["111017"] == "111241"
    assert numbers(report) == {"111012": 3.1}
    assert report.CompletionFlag == "COMPLETE"


@pytest.mark.parametrize("reason", list(ReasonCode))
def test_a_study_without_a_result_never_reads_as_negative(
    reason: ReasonCode,
    make_job: MakeJob,
    make_analysis: MakeAnalysis,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    failed = REASONS[reason].kind is ReasonKind.FAILED
    outcome = AnalysisState.FAILED if failed else AnalysisState.NOT_ANALYSED
    job = make_job(make_analysis(outcome, reason=reason, reason_detail="12 mm gap"))
    report = render_report(job, package, device)

    label = "FAILED" if failed else "NOT ANALYSED"
    assert report.SeriesDescription == f"AI TRIAGE - ICH {label}"
    assert codes(report)[HAEMORRHAGE] == UNDETERMINED
    assert codes(report)["111017"] == "111245"
    assert codes(report)["111065"] == REASONS[reason].result_status.value
    assert "121071" not in codes(report)
    assert numbers(report) == {}
    assert report.CompletionFlag == "PARTIAL"
    assert report.CompletionFlagDescription == f"{label}: {reason.value}"
    assert any(REASONS[reason].sentence in t and t.endswith("(12 mm gap)") for t in texts(report))


def test_a_superseded_analysis_says_so(
    make_job: MakeJob,
    make_analysis: MakeAnalysis,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    job = make_job(make_analysis(AnalysisState.SUPERSEDED))
    report = render_report(job, package, device)
    assert report.SeriesDescription == "AI TRIAGE - ICH SUPERSEDED"
    assert codes(report)[HAEMORRHAGE] == UNDETERMINED
    assert report.CompletionFlag == "PARTIAL"


def test_an_undecided_analysis_cannot_be_reported(
    make_job: MakeJob,
    make_analysis: MakeAnalysis,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    with pytest.raises(BugError):
        render_report(replace(make_job(), analysis=None), package, device)
    with pytest.raises(BugError):
        render_report(make_job(make_analysis(AnalysisState.RUNNING)), package, device)


def test_every_report_says_that_it_is_for_triage_before_it_tells_the_result(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    report = render_report(make_job(), package, device)
    comments = [t.TextValue for t in report.ContentSequence if t.ValueType == "TEXT"][-3:]
    assert comments == [DEMONSTRATION_NOTICE, TRIAGE_NOTICE, package.disclaimer]
    assert report.ContentSequence[-1].ConceptNameCodeSequence[0].CodeValue == "126010"
    assert report.ContentQualification == "RESEARCH"


def test_a_product_is_not_called_a_demonstration(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    product = package.model_copy(update={"demonstration": False})
    report = render_report(make_job(), product, device)
    assert DEMONSTRATION_NOTICE not in texts(report)
    assert TRIAGE_NOTICE in texts(report)
    assert report.ContentQualification == "PRODUCT"


def test_the_device_and_the_algorithm_are_named(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    report = render_report(make_job(), package, device)
    assert codes(report)["121005"] == "121007"  # observer type: device
    assert {"CT room 2", "head_ct", "1.2.3", "operating point 0.5", "engine onnxruntime"} <= set(
        texts(report)
    )
    assert report.ManufacturerModelName == "edge-triage"
    assert report.SoftwareVersions == "0.1.0"


def test_a_report_says_which_engine_ran_and_in_place_of_which(
    make_job: MakeJob,
    make_analysis: MakeAnalysis,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    engine = EngineName(
        backend=EngineBackend.ONNXRUNTIME,
        version="1.31.0",
        provider="CPUExecutionProvider",
        in_place_of=(EngineBackend.TENSORRT,),
    ).text
    job = make_job(analysis=replace(make_analysis(), engine=engine))
    assert f"engine {engine}" in texts(render_report(job, package, device))


# ---------------------------------------------------------------- CADt limits


def test_no_content_item_points_into_an_image(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    report = render_report(make_job(), package, device)
    pointing = {"IMAGE", "SCOORD", "SCOORD3D", "COMPOSITE", "TCOORD", "WAVEFORM"}
    assert not pointing & {item.ValueType for item in items(report)}


# ---------------------------------------------------------------- evidence, revisions


def test_the_evidence_is_the_whole_analysed_series(
    make_job: MakeJob, make_instance: MakeInstance, package: ModelPackage, device: ReportingDevice
) -> None:
    instances = tuple(make_instance(n, series=s) for s in (1, 2) for n in (1, 2))
    report = render_report(make_job(instances=instances), package, device)
    assert evidence(report) == {"1.2.3.1": ["1.2.3.1.1", "1.2.3.1.2"]}


def test_without_a_series_the_evidence_is_all_images_of_the_study(
    make_job: MakeJob,
    make_analysis: MakeAnalysis,
    make_instance: MakeInstance,
    package: ModelPackage,
    device: ReportingDevice,
) -> None:
    analysis = make_analysis(
        AnalysisState.NOT_ANALYSED,
        reason=ReasonCode.NO_MATCHING_SERIES,
        series_instance_uid=None,
    )
    instances = (
        make_instance(1, series=1),
        make_instance(1, series=2),
        make_instance(1, series=3, sop_class_uid=DOSE_REPORT),
    )
    report = render_report(make_job(analysis, instances=instances), package, device)
    assert evidence(report) == {"1.2.3.1": ["1.2.3.1.1"], "1.2.3.2": ["1.2.3.2.1"]}

    dose_only = render_report(make_job(analysis, instances=instances[2:]), package, device)
    assert evidence(dose_only) == {"1.2.3.3": ["1.2.3.3.1"]}

    nothing = render_report(make_job(analysis, instances=()), package, device)
    assert "CurrentRequestedProcedureEvidenceSequence" not in nothing


def sent_stamp(revision: int, *, subject: str = "structured_report:head_ct") -> Stamp:
    at = Instant(wall_us=revision, mono_us=revision, boot_id="b", clock_synced=True)
    return Stamp(revision=revision, mark=Mark.SENT, subject=subject, at=at)


def test_a_later_revision_refers_to_the_report_that_was_sent_before(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    first = render_report(make_job(), package, device)
    stamps = (sent_stamp(1), sent_stamp(2, subject="forward:head_ct"), sent_stamp(3))
    third = render_report(make_job(revision=3, stamps=stamps), package, device)

    (study,) = third.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (reference,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == first.StudyInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert third.SeriesDescription == "AI TRIAGE - ICH SUSPECTED (REVISION 3)"


def test_a_revision_whose_forerunner_was_never_sent_refers_to_none(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    report = render_report(make_job(revision=2), package, device)
    assert "PredecessorDocumentsSequence" not in report


def test_each_revision_has_its_own_series_because_the_description_tells_the_outcome(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    reports = [render_report(make_job(revision=n), package, device) for n in (1, 2)]
    assert len({report.SeriesInstanceUID for report in reports}) == 2
    assert len({report.SOPInstanceUID for report in reports}) == 2
    assert len({report.StudyInstanceUID for report in reports}) == 1


def test_devices_and_models_do_not_share_uids(
    make_job: MakeJob, make_analysis: MakeAnalysis, package: ModelPackage, device: ReportingDevice
) -> None:
    other_model = make_job(replace(make_analysis(), model_name="chest_ct"))
    reports = (
        render_report(make_job(), package, device),
        render_report(make_job(), package, replace(device, token="another")),
        render_report(other_model, package, device),
        render_report(make_job(study_instance_uid="1.2.4"), package, device),
    )
    assert len({report.SOPInstanceUID for report in reports}) == 4
    assert all(UID(report.SOPInstanceUID).is_valid for report in reports)


# ---------------------------------------------------------------- determinism


def test_the_same_job_gives_the_same_bytes(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    warm_up(package, device)
    first = to_bytes(render_report(make_job(), package, device))
    again = to_bytes(render_report(make_job(), package, device))
    assert first == again


def test_the_content_date_is_the_decision_in_the_time_of_the_site(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    report = render_report(make_job(), package, device)
    assert report.ContentDate == "20260101"
    assert report.ContentTime == "015959.123456"
    assert (report.InstanceCreationDate, report.InstanceCreationTime) == (
        report.ContentDate,
        report.ContentTime,
    )


# ---------------------------------------------------------------- identities


def test_patient_and_study_are_those_of_the_images(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    report = dcmread(io.BytesIO(to_bytes(render_report(make_job(), package, device))))
    assert report.StudyInstanceUID == "1.2.3"
    assert report.PatientName == "Doe^Jane"
    assert report.PatientID == "P-17"
    assert report.PatientBirthDate == "19700131"
    assert report.PatientSex == "F"
    assert report.AccessionNumber == "A4711"
    assert report.StudyID == "S1"
    assert (report.StudyDate, report.StudyTime) == ("20251231", "235001.5")
    assert report.StudyDescription == "CT head"
    assert report.ReferringPhysicianName == "House^Gregory"


def test_a_name_in_any_script_survives(
    make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    name = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    identity = StudyIdentity(patient_name=name, patient_id="Ünï-7")
    raw = to_bytes(render_report(make_job(identity=identity), package, device))
    report = dcmread(io.BytesIO(raw))
    assert report.SpecificCharacterSet == "ISO_IR 192"
    assert report.PatientName == name
    assert report.PatientID == "Ünï-7"


def test_a_study_uid_with_a_leading_zero_stays_so_that_the_report_joins_its_study(
    make_job: MakeJob,
    package: ModelPackage,
    device: ReportingDevice,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    job = make_job(
        study_instance_uid="1.2.840.099.4711",
        identity=StudyIdentity(patient_name="Canary\\^\x1b(Bird", patient_id="canary\\4711"),
    )
    report = render_report(job, package, device)
    assert report.StudyInstanceUID == "1.2.840.099.4711"
    assert b"1.2.840.099.4711" in to_bytes(report)
    assert "anary" not in caplog.text
    assert "4711" not in caplog.text


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(anything=st.text(max_size=80))
def test_any_identity_can_be_rendered_written_and_read_back(
    anything: str, make_job: MakeJob, package: ModelPackage, device: ReportingDevice
) -> None:
    identity = StudyIdentity(
        patient_name=anything,
        patient_id=anything,
        patient_sex=anything,
        study_date=anything,
        study_description=anything,
    )
    report = render_report(make_job(identity=identity), package, device)
    read = dcmread(io.BytesIO(to_bytes(report)))
    assert read.PatientName == report.PatientName
    assert read.PatientID == report.PatientID


def test_a_long_title_never_cuts_the_outcome_off(
    make_job: MakeJob, make_analysis: MakeAnalysis, package: ModelPackage, device: ReportingDevice
) -> None:
    long_title = package.model_copy(update={"title": "Intracranial hemorrhage of any type 12"})
    analysis = make_analysis(AnalysisState.NOT_SUSPECTED, revision=12)
    report = render_report(make_job(analysis), long_title, device)
    assert len(report.SeriesDescription) <= 64
    assert report.SeriesDescription.endswith(" NOT SUSPECTED (REVISION 12)")
