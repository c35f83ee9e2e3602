"""The whole device: four processes under one supervisor."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from edge_runtime.config.settings import Settings
from edge_runtime.process import RoleLock, database_path
from edge_runtime.store.database import connect
from edge_runtime.store.device import count_boot
from edge_runtime.supervisor.services import SERVICES
from edge_runtime.supervisor.supervise import Supervisor


def run_device(settings: Settings, config: Path, stop: threading.Event) -> int:
    """Supervise the four processes until ``stop``; 0 when all ended in time."""
    settings.device.state_dir.mkdir(parents=True, exist_ok=True)
    with RoleLock(settings.device.state_dir, "supervisor"):
        with contextlib.closing(connect(database_path(settings))) as connection:
            count_boot(connection)
        supervisor = Supervisor(SERVICES, config, stop_grace_s=settings.device.stop_grace_s)
        return supervisor.run(stop)
