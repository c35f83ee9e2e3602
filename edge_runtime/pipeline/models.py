"""The models that are active on this device: verified, loaded, proven on their golden outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import structlog

from edge_runtime.config.settings import EngineSettings
from edge_runtime.store.analyses import PlannedAnalysis
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
            urgency=URGENCY_RANK[self.package.urgency],
        )


@contextlib.contextmanager
def open_models(
    packages: Sequence[LoadedPackage], settings: EngineSettings
) -> Iterator[tuple[ActiveModel, ...]]:
    """Load every model, and prove each on its golden outputs (DESIGN.md section 3.5).

    A model whose engine does not load or does not reproduce them stays without an engine.

    Raises:
        EngineUnavailableError: the settings ask for a back end that is not installed.
    """
    options = EngineOptions(intra_op_threads=settings.threads)
    with contextlib.ExitStack() as stack:
        models = []
        for package in packages:
            engine = _open_proven(stack, package, Backend(settings.backend.value), options)
            models.append(ActiveModel(package=package.manifest, engine=engine))
        yield tuple(models)


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
