"""The device's checks, on the host and on a libcuda of our own through both real libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from simulators.fake_cuda.building import build_fake_cuda, why_not
from simulators.gpu_check_rows import Found
from simulators.tensorrt_launchers import HostLauncher, RoomyHost

from engines.contract import CudaLibrary
from engines.device.library import Array
from engines.device.opening import installed_libraries
from engines.device.resources import Buffer, Stream
from tools.gpu_check.device_step import Extent, check_device, check_reopening
from tools.gpu_check.rows import Verdict, read_rows

SMALL = Extent(copy_bytes=1 << 20, rounds=20)


class Host(RoomyHost):
    """The host, whatever else this machine does with its memory."""

    def __init__(self) -> None:
        super().__init__(HostLauncher(), 1 << 30)


class Forgetful(Host):
    """Copies from the device do nothing."""

    def copy_out(self, array: Array, buffer: Buffer, stream: Stream, *, offset: int = 0) -> None:
        """As said."""


def test_the_host_keeps_the_contract(found: Found) -> None:
    check_device(found.file, "host", Host(), extent=SMALL)
    check_reopening(found.file, "host", Host)
    assert found.failed() == []
    assert len(found.verdicts()) > 15


def test_a_device_that_copies_wrongly_is_found_out(found: Found) -> None:
    check_device(found.file, "host", Forgetful(), extent=SMALL)
    failed = " ".join(found.failed())
    assert "come back unchanged" in failed
    assert "a graph replays with new content" in failed
    assert "a stream waits for another's event" in failed


def test_both_libraries_keep_the_contract_on_a_libcuda_of_our_own(tmp_path: Path) -> None:
    libraries = installed_libraries()
    if reason := why_not() or (None if libraries else "neither pycuda nor cuda-bindings is here"):
        pytest.skip(reason)
    fake = build_fake_cuda(tmp_path / "fake")
    # A process of its own: libcuda has to be in front before anything is loaded.
    code = (
        "import sys; from pathlib import Path; from tools.gpu_check import device_step; "
        "from tools.gpu_check.rows import RowFile; "
        "extent = device_step.Extent(copy_bytes=1 << 20, rounds=100); "
        "device_step.check(RowFile(Path(sys.argv[1]), 'device'), Path(), extent=extent)"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "device.jsonl"],
        env=fake.environment(),
        check=True,
        timeout=200,
    )
    rows = read_rows(tmp_path / "device.jsonl")
    assert [row for row in rows if row.verdict is Verdict.FAILED] == []
    held = {row.subject for row in rows if row.verdict is Verdict.OK}
    assert held == {library.value for library in libraries}
    absent = {row.subject for row in rows if row.verdict is Verdict.NOT_HERE}
    assert absent == {library.value for library in CudaLibrary} - held
