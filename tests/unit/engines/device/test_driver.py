"""``find_driver`` names what is wrong, and never crashes; each case is a process of its own."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from simulators.fake_cuda.building import FakeCuda, compile_library

from engines.device.driver import DriverState, error_name, find_driver, load_driver, version_text
from engines.errors import DeviceUnavailableError

_DEADLINE_S = 60
_SCRIPT = """
import sys
from engines.device.driver import find_driver
from engines.errors import DeviceUnavailableError
try:
    state = find_driver(int(sys.argv[1]))
    print("found", state.version, state.devices)
except DeviceUnavailableError as error:
    print(error)
"""


def answer(environment: dict[str, str], least_version: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(least_version)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_driver_with_a_device_is_found(fake_cuda: FakeCuda) -> None:
    assert answer(fake_cuda.environment()) == "found 13000 1"
    assert answer(fake_cuda.environment(version=12060, devices=3)) == "found 12060 3"
    assert answer(fake_cuda.environment(version=12060), least_version=12060) == "found 12060 1"


def test_a_driver_that_is_too_old_is_named_with_both_versions(fake_cuda: FakeCuda) -> None:
    text = answer(fake_cuda.environment(version=11080), least_version=12060)
    assert "serves CUDA 11.8, and 12.6 is needed: update the driver" in text
    text = answer(fake_cuda.environment(version=11080, init=999), least_version=12060)
    assert "update the driver" in text


def test_a_driver_without_a_device_is_named(fake_cuda: FakeCuda) -> None:
    text = answer(fake_cuda.environment(devices=0))
    assert "CUDA_ERROR_NO_DEVICE" in text
    assert "CUDA_VISIBLE_DEVICES" in text
    assert "[engine]" in text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "start it anew"),
        (34, "stub of a CUDA toolkit"),
        (46, "in use by a process"),
        (802, "still starting"),
        (803, "restart the device"),
        (804, "LD_LIBRARY_PATH"),
        (999, "dmesg"),
        (12345, "cuInit: 12345"),
    ],
)
def test_what_the_driver_says_has_its_remedy(fake_cuda: FakeCuda, code: int, words: str) -> None:
    text = answer(fake_cuda.environment(init=code))
    assert "does not start" in text
    assert words in text


def library_in(folder: Path) -> FakeCuda:
    return FakeCuda(folder=folder)


def test_a_file_that_is_no_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so.1").write_bytes(b"junk")
    text = answer(library_in(tmp_path).environment())
    assert "no CUDA driver can be loaded here" in text
    assert "libcuda.so.1" in text


@pytest.mark.usefixtures("fake_cuda")  # compiles, or says why not
@pytest.mark.parametrize(
    "source",
    [
        "int nothing(void);\nint nothing(void) { return 0; }\n",
        "int cuDriverGetVersion(int *v);\nint cuDriverGetVersion(int *v) { return !v; }\n",
    ],
    ids=["empty", "half"],
)
def test_a_library_that_is_no_driver_is_named(tmp_path: Path, source: str) -> None:
    compile_library(source, tmp_path / "libcuda.so.1")
    text = answer(library_in(tmp_path).environment())
    assert "is no CUDA driver" in text
    assert "install the GPU's driver again" in text


@pytest.mark.usefixtures("fake_cuda")
def test_a_driver_that_starts_and_shows_no_device_is_named(tmp_path: Path) -> None:
    source = """
int cuInit(unsigned f);
int cuInit(unsigned f) { return (int)f; }
int cuDriverGetVersion(int *v);
int cuDriverGetVersion(int *v) { return *v = 13000, 0; }
int cuDeviceGetCount(int *n);
int cuDeviceGetCount(int *n) { return *n = 0; }
"""
    compile_library(source, tmp_path / "libcuda.so.1")
    assert "shows no device" in answer(library_in(tmp_path).environment())


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="this machine has a CUDA driver")
def test_a_machine_without_a_driver_is_told_where_one_comes_from() -> None:
    for look in (find_driver, load_driver):
        with pytest.raises(DeviceUnavailableError, match="JetPack") as caught:
            look()
        assert "NVIDIA runtime" in str(caught.value)
        assert "[engine]" in str(caught.value)


def test_versions_are_written_as_people_do() -> None:
    assert version_text(13000) == "13.0"
    assert version_text(12060) == "12.6"
    assert version_text(11080) == "11.8"
    assert DriverState(version=13000, devices=1).devices == 1


def test_a_driver_without_names_of_errors_leaves_the_number() -> None:
    assert error_name(ctypes.CDLL(None), 100) == "100"
