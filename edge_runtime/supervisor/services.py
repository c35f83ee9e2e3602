"""The four processes of DESIGN.md section 4, one row each.

Entry points are strings, so that the supervisor never imports what it supervises.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.store.processes import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How one process is started, watched and stopped. Times are seconds."""

    role: Role
    entry_point: str
    """``module:function``; called as ``function(settings, stop, pulse) -> int``."""
    first_restart_delay_s: float = 0.1
    max_restart_delay_s: float = 30.0
    healthy_after_s: float = 20.0
    """A process that lived so long starts again at the first delay."""
    start_limit_s: float = 60.0
    """Without READY=1 after this time it counts as hung; loading models takes seconds."""
    watchdog_s: float = 30.0
    """Without a sign of life for so long it counts as hung."""


SERVICES: tuple[Service, ...] = (
    Service(role=Role.NODE, entry_point="edge_runtime.app.node:run"),
    Service(role=Role.WORKER, entry_point="edge_runtime.app.worker:run"),
    Service(role=Role.COURIER, entry_point="edge_runtime.app.courier:run"),
    Service(role=Role.WEB, entry_point="edge_runtime.app.web:run"),
)
