"""The canary stands for patient data: it may appear in no line, at no level, on no path."""

from __future__ import annotations

import gc
import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import structlog

from edge_runtime.config.settings import LogFormat, LoggingSettings, LogLevel
from edge_runtime.logs import configure_logs

CANARY = "CANARY^NAME 1.2.840.99999 19991231"
LIBRARIES = ("pydicom", "pynetdicom.events", "highdicom.sr", "uvicorn.error", "paho.mqtt", "other")
FORMATS = (LogFormat.JSON, LogFormat.CONSOLE, LogFormat.AUTO)


class Colour(str, Enum):
    RED = "red"


@dataclass
class Named:
    name: str = CANARY


@pytest.fixture
def configured(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., io.StringIO]]:
    """Configure as a process does, into a buffer; everything is as before afterwards."""
    written = io.StringIO()
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)
    hook = sys.unraisablehook
    defaults = structlog.get_config()
    libraries = {
        name: (logging.getLogger(name).handlers[:], logging.getLogger(name).propagate)
        for name in ("pydicom", "pynetdicom", "highdicom", "uvicorn", "uvicorn.error", "paho")
    }

    def configure(
        choice: LogFormat = LogFormat.JSON, level: LogLevel = LogLevel.DEBUG
    ) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", written)  # here: pytest sets its own for each phase
        configure_logs(LoggingSettings(format=choice, level=level), process="node")
        return written

    yield configure
    structlog.configure(**defaults)
    logging.captureWarnings(capture=False)
    root.handlers[:], level, sys.excepthook, threading.excepthook = before
    root.setLevel(level)
    sys.unraisablehook = hook
    for name, (handlers, propagate) in libraries.items():
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).propagate = propagate


def _lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def _raise_canary() -> None:
    values: dict[str, int] = {}
    try:
        values[CANARY]
    except KeyError as error:
        raise ValueError(f"bad value {CANARY}") from error


def test_each_line_is_an_object_with_event_level_time_and_process(
    configured: Callable[..., io.StringIO],
) -> None:
    written = configured()
    log = structlog.get_logger()
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("node.instance_stored", study_key="s1", count=3, kinds=["a", None])
    lines = _lines(written)
    assert [line["level"] for line in lines] == ["debug", "info", "warning", "error", "critical"]
    for line in lines:
        assert line["event"] == "node.instance_stored"
        assert line["process"] == "node"
        assert line["study_key"] == "s1"
        assert line["count"] == 3
        assert line["kinds"] == ["a", None]
        assert line["timestamp"].endswith("Z")


def test_lines_below_the_level_are_not_written(configured: Callable[..., io.StringIO]) -> None:
    written = configured(level=LogLevel.WARNING)
    structlog.get_logger().info("a.b")
    structlog.get_logger().warning("a.c")
    assert [line["event"] for line in _lines(written)] == ["a.c"]


def test_lines_of_other_threads_name_the_process_too(
    configured: Callable[..., io.StringIO],
) -> None:
    written = configured()
    thread = threading.Thread(target=lambda: structlog.get_logger().info("a.b"))
    thread.start()
    thread.join()
    assert _lines(written)[0]["process"] == "node"


@pytest.mark.parametrize("choice", FORMATS)
def test_an_exception_is_type_and_place_and_never_its_text(
    configured: Callable[..., io.StringIO], choice: LogFormat
) -> None:
    written = configured(choice)
    try:
        _raise_canary()
    except ValueError as error:
        structlog.get_logger().exception("a.failed")
        structlog.get_logger().error("a.failed", exc_info=error)
        structlog.get_logger().error("a.failed", exc_info=sys.exc_info())
    text = written.getvalue()
    assert text.count("a.failed") == 3
    assert text.count("ValueError") == 3
    assert text.count("_raise_canary:") == 3
    assert "CANARY" not in text


@pytest.mark.parametrize("choice", FORMATS)
def test_a_value_that_is_no_plain_value_is_written_as_its_type(
    configured: Callable[..., io.StringIO], choice: LogFormat
) -> None:
    written = configured(choice)
    structlog.get_logger().info(
        "a.b",
        error=ValueError(CANARY),
        value=Named(),
        values=[Named(), {CANARY: 1}],
        path=Path(CANARY),
        data=CANARY.encode(),
    )
    assert "Named" in written.getvalue()
    assert "CANARY" not in written.getvalue()


def test_plain_values_stay_what_they_are(configured: Callable[..., io.StringIO]) -> None:
    written = configured()
    structlog.get_logger().info("a.b", t=True, n=None, i=7, f=0.5, s="x", e=Colour.RED, l=(1, 2))
    (line,) = _lines(written)
    assert {key: line[key] for key in "tnifsel"} == {
        "t": True,
        "n": None,
        "i": 7,
        "f": 0.5,
        "s": "x",
        "e": "red",
        "l": [1, 2],
    }


@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries_write_nothing_at_any_level(
    configured: Callable[..., io.StringIO], name: str
) -> None:
    logging.getLogger("pydicom").addHandler(logging.StreamHandler())  # as its debug mode does
    written = configured()
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    try:
        for level in (10, 20, 30, 40, 50):
            logger.log(level, "received %s", CANARY)
        logger.error("failed", exc_info=ValueError(CANARY))
    finally:
        logger.setLevel(logging.NOTSET)
    assert written.getvalue() == ""


def test_warnings_write_nothing(configured: Callable[..., io.StringIO]) -> None:
    written = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        configured()
        warnings.warn(f"invalid value {CANARY}", UserWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    assert written.getvalue() == ""


def test_an_error_that_nobody_caught_in_a_thread_is_written_without_its_text(
    configured: Callable[..., io.StringIO],
) -> None:
    written = configured()
    thread = threading.Thread(target=_raise_canary)
    thread.start()
    thread.join()
    (line,) = _lines(written)
    assert (line["event"], line["error"]) == ("process.uncaught", "ValueError")
    assert "CANARY" not in written.getvalue()


def test_an_error_that_nobody_caught_at_all_is_written_without_its_text(
    configured: Callable[..., io.StringIO],
) -> None:
    written = configured()
    try:
        _raise_canary()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    (line,) = _lines(written)
    assert (line["event"], line["error"]) == ("process.uncaught", "ValueError")
    assert "CANARY" not in written.getvalue()


def test_an_error_in_a_destructor_is_written_without_its_text(
    configured: Callable[..., io.StringIO],
) -> None:
    class Bad:
        def __del__(self) -> None:
            _raise_canary()

    written = configured()
    Bad()
    gc.collect()
    (line,) = _lines(written)
    assert (line["event"], line["error"]) == ("process.unraisable", "ValueError")
    assert "CANARY" not in written.getvalue()


def test_the_console_format_is_for_people(configured: Callable[..., io.StringIO]) -> None:
    written = configured(LogFormat.CONSOLE)
    structlog.get_logger().info("study.complete", study_key="s1")
    text = written.getvalue()
    assert "study.complete" in text
    assert "study_key=s1" in text
    assert not text.lstrip().startswith("{")


def test_auto_means_json_where_no_terminal_is(configured: Callable[..., io.StringIO]) -> None:
    written = configured(LogFormat.AUTO)
    structlog.get_logger().info("a.b")
    assert _lines(written)[0]["event"] == "a.b"


class _FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_does_not_stop_the_work(
    configured: Callable[..., io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured()
    monkeypatch.setattr(sys, "stderr", _FullDisk())
    structlog.get_logger().error("a.b")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger().error("a.b")


def test_lines_of_many_threads_do_not_mix(configured: Callable[..., io.StringIO]) -> None:
    written = configured()

    def write() -> None:
        for number in range(200):
            structlog.get_logger().info("a.b", number=number, text="x" * 200)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_lines(written)) == 800
