"""The models that are active on this device: verified, loaded, proven on their golden outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

import structlog

from edge_runtime.config.settings import EngineBackend, EngineSettings
from edge_runtime.errors import SettingsError
from edge_runtime.pipeline.errors import StopRequestedError
from edge_runtime.store.analyses import PlannedAnalysis, model_key
from edge_runtime.store.engine_names import EngineName
from edge_runtime.store.engines import EngineInUse, EngineObstacle, PassedOverEngine
from engines.backends import open_engine
from engines.batching import MOST_ITEMS
from engines.choosing import PassedOver, Preference
from engines.contract import (
    AcceleratorOptions,
    Backend,
    CudaLibrary,
    Engine,
    EngineOptions,
    Precision,
)
from engines.errors import EngineError, EngineUnavailableError, ModelEngineError, PackageError
from engines.going_live import LiveEngine, OpenEngine, open_live, precision_of
from engines.kernel.opening import OpenedRunner, open_runner
from engines.loading import LoadedPackage
from engines.package import ModelPackage, Urgency
from engines.parity import check_parity
from engines.runner import AnyRunner

_log = structlog.get_logger()

URGENCY_RANK = {Urgency.CRITICAL: 3, Urgency.URGENT: 2, Urgency.ROUTINE: 1}
"""Rank 0 is a study that nothing suspects."""

OnBuild = Callable[[str, int, int], bool]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveModel:
    """One model that looks at every study; without an engine each of its analyses fails, aloud."""

    package: ModelPackage
    runner: AnyRunner | None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The site's operating points, by finding; the package's where there is none."""
    is_shadow: bool = False
    """It tells nobody what it finds."""
    passed_over: tuple[PassedOver, ...] = ()
    """The engines that the site prefers to this one."""
    refusal: str = ""
    """Why there is no engine; empty where there is one."""
    preparation_obstacle: str = ""
    """Why the processor prepares images that its engine could take from a device."""
    check: Callable[[], object] | None = field(default=None, repr=False)
    """Raises an ``EngineError`` where the engine no longer gives the golden outputs."""

    @property
    def engine(self) -> Engine | None:
        """What computes."""
        return None if self.runner is None else self.runner.engine

    @property
    def key(self) -> str:
        """Tell a model and its shadow apart."""
        return model_key(self.package.name, is_shadow=self.is_shadow)

    def is_lost(self) -> bool:
        """Whether the engine has ceased to work, asked after it failed on a study."""
        if self.check is None:
            return False
        try:
            self.check()
        except EngineError as error:
            _log.error("engine.lost", model=self.key, reason=str(error))
            return True
        except PackageError as error:
            # Nothing is known of the engine; what is wrong with the package its next start tells.
            _log.error("engine.not_checked", model=self.key, remedy=str(error))
        return False

    @property
    def engine_name(self) -> str | None:
        """Name what ran, and in place of what, for reports and people."""
        if self.engine is None:
            return None
        metadata = self.engine.metadata
        return EngineName(
            backend=EngineBackend(metadata.backend.value),
            version=metadata.version,
            provider=metadata.provider,
            in_place_of=tuple(EngineBackend(each.backend.value) for each in self.passed_over),
        ).text

    @property
    def in_use(self) -> EngineInUse:
        """Return what people are told of the engine."""
        return EngineInUse(
            model_key=self.key,
            engine=self.engine_name or "",
            refusal=self.refusal,
            preparation_obstacle=self.preparation_obstacle,
            passed_over=tuple(
                PassedOverEngine(
                    backend=EngineBackend(each.backend.value),
                    obstacle=EngineObstacle(each.obstacle.value),
                    detail=each.detail,
                )
                for each in self.passed_over
            ),
        )

    @property
    def planned(self) -> PlannedAnalysis:
        """Return what the queue needs to know."""
        return PlannedAnalysis(
            model_name=self.package.name,
            model_version=self.package.version,
            urgency=0 if self.is_shadow else URGENCY_RANK[self.package.urgency],
            is_shadow=self.is_shadow,
        )


def preference_of(settings: EngineSettings) -> Preference:
    """Return the site's order of preference."""
    return Preference(
        order=tuple(Backend(each.value) for each in settings.preference),
        may_fall_back=settings.fallback,
    )


def engine_options(
    settings: EngineSettings, folder: Path | None, on_build: OnBuild | None = None
) -> EngineOptions:
    """Translate settings into those of engines.

    Args:
        settings: the site's.
        folder: where engines lie that this device built; without one no GPU is used.
        on_build: told of the phase, its steps that are done and how many there are, while an
            engine is built; False stops it, and what it raises ends it.
    """
    gpu = settings.gpu
    if folder is None:
        return EngineOptions(intra_op_threads=settings.threads)
    accelerator = AcceleratorOptions(
        folder=folder,
        precision=Precision(gpu.precision.value),
        libraries=tuple(CudaLibrary(each.value) for each in gpu.cuda_libraries),
        device_index=gpu.index,
        dla_core=gpu.dla_core,
        most_items=MOST_ITEMS,
        memory_bytes=gpu.memory_mib * _MIB,
        may_build=gpu.build,
        on_build=on_build,
    )
    return EngineOptions(intra_op_threads=settings.threads, accelerator=accelerator)


@contextlib.contextmanager
def open_models(
    packages: Sequence[LoadedPackage],
    settings: EngineSettings,
    *,
    folder: Path | None = None,
    on_build: OnBuild | None = None,
    shadows: Sequence[LoadedPackage] = (),
    operating_points: Mapping[str, float] = MappingProxyType({}),
    opens: OpenEngine = open_engine,
) -> Iterator[tuple[ActiveModel, ...]]:
    """Load every model, and prove each before it looks at a study (DESIGN.md section 3.5).

    A model whose engine does not load or is not proven stays without an engine, and so does one
    that the site would have decide where its package does not allow it. ``folder`` and ``on_build``
    are those of ``engine_options``; it is told before each model too, for not every engine tells it
    of its building.

    Raises:
        EngineUnavailableError: no engine that may run is available on this machine.
        StopRequestedError: ``on_build`` said before a model that it shall not be opened any more.
    """
    preference, options = preference_of(settings), engine_options(settings, folder, on_build)
    with contextlib.ExitStack() as stack:
        models = []
        together = (*packages, *shadows)
        for index, package in enumerate(together):
            if on_build is not None and not on_build("opening models", index, len(together)):
                raise StopRequestedError("told to stop before every model was opened")
            thresholds: dict[str, float] = {}
            live, opened, check, refusal = None, None, None, ""
            try:
                thresholds = site_thresholds(package.manifest, operating_points)
                live = stack.enter_context(open_live(package, preference, options, opens=opens))
                precision = precision_of(live.engine.metadata.backend, options)
                check = partial(check_parity, live.engine, package, precision)
                opened = stack.enter_context(open_runner(package.manifest, live.engine, precision))
            except EngineUnavailableError:
                raise
            except (SettingsError, ModelEngineError) as error:
                refusal = str(error)
            model = ActiveModel(
                package=package.manifest,
                runner=opened.runner if opened else None,
                thresholds=thresholds,
                is_shadow=package in shadows,
                passed_over=live.passed_over if live else (),
                refusal=refusal,
                preparation_obstacle=opened.obstacle if opened else "",
                check=check,
            )
            _log_model(model, live, opened)
            models.append(model)
        yield tuple(models)


def _log_model(model: ActiveModel, live: LiveEngine | None, opened: OpenedRunner | None) -> None:
    name, version = model.package.name, model.package.version
    for each in model.passed_over:
        _log.warning(
            "engine.passed_over",
            model=name,
            version=version,
            backend=each.backend.value,
            obstacle=each.obstacle.value,
            remedy=each.detail,
        )
    if live is None or opened is None:
        _log.error("model.refused", model=name, version=version, remedy=model.refusal)
        return
    if opened.obstacle:
        _log.warning("model.prepared_by_processor", model=name, remedy=opened.obstacle)
    _log.info(
        "model.loaded",
        model=name,
        version=version,
        engine=model.engine_name,
        max_deviation=live.parity.max_absolute,
        images_prepared_by="processor" if opened.parity is None else "device",
    )


def site_thresholds(
    package: ModelPackage, operating_points: Mapping[str, float]
) -> dict[str, float]:
    """Return the site's thresholds by finding.

    Args:
        package: the model's.
        operating_points: from the settings, by 'package.finding'.

    Raises:
        SettingsError: one is not what the package allows.
    """
    rules = {f"{package.name}.{rule.key}": rule for rule in package.findings}
    thresholds = {}
    for key, threshold in operating_points.items():
        if key.partition(".")[0] != package.name:
            continue
        low, high = rules[key].operating_point.allowed if key in rules else (1.0, 0.0)
        if not low <= threshold <= high:
            allowed = f"{low:g} to {high:g}" if key in rules else "no finding of that name"
            raise SettingsError(
                f"models.operating_points: {key} = {threshold:g}, the package allows {allowed}; "
                "correct the settings"
            )
        thresholds[rules[key].key] = threshold
    return thresholds
