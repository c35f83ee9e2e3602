"""Work on the store of plans, to be killed in; see ``simulators.killed``.

``python -m simulators.killed_plans TEMPLATE COPIES``
"""

from __future__ import annotations

from pathlib import Path

import structlog

from engines.plans.store import PlanStore
from simulators.killed import Death, die_at_every_step
from simulators.plan_bench import (
    KEY,
    NEW_PLAN,
    OLD_PLAN,
    OTHER_KEY,
    change_byte,
    keep_proven,
    plan_path,
    proof_of,
)

OLD_TIMES, NEW_TIMES = b"older times", b"newer times"
OLD_KERNELS, NEW_KERNELS = b"kernels of the older plan", b"kernels of the newer plan"


def prepare(folder: Path) -> PlanStore:
    """A store with one sound plan and one that somebody changed."""
    store = PlanStore(folder)
    keep_proven(store, KEY, OLD_PLAN)
    store.keep_timing_cache(KEY, OLD_TIMES)
    store.keep_runtime_cache(KEY, OLD_KERNELS)
    keep_proven(store, OTHER_KEY, OLD_PLAN)
    change_byte(plan_path(store, OTHER_KEY), -1)
    return store


def work(folder: Path, death: Death) -> None:
    """All that is done to plans."""
    death.arm()
    store = PlanStore(folder)
    with store.building(KEY):
        stored = store.keep(KEY, NEW_PLAN)
    store.attach_proof(KEY, proof_of(stored))
    store.keep_timing_cache(KEY, NEW_TIMES)
    store.keep_runtime_cache(KEY, NEW_KERNELS)
    store.find(OTHER_KEY)
    store.quarantine(KEY, "the library refused it")
    with store.building(OTHER_KEY) as found:
        assert found is None
        store.keep(OTHER_KEY, NEW_PLAN)
    store.remove(OTHER_KEY.digest())


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    die_at_every_step(work)
