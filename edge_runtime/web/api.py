"""The worklist as JSON for scripts on the site; the same facts as the pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.clock import Stamp
from edge_runtime.model.finding import TRIAGE_NOTICE
from edge_runtime.model.reasons import REASONS
from edge_runtime.store.worklist import AnalysisView, StudyDetail, StudyView
from edge_runtime.web.context import ModelWords
from edge_runtime.web.words import iso_words

Json = dict[str, object]


def studies_json(
    studies: tuple[StudyView, ...],
    models: Mapping[str, ModelWords],
    *,
    total: int,
    limit: int,
    offset: int,
) -> Json:
    """Return one page of the worklist, most urgent first."""
    return {
        "notice": TRIAGE_NOTICE,
        "total": total,
        "limit": limit,
        "offset": offset,
        "studies": [_study_json(study, models) for study in studies],
    }


def detail_json(detail: StudyDetail, models: Mapping[str, ModelWords]) -> Json:
    """Return one study with its clock."""
    return {
        "notice": TRIAGE_NOTICE,
        **_study_json(detail.study, models),
        "clock": [_stamp_json(stamp) for stamp in detail.stamps],
    }


def _study_json(study: StudyView, models: Mapping[str, ModelWords]) -> Json:
    identity = study.identity
    return {
        "study_key": study.study_key,
        "study_instance_uid": study.study_instance_uid,
        "patient_name": identity.patient_name,
        "patient_id": identity.patient_id,
        "accession_number": identity.accession_number,
        "study_description": identity.study_description,
        "state": study.state.value,
        "completion_reason": study.completion_reason.value if study.completion_reason else None,
        "revision": study.revision,
        "raised": study.raised,
        "received": iso_words(study.received_wall_us),
        "instances": study.instances,
        "analyses": [_analysis_json(analysis, models) for analysis in study.analyses],
    }


def _analysis_json(analysis: AnalysisView, models: Mapping[str, ModelWords]) -> Json:
    model = models.get(analysis.model_name)
    superseded = analysis.state is AnalysisState.SUPERSEDED
    return {
        "model_name": analysis.model_name,
        "model_version": analysis.model_version,
        "demonstration": model.demonstration if model else None,
        "finding": model.finding if model else None,
        "finding_words": dict(model.findings) if model else {},
        "revision": analysis.revision,
        "state": analysis.state.value,
        "superseded_outcome": analysis.outcome.value if superseded and analysis.outcome else None,
        "reason_code": analysis.reason.value if analysis.reason else None,
        "reason": REASONS[analysis.reason].sentence if analysis.reason else None,
        "reason_detail": analysis.reason_detail,
        "probability": analysis.probability,
        "threshold": analysis.threshold,
        "findings": [dataclasses.asdict(finding) for finding in analysis.findings],
        "engine": analysis.engine,
        "deliveries": [
            {
                "channel": delivery.channel.value,
                "state": delivery.state.value,
                "attempts": delivery.attempts,
                "error_code": delivery.error_code,
            }
            for delivery in analysis.deliveries
        ],
    }


def _stamp_json(stamp: Stamp) -> Json:
    return {
        "revision": stamp.revision,
        "mark": stamp.mark.value,
        "subject": stamp.subject,
        "at": iso_words(stamp.at.wall_us),
        "mono_us": stamp.at.mono_us,
        "boot_id": stamp.at.boot_id,
        "clock_synced": stamp.at.clock_synced,
    }
