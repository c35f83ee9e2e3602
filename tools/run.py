"""``edge-triage run``: the device, under its own supervisor, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import typer

from edge_runtime.app.device import run_device
from edge_runtime.config.loading import load_settings
from edge_runtime.logs import configure_logs
from tools.console import DEFAULT_CONFIG, ConfigOption, explained_errors


def run(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run node, worker, courier and web until SIGTERM or Ctrl-C."""
    with explained_errors():
        settings = load_settings(config)
        configure_logs(settings.logging, process="supervisor")
        raise typer.Exit(run_device(settings, config.absolute(), stop_on_signals()))


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set."""
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
    return stop
