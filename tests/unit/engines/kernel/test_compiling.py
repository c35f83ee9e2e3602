"""The sources compile for every device that is named, and what was compiled is kept sealed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from simulators.fused import FusedKernel

from engines.device.contract import DeviceInfo
from engines.device.host import HostDevice
from engines.errors import KernelBuildError
from engines.kernel import compiling
from engines.kernel.compiling import (
    DEVICE_FLAGS,
    DEVICE_SOURCE,
    HOST_FLAGS,
    HOST_SOURCE,
    Target,
    compile_by_nvcc,
    compile_by_nvrtc,
    compile_for_host,
    compile_kernels,
    compiled_kernels,
    find_nvcc,
    sources,
)
from engines.plans.sealed import SealedKind
from engines.plans.sealed_folder import SealedFolder

# Jetson Orin, H100 and H200, Jetson Thor.
ARCHITECTURES = ("sm_87", "sm_90", "sm_110")
ELF = b"\x7fELF"
HERE = os.environ


def info(capability: tuple[int, int], driver_version: int = 13000) -> DeviceInfo:
    return DeviceInfo(
        library="host",
        library_version="1",
        name="a device",
        compute_capability=capability,
        driver_version=driver_version,
        total_bytes=1,
        is_integrated=False,
    )


@pytest.fixture(scope="module")
def nvcc() -> Path:
    found = find_nvcc(HERE)
    if found is None:
        pytest.skip("no nvcc here (CUDA_HOME, /usr/local/cuda or the PATH): nothing for a GPU")
    return found


@pytest.fixture
def source_folder(tmp_path: Path) -> Path:
    for name, text in sources().items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        command, cwd=cwd, check=False, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def skip_unknown(nvcc: Path, architecture: str, folder: Path) -> None:
    known = run(nvcc, "--list-gpu-code", cwd=folder).split()
    if architecture not in known:
        pytest.skip(f"this nvcc does not know {architecture}, only {', '.join(known)}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvcc_compiles_the_kernels_without_a_warning(
    nvcc: Path, source_folder: Path, architecture: str
) -> None:
    skip_unknown(nvcc, architecture, source_folder)
    strict = ("-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra", "-Xptxas", "-v")
    command = (nvcc, *DEVICE_FLAGS, *strict, f"-arch={architecture}", "-cubin", "-o", "kernels")
    said = run(*command, DEVICE_SOURCE, cwd=source_folder)
    assert (source_folder / "kernels").read_bytes().startswith(ELF)
    kernels = [line for line in said.splitlines() if "spill" in line]
    assert len(kernels) == 3
    assert all("0 bytes spill stores, 0 bytes spill loads" in line for line in kernels)


def test_no_product_and_sum_share_one_rounding_on_a_gpu(nvcc: Path, source_folder: Path) -> None:
    run(nvcc, *DEVICE_FLAGS, "-ptx", "-o", "kernels", DEVICE_SOURCE, cwd=source_folder)
    ptx = (source_folder / "kernels").read_text()
    assert "mul.f32" in ptx or "mul.rn.f32" in ptx
    assert "fma" not in ptx
    for name in ("edge_triage_place", "edge_triage_map", "edge_triage_channels"):
        assert f".entry {name}(" in ptx


def test_nvcc_is_found_where_nvidia_puts_it(tmp_path: Path) -> None:
    for name in ("home", "path"):
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin" / "nvcc").write_text("#!/bin/sh\n")
        (tmp_path / name / "bin" / "nvcc").chmod(0o755)
    home, path = str(tmp_path / "home"), str(tmp_path / "path" / "bin")
    expected = tmp_path / "home" / "bin" / "nvcc"
    assert find_nvcc({"CUDA_HOME": home, "PATH": path}) == expected
    assert find_nvcc({"CUDA_PATH": home}) == expected
    assert find_nvcc({"CUDA_HOME": str(tmp_path), "PATH": path}) is not None


def test_device_code_by_nvcc_is_a_cubin(nvcc: Path, tmp_path: Path) -> None:
    skip_unknown(nvcc, "sm_87", tmp_path)
    assert compile_by_nvcc("sm_87").startswith(ELF)


def test_nvcc_refuses_what_it_does_not_know(nvcc: Path) -> None:
    assert nvcc
    with pytest.raises(KernelBuildError, match="refused"):
        compile_by_nvcc("sm_1")


def nvrtc_or_skip(architecture: str) -> bytes:
    try:
        return compile_by_nvrtc(architecture)
    except KernelBuildError as error:
        if "no NVRTC" in str(error):
            pytest.skip(f"cuda-bindings finds no NVRTC: {error}")
        raise


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nvrtc_compiles_the_kernels(architecture: str) -> None:
    assert nvrtc_or_skip(architecture).startswith(ELF)


def test_nvrtc_says_why_it_refuses() -> None:
    nvrtc_or_skip("sm_90")
    with pytest.raises(KernelBuildError, match="arch"):
        compile_by_nvrtc("sm_1")


@pytest.mark.parametrize("flags", [("-O0", "-g"), ("-O3",), ("-O3", "-march=native")])
def test_the_host_compiles_the_kernels_without_a_warning(
    host_image: bytes, source_folder: Path, flags: tuple[str, ...]
) -> None:
    assert host_image  # there is a compiler
    strict = ("-Wall", "-Wextra", "-Wshadow", "-Werror")
    run("c++", *HOST_FLAGS, *strict, *flags, "-o", "kernels", HOST_SOURCE, cwd=source_folder)


def test_a_host_without_a_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KernelBuildError, match=r"install g\+\+"):
        compile_for_host()


def test_a_gpu_without_any_compiler_has_both_reasons_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling, "_STANDARD_CUDA", Path("/nowhere"))
    monkeypatch.setattr(compiling, "_NVRTC", "no_such_package.nvrtc")
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KernelBuildError) as caught:
        compile_kernels(Target.of(info((8, 7))))
    for words in ("no NVRTC", "no nvcc", "Install", "sm_87", "processor"):
        assert words in str(caught.value)


def test_a_target_is_named_as_nvidia_names_it() -> None:
    assert Target.of(info((8, 7))).architecture == "sm_87"
    assert Target.of(info((11, 0))).architecture == "sm_110"
    assert Target.of(info((0, 0))).is_host


def keys() -> Iterator[bytes]:
    yield Target.of(info((0, 0))).key()
    yield Target.of(info((8, 7))).key()
    yield Target.of(info((9, 0))).key()
    yield Target.of(info((9, 0), driver_version=13010)).key()


def test_whatever_changes_the_code_changes_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = list(keys())
    assert len(set(before)) == len(before)
    assert list(keys()) == before
    changed = {**sources(), HOST_SOURCE: "// other\n"}
    monkeypatch.setattr(compiling, "sources", lambda: changed)
    assert not set(keys()) & set(before)


def test_what_was_compiled_is_kept_and_found_without_a_compiler(
    host_image: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host_image  # there is a compiler
    kept = SealedFolder(tmp_path / "plans")
    with HostDevice() as device:
        first = compiled_kernels(device.info, kept)
        monkeypatch.setenv("PATH", "")
        assert compiled_kernels(device.info, kept) == first
        device.load_module(first)


def test_what_somebody_else_put_there_is_not_loaded(
    host_image: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host_image  # there is a compiler
    kept = SealedFolder(tmp_path / "plans")
    with HostDevice() as device:
        compiled_kernels(device.info, kept)
        (stored,) = (tmp_path / "plans").glob(f"*.{SealedKind.KERNEL.value}")
        content = bytearray(stored.read_bytes())
        content[-100] ^= 1
        stored.write_bytes(content)
        monkeypatch.setenv("PATH", "")
        with pytest.raises(KernelBuildError):
            compiled_kernels(device.info, kept)


def test_a_host_image_is_what_a_host_device_loads(kernel: FusedKernel) -> None:
    module: Any = kernel.device.load_module(kernel.kernels)
    module.free()
