"""The models that are active on this device: verified, loaded, proven on their golden outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import structlog

from edge_runtime.config.settings import EngineSettings
from edge_runtime.store.analyses import PlannedAnalysis, model_key
from engines.backends import open_engine
from engines.contract import Backend, Engine, EngineOptions
from engines.errors import EngineUnavailableError, ModelEngineError
from engines.loading import LoadedPackage
from engines.package import ModelPackage, Urgency
from engines.parity import check_parity

_log = structlog.get_logger()

URGENCY_RANK = {Urgency.CRITICAL: 3, Urgency.URGENT: 2, Urgency.ROUTINE: 1}
"""Rank 0 is a study that nothing suspects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveModel:
    """One model that looks at every study; without an engine each of its analyses fails, aloud."""

    package: ModelPackage
    engine: Engine | None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The site's operating points, by finding; the package's where there is none."""
    is_shadow: bool = False
    """It tells nobody what it finds."""

    @property
    def key(self) -> str:
        """Tell a model and its shadow apart."""
        return model_key(self.package.name, is_shadow=self.is_shadow)

    @property
    def engine_name(self) -> str | None:
        """Name what ran, for reports and people: back end, provider and version."""
        if self.engine is None:
            return None
        metadata = self.engine.metadata
        return f"{metadata.backend.value} {metadata.version} {metadata.provider}"

    @property
    def planned(self) -> PlannedAnalysis:
        """Return what the queue needs to know."""
        return PlannedAnalysis(
            model_name=self.package.name,
            model_version=self.package.version,
            urgency=0 if self.is_shadow else URGENCY_RANK[self.package.urgency],
            is_shadow=self.is_shadow,
        )


@contextlib.contextmanager
def open_models(
    packages: Sequence[LoadedPackage],
    settings: EngineSettings,
    *,
    shadows: Sequence[LoadedPackage] = (),
    operating_points: Mapping[str, float] = MappingProxyType({}),
) -> Iterator[tuple[ActiveModel, ...]]:
    """Load every model, and prove each on its golden outputs (DESIGN.md section 3.5).

    A model whose engine does not load or does not reproduce them stays without an engine, and so
    does one that the site would have decide where its package does not allow it.

    Raises:
        EngineUnavailableError: the settings ask for a back end that is not installed.
    """
    options = EngineOptions(intra_op_threads=settings.threads)
    with contextlib.ExitStack() as stack:
        models = []
        for package in (*packages, *shadows):
            thresholds = site_thresholds(package.manifest, operating_points)
            engine = None
            if thresholds is not None:
                engine = _open_proven(stack, package, Backend(settings.backend.value), options)
            models.append(
                ActiveModel(
                    package=package.manifest,
                    engine=engine,
                    thresholds=thresholds or {},
                    is_shadow=package in shadows,
                )
            )
        yield tuple(models)


def site_thresholds(
    package: ModelPackage, operating_points: Mapping[str, float]
) -> dict[str, float] | None:
    """Return the site's thresholds by finding; None where one is not what the package allows.

    Args:
        package: the model's.
        operating_points: from the settings, by 'package.finding'.
    """
    rules = {f"{package.name}.{rule.key}": rule for rule in package.findings}
    thresholds = {}
    for key, threshold in operating_points.items():
        if key.partition(".")[0] != package.name:
            continue
        low, high = rules[key].operating_point.allowed if key in rules else (1.0, 0.0)
        if not low <= threshold <= high:
            allowed = f"{low:g} to {high:g}" if key in rules else "no finding of that name"
            _log.error(
                "model.refused",
                model=package.name,
                version=package.version,
                remedy=f"models.operating_points: {key} = {threshold:g}, the package allows "
                f"{allowed}; correct the settings",
            )
            return None
        thresholds[rules[key].key] = threshold
    return thresholds


def _open_proven(
    stack: contextlib.ExitStack, package: LoadedPackage, backend: Backend, options: EngineOptions
) -> Engine | None:
    name, version = package.manifest.name, package.manifest.version
    try:
        engine = stack.enter_context(open_engine(backend, package.model, options))
        report = check_parity(engine, package)
    except EngineUnavailableError:
        raise
    except ModelEngineError as error:
        _log.error("model.refused", model=name, version=version, remedy=str(error))
        return None
    _log.info("model.loaded", model=name, version=version, max_deviation=report.max_absolute)
    return engine
