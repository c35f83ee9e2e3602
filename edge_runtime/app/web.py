"""The process ``web``: the worklist page."""

from __future__ import annotations

import threading

from edge_runtime.clock import SystemClock
from edge_runtime.config.settings import Settings
from edge_runtime.pipeline.packages import find_packages
from edge_runtime.process import Pulse, database_path
from edge_runtime.web.context import ModelWords, WebContext
from edge_runtime.web.server import serve
from engines.package import ModelPackage


def run(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Serve the worklist page."""
    packages = find_packages(settings.models.packages)
    context = WebContext(
        database=database_path(settings),
        clock=SystemClock(),
        device_name=settings.device.name,
        allowed_hosts=settings.web.allowed_hosts,
        models={item.manifest.name: _words(item.manifest) for item in packages},
    )
    return serve(
        context,
        settings.web.bind,
        settings.web.port,
        _BeatingStop(stop, pulse),
        on_listening=lambda _port: pulse.ready(),
    )


class _BeatingStop:
    """The page's loop asks often whether to stop; each question is a sign of life."""

    def __init__(self, stop: threading.Event, pulse: Pulse) -> None:
        self._stop = stop
        self._pulse = pulse

    def is_set(self) -> bool:
        self._pulse.beat()
        return self._stop.is_set()


def _words(package: ModelPackage) -> ModelWords:
    return ModelWords(
        version=package.version,
        finding=package.output.finding.meaning,
        disclaimer=package.disclaimer,
        demonstration=package.demonstration,
    )
