"""Work on the store of model packages, to be killed in; see ``simulators.killed``.

``python -m simulators.killed_store TEMPLATE COPIES RELEASE``
"""

from __future__ import annotations

import sys
from pathlib import Path

from simulators.killed import Death, die_at_every_step
from simulators.store_bench import StoreBench

PERSON = "Ada Byron"


def prepare(folder: Path) -> StoreBench:
    """A device whose active version replaced another one."""
    bench = StoreBench(folder)
    bench.open_store(approvals=1)
    for version in ("1.0.0", "1.1.0"):
        bench.store.install(bench.release(version))
        bench.store.approve(f"bright@{version}", person=PERSON, note="")
        bench.store.activate(f"bright@{version}")
    return bench


def work(folder: Path, death: Death) -> None:
    """All that is done to a package."""
    bench = StoreBench(folder)
    bench.open_store(approvals=1)
    death.arm(bench.connection)
    bench.store.install(Path(sys.argv[3]))
    bench.store.approve("bright@1.2.0", person=PERSON, note="")
    bench.store.activate("bright@1.2.0")
    bench.store.rollback("bright")
    bench.store.retire("bright")


if __name__ == "__main__":
    die_at_every_step(work)
