"""What this GPU can do at most: every share that other steps tell is a share of these.

Memory: a copy within the GPU's memory, bytes read and bytes written. Arithmetic: a product of large
matrices by PyTorch, where it is here; TF32 is off, as it is in our engines.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engines.contract import CudaLibrary
from engines.device.contract import Device, Stream
from engines.device.driver import load_driver
from engines.device.opening import open_device
from engines.errors import DeviceError
from tools.gpu_check.rows import RowFile, number

FILE = "ceilings.json"

_LARGEST_BYTES = 2 * 1024**3
"""Many times what the largest cache holds."""
_SHARE_OF_FREE = 8
_REPEATS = 10
_ROUNDS = 15
_MATRIX = 8192
_MATRIX_OPERATIONS = 2 * _MATRIX**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceilings:
    """Per second; None where it was not measured."""

    memory_bytes: float | None = None
    fp32_operations: float | None = None
    fp16_operations: float | None = None


def read_ceilings(folder: Path) -> Ceilings:
    """What this step left in the folder; nothing where it did not run."""
    path = folder / FILE
    return Ceilings(**json.loads(path.read_text("utf-8"))) if path.exists() else Ceilings()


def check(rows: RowFile, folder: Path) -> None:
    """Measure, tell, and leave the figures for later steps.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    with open_device(tuple(CudaLibrary)) as device:
        memory = _memory_speed(rows, device)
    fp32, fp16 = _matrix_rates(rows)
    ceilings = Ceilings(memory_bytes=memory, fp32_operations=fp32, fp16_operations=fp16)
    (folder / FILE).write_text(json.dumps(asdict(ceilings)), encoding="utf-8")


def _memory_speed(rows: RowFile, device: Device) -> float | None:
    try:
        speed = measure_copies(device)
    except (AttributeError, DeviceError) as error:
        rows.not_here("memory", f"this driver makes no copy within the GPU ({error})")
        return None
    rows.add("memory", "copy within, read and written", f"{number(speed / 1e9)} GB/s", is_key=True)
    return speed


def measure_copies(device: Device) -> float:
    """Bytes per second, read and written.

    Raises:
        AttributeError: The driver has no such function.
        DeviceError: It refused.
    """
    nbytes = min(_LARGEST_BYTES, device.memory().free_bytes // _SHARE_OF_FREE)
    source, target, stream = device.allocate(nbytes), device.allocate(nbytes), device.stream()
    # The Device contract has no such copy: no engine needs one.
    copy = load_driver().cuMemcpyDtoDAsync_v2
    copy.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t, ctypes.c_void_p]

    def work() -> None:
        if code := copy(target.address, source.address, nbytes, stream.pointer):
            raise DeviceError(f"the driver refused a copy within the GPU: CUresult {code}")

    with device.current():
        seconds = time_on_device(device, stream, work, repeats=_REPEATS, rounds=_ROUNDS)
    for each in (stream, target, source):
        each.free()
    return 2 * nbytes / seconds


def time_on_device(
    device: Device, stream: Stream, work: Callable[[], None], *, repeats: int, rounds: int
) -> float:
    """Median seconds that a stream takes for some work, by events around many of it."""
    begun, done = device.event(timing=True), device.event(timing=True)
    work()
    stream.synchronize()
    taken = []
    for _ in range(rounds):
        begun.record(stream)
        for _ in range(repeats):
            work()
        done.record(stream)
        done.synchronize()
        taken.append(done.elapsed_ms(begun) / 1000 / repeats)
    begun.free()
    done.free()
    return statistics.median(taken)


def _matrix_rates(rows: RowFile) -> tuple[float | None, float | None]:
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        rows.not_here("arithmetic", f"no PyTorch to measure it with ({error})")
        return None, None
    if not torch.cuda.is_available():
        rows.not_here("arithmetic", "this PyTorch has no CUDA")
        return None, None
    torch.backends.cuda.matmul.allow_tf32 = False
    rates = []
    for name, dtype in (("FP32 without TF32", torch.float32), ("FP16", torch.float16)):
        rate = _MATRIX_OPERATIONS / _matrix_seconds(torch, dtype)
        told = f"{number(rate / 1e12)} TFLOP/s"
        rows.add("arithmetic", f"matrix product in {name}", told, is_key=True)
        rates.append(rate)
    return rates[0], rates[1]


def _matrix_seconds(torch: Any, dtype: Any) -> float:
    # Random numbers: zeros run faster than anything real.
    first, second = (torch.randn(_MATRIX, _MATRIX, device="cuda", dtype=dtype) for _ in range(2))
    taken: list[float] = []
    for _ in range(_ROUNDS):
        begun, done = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        torch.matmul(first, second)
        done.record()
        done.synchronize()
        taken.append(begun.elapsed_time(done) / 1000)
    return statistics.median(taken)
