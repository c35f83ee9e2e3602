"""The result as a Comprehensive 3D SR, TID 1500 with a TID 1501 group for each finding (PS3.16).

Pure: the same job, package and device give the same bytes, with the UIDs of the first try.

* Every outcome makes a report. What was not analysed says so in the coded finding (Undetermined),
  in the coded state of the analysis and in words, so that no report reads as a negative by default.
* CADt (STANDARDS.md section 3): nothing points into an image. The evidence names the whole analysed
  series; no content item refers to a single image.
* Each revision has a series of its own, because the outcome stands in SeriesDescription, which all
  instances of a series share (PS3.3 C.7.3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from types import MappingProxyType

from highdicom import ContentQualificationValues
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicom_node.instance import InstanceHeader, StudyIdentity
from edge_runtime.errors import BugError
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Mark
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import TRIAGE_NOTICE, FindingScore
from edge_runtime.model.identifiers import derived_uid
from edge_runtime.model.reasons import REASONS, ReasonCode, ResultStatus
from edge_runtime.outputs.contract import ReportingDevice
from edge_runtime.outputs.identity import clean_text
from edge_runtime.outputs.report_header import element, reference, study_reference, write_study
from edge_runtime.store.deliveries import DecidedAnalysis, DeliveryJob
from engines.package import Code, FindingRule, ModelPackage

DEMONSTRATION_NOTICE = "Demonstration model: must not be used on patients"

_SERIES_NUMBER = 9001
"""Far above what scanners count to, so that the report stands last in the study."""
_LONG_STRING_MAX = 64  # PS3.5 6.2
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wording:
    """How an outcome is told."""

    label: str
    """Ends the series description."""
    presence: CodedConcept
    """CID 240."""
    summary: CodedConcept
    """CID 6047 "CAD Processing and Findings Summary"."""
    status: CodedConcept
    """CID 6042 "Status of Results"."""
    complete: bool
    """Completion flag: a report without a result is PARTIAL, so that no reader counts on it."""


def _dcm(value: str, meaning: str) -> CodedConcept:
    return CodedConcept(value, "DCM", meaning)


_PRESENT = CodedConcept("52101004", "SCT", "Present")
_ABSENT = CodedConcept("272519000", "SCT", "Absent")
_UNDETERMINED = CodedConcept("373068000", "SCT", "Undetermined")

_NO_RESULT = _dcm("111245", "No algorithms succeeded; without findings")
_SUCCEEDED = _dcm("111222", "Succeeded")
_FAILED = _dcm(ResultStatus.FAILED.value, "Failed")
_NOT_ATTEMPTED = _dcm(ResultStatus.NOT_ATTEMPTED.value, "Not Attempted")

_WORDINGS: Mapping[AnalysisState, _Wording] = MappingProxyType(
    {
        AnalysisState.SUSPECTED: _Wording(
            label="SUSPECTED",
            presence=_PRESENT,
            summary=_dcm("111242", "All algorithms succeeded; with findings"),
            status=_SUCCEEDED,
            complete=True,
        ),
        AnalysisState.NOT_SUSPECTED: _Wording(
            label="NOT SUSPECTED",
            presence=_ABSENT,
            summary=_dcm("111241", "All algorithms succeeded; without findings"),
            status=_SUCCEEDED,
            complete=True,
        ),
        AnalysisState.NOT_ANALYSED: _Wording(
            label="NOT ANALYSED",
            presence=_UNDETERMINED,
            summary=_NO_RESULT,
            status=_NOT_ATTEMPTED,
            complete=False,
        ),
        AnalysisState.FAILED: _Wording(
            label="FAILED",
            presence=_UNDETERMINED,
            summary=_NO_RESULT,
            status=_FAILED,
            complete=False,
        ),
        AnalysisState.SUPERSEDED: _Wording(
            label="SUPERSEDED",
            presence=_UNDETERMINED,
            summary=_NO_RESULT,
            status=_NOT_ATTEMPTED,
            complete=False,
        ),
    }
)


def render_report(job: DeliveryJob, package: ModelPackage, device: ReportingDevice) -> Dataset:
    """Return the report of a decided analysis, ready to be sent or saved.

    Raises:
        BugError: the job has no decided analysis; the outbox must never hold such a job.
    """
    analysis = job.analysis
    if analysis is None or analysis.outcome not in _WORDINGS:
        raise BugError("a structured report needs a decided analysis")
    wording = _WORDINGS[analysis.outcome]
    decided = (_EPOCH + timedelta(microseconds=analysis.decided_wall_us)).astimezone(
        device.timezone
    )
    report = Comprehensive3DSR(
        evidence=[_blank_evidence()],
        content=_content(job, analysis, package, device)[0],
        series_instance_uid=_series_uid(job, analysis, device, analysis.revision),
        series_number=_SERIES_NUMBER,
        series_description=_series_description(package.title, wording.label, analysis.revision),
        sop_instance_uid=_report_uid(job, analysis, device, analysis.revision),
        instance_number=1,
        manufacturer=device.manufacturer,
        manufacturer_model_name=device.model_name,
        device_serial_number=device.serial_number,
        software_versions=device.software_version,
        is_complete=wording.complete,
        specific_character_set="ISO_IR 192",
        content_qualification=(
            ContentQualificationValues.RESEARCH
            if package.demonstration
            else ContentQualificationValues.PRODUCT
        ),
    )
    _write_times(report, decided)
    if not wording.complete:
        report.CompletionFlagDescription = clean_text(_short_reason(analysis), _LONG_STRING_MAX)
    write_study(report, job)
    _write_references(report, job, analysis, device)
    return report


def warm_up(package: ModelPackage, device: ReportingDevice) -> None:
    """Render one report for nobody, so that the first real one does not wait for the tables.

    highdicom reads the tables of the standard at first use: 0.25 s on a small box.
    """
    render_report(
        DeliveryJob(
            delivery_id=0,
            channel=Channel.STRUCTURED_REPORT,
            attempts=0,
            study_id=0,
            study_key="",
            study_instance_uid=derived_uid("blank"),
            identity=StudyIdentity(),
            analysis=DecidedAnalysis(
                analysis_id=0,
                revision=1,
                model_name=package.name,
                model_version=package.version,
                outcome=AnalysisState.FAILED,
                reason=ReasonCode.DEVICE_FAILED,
                reason_detail="",
                probability=None,
                threshold=None,
                findings=(),
                series_instance_uid=None,
                engine=None,
                decided_wall_us=0,
            ),
            revision=1,
            instances=(),
            stamps=(),
        ),
        package,
        device,
    )


def _report_uid(
    job: DeliveryJob, analysis: DecidedAnalysis, device: ReportingDevice, revision: int
) -> str:
    return derived_uid(
        "report", device.token, job.study_instance_uid, analysis.model_name, revision
    )


def _series_uid(
    job: DeliveryJob, analysis: DecidedAnalysis, device: ReportingDevice, revision: int
) -> str:
    return derived_uid(
        "report_series", device.token, job.study_instance_uid, analysis.model_name, revision
    )


def _series_description(title: str, label: str, revision: int) -> str:
    """Return a description whose outcome is never cut off, however long the title is."""
    prefix = "AI TRIAGE - "
    suffix = f" {label}" if revision == 1 else f" {label} (REVISION {revision})"
    room = _LONG_STRING_MAX - len(prefix) - len(suffix)
    return prefix + clean_text(title, room).upper()[:room] + suffix


# ---------------------------------------------------------------- content tree


def _content(
    job: DeliveryJob, analysis: DecidedAnalysis, package: ModelPackage, device: ReportingDevice
) -> MeasurementReport:
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(device)),
        procedure_reported=_concept(package.procedure),
        imaging_measurements=_finding_groups(job, analysis, package, device),
    )
    root = report[0].ContentSequence
    notices = [TRIAGE_NOTICE, package.disclaimer]
    if package.demonstration:
        notices.insert(0, DEMONSTRATION_NOTICE)
    # Viewers show the items in their order: the notices stand above the result.
    for notice in notices:
        root.insert(len(root) - 1, _comment(notice))
    return report


def _observer(device: ReportingDevice) -> ObserverContext:
    return ObserverContext(
        observer_type=_dcm("121007", "Device"),
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", device.token),
            name=device.name,
            manufacturer_name=device.manufacturer,
            model_name=device.model_name,
            serial_number=device.serial_number,
        ),
    )


def _finding_groups(
    job: DeliveryJob, analysis: DecidedAnalysis, package: ModelPackage, device: ReportingDevice
) -> list[MeasurementsAndQualitativeEvaluations]:
    """One group for each finding of the package, the most important first."""
    scores = {score.key: score for score in analysis.findings}
    return [
        _finding_group(job, analysis, package, device, _Told(rule=rule, score=scores.get(rule.key)))
        for rule in package.findings
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """One finding: the package's rule, and what the model said, if it looked."""

    rule: FindingRule
    score: FindingScore | None

    def outcome(self, analysis: DecidedAnalysis) -> AnalysisState:
        """Of this finding; without a score, of the whole analysis."""
        if self.score is None or analysis.outcome not in _VERDICTS:
            return analysis.outcome
        return AnalysisState.SUSPECTED if self.score.suspected else AnalysisState.NOT_SUSPECTED


def _finding_group(
    job: DeliveryJob,
    analysis: DecidedAnalysis,
    package: ModelPackage,
    device: ReportingDevice,
    told: _Told,
) -> MeasurementsAndQualitativeEvaluations:
    outcome = told.outcome(analysis)
    wording = _WORDINGS[outcome]
    finding = _concept(told.rule.code)
    title = package.title if len(package.findings) == 1 else told.rule.code.meaning
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            identifier=title,
            uid=derived_uid(
                "finding",
                device.token,
                job.study_instance_uid,
                analysis.model_name,
                told.rule.key,
            ),
        ),
        # A viewer that shows only "Finding" must not show one that is not there.
        finding_type=finding if outcome is AnalysisState.SUSPECTED else None,
        algorithm_id=_algorithm(analysis, device, told.score),
        measurements=_certainty(told.score),
        qualitative_evaluations=[
            QualitativeEvaluation(finding, wording.presence),
            QualitativeEvaluation(
                _dcm("111017", "CAD Processing and Findings Summary"), wording.summary
            ),
            QualitativeEvaluation(_dcm("111065", "Summary of Analyses"), wording.status),
        ],
    )
    group[0].ContentSequence.append(_comment(_sentence(analysis, title, told)))
    return group


def _algorithm(
    analysis: DecidedAnalysis, device: ReportingDevice, score: FindingScore | None
) -> AlgorithmIdentification:
    parameters = []
    if score is not None:
        parameters.append(f"operating point {score.threshold:.4g}")
    if analysis.engine:
        parameters.append(f"engine {analysis.engine}")
    return AlgorithmIdentification(
        name=analysis.model_name,
        version=analysis.model_version,
        manufacturer=device.manufacturer,
        parameters=parameters or None,
    )


def _certainty(score: FindingScore | None) -> list[Measurement]:
    if score is None:
        return []
    return [
        Measurement(
            name=_dcm("111012", "Certainty of Finding"),
            value=round(score.probability * 100, 2),
            unit=CodedConcept("%", "UCUM", "Percent"),
        )
    ]


def _sentence(analysis: DecidedAnalysis, title: str, told: _Told) -> str:
    """Tell the outcome in words, for readers whose viewer shows no codes."""
    outcome = told.outcome(analysis)
    if outcome in _VERDICTS:
        return f"{title} {_VERDICTS[outcome]}{_numbers(told.score)}."
    if outcome is AnalysisState.SUPERSEDED:
        return "Superseded: a later revision of the study takes the place of this analysis."
    lead = "Failed" if outcome is AnalysisState.FAILED else "Not analysed"
    if analysis.reason is None:
        return f"{lead}."
    detail = f" ({analysis.reason_detail})" if analysis.reason_detail else ""
    return f"{lead}: {REASONS[analysis.reason].sentence}{detail}"


_VERDICTS = {AnalysisState.SUSPECTED: "suspected", AnalysisState.NOT_SUSPECTED: "not suspected"}


def _numbers(score: FindingScore | None) -> str:
    if score is None:
        return ""
    return f": probability {score.probability:.1%}, suspected from {score.threshold:.1%}"


def _short_reason(analysis: DecidedAnalysis) -> str:
    label = _WORDINGS[analysis.outcome].label
    return label if analysis.reason is None else f"{label}: {analysis.reason.value}"


def _comment(text: str) -> TextContentItem:
    return TextContentItem(
        name=_dcm("121106", "Comment"),
        value=text,
        relationship_type=RelationshipTypeValues.CONTAINS,
    )


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, code.meaning)


# ---------------------------------------------------------------- patient, study, references


def _blank_evidence() -> Dataset:
    """Return what highdicom insists on; ``_write_study`` puts the real values in its place.

    highdicom and pydicom warn about unusual values with the value in the text, which must not
    reach a log, and 400 data sets of evidence would cost more than the rest of the report.
    """
    blank = Dataset()
    uid = derived_uid("blank")
    blank.StudyInstanceUID = uid
    blank.SeriesInstanceUID = uid
    blank.SOPInstanceUID = uid
    blank.SOPClassUID = Comprehensive3DSRStorage
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(blank, keyword, "")
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(blank, keyword, "")
    return blank


def _write_times(report: Dataset, decided: datetime) -> None:
    """Put the moment of the decision where highdicom wrote the present one."""
    # What it says of highdicom itself bears the present time too, and no reader needs it.
    report.pop("ContributingEquipmentSequence", None)
    for keyword in ("InstanceCreationDate", "ContentDate"):
        report.add(element(keyword, decided.strftime("%Y%m%d")))
    for keyword in ("InstanceCreationTime", "ContentTime"):
        report.add(element(keyword, decided.strftime("%H%M%S.%f")))


def _write_references(
    report: Dataset, job: DeliveryJob, analysis: DecidedAnalysis, device: ReportingDevice
) -> None:
    """Write the evidence and, where one was sent, the report that this one replaces."""
    series: dict[str, list[Dataset]] = {}
    for header in _evidence(job, analysis):
        item = reference(header.sop_class_uid, header.sop_instance_uid)
        series.setdefault(header.series_instance_uid, []).append(item)
    report.pop("CurrentRequestedProcedureEvidenceSequence", None)
    if series:
        evidence = study_reference(job.study_instance_uid, series)
        report.CurrentRequestedProcedureEvidenceSequence = [evidence]
    earlier = _last_sent_revision(job, analysis)
    if earlier is not None:
        item = reference(Comprehensive3DSRStorage, _report_uid(job, analysis, device, earlier))
        report.PredecessorDocumentsSequence = [
            study_reference(
                job.study_instance_uid,
                {_series_uid(job, analysis, device, earlier): [item]},
            )
        ]


def _evidence(job: DeliveryJob, analysis: DecidedAnalysis) -> Iterable[InstanceHeader]:
    """Return the analysed series; without one the study's images, without images all of it."""
    headers = [instance.header for instance in job.instances]
    analysed = [h for h in headers if h.series_instance_uid == analysis.series_instance_uid]
    return analysed or [h for h in headers if h.has_pixel_data] or headers


def _last_sent_revision(job: DeliveryJob, analysis: DecidedAnalysis) -> int | None:
    """Return the latest earlier revision whose report the peer has accepted."""
    subject = f"{Channel.STRUCTURED_REPORT.value}:{analysis.model_name}"
    return max(
        (
            stamp.revision
            for stamp in job.stamps
            if stamp.mark is Mark.SENT
            and stamp.subject == subject
            and stamp.revision < analysis.revision
        ),
        default=None,
    )
