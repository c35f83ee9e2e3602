"""Which library opens a device, and what is said where none can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from simulators.fake_cuda.building import FakeCuda, build_fake_cuda

from engines.contract import CudaLibrary
from engines.device.opening import installed_libraries, open_device
from engines.errors import DeviceUnavailableError

_DEADLINE_S = 60
_SCRIPT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[3].split(",") if sys.argv[3] else []))
from engines.contract import CudaLibrary
from engines.device.opening import open_device
from engines.errors import DeviceUnavailableError
try:
    libraries = [CudaLibrary(each) for each in sys.argv[1].split(",")]
    with open_device(libraries, int(sys.argv[2]), least_version=12000) as device:
        info = device.info
        print(info.library, info.name, *info.compute_capability, info.driver_version, end=" ")
        print(info.total_bytes, info.is_integrated)
except DeviceUnavailableError as error:
    print(error)
"""

_BOTH = "pycuda,cuda-bindings"
_needs_both = pytest.mark.skipif(
    len(installed_libraries()) < 2, reason="pycuda and cuda-bindings are not both installed here"
)


def answer(
    environment: dict[str, str], libraries: str = _BOTH, index: int = 0, absent: str = ""
) -> str:
    """What a process says that opens a device, where modules are absent."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _SCRIPT, libraries, str(index), absent],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@_needs_both
def test_the_first_library_of_the_preference_is_taken(fake_cuda: FakeCuda) -> None:
    environment = fake_cuda.environment()
    assert answer(environment).startswith("pycuda Fake GPU 0 8 7 13000 ")
    assert answer(environment, "cuda-bindings,pycuda").startswith("cuda-bindings Fake GPU 0 8 7")


@_needs_both
def test_both_libraries_say_the_same_of_a_device(fake_cuda: FakeCuda) -> None:
    environment = fake_cuda.environment(
        version=12060, compute=110, integrated=1, total=1 << 33, devices=2
    )
    said = [answer(environment, library, 1).partition(" ")[2] for library in _BOTH.split(",")]
    assert said == [f"Fake GPU 1 11 0 12060 {1 << 33} True"] * 2


@_needs_both
def test_where_the_first_is_absent_the_next_is_taken(fake_cuda: FakeCuda) -> None:
    environment = fake_cuda.environment()
    absent = {"pycuda": "pycuda,pycuda.driver", "cuda-bindings": "cuda.bindings.driver"}
    assert answer(environment, _BOTH, absent=absent["pycuda"]).startswith("cuda-bindings ")
    assert answer(environment, "cuda-bindings,pycuda", absent=absent["cuda-bindings"]).startswith(
        "pycuda "
    )


def test_where_none_can_be_used_every_reason_is_given(fake_cuda: FakeCuda) -> None:
    absent = "pycuda,pycuda.driver,cuda.bindings.driver"
    text = answer(fake_cuda.environment(), absent=absent)
    assert "pycuda is not installed" in text
    assert "cuda-bindings cannot be used" in text
    assert text.count("install the extra `gpu`") == 2


@_needs_both
def test_a_pycuda_of_another_cuda_is_passed_over(tmp_path: Path, fake_cuda: FakeCuda) -> None:
    assert fake_cuda.folder.exists()
    older = build_fake_cuda(tmp_path, without=("cuCtxCreate_v4",))
    environment = older.environment(version=12060)
    assert answer(environment).startswith("cuda-bindings Fake GPU 0")
    text = answer(environment, "pycuda")
    assert "does not fit this driver" in text
    assert "cuCtxCreate_v4" in text
    assert "prefer cuda-bindings" in text


@pytest.mark.parametrize("index", [1, 7, -1])
def test_a_gpu_that_is_not_there_is_named(fake_cuda: FakeCuda, index: int) -> None:
    text = answer(fake_cuda.environment(), index=index)
    assert f"there is no GPU {index}" in text
    assert "shows 1" in text


def test_the_driver_is_asked_before_any_library(fake_cuda: FakeCuda) -> None:
    assert "update the driver" in answer(fake_cuda.environment(version=11080))
    assert "CUDA_ERROR_NO_DEVICE" in answer(fake_cuda.environment(devices=0))


def test_a_driver_that_lacks_a_function_is_an_error_and_no_crash(fake_cuda: FakeCuda) -> None:
    if CudaLibrary.CUDA_BINDINGS not in installed_libraries():
        pytest.skip("cuda-bindings is not installed here")
    script = """
from engines.contract import CudaLibrary
from engines.device.opening import open_device
from engines.errors import DeviceError
with open_device([CudaLibrary.CUDA_BINDINGS]) as device:
    stream = device.stream()
    try:
        device.capture(stream, lambda: None)
    except DeviceError as error:
        print(error)
    stream.synchronize()
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=fake_cuda.environment(missing="cuGraphInstantiateWithFlags"),
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=True,
    )
    assert "cuGraphInstantiateWithFlags" in done.stdout


def test_no_library_at_all_is_a_setting_to_mend() -> None:
    with pytest.raises(DeviceUnavailableError, match="name one"):
        open_device([])


def test_the_adapters_are_imported_without_any_library_of_the_vendor() -> None:
    script = """
import sys
import engines.device.opening
print([name for name in sys.modules if name.startswith(("pycuda", "cuda."))])
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=True,
    )
    assert done.stdout.strip() == "[]"
