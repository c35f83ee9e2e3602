"""An engine that ends the process that opens it does so a few times, and is passed over then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from simulators import ended_while_opening
from structlog.testing import capture_logs

from engines.contract import AcceleratorOptions, Backend, EngineOptions
from engines.errors import EngineEndsProcessError, EngineLoadError
from engines.trials import MOST_ENDS, Asker, trial

_MODEL = "5a" * 32
_OWN, _REFERENCE = Backend.TENSORRT, Backend.ONNXRUNTIME


@pytest.fixture
def options(tmp_path: Path) -> EngineOptions:
    return EngineOptions(accelerator=AcceleratorOptions(folder=tmp_path / "engines"))


def start(package: Path, engines: Path) -> tuple[int, list[dict[str, Any]]]:
    """Start a device in a process of its own; return how that ended, and what it told."""
    done = subprocess.run(
        [sys.executable, "-m", ended_while_opening.__name__, package, engines],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    # The log goes to the same place; its lines are no JSON here.
    lines = [line for line in done.stdout.splitlines() if line.startswith(b"{")]
    return done.returncode, [json.loads(line) for line in lines]


def ended(options: EngineOptions, asker: Asker, backend: Backend = _OWN) -> int:
    """Open without ending; return what the engine would be told."""
    with trial(backend, _MODEL, options, asker) as ready:
        assert ready.accelerator is not None
        return ready.accelerator.processes_ended


_ENDS = """
import os, signal, sys
from pathlib import Path
from engines.contract import AcceleratorOptions, Backend, EngineOptions
from engines.trials import Asker, trial
options = EngineOptions(accelerator=AcceleratorOptions(folder=Path(sys.argv[1])))
for _ in range(int(sys.argv[3])):
    child = os.fork()
    if not child:
        with trial(Backend.TENSORRT, sys.argv[2], options, Asker.PERSON):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
"""


def end_process(options: EngineOptions, times: int) -> None:
    """Kill so many processes, one after the other, while they open the engine."""
    assert options.accelerator is not None
    folder = str(options.accelerator.folder)
    command = [sys.executable, "-c", _ENDS, folder, _MODEL, str(times)]
    subprocess.run(command, timeout=120, check=True, stdout=subprocess.DEVNULL)


def test_a_device_whose_engine_ends_it_runs_the_next_one_after_three_starts(
    builder: Any, tmp_path: Path
) -> None:
    package = builder.write()
    engines = tmp_path / "engines"
    for times in range(MOST_ENDS):
        code, told = start(package, engines)
        assert code == -signal.SIGKILL
        assert told == [{"opening": "tensorrt", "ended": times}]
    for _ in range(2):
        code, (opening, passed_over, runs) = start(package, engines)
        assert code == 0
        assert opening["opening"] == runs["runs"] == "onnxruntime"
        assert (passed_over["passed_over"], passed_over["obstacle"]) == ("tensorrt", "failed")
        assert "edge-triage engines verify" in passed_over["detail"]


def test_what_opens_has_ended_nothing(options: EngineOptions) -> None:
    end_process(options, 2)
    assert ended(options, Asker.DEVICE) == 2
    assert ended(options, Asker.DEVICE) == 0


def test_what_raises_has_ended_nothing(options: EngineOptions) -> None:
    end_process(options, 1)
    with (
        pytest.raises(EngineLoadError, match="refused"),
        trial(_OWN, _MODEL, options, Asker.DEVICE),
    ):
        raise EngineLoadError("refused")
    assert ended(options, Asker.DEVICE) == 0


def test_a_person_tries_what_the_device_leaves_alone(options: EngineOptions) -> None:
    end_process(options, MOST_ENDS + 1)
    with pytest.raises(EngineEndsProcessError):
        ended(options, Asker.DEVICE)
    assert ended(options, Asker.PERSON) == MOST_ENDS + 1
    assert ended(options, Asker.DEVICE) == 0


def test_an_examiner_stays_away_and_changes_nothing(options: EngineOptions) -> None:
    assert options.accelerator is not None
    assert ended(options, Asker.EXAMINER) == 0
    assert not options.accelerator.folder.exists()
    end_process(options, 1)
    for _ in range(2):
        with pytest.raises(EngineEndsProcessError, match="the last process that"):
            ended(options, Asker.EXAMINER)
    assert ended(options, Asker.DEVICE) == 1


def test_who_opens_it_meanwhile_is_not_counted_as_ended(options: EngineOptions) -> None:
    end_process(options, MOST_ENDS - 1)
    with trial(_OWN, _MODEL, options, Asker.DEVICE):
        assert ended(options, Asker.DEVICE) == 0  # the first one puts aside what is suspect
        with pytest.raises(EngineEndsProcessError, match=f"the last {MOST_ENDS - 1} processes"):
            ended(options, Asker.EXAMINER)
    assert ended(options, Asker.EXAMINER) == 0
    with trial(_OWN, _MODEL, options, Asker.DEVICE):
        assert ended(options, Asker.EXAMINER) == 0


def test_each_engine_of_each_model_counts_for_itself(options: EngineOptions) -> None:
    end_process(options, MOST_ENDS)
    assert ended(options, Asker.DEVICE, Backend.TENSORRT_RTX) == 0
    with trial(_OWN, "0c" * 32, options, Asker.DEVICE):
        pass
    with pytest.raises(EngineEndsProcessError):
        ended(options, Asker.DEVICE)


def test_the_reference_is_never_left_alone(options: EngineOptions) -> None:
    assert options.accelerator is not None
    assert ended(options, Asker.DEVICE, _REFERENCE) == 0
    assert not options.accelerator.folder.exists()
    with trial(_OWN, _MODEL, EngineOptions(), Asker.DEVICE) as ready:
        assert ready == EngineOptions()


def test_an_engine_is_opened_where_nothing_can_be_written(options: EngineOptions) -> None:
    assert options.accelerator is not None
    options.accelerator.folder.write_bytes(b"")
    with capture_logs() as logs:
        assert ended(options, Asker.DEVICE) == 0
    assert [line["event"] for line in logs] == ["engine.trial_not_counted"]


@pytest.mark.parametrize("written", [b"", b"three", b"-1", b"99999999"])
def test_a_number_that_is_none_begins_anew_or_counts(
    options: EngineOptions, written: bytes
) -> None:
    assert options.accelerator is not None
    end_process(options, 1)
    (path,) = (options.accelerator.folder / "trials").glob(f"{_MODEL}.tensorrt")
    path.write_bytes(written)
    assert ended(options, Asker.PERSON) in {0, 9999}
    assert ended(options, Asker.DEVICE) == 0
