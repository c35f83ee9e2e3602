"""One analysis, step by step: each step takes the work so far and returns more, or the result.

The order of the steps is a table in ``flow.py``. Nothing here touches the clock, the database or
the network; pixels come through ``Work.load``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from edge_runtime.model.finding import Broken, Refused, Result, Scored
from edge_runtime.model.reasons import REASONS, ReasonCode
from edge_runtime.pipeline.gate import check_series
from edge_runtime.pipeline.models import ActiveModel
from edge_runtime.pipeline.preprocess import PreparedSlice, assemble_input
from edge_runtime.pipeline.selection import Rejected, select_series
from edge_runtime.store.deliveries import StudyInstance
from engines.calibration import decide

Load = Callable[[StudyInstance], PreparedSlice]
"""Returns an instance's prepared slice, from memory or from the spool."""


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
    slices: tuple[PreparedSlice, ...] = field(default=(), repr=False)
    tensor: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """(N, C, H, W), the model's input."""
    logits: npt.NDArray[np.float32] | None = field(default=None, repr=False)


Step = Callable[[Work], "Work | Result"]


def run_steps(work: Work, steps: Sequence[Step]) -> Result:
    """Run the steps in order until one has the result."""
    for step in steps:
        reached = step(work)
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
    wanted = {header.sop_instance_uid for header in chosen.headers}
    selected = tuple(
        instance
        for instance in work.instances
        if instance.header.sop_instance_uid in wanted
        and instance.header.series_instance_uid == chosen.series_instance_uid
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


def load_slices(work: Work) -> Work | Result:
    """Preprocess what was not prepared on arrival."""
    return dataclasses.replace(work, slices=tuple(work.load(item) for item in work.selected))


def build_tensor(work: Work) -> Work | Result:
    """Order the slices and make the model's input of them."""
    tensor = assemble_input(work.slices, work.model.package.preprocess)
    return dataclasses.replace(work, tensor=tensor)


def run_engine(work: Work) -> Work | Result:
    """Infer."""
    package, engine = work.model.package, work.model.engine
    if engine is None or work.tensor is None:
        return Broken(reason=ReasonCode.ENGINE_FAILED)
    outputs = engine.run({package.input.name: work.tensor})
    return dataclasses.replace(work, logits=outputs[package.output.tensor.name])


def decide_finding(work: Work) -> Work | Result:
    """Calibrate, and compare with the operating point."""
    output = work.model.package.output
    if work.logits is None or work.series_instance_uid is None:
        return Broken(reason=ReasonCode.ENGINE_FAILED)
    decision = decide(work.logits, output)
    return Scored(
        probability=decision.probability,
        threshold=output.operating_point.threshold,
        series_instance_uid=work.series_instance_uid,
    )
