"""``edge-triage demo --once``: pushes the fixed set, waits, checks what became of each study."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_node.errors import DicomNodeError
from dicom_node.scu import SendOutcome, SendResult, send_files
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.delivery import Channel, DeliveryState
from edge_runtime.store.analyses import NO_MODEL
from edge_runtime.store.database import connect
from edge_runtime.store.processes import ProcessView
from edge_runtime.store.worklist import AnalysisView, StudyDetail, find_study
from tools.demo.scenario import PHANTOMS, Push, by_study, draw_phantom, real_files
from tools.demo.site import Site, StoppedError
from tools.study_report import report_study

SCANNER_AE_TITLE = "DEMOSCANNER"
_STUDY_LIMIT_S = 90.0
_POLL_S = 0.02
_ARRIVED = {
    Channel.STRUCTURED_REPORT: {DeliveryState.SENT, DeliveryState.CONFIRMED},
    Channel.FORWARD: {DeliveryState.SENT, DeliveryState.CONFIRMED},
    Channel.TELEMETRY: {DeliveryState.CONFIRMED},
}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """One study, what the node answered, and what the device made of it."""

    push: Push
    answers: tuple[SendResult, ...]
    detail: StudyDetail | None

    @property
    def faults(self) -> tuple[str, ...]:
        """Say what is not as expected; empty when all is."""
        stored = sum(answer.outcome is SendOutcome.STORED for answer in self.answers)
        if self.detail is None:
            return () if stored == 0 and self.push.outcome is None else ("no such study",)
        if self.push.outcome is not None and stored < len(self.answers):
            return (f"only {stored} of {len(self.answers)} files were stored",)
        current = self.detail.study.current
        faults = [] if current else ["no analysis"]
        for analysis in current:
            faults += _outcome_faults(self.push, analysis)
        for analysis in self.detail.study.analyses:
            faults += [
                f"{item.channel.value} of revision {analysis.revision} is {item.state.value}"
                for item in analysis.deliveries
                if item.state not in _ARRIVED[item.channel]
            ]
        earlier = [item for item in self.detail.study.analyses if item not in current]
        faults += [
            f"revision {item.revision} is {item.state.value}"
            for item in earlier
            if item.state is not AnalysisState.SUPERSEDED
        ]
        return tuple(faults)


def push_fixed_set(site: Site, data: Path | None, say: Say) -> dict[str, object]:
    """Push everything, wait for every outcome and delivery, and return the report."""
    before = site.processes()
    with tempfile.TemporaryDirectory(prefix="edge-triage-demo-") as folder:
        pushes: list[Push] = []
        for number, case in enumerate(PHANTOMS):
            _check_stop(site)
            say(f"drawing phantom: {case.label}")
            pushes.append(draw_phantom(case, Path(folder) / str(number)))
        pushes += by_study(real_files(), "real file", AnalysisState.NOT_ANALYSED)
        pushed = push_all(site, pushes, say)
        if data is not None:
            files = sorted(path for path in data.rglob("*") if path.is_file())
            extra = list(by_study(files, "data", None))
            pushed += push_all(site, extra, say)
            without = len(files) - sum(len(item.answers) for item in pushed[len(pushes) :])
            say(f"{without} files under {data} are no DICOM objects of a study")
    restarts = _restarts(before, site.processes())
    return _report(pushed, restarts)


def push_all(site: Site, pushes: Sequence[Push], say: Say) -> list[Pushed]:
    """Push studies one after the other, then wait until each has its outcome and deliveries."""
    answers = [_push(site, push, say) for push in pushes]
    pushed = []
    with contextlib.closing(connect(site.database)) as connection:
        for push, found in zip(pushes, answers, strict=True):
            stored = any(answer.outcome is SendOutcome.STORED for answer in found)
            detail = _wait(site, connection, push, _is_settled) if stored else None
            item = Pushed(push=push, answers=tuple(found), detail=detail)
            say(f"{push.label}: {_summary(item)}")
            pushed.append(item)
    return pushed


def _push(site: Site, push: Push, say: Say) -> list[SendResult]:
    answers: list[SendResult] = []
    for number, batch in enumerate(push.batches):
        if number > 0:
            with contextlib.closing(connect(site.database)) as connection:
                _wait(site, connection, push, _is_decided)
        _check_stop(site)
        say(f"pushing {push.label} ({len(batch.paths)} files)")
        try:
            answers += send_files(batch.paths, site.node, calling_ae_title=SCANNER_AE_TITLE)
        except DicomNodeError as error:
            say(f"  {error}")
    return answers


def _check_stop(site: Site) -> None:
    if site.stop.is_set():
        raise StoppedError("stopped")


def _wait(
    site: Site,
    connection: sqlite3.Connection,
    push: Push,
    is_done: Callable[[StudyDetail], bool],
) -> StudyDetail | None:
    """Return the study once it is done, or as it is when the time ran out."""
    deadline_s = time.monotonic() + _STUDY_LIMIT_S
    while True:
        detail = find_study(connection, push.study_instance_uid)
        if (detail is not None and is_done(detail)) or time.monotonic() > deadline_s:
            return detail
        _check_stop(site)
        time.sleep(_POLL_S)


def _is_decided(detail: StudyDetail) -> bool:
    current = detail.study.current
    return bool(current) and all(analysis.outcome is not None for analysis in current)


def _is_settled(detail: StudyDetail) -> bool:
    deliveries = [item for analysis in detail.study.analyses for item in analysis.deliveries]
    return _is_decided(detail) and all(
        item.state in _ARRIVED[item.channel] or item.state is DeliveryState.DEAD
        for item in deliveries
    )


def _outcome_faults(push: Push, analysis: AnalysisView) -> list[str]:
    faults = []
    if push.model is not None and analysis.model_name != push.model:
        push = dataclasses.replace(push, outcome=AnalysisState.NOT_ANALYSED, reason=None)
    if analysis.outcome is None:
        faults.append(f"still {analysis.state.value}")
    elif push.outcome is not None and analysis.state is not push.outcome:
        faults.append(f"{analysis.state.value}, expected {push.outcome.value}")
    if push.reason is not None and analysis.reason is not push.reason:
        faults.append(f"reason {analysis.reason}, expected {push.reason.value}")
    if analysis.state is AnalysisState.FAILED:
        faults.append(f"failed: {analysis.reason.value if analysis.reason else ''}")
    if analysis.model_name == NO_MODEL:
        faults.append("no model is active")
    return faults


def _summary(item: Pushed) -> str:
    if item.detail is None:
        refused = Counter(answer.outcome.value for answer in item.answers)
        return "not stored: " + (", ".join(f"{n} {word}" for word, n in refused.items()) or "lost")
    words = []
    for analysis in item.detail.study.current:
        reason = f" ({analysis.reason.value})" if analysis.reason else ""
        words.append(f"{analysis.state.value}{reason}")
    return ", ".join(words) + "".join(f"; NOT AS EXPECTED: {fault}" for fault in item.faults)


def _restarts(before: Iterable[ProcessView], after: Iterable[ProcessView]) -> int:
    pids = {item.role: item.pid for item in before}
    return sum(pids.get(item.role) != item.pid for item in after)


def _report(pushed: Sequence[Pushed], restarts: int) -> dict[str, object]:
    studies = [
        {
            "label": item.push.label,
            "as_expected": not item.faults,
            "faults": list(item.faults),
            "expected": {
                "outcome": item.push.outcome.value if item.push.outcome else None,
                "reason": item.push.reason.value if item.push.reason else None,
            },
            "files": dict(Counter(answer.outcome.value for answer in item.answers)),
            "study": None if item.detail is None else report_study(item.detail),
        }
        for item in pushed
    ]
    return {
        "ok": restarts == 0 and all(not item.faults for item in pushed),
        "process_restarts": restarts,
        "studies": studies,
    }
