"""Structured logs: JSON on a device, readable on a terminal; stable event names.

Invariant: no patient data at any level (DESIGN.md section 3.8). Code logs opaque keys, counts and
codes. As a second line, exceptions are written as type and place only, also those that nobody
caught: their texts may quote the data that broke them. A log that cannot be written is dropped:
the work goes on.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import traceback
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any

import structlog

from edge_runtime.config.settings import LogFormat, LoggingSettings, LogLevel

_LEVELS: Mapping[LogLevel, int] = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_FRAMES = 12


def configure_logs(settings: LoggingSettings, *, process: str) -> None:
    """Send this process's logs to standard error, and silence the loggers of libraries."""
    structlog.configure(
        processors=[
            _naming(process),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            shorten_exception,
            name_objects,
            _renderer(settings.format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.level]),
        logger_factory=_LineLogger,
        cache_logger_on_first_use=True,
    )
    _silence_libraries()
    _catch_the_uncaught()


def _naming(process: str) -> Any:
    """Every line names its process; context variables would not reach its other threads."""

    def name_process(
        _logger: object, _name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["process"] = process
        return event

    return name_process


class _LineLogger:
    """Writes lines to standard error; a full disk or a reader that left must not stop the work."""

    def __init__(self, *_names: object) -> None:
        self._lock = threading.Lock()

    def msg(self, line: str) -> None:
        """Write one line."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = msg


def shorten_exception(
    _logger: object, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace an exception by its type and the places it went through; its text is left out."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()[1]
    if isinstance(info, tuple):
        info = info[1]
    if isinstance(info, BaseException):
        event["error"] = type(info).__name__
        frames = traceback.extract_tb(info.__traceback__)[-_FRAMES:]
        event["at"] = [f"{frame.name}:{frame.lineno}" for frame in frames]
    return event


def name_objects(
    _logger: object, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace what is no plain value by the name of its type: a repr may quote anything."""
    for key, value in event.items():
        event[key] = _plain(value)
    return event


def _plain(value: object) -> object:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return type(value).__name__


def _renderer(choice: LogFormat) -> Any:
    console = choice is LogFormat.CONSOLE or (choice is LogFormat.AUTO and sys.stderr.isatty())
    if console:
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    return structlog.processors.JSONRenderer()


def _silence_libraries() -> None:
    """Libraries log what they handle, names and UIDs included: none of it is written."""
    root = logging.getLogger()
    root.handlers[:] = [logging.NullHandler()]
    root.setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    for name in ("pydicom", "pynetdicom", "highdicom", "uvicorn", "uvicorn.error", "paho"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = False


def _catch_the_uncaught() -> None:
    """Python would print these with their texts to standard error."""
    log = structlog.get_logger()

    def uncaught(
        _kind: type[BaseException], error: BaseException, _trace: TracebackType | None
    ) -> None:
        log.critical("process.uncaught", exc_info=error)

    def uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
        log.critical("process.uncaught", exc_info=found.exc_value)

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        log.error("process.unraisable", exc_info=found.exc_value)

    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread
    sys.unraisablehook = unraisable
