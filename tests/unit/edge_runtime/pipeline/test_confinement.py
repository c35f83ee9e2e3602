"""What crashes, hangs or starves a library becomes a refusal, not the end of the command."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from simulators.model_package import write_model_package

from edge_runtime.pipeline.answers import CheckName, CheckStatus, Verification
from edge_runtime.pipeline.confinement import Bounds, verify_confined
from engines.contract import Backend


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("confined") / "package"
    write_model_package(folder)
    return folder


def refusal(verification: Verification) -> str:
    """Every check has its answer, and the first that failed is the last that ran."""
    assert [answer.name for answer in verification.answers] == list(CheckName)
    fault = verification.fault
    assert fault is not None
    later = verification.answers[list(CheckName).index(fault.name) + 1 :]
    assert {answer.status for answer in later} <= {CheckStatus.NOT_RUN}
    return fault.found


def test_a_good_package_passes_within_its_bounds(folder: Path) -> None:
    ticks: list[None] = []
    found = verify_confined(folder, Backend.ONNXRUNTIME, on_tick=lambda: ticks.append(None))
    assert found.fault is None
    assert [answer.name for answer in found.answers] == list(CheckName)
    assert found.deviation is not None
    assert ticks


def test_a_library_that_gets_no_memory_refuses_the_package(folder: Path) -> None:
    bounds = Bounds(memory_bytes=64 * 1024**2)
    words = refusal(verify_confined(folder, Backend.ONNXRUNTIME, bounds=bounds))
    assert words.startswith("the libraries could not check it: it")


def test_a_check_without_end_is_ended(folder: Path) -> None:
    found = verify_confined(folder, Backend.ONNXRUNTIME, bounds=Bounds(wall_s=0.0))
    assert refusal(found) == "the libraries could not check it: it took too long"


def processes_that_check() -> list[psutil.Process]:
    """Our children; multiprocessing may have one here too, which other tests need."""
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "edge_runtime.pipeline.confined" in child.cmdline()
    ]


def test_a_crash_of_the_process_refuses_the_package(folder: Path) -> None:
    def crash() -> None:
        for child in processes_that_check():
            child.send_signal(signal.SIGSEGV)

    words = refusal(verify_confined(folder, Backend.ONNXRUNTIME, on_tick=crash))
    assert words == "the libraries could not check it: it crashed (signal 11)"


def test_whoever_gives_up_leaves_no_process_behind(folder: Path) -> None:
    def give_up() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_confined(folder, Backend.ONNXRUNTIME, on_tick=give_up)
    assert processes_that_check() == []


def test_the_process_does_not_outlive_the_one_that_asked(folder: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from edge_runtime.pipeline.confinement import verify_confined\n"
        "from engines.contract import Backend\n"
        "tick = lambda: print(flush=True)\n"
        "verify_confined(Path(sys.argv[1]), Backend.ONNXRUNTIME, on_tick=tick)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, folder], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        (checking,) = psutil.Process(asking.pid).children()
        asking.kill()
    checking.wait(timeout=60)
