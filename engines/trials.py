"""Engines that end the process that opens them: counted, so that no device does that for ever.

A library for a GPU may end its process, or hang until somebody ends it, while it takes a plan. No
error is raised then that would pass the engine over, and the next start would do the same. So a
number is kept beside the plans: written before an engine is opened, gone when that has come to any
end that this process lives to see.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import structlog

from engines.contract import Backend, EngineOptions
from engines.durable import write_durably
from engines.errors import EngineBuildError, EngineEndsProcessError
from engines.plans.locks import held, is_held

MOST_ENDS = 3
"""Of processes in a row, after which an engine is opened for a person only."""

_FOLDER = "trials"
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_MOST_DIGITS = 4

_log = structlog.get_logger()


class Asker(Enum):
    """On whose behalf an engine is opened."""

    DEVICE = "device"
    """It starts by itself, again and again."""
    PERSON = "person"
    """Somebody who wants to know tries it whatever came of it before."""
    EXAMINER = "examiner"
    """Changes nothing, and must not be ended itself."""


@contextlib.contextmanager
def trial(
    backend: Backend, model_sha256: str, options: EngineOptions, asker: Asker
) -> Iterator[EngineOptions]:
    """Be the block in which an engine is opened; nothing is counted on the processor.

    Args:
        backend: Whose engine it is.
        model_sha256: Of its model.
        options: With which it would be opened.
        asker: Who wants it.

    Yields:
        The options with which to open it, which tell how often that ended a process.

    Raises:
        EngineEndsProcessError: It did so too often.
    """
    accelerator = options.accelerator
    if accelerator is None or backend is Backend.ONNXRUNTIME:
        yield options
        return
    path = accelerator.folder / _FOLDER / f"{model_sha256}.{backend.value}"
    with contextlib.ExitStack() as counted:
        is_alone = asker is not Asker.EXAMINER and _locks(path, accelerator.folder, counted)
        ends = _ends(path, is_alone=is_alone)
        if ends >= (1 if asker is Asker.EXAMINER else MOST_ENDS) and asker is not Asker.PERSON:
            whom = "the last process" if ends == 1 else f"the last {ends} processes"
            raise EngineEndsProcessError(
                f"opening it ended {whom} that tried, without a word of why, so that it is not "
                "opened now: look for the driver in the system's log, then run `edge-triage "
                "engines verify`, which tries it once more"
            )
        if is_alone:
            _count(path, ends + 1, counted)
        if is_alone and ends:
            _log.warning("engine.ended_its_process", backend=backend.value, times=ends)
            accelerator = dataclasses.replace(accelerator, processes_ended=ends)
        yield dataclasses.replace(options, accelerator=accelerator)


def _locks(path: Path, folder: Path, counted: contextlib.ExitStack) -> bool:
    """Be the one that opens this engine and counts, until ``counted`` is left; False: another is.

    Who cannot count opens it all the same: a full disk is no reason to be without an engine.
    """
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        path.parent.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        counted.enter_context(held(_lock_of(path), on_wait=lambda: False))
    except EngineBuildError:
        return False
    except OSError as error:
        _log.warning("engine.trial_not_counted", reason=str(error.strerror))
        return False
    return True


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _ends(path: Path, *, is_alone: bool) -> int:
    """How many processes ended; the one that opens the engine just now has counted itself."""
    try:
        with path.open("rb") as stream:
            written = int(stream.read(_MOST_DIGITS))
        lives = not is_alone and is_held(_lock_of(path))
    except (OSError, ValueError):
        return 0
    return max(0, written - lives)


def _count(path: Path, number: int, counted: contextlib.ExitStack) -> None:
    try:
        write_durably(path, [b"%d" % number], mode=_FILE_MODE)
    except OSError as error:
        _log.warning("engine.trial_not_counted", reason=str(error.strerror))
    counted.callback(_forget, path)


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
