"""One study as a JSON object: outcome, reason, clock and deliveries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime, timezone

from edge_runtime.model.clock import Instant, Mark, Stamp, interval_us
from edge_runtime.store.procedure_steps import StepProgress
from edge_runtime.store.worklist import AnalysisView, StudyDetail

_INTERVALS: tuple[tuple[str, Mark, Mark], ...] = (
    ("receive_ms", Mark.FIRST_STORED, Mark.LAST_STORED),
    ("completion_ms", Mark.LAST_STORED, Mark.COMPLETE),
    ("wait_ms", Mark.COMPLETE, Mark.STARTED),
    ("analyse_ms", Mark.STARTED, Mark.DECIDED),
    ("time_to_decision_ms", Mark.LAST_STORED, Mark.DECIDED),
)


def report_study(detail: StudyDetail) -> dict[str, object]:
    """Return everything that the device knows of a study's way, without the patient."""
    study = detail.study
    return {
        "study_key": study.study_key,
        "study_instance_uid": study.study_instance_uid,
        "state": study.state.value,
        "completion_reason": study.completion_reason.value if study.completion_reason else None,
        "revision": study.revision,
        "raised": study.raised,
        "instances": study.instances,
        "procedure_steps": [_step(step) for step in detail.steps],
        "analyses": [_analysis(item, detail.stamps) for item in study.analyses],
        "shadow_analyses": [_analysis(item, ()) for item in detail.shadows],
    }


def _step(step: StepProgress) -> dict[str, object]:
    return {
        "state": step.state.value,
        "images": step.images,
        "changed": _iso_us(step.changed_wall_us),
    }


def _analysis(view: AnalysisView, stamps: tuple[Stamp, ...]) -> dict[str, object]:
    mine = [
        stamp
        for stamp in stamps
        if stamp.revision == view.revision
        and (
            stamp.subject in {"", view.model_name} or stamp.subject.endswith(f":{view.model_name}")
        )
    ]
    return {
        "model": view.model_name,
        "model_version": view.model_version,
        "revision": view.revision,
        "state": view.state.value,
        "outcome": view.outcome.value if view.outcome else None,
        "reason": view.reason.value if view.reason else None,
        "reason_detail": view.reason_detail,
        "probability": view.probability,
        "threshold": view.threshold,
        "findings": [dataclasses.asdict(finding) for finding in view.findings],
        "engine": view.engine,
        "clock": _clock(mine),
        "deliveries": [
            {
                "channel": delivery.channel.value,
                "state": delivery.state.value,
                "attempts": delivery.attempts,
                "error_code": delivery.error_code,
            }
            for delivery in view.deliveries
        ],
    }


def _clock(stamps: Iterable[Stamp]) -> dict[str, object]:
    stamps = tuple(stamps)
    at = {stamp.mark: stamp.at for stamp in stamps if ":" not in stamp.subject}
    return {
        "stamps": {_name(stamp): _iso(stamp.at) for stamp in stamps},
        "synchronised": all(stamp.at.clock_synced for stamp in stamps),
        "intervals": {
            name: round(interval_us(at[start], at[end]) / 1_000, 1)
            for name, start, end in _INTERVALS
            if start in at and end in at
        },
    }


def _name(stamp: Stamp) -> str:
    channel, separator, _model = stamp.subject.partition(":")
    return f"{channel}_{stamp.mark.value}" if separator else stamp.mark.value


def _iso(at: Instant) -> str:
    return _iso_us(at.wall_us)


def _iso_us(wall_us: int) -> str:
    moment = datetime.fromtimestamp(wall_us / 1_000_000, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds")
