"""How processes and threads end that use a device, well or badly: no abort, nothing held.

pycuda ends the process (SIGABRT) where a thread ends with a context of its own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from simulators.fake_cuda.building import FakeCuda

from engines.contract import CudaLibrary

_DEADLINE_S = 60
_BEGIN = """
import gc, os, sys, threading
import numpy as np
from engines.contract import CudaLibrary
from engines.device.opening import open_device

device = open_device([CudaLibrary(sys.argv[1])])

def take():
    taken = [device.stream(), device.allocate(64), device.event(), device.pinned((4,), np.float32)]
    device.copy_in(taken[1], taken[3].array, taken[0])
    return taken

def in_thread(work):
    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join(30)
"""

_CLEAN = {
    "leaving": "with device: take()",
    "sys.exit inside": "with device:\n    take()\n    sys.exit(0)",
    "an error inside": """
try:
    with device:
        take()
        raise KeyError
except KeyError as error:
    kept = error
""",
    "an error of the library inside": """
from engines.errors import DeviceError
try:
    with device:
        kept = take()
        module = device.load_module(b"none")
except DeviceError as error:
    kept = [kept, error]
""",
    "a thread that enters and leaves": """
def work():
    with device: take()
in_thread(work)
""",
    "a thread that ends with resources, left by the main thread": """
with device:
    in_thread(take)
    gc.collect()
""",
    "a thread that enters, and the main thread that leaves": """
in_thread(device.__enter__)
in_thread(take)
device.__exit__(None, None, None)
""",
    "many threads, one after the other": """
with device:
    for _ in range(20): in_thread(take)
""",
    "two devices, left in the order of their entering": """
other = open_device([CudaLibrary(sys.argv[1])])
device.__enter__(); other.__enter__()
taken = take()
other.copy_in(other.allocate(16), np.zeros(4, np.float32), other.stream())
device.__exit__(None, None, None); other.__exit__(None, None, None)
""",
}

_ABANDONED = {
    "never left": "device.__enter__()\nkept = take()",
    "never left, by a thread": "in_thread(device.__enter__)\nin_thread(take)",
    "never left, and collected": "device.__enter__()\ntake()\ndel device\ngc.collect()",
    "ended inside current": """
device.__enter__()
with device.current():
    take()
    sys.exit(0)
""",
    "a daemon thread inside": """
inside = threading.Event()
def work():
    with device, device.current():
        take()
        inside.set()
        threading.Event().wait()
threading.Thread(target=work, daemon=True, name="stuck").start()
inside.wait(30)
""",
}


def ended(
    script: str, library: CudaLibrary, fake_cuda: FakeCuda, folder: Path
) -> tuple[subprocess.CompletedProcess[str], dict[str, int]]:
    report = folder / "report"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _BEGIN + script, library.value],
        env=fake_cuda.environment(report=str(report)),
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    lines = report.read_text().splitlines() if report.exists() else []
    return done, {name: int(count) for name, count in map(str.split, lines)}


@pytest.mark.parametrize("how", _CLEAN)
def test_a_process_ends_well_and_holds_nothing(
    fake_cuda: FakeCuda, installed: CudaLibrary, how: str, tmp_path: Path
) -> None:
    done, counts = ended(_CLEAN[how], installed, fake_cuda, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert not any(counts.values()), counts
    assert "device" in counts


@pytest.mark.parametrize("how", _ABANDONED)
def test_a_process_that_never_leaves_its_device_ends_without_an_abort(
    fake_cuda: FakeCuda, installed: CudaLibrary, how: str, tmp_path: Path
) -> None:
    done, counts = ended(_ABANDONED[how], installed, fake_cuda, tmp_path)
    assert done.returncode == 0, done.stderr
    assert counts["violations"] == 0
