"""The shell of each stage: reads a state, calls the pure rule, commits the next state."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from edge_runtime.clock import Clock
from edge_runtime.errors import BugError, LeaseLostError
from edge_runtime.model.analysis import AnalysisState
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import Broken, Refused, Result
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.analysis import Step, Work, run_steps
from edge_runtime.pipeline.arrivals import Arrivals, Arriving
from edge_runtime.pipeline.assembly import AssemblyRules, Complete, decide, is_discontinued
from edge_runtime.pipeline.early import EarlyRun, EarlyRuns
from edge_runtime.pipeline.errors import EngineLostError, StopRequestedError
from edge_runtime.pipeline.gate import check_series
from edge_runtime.pipeline.inference import (
    ChosenItems,
    ItemKey,
    Source,
    plan,
    run_items,
    runs_by_item,
)
from edge_runtime.pipeline.models import ActiveModel
from edge_runtime.pipeline.prepared import PreparedImages
from edge_runtime.pipeline.reading import read_image
from edge_runtime.pipeline.selection import Rejected, may_be_selected, select_series
from edge_runtime.store.analyses import (
    ClaimedAnalysis,
    claim_analysis,
    complete_study,
    extend_lease,
    finish_analysis,
    release_analysis,
    return_expired_analyses,
)
from edge_runtime.store.deliveries import StudyInstance
from edge_runtime.store.studies import ArrivedInstance, callers_of
from engines.contract import FREE
from engines.errors import ModelEngineError
from engines.runner import AnyRunner, Prepared
from engines.scheduling import BatchRule, next_batch

_log = structlog.get_logger()

Kept = TypeVar("Kept")

# So many at once: an urgent study that becomes complete waits for no more than these.
_EARLY_ITEMS = 4

ChannelChoice = Callable[[Result], Sequence[Channel]]
"""Which channels a result goes to; from the settings."""

CallerChoice = Callable[[frozenset[str]], Sequence[Channel]]
"""Which channels a complete study goes to, by the AE titles that brought it; from the settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRules:
    """The worker's settings, in the units that its stages use."""

    assembly: AssemblyRules
    lease_us: int
    max_attempts: int
    max_instances: int
    max_pixel_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """What the stages work with; owned by one thread."""

    connection: sqlite3.Connection
    clock: Clock
    spool: Path
    models: tuple[ActiveModel, ...]
    arrivals: Arrivals
    prepared: PreparedImages
    early: EarlyRuns
    rules: PipelineRules
    owner: str
    channels_at_completion: CallerChoice
    channels_of: ChannelChoice
    keep_going: Callable[[], bool] = field(default=lambda: True)
    """Asked before each slice that an analysis decodes: a sign of life, False to hand it back."""


def follow_arrivals(pipeline: Pipeline) -> bool:
    """Arrival: take note of newly stored instances; nothing is committed."""
    pipeline.arrivals.follow()
    return False  # the stages below shall see them in the same round


def complete_next(pipeline: Pipeline) -> bool:
    """Assembly: declare the first study complete whose rule fires."""
    now_us = pipeline.clock.now().mono_us
    for progress, arriving in pipeline.arrivals.receiving():
        if now_us < _earliest_us(arriving, pipeline.rules.assembly):
            continue
        pipeline.arrivals.ask_for_steps(progress.study_id, arriving)
        view = arriving.view(pipeline.arrivals.associations(progress.study_id))
        answer = decide(view, now_us, pipeline.rules.assembly)
        if not isinstance(answer, Complete):
            arriving.look_again_mono_us = answer.until_mono_us
            continue
        if complete_study(
            pipeline.connection,
            progress.study_id,
            instances_seen=arriving.instances,
            reason=answer.reason,
            is_discontinued=is_discontinued(view),
            models=[model.planned for model in pipeline.models],
            channels=pipeline.channels_at_completion(
                callers_of(pipeline.connection, progress.study_id)
            ),
            at=pipeline.clock.now(),
        ):
            _log.info(
                "study.complete",
                study_key=progress.study_key,
                revision=progress.revision,
                reason=answer.reason.value,
                instances=arriving.instances,
            )
            return True
    return False


def _earliest_us(arriving: Arriving, rules: AssemblyRules) -> int:
    """Spare the rules while images arrive without a pause; the longest wait ends all the same."""
    settled_us = arriving.last_stored_mono_us + rules.settle_us
    forced_us = arriving.first_stored_mono_us + rules.longest_wait_us
    return min(max(arriving.look_again_mono_us, settled_us), forced_us)


def next_due_us(pipeline: Pipeline) -> int | None:
    """Return when a completion rule may fire although nothing is committed; None: for no study."""
    due = (_earliest_us(item, pipeline.rules.assembly) for item in pipeline.arrivals.known())
    return min(due, default=None)


def prepare_next(pipeline: Pipeline) -> bool:
    """Preparation: preprocess one image of a study that still arrives."""
    instance = pipeline.arrivals.next_unprepared()
    if instance is None:
        return False
    for model in pipeline.models:
        if may_be_selected(instance.header, model.package.selection):
            _prepare(pipeline, model, instance)
    return True


def _prepare(pipeline: Pipeline, model: ActiveModel, instance: ArrivedInstance) -> None:
    runner = model.runner
    if runner is None:
        return
    try:
        prepared = read_image(
            runner, pipeline.spool / instance.path, instance.header, pipeline.rules.max_pixel_bytes
        )
    except Exception as error:  # noqa: BLE001 - the stage's boundary: one image must not stop the others
        # The analysis will meet it again, and say so.
        _log.info("preparation.failed", model=model.package.name, error=type(error).__name__)
        return
    name = model.key
    pipeline.prepared.put(instance.study_id, name, instance.instance_id, prepared)
    if runs_by_item(model.package):
        source = Source(instance_id=instance.instance_id, header=instance.header)
        pipeline.early.note(instance.study_id, name, source, pipeline.clock.now().mono_us)


def infer_next(pipeline: Pipeline) -> bool:
    """Early inference: run a few items that what still arrives will leave as they are."""
    for study_id, model_key, run in pipeline.early.due(pipeline.clock.now().mono_us):
        model = next((each for each in pipeline.models if each.key == model_key), None)
        if model is None or not pipeline.arrivals.is_receiving(study_id):
            continue  # what was run waits for the analysis
        try:
            _look_for_items(pipeline, study_id, model, run)
        except Exception as error:  # noqa: BLE001 - the stage's boundary: one study must not stop the others
            # The analysis will meet it again, and say so.
            _log.info("inference.failed_early", model=model_key, error=type(error).__name__)
            run.looked_at, run.look_at = len(run.sources), len(run.sources) + 1
    by_urgency = sorted(pipeline.models, key=lambda model: -model.planned.urgency)
    return any(_infer_early(pipeline, model) for model in by_urgency)


def _infer_early(pipeline: Pipeline, model: ActiveModel) -> bool:
    """Run a batch of what was found, of whichever studies; False when there is nothing."""
    rule = _batch_rule(pipeline, model)
    found = pipeline.early.waiting(model.key, model.planned.urgency, rule.most_items)
    waiting = {
        item: (study_id, key)
        for item, (study_id, key) in found.items()
        if pipeline.arrivals.is_receiving(study_id)
    }
    begun_us = pipeline.clock.now().mono_us
    batch = next_batch(list(waiting), rule, begun_us)
    runner = model.runner
    if runner is None or not batch:
        return False
    by_study: dict[int, list[ItemKey]] = {}
    for item in batch:
        study_id, key = waiting[item]
        by_study.setdefault(study_id, []).append(key)
    if FREE in model.package.input.shape[1:]:  # inputs of two studies may differ in size
        by_study = dict([next(iter(by_study.items()))])
    try:
        _run_chosen(pipeline, model, runner, by_study)
    except Exception as error:  # noqa: BLE001 - the stage's boundary: one study must not stop the others
        # The analyses will meet it again, and say so.
        _log.info("inference.failed_early", model=model.key, error=type(error).__name__)
    else:
        took_us = pipeline.clock.now().mono_us - begun_us
        pipeline.early.note_time(model.key, sum(map(len, by_study.values())), took_us)
    return True


def _batch_rule(pipeline: Pipeline, model: ActiveModel) -> BatchRule:
    """As many as an engine says, or few."""
    most = (None if model.engine is None else model.engine.most_items) or _EARLY_ITEMS
    return BatchRule(most_items=most, full_us=pipeline.early.time_of(model.key).of(most))


def _run_chosen(
    pipeline: Pipeline, model: ActiveModel, runner: AnyRunner, by_study: dict[int, list[ItemKey]]
) -> None:
    chosen, kept = [], []
    for study_id, keys in by_study.items():
        run = pipeline.early.run_of(study_id, model.key)
        places = {key: run.ready.pop(key) for key in keys}
        ordered = sorted(keys, key=places.__getitem__)
        held = partial(pipeline.prepared.get, study_id, model.key)
        chosen.append(
            ChosenItems(
                planned=_kept(run.planned),
                places=[places[key] for key in ordered],
                load=partial(_load_held, held),
            )
        )
        kept.append((run, ordered))
    for (run, ordered), outputs in zip(kept, run_items(chosen, runner), strict=True):
        run.outputs.update(zip(ordered, outputs, strict=True))


def _look_for_items(pipeline: Pipeline, study_id: int, model: ActiveModel, run: EarlyRun) -> None:
    """Find what is settled, prepared, and not run yet."""
    package = model.package
    chosen = select_series([each.header for each in run.sources.values()], package.selection)
    count = len(run.sources)
    run.looked_at, run.look_at = count, count + 1
    if (
        model.engine is None
        or isinstance(chosen, Rejected)
        or check_series(chosen.headers, package.gate) is not None
    ):
        return
    wanted = {header.sop_instance_uid for header in chosen.headers}
    planned = plan(
        [each for each in run.sources.values() if each.header.sop_instance_uid in wanted], package
    )
    most = max(len(item.members) for item in planned.items)
    held = partial(pipeline.prepared.get, study_id, model.key)
    keys = {
        planned.key(place): place
        for place in planned.settled()
        if all(held(instance_id) is not None for instance_id in planned.images(place))
    }
    run.planned = planned
    run.ready = {key: place for key, place in keys.items() if key not in run.outputs}
    if not run.ready:
        run.look_at = count + most


def _load_held(held: Callable[[int], Prepared | None], instance_id: int) -> Prepared:
    return _kept(held(instance_id))


def _kept(thing: Kept | None) -> Kept:
    if thing is None:
        raise BugError("an image, a plan or an engine was forgotten while it was in use")
    return thing


def analyse_next(pipeline: Pipeline, steps: Sequence[Step]) -> bool:
    """Analysis: claim one, run the steps, commit the outcome with its outbox rows."""
    at = pipeline.clock.now()
    return_expired_analyses(pipeline.connection, at)
    claim = claim_analysis(
        pipeline.connection, owner=pipeline.owner, at=at, lease_us=pipeline.rules.lease_us
    )
    if claim is None:
        return False
    model = next((item for item in pipeline.models if _is_for(claim, item)), None)
    try:
        result = _result_of(pipeline, claim, model, steps)
        _commit(pipeline, claim, model, result)
    except LeaseLostError:
        _log.warning("analysis.lease_lost", study_key=claim.study_key, revision=claim.revision)
    except StopRequestedError:
        release_analysis(pipeline.connection, claim.analysis_id, owner=pipeline.owner)
        _log.info("analysis.handed_back", study_key=claim.study_key, revision=claim.revision)
    pipeline.prepared.forget(claim.study_id, claim.model_key)
    pipeline.early.forget(claim.study_id, claim.model_key)
    return True


def _is_for(claim: ClaimedAnalysis, model: ActiveModel) -> bool:
    return claim.model_key == model.key


def _result_of(
    pipeline: Pipeline,
    claim: ClaimedAnalysis,
    model: ActiveModel | None,
    steps: Sequence[Step],
) -> Result:
    if claim.attempts > pipeline.rules.max_attempts:
        return Broken(
            reason=ReasonCode.REPEATED_CRASH, detail=f"{claim.attempts - 1} attempts before"
        )
    if model is None:
        return Refused(reason=ReasonCode.NO_ACTIVE_MODEL)
    work = Work(
        model=model,
        instances=claim.instances,
        is_discontinued=claim.is_discontinued,
        load=_LeasedLoad(pipeline, claim, model),
        early=pipeline.early.known(claim.study_id, claim.model_key),
        max_instances=pipeline.rules.max_instances,
        max_pixel_bytes=pipeline.rules.max_pixel_bytes,
    )
    try:
        return run_steps(work, steps)
    except (LeaseLostError, StopRequestedError):
        raise
    except Exception as error:
        # The stage's boundary: one study must not stop the others, but an engine that is lost does.
        _log.exception("analysis.failed", study_key=claim.study_key)
        if isinstance(error, ModelEngineError) and model.is_lost():
            raise EngineLostError(
                f"{model.engine_name} does not work any more ({error}); the worker starts again. "
                "If this goes on, look at `dmesg` and run `edge-triage doctor`"
            ) from error
        return Broken(reason=_reason_of(error))


def _reason_of(error: Exception) -> ReasonCode:
    if isinstance(error, ModelEngineError):
        return ReasonCode.ENGINE_FAILED
    if isinstance(error, FileNotFoundError):
        return ReasonCode.IMAGES_LOST
    return ReasonCode.DEVICE_FAILED


class _LeasedLoad:
    """Loads images; while a large study takes its time, keeps the lease and heeds ``stop``.

    What was prepared on arrival costs nothing, so that an analysis which has all it needs is
    finished even on ``stop``.
    """

    def __init__(self, pipeline: Pipeline, claim: ClaimedAnalysis, model: ActiveModel) -> None:
        self._pipeline = pipeline
        self._claim = claim
        self._model = model
        self._extend_mono_us = pipeline.clock.now().mono_us + pipeline.rules.lease_us // 3

    def __call__(self, instance: StudyInstance) -> Prepared:
        kept = self._pipeline.prepared.get(
            self._claim.study_id, self._claim.model_key, instance.instance_id
        )
        if kept is not None:
            return kept
        if not self._pipeline.keep_going():
            raise StopRequestedError("the worker stops: another one will take this analysis up")
        self._keep_lease()
        return read_image(
            _kept(self._model.runner),
            self._pipeline.spool / instance.path,
            instance.header,
            self._pipeline.rules.max_pixel_bytes,
        )

    def _keep_lease(self) -> None:
        at = self._pipeline.clock.now()
        if at.mono_us >= self._extend_mono_us:
            extend_lease(
                self._pipeline.connection,
                self._claim.analysis_id,
                owner=self._pipeline.owner,
                at=at,
                lease_us=self._pipeline.rules.lease_us,
            )
            self._extend_mono_us = at.mono_us + self._pipeline.rules.lease_us // 3


def _commit(
    pipeline: Pipeline, claim: ClaimedAnalysis, model: ActiveModel | None, result: Result
) -> None:
    state = finish_analysis(
        pipeline.connection,
        claim,
        result,
        owner=pipeline.owner,
        model_version=model.package.version if model else claim.model_version,
        engine=model.engine_name if model else None,
        channels=() if claim.is_shadow else pipeline.channels_of(result),
        at=pipeline.clock.now(),
    )
    reason = None if state in _SCORED else getattr(result, "reason", None)
    _log.info(
        "analysis.decided",
        study_key=claim.study_key,
        model=claim.model_name,
        revision=claim.revision,
        outcome=state.value,
        reason=reason.value if reason else None,
        attempts=claim.attempts,
    )


_SCORED = frozenset({AnalysisState.SUSPECTED, AnalysisState.NOT_SUSPECTED})
