"""A sweep of retention, to be killed in; see ``simulators.killed``.

``python -m simulators.killed_sweep TEMPLATE COPIES``
"""

from __future__ import annotations

from pathlib import Path

from edge_runtime.pipeline import sweeping
from simulators.killed import Death, die_at_every_step
from simulators.retention_bench import KEEP_S, RetentionBench

_FEW = 2
"""Instances in a batch, so that a small study takes several."""


def work(folder: Path, death: Death) -> None:
    """One sweep, of what is due."""
    sweeping._BATCH = _FEW
    bench = RetentionBench(folder)
    bench.clock.advance(KEEP_S + 1)
    death.arm(bench.connection)
    bench.sweeper.sweep()


if __name__ == "__main__":
    die_at_every_step(work)
