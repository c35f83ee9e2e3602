"""Opens the engine that a site prefers, and lets none run before it has proven itself.

Every engine has to reproduce the package's golden outputs at every start. One that is not the
reference also has to decide as the reference does, golden and random inputs, before it looks at a
study for the first time; a plan that this device built keeps that proof, and asks for another one
when any part of its key changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import structlog

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.choosing import PassedOver, Preference, choose
from engines.contract import Backend, Engine, EngineOptions, Precision
from engines.errors import PlanRejectedError, PlanStoreError
from engines.loading import LoadedPackage
from engines.parity import ParityReport, check_parity
from engines.plans.proof import Proof
from engines.plans.store import PlanStore, StoredPlan
from engines.proving import ProofReport, prove
from engines.trials import Asker, trial

_log = structlog.get_logger()

REFERENCE = Backend.ONNXRUNTIME

OpenEngine = Callable[[Backend, VerifiedFile, EngineOptions], Engine]


@runtime_checkable
class PlanEngine(Protocol):
    """An engine that runs a plan which this device built."""

    @property
    def plan(self) -> StoredPlan:
        """Which plan runs."""
        ...

    @property
    def plans(self) -> PlanStore:
        """Where it lies, and the proof of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEngine:
    """An engine that may look at studies."""

    engine: Engine
    parity: ParityReport
    """How closely it reproduces the golden outputs."""
    passed_over: tuple[PassedOver, ...]
    """What the site prefers to it."""


@contextlib.contextmanager
def open_live(
    package: LoadedPackage,
    preference: Preference,
    options: EngineOptions,
    *,
    asker: Asker = Asker.DEVICE,
    opens: OpenEngine = open_engine,
) -> Iterator[LiveEngine]:
    """Loads a package's model into the first engine of the preference that runs it and is proven.

    Args:
        package: The model's.
        preference: The site's.
        options: How engines may use the machine.
        asker: On whose behalf; for an examiner, no proof that had to be made is kept.
        opens: Gets an engine of a back end.

    Raises:
        PackageError: The package is bad; no engine would do.
        EngineUnavailableError: No engine that may run is available on this machine.
        EngineError: None that may run does, or is proven.
    """
    with contextlib.ExitStack() as stack:

        def attempt(backend: Backend) -> tuple[Engine, ParityReport]:
            with (
                contextlib.ExitStack() as opened,
                trial(backend, package.model.sha256, options, asker) as ready,
            ):
                engine = opened.enter_context(opens(backend, package.model, ready))
                report = check_parity(engine, package, precision_of(backend, options))
                if backend is not REFERENCE:
                    _require_proof(engine, package, options, keeps=asker is not Asker.EXAMINER)
                stack.enter_context(opened.pop_all())
            return engine, report

        choice = choose(preference, attempt)
        engine, report = choice.opened
        yield LiveEngine(engine=engine, parity=report, passed_over=choice.passed_over)


def precision_of(backend: Backend, options: EngineOptions) -> Precision:
    """Returns in which numbers an engine computes; the reference always in FP32."""
    if backend is REFERENCE or options.accelerator is None:
        return Precision.FP32
    return options.accelerator.precision


def prove_on_device(engine: Engine, package: LoadedPackage, options: EngineOptions) -> ProofReport:
    """Compares a loaded engine with the reference, which is loaded for it and freed again.

    Returns:
        The report; ``holds`` says whether the engine may be used.

    Raises:
        PackageError: The package is bad.
        EngineError: The reference is not to be had, or one of the two fails.
    """
    with open_engine(REFERENCE, package.model, options) as reference:
        return _compare(engine, reference, package, options)


def _compare(
    engine: Engine, reference: Engine, package: LoadedPackage, options: EngineOptions
) -> ProofReport:
    precision = precision_of(engine.metadata.backend, options)
    return prove(engine, reference, package, precision=precision)


def _require_proof(
    engine: Engine, package: LoadedPackage, options: EngineOptions, *, keeps: bool
) -> None:
    """Compare, unless the very plan was compared for this package with this reference.

    Raises:
        ParityError: The engine does not decide as the reference does.
    """
    kept = engine if isinstance(engine, PlanEngine) else None
    with open_engine(REFERENCE, package.model, options) as reference:
        software = f"{REFERENCE.value} {reference.metadata.version}"
        if kept is not None and kept.plan.is_proven_for(package.digest, software):
            return
        report = _compare(engine, reference, package, options)
    if kept is not None and keeps:
        key = kept.plan.key.digest()
        _keep(kept, report.as_proof(key_digest=key, plan_sha256=kept.plan.sha256))
    report.require()


def _keep(engine: PlanEngine, proof: Proof) -> None:
    try:
        engine.plans.attach_proof(engine.plan.key, proof)
    except (PlanStoreError, PlanRejectedError) as error:
        # It was proven all the same; the next start compares again.
        _log.warning("engine.proof_not_kept", reason=str(error))
