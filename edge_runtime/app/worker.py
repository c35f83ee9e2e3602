"""The process ``worker``: the pipeline and the engines."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from edge_runtime.app.models import Changes, hold_configured
from edge_runtime.app.signs import SignsMeanwhile
from edge_runtime.app.verification import verifier
from edge_runtime.clock import Clock, SystemClock
from edge_runtime.config.settings import OutcomeName, Settings
from edge_runtime.model.analysis import AnalysisEvent
from edge_runtime.model.delivery import Channel
from edge_runtime.model.finding import Result, Scored
from edge_runtime.model.reasons import REASONS
from edge_runtime.pipeline.arrivals import Arrivals
from edge_runtime.pipeline.assembly import AssemblyRules
from edge_runtime.pipeline.early import EarlyRuns
from edge_runtime.pipeline.errors import StopRequestedError
from edge_runtime.pipeline.heap import keep_freed_images
from edge_runtime.pipeline.models import ActiveModel, open_models
from edge_runtime.pipeline.packages import RunPackage, used_packages
from edge_runtime.pipeline.prepared import PreparedImages
from edge_runtime.pipeline.stages import CallerChoice, Pipeline, PipelineRules
from edge_runtime.pipeline.worker import run_pipeline
from edge_runtime.process import Pulse, database_path, engines_path, models_path, spool_path
from edge_runtime.store.analyses import return_all_analyses
from edge_runtime.store.database import connect
from edge_runtime.store.engines import EngineInUse, record_engines
from edge_runtime.store.model_packages import packages_in_use
from engines.errors import EngineUnavailableError

_BYTES_PER_PIXEL = 2
_MIB = 1024 * 1024


def run(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Run the pipeline and the engines."""
    keep_freed_images()
    clock = SystemClock()
    verify = verifier(settings.engine, partial(_keep_on, stop, pulse))
    with contextlib.closing(connect(database_path(settings))) as connection:
        try:
            hold_configured(settings, connection, clock, verify)
        except StopRequestedError:
            return 0  # the next start goes on
        return_all_analyses(connection)
        with contextlib.suppress(StopRequestedError):  # while an engine was built
            while not stop.is_set():
                _analyse(settings, connection, clock, stop, pulse)
    return 0


def _keep_on(stop: threading.Event, pulse: Pulse) -> None:
    """A sign of life while packages are verified, which takes minutes for the largest."""
    pulse.starting()
    _go_on(stop)


def _go_on(stop: threading.Event) -> None:
    if stop.is_set():
        raise StopRequestedError("the worker stops")


def _analyse(
    settings: Settings,
    connection: sqlite3.Connection,
    clock: Clock,
    stop: threading.Event,
    pulse: Pulse,
) -> None:
    """Work until ``stop``, or until the store has other packages in use."""
    at = clock.now()
    changes = Changes(connection, packages_in_use)
    leave = threading.Event()

    def look() -> None:
        pulse.beat()
        if stop.is_set() or changes.have_come():
            leave.set()

    used = used_packages(connection, models_path(settings))
    with _open_models(settings, connection, clock, used, stop=stop, pulse=pulse) as models:
        pipeline = Pipeline(
            connection=connection,
            clock=clock,
            spool=spool_path(settings),
            models=models,
            arrivals=Arrivals(connection, at),
            prepared=PreparedImages(max_bytes=settings.worker.prepared_cache_mib * _MIB),
            early=EarlyRuns(),
            rules=pipeline_rules(settings),
            owner=f"worker-{os.getpid()}",
            channels_at_completion=forward_choice(settings),
            channels_of=channel_choice(settings),
        )
        pulse.ready()
        run_pipeline(pipeline, leave, look)


@contextlib.contextmanager
def _open_models(
    settings: Settings,
    connection: sqlite3.Connection,
    clock: Clock,
    used: Sequence[RunPackage],
    *,
    stop: threading.Event,
    pulse: Pulse,
) -> Iterator[tuple[ActiveModel, ...]]:
    """Load the models, and write down what runs each for those who tell people.

    Raises:
        EngineUnavailableError: no engine that may run is available; that is written down too.
        StopRequestedError: the device was told to stop while an engine was built.
    """
    signs = SignsMeanwhile(pulse, clock, stop, limit_s=settings.engine.gpu.build_limit_s)

    def keep_on(_phase: str, _done: int, _steps: int) -> bool:
        signs.progress()
        pulse.starting()
        return not stop.is_set()

    with contextlib.ExitStack() as stack:
        try:
            with signs:
                models = stack.enter_context(
                    open_models(
                        [item.package for item in used if not item.is_shadow],
                        settings.engine,
                        folder=engines_path(settings),
                        on_build=keep_on,
                        shadows=[item.package for item in used if item.is_shadow],
                        operating_points=settings.models.operating_points,
                    )
                )
        except EngineUnavailableError as error:
            _go_on(stop)
            record_engines(connection, [_without_engine(item, error) for item in used], clock.now())
            raise
        _go_on(stop)  # an engine whose building was stopped was not passed over
        record_engines(connection, [model.in_use for model in models], clock.now())
        yield models


def _without_engine(item: RunPackage, error: EngineUnavailableError) -> EngineInUse:
    return ActiveModel(
        package=item.package.manifest, runner=None, is_shadow=item.is_shadow, refusal=str(error)
    ).in_use


def pipeline_rules(settings: Settings) -> PipelineRules:
    """Translate settings into the units of the stages."""
    assembly = settings.assembly
    return PipelineRules(
        assembly=AssemblyRules(
            settle_us=_us(assembly.settle_s),
            quiet_closed_us=_us(assembly.quiet_s),
            quiet_open_us=_us(assembly.open_quiet_s),
            longest_wait_us=_us(assembly.longest_wait_s),
        ),
        lease_us=_us(settings.worker.lease_s),
        max_attempts=settings.worker.max_attempts,
        max_instances=settings.worker.max_instances_per_study,
        max_pixel_bytes=settings.worker.max_pixels_per_frame * _BYTES_PER_PIXEL,
    )


def channel_choice(settings: Settings) -> Callable[[Result], Sequence[Channel]]:
    """Return the rule that says which channels a result goes to."""
    report = settings.outputs.structured_report
    has_telemetry = settings.telemetry.host is not None

    def choose(result: Result) -> Sequence[Channel]:
        channels = [Channel.TELEMETRY] if has_telemetry else []
        in_scope = isinstance(result, Scored) or REASONS[result.reason].in_scope
        wanted = _OUTCOME_NAMES[result.event] in report.outcomes
        if report.peer is not None and wanted and (in_scope or report.out_of_scope):
            channels.append(Channel.STRUCTURED_REPORT)
        return channels

    return choose


_OUTCOME_NAMES = {
    AnalysisEvent.FOUND: OutcomeName.SUSPECTED,
    AnalysisEvent.NOT_FOUND: OutcomeName.NOT_SUSPECTED,
    AnalysisEvent.REFUSED: OutcomeName.NOT_ANALYSED,
    AnalysisEvent.BROKE: OutcomeName.FAILED,
}


def forward_choice(settings: Settings) -> CallerChoice:
    """Return the rule that says whether a complete study is forwarded.

    It is, unless every caller that brought images of it is one whose studies are not.
    """
    is_set_up = settings.outputs.forward.peer is not None
    kept_back = {caller.ae_title for caller in settings.node.callers if not caller.forward} - {
        caller.ae_title for caller in settings.node.callers if caller.forward
    }

    def choose(callers: frozenset[str]) -> Sequence[Channel]:
        is_kept_back = bool(callers) and callers <= kept_back
        return (Channel.FORWARD,) if is_set_up and not is_kept_back else ()

    return choose


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
