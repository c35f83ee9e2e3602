"""One analysis, step by step: each step takes the work so far and returns more, or the result.

The order of the steps is a table in ``flow.py``. Nothing here touches the clock, the database or
the network; pixels come through ``Work.load``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edge_runtime.model.finding import Broken, FindingScore, Refused, Result, Scored
from edge_runtime.model.reasons import REASONS, ReasonCode
from edge_runtime.pipeline.errors import StudyDataError
from edge_runtime.pipeline.gate import check_series
from edge_runtime.pipeline.inference import ItemKey, Source, infer
from edge_runtime.pipeline.models import URGENCY_RANK, ActiveModel
from edge_runtime.pipeline.selection import Rejected, select_series
from edge_runtime.store.deliveries import StudyInstance
from engines.calibration import decide
from engines.package import FindingRule
from engines.runner import Outputs, Prepared

Load = Callable[[StudyInstance], Prepared]
"""Returns an instance's prepared image, from memory or from the spool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is known so far; each step fills one field."""

    model: ActiveModel
    instances: tuple[StudyInstance, ...] = field(repr=False)
    load: Load = field(repr=False)
    max_instances: int
    max_pixel_bytes: int
    is_discontinued: bool = False
    """The scanner broke the examination off."""
    series_instance_uid: str | None = field(default=None, repr=False)
    selected: tuple[StudyInstance, ...] = field(default=(), repr=False)
    early: Mapping[ItemKey, Outputs] = field(default_factory=dict, repr=False)
    """What was run while the study arrived."""
    outputs: Outputs | None = field(default=None, repr=False)
    """The model's."""


Step = Callable[[Work], "Work | Result"]


def run_steps(work: Work, steps: Sequence[Step]) -> Result:
    """Run the steps in order until one has the result."""
    for step in steps:
        try:
            reached = step(work)
        except StudyDataError as error:
            return Refused(reason=error.reason, series_instance_uid=work.series_instance_uid)
        if not isinstance(reached, Work):
            return reached
        work = reached
    return Broken(reason=ReasonCode.DEVICE_FAILED, detail="the steps ended without a result")


def check_engine(work: Work) -> Work | Result:
    """A model that did not prove itself at load looks at nothing."""
    if work.model.engine is None:
        return Broken(reason=ReasonCode.ENGINE_FAILED, detail="the model was refused at load")
    return work


def check_size(work: Work) -> Work | Result:
    """Bound the work that one study can cause."""
    count = len(work.instances)
    if count > work.max_instances:
        detail = f"{count} images, at most {work.max_instances} allowed"
        return Refused(reason=ReasonCode.STUDY_TOO_LARGE, detail=detail)
    return work


def check_procedure(work: Work) -> Work | Result:
    """No model looks at an examination that was broken off; only its readers need to know why."""
    if not work.is_discontinued:
        return work
    chosen = select_series(
        (instance.header for instance in work.instances), work.model.package.selection
    )
    if isinstance(chosen, Rejected) and not REASONS[chosen.reason].in_scope:
        return work
    return Refused(reason=ReasonCode.PROCEDURE_DISCONTINUED)


def choose_series(work: Work) -> Work | Result:
    """Selection: the one series that the model is for."""
    chosen = select_series(
        (instance.header for instance in work.instances), work.model.package.selection
    )
    if isinstance(chosen, Rejected):
        return Refused(reason=chosen.reason)
    wanted = {(each.series_instance_uid, each.sop_instance_uid) for each in chosen.headers}
    selected = tuple(
        instance
        for instance in work.instances
        if (instance.header.series_instance_uid, instance.header.sop_instance_uid) in wanted
    )
    return dataclasses.replace(
        work, series_instance_uid=chosen.series_instance_uid, selected=selected
    )


def check_quality(work: Work) -> Work | Result:
    """Quality gate: may the model look at these images?"""
    refusal = check_series(
        [instance.header for instance in work.selected],
        work.model.package.gate,
        max_pixel_bytes=work.max_pixel_bytes,
    )
    if refusal is None:
        return work
    return Refused(
        reason=refusal.reason,
        detail=refusal.measured,
        series_instance_uid=work.series_instance_uid,
    )


def run_model(work: Work) -> Work | Result:
    """Preprocess and infer what was not done on arrival."""
    runner = work.model.runner
    if runner is None:
        return Broken(reason=ReasonCode.ENGINE_FAILED)
    by_id = {instance.instance_id: instance for instance in work.selected}
    outputs = infer(
        [Source(instance_id=key, header=each.header) for key, each in by_id.items()],
        work.model.package,
        runner,
        lambda instance_id: work.load(by_id[instance_id]),
        work.early,
    )
    return dataclasses.replace(work, outputs=outputs)


def decide_findings(work: Work) -> Work | Result:
    """Calibrate, and compare with the operating points."""
    if work.outputs is None:
        return Broken(reason=ReasonCode.ENGINE_FAILED)
    return Scored(
        findings=tuple(_score(work, work.outputs, rule) for rule in work.model.package.findings),
        series_instance_uid=work.series_instance_uid,
    )


def _score(work: Work, outputs: Outputs, rule: FindingRule) -> FindingScore:
    decision = decide(outputs, rule, threshold=work.model.thresholds.get(rule.key))
    return FindingScore(
        key=rule.key,
        probability=decision.probability,
        threshold=decision.threshold,
        urgency=URGENCY_RANK[rule.urgency],
    )
