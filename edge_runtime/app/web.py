"""The process ``web``: the worklist page."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from edge_runtime.app.cards import ActiveCards
from edge_runtime.app.models import FollowedManifests
from edge_runtime.clock import SystemClock
from edge_runtime.config.settings import Settings
from edge_runtime.process import Pulse, database_path, models_path
from edge_runtime.store.database import connect
from edge_runtime.web.context import ModelWords, WebContext
from edge_runtime.web.server import serve
from engines.package import ModelPackage


def run(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Serve the worklist page."""
    with contextlib.closing(connect(database_path(settings))) as connection:
        models = FollowedManifests(connection, models_path(settings), _words)
        context = WebContext(
            database=database_path(settings),
            clock=SystemClock(),
            device_name=settings.device.name,
            allowed_hosts=settings.web.allowed_hosts,
            models=models,
            read_card=ActiveCards(database_path(settings), models_path(settings)).read,
        )
        return serve(
            context,
            settings.web.bind,
            settings.web.port,
            _BeatingStop(stop, pulse, models.refresh),
            on_listening=lambda _port: pulse.ready(),
        )


class _BeatingStop:
    """The page's loop asks often whether to stop; each question is a sign of life."""

    def __init__(self, stop: threading.Event, pulse: Pulse, on_tick: Callable[[], None]) -> None:
        self._stop = stop
        self._pulse = pulse
        self._on_tick = on_tick

    def is_set(self) -> bool:
        self._pulse.beat()
        self._on_tick()
        return self._stop.is_set()


def _looked_for(package: ModelPackage) -> str:
    """The one finding in words, or what the package calls the lot."""
    if len(package.findings) == 1:
        return package.findings[0].code.meaning
    return package.title


def _words(package: ModelPackage) -> ModelWords:
    return ModelWords(
        version=package.version,
        finding=_looked_for(package),
        findings={finding.key: finding.code.meaning for finding in package.findings},
        disclaimer=package.disclaimer,
        demonstration=package.demonstration,
    )
