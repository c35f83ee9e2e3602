"""The fused kernel on the GPU equals the NumPy steps, and how fast it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from engines.contract import CudaLibrary
from engines.device.contract import Device
from engines.device.host import HostDevice
from engines.device.opening import open_device
from engines.errors import KernelBuildError
from engines.kernel.compiling import Target, compile_kernels
from engines.kernel.drawn_images import draw_ct, draw_radiographs
from engines.kernel.fusing import FusedPlan, NotFused, fusable
from engines.kernel.packing import pack_slice
from engines.kernel.staging import ROWS_OF_BLOCK, THREADS, FusedStaging
from engines.loading import LoadedPackage
from engines.preprocessing.running import assemble, prepare
from engines.preprocessing.values import Float32, StoredImage
from tools.gpu_check.ceilings_step import read_ceilings, time_on_device
from tools.gpu_check.rows import RowFile, number
from tools.gpu_check.subjects import packages

MOST_DEVIATION = 2e-4
"""Of the model's input: what the order of a grid's sums may change is at most 1e-4 of the narrowest
window that a shipped package has (see ``engines.kernel.fusing``)."""
LEAST_SPEEDUP = 20.0
"""NUMBERS.md's goal, against the NumPy steps on one core."""
LEAST_SHARE = 0.6
"""Of the memory's speed."""

_SLICES = 160
_RADIOGRAPHS = 8
_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Images for one package, and their name."""

    name: str
    images: Sequence[StoredImage]


def check(rows: RowFile, folder: Path) -> None:
    """Compare and time the kernel for every package that it serves.

    Raises:
        DeviceUnavailableError: There is no usable GPU.
    """
    with open_device(tuple(CudaLibrary)) as device:
        try:
            started = time.perf_counter()
            kernels = compile_kernels(Target.of(device.info))
        except KernelBuildError as error:
            rows.not_here("kernel", str(error))
            return
        took = time.perf_counter() - started
        rows.add("kernel", "compiling", f"{number(took)} s, {len(kernels):,} B")
        for package in packages():
            check_package(rows, package, device, kernels, drawn_for(package))
            _time_package(rows, package, device, kernels, folder)


def drawn_for(package: LoadedPackage, *, slices: int = _SLICES) -> list[Series]:
    """Series of the kind that the package is for."""
    if "CT" in package.manifest.selection.modalities:
        return [Series(name=f"turn {turn}", images=draw_ct(slices, turn=turn)) for turn in range(4)]
    return [Series(name="radiographs", images=draw_radiographs(min(slices, _RADIOGRAPHS)))]


def check_package(
    rows: RowFile,
    package: LoadedPackage,
    device: Device,
    kernels: bytes,
    series: Sequence[Series],
) -> None:
    """Compare the input that the device makes with that of the NumPy steps, and of the host."""
    subject = f"{package.folder.name}, {device.info.library}"
    plan = fusable(package.manifest)
    if isinstance(plan, NotFused):
        rows.not_here(subject, f"not served by the kernel: {plan.reason}")
        return
    for each in series:
        by_numpy = numpy_input(package, each.images)
        made = device_input(device, plan, kernels, each.images)
        off = float(np.abs(made - by_numpy).max())
        rows.check(
            subject,
            f"equals NumPy within {MOST_DEVIATION:g}, {each.name}",
            made.shape == by_numpy.shape and off <= MOST_DEVIATION,
            f"{off:.2g}",
        )
        together = device_input(device, plan, kernels, each.images, at_once=True)
        is_same = np.array_equal(made, together)
        rows.check(subject, f"the same at once as one by one, {each.name}", is_same)
        _compare_with_host(rows, subject, plan, each, made)


def numpy_input(package: LoadedPackage, images: Sequence[StoredImage]) -> Float32:
    """The model's input as ``engines.preprocessing`` makes it."""
    steps = package.manifest.preprocess
    pictures = [prepare(image, steps) for image in images]
    return assemble(pictures, steps, package.manifest.input.layout)


def device_input(
    device: Device,
    plan: FusedPlan,
    kernels: bytes,
    images: Sequence[StoredImage],
    *,
    at_once: bool = False,
) -> Float32:
    """The same, made by the kernel, and copied here; images come one by one, or at once.

    Raises:
        DeviceError: The device failed.
    """
    with FusedStaging(device, plan, kernels) as staging:
        staged = staging.add_all(images) if at_once else [staging.add(image) for image in images]
        made = staging.whole_input(staged)
        stream = device.stream()
        stream.wait_for(made.ready)
        # NaN where nothing is written.
        result = np.full(made.shape, np.nan, dtype=np.float32)
        device.copy_out(result, made.buffer, stream)
        stream.synchronize()
        stream.free()
    return result


@cache
def _host_kernels() -> bytes:
    with HostDevice() as host:
        return compile_kernels(Target.of(host.info))


def _compare_with_host(
    rows: RowFile, subject: str, plan: FusedPlan, series: Series, made: Float32
) -> None:
    """The same source, compiled for the processor, should give the very same bits."""
    try:
        with HostDevice() as host:
            by_host = device_input(host, plan, _host_kernels(), series.images)
    except KernelBuildError as error:
        rows.not_here(f"{subject}, host build", str(error))
        return
    differing = int((made.view(np.uint32) != by_host.view(np.uint32)).sum())
    rows.add(
        subject,
        f"elements with other bits than the host build's, {series.name}",
        f"{differing:,} of {made.size:,}",
    )


def _time_package(
    rows: RowFile, package: LoadedPackage, device: Device, kernels: bytes, folder: Path
) -> None:
    plan = fusable(package.manifest)
    if isinstance(plan, NotFused):
        return
    subject = f"{package.folder.name}, {device.info.library}"
    images = drawn_for(package)[0].images
    numpy_s = _median_seconds(lambda: numpy_input(package, images))
    with FusedStaging(device, plan, kernels) as staging:

        def stage() -> None:
            staging.whole_input(staging.add_all(images)).ready.synchronize()

        stage()
        staged_s = _median_seconds(stage)
    rows.add(subject, f"{len(images)} images by NumPy", f"{number(numpy_s * 1000)} ms")
    rows.add(subject, f"{len(images)} images, copies included", f"{number(staged_s * 1000)} ms")
    rows.compare(
        subject, "speed against NumPy", numpy_s / staged_s, unit="times", least=LEAST_SPEEDUP
    )
    bytes_per_s = place_bandwidth(device, plan, kernels, images)
    rows.add(
        subject, "kernel alone, read and written", f"{number(bytes_per_s / 1e9)} GB/s", is_key=True
    )
    ceiling = read_ceilings(folder).memory_bytes
    if ceiling:
        share = bytes_per_s / ceiling
        rows.compare(subject, "share of memory speed", share, unit="", least=LEAST_SHARE)


def place_bandwidth(
    device: Device, plan: FusedPlan, kernels: bytes, images: Sequence[StoredImage]
) -> float:
    """Bytes per second of the kernel that reads stored pixels and writes pictures.

    All images lie on the device already, and one launch takes them all: this is the kernel alone,
    not the way of the images to it.
    """
    packed = [pack_slice(image, plan) for image in images]
    slot_bytes = max(each.nbytes for each in packed)
    picture_bytes = plan.grid.rows * plan.grid.columns * np.dtype(np.float32).itemsize
    with ExitStack() as stack:
        pictures = device.allocate(len(packed) * picture_bytes)
        stack.callback(pictures.free)
        slots = device.allocate(len(packed) * slot_bytes)
        stack.callback(slots.free)
        stream = device.stream()
        stack.callback(stream.free)
        module = device.load_module(kernels)
        stack.callback(module.free)
        content = np.zeros((len(packed), slot_bytes), np.uint8)
        for place, each in enumerate(packed):
            address = pictures.address + place * picture_bytes
            each.write(content[place], address, slot_bytes)
        device.copy_in(slots, content, stream)
        stream.synchronize()
        blocks = -(-max(each.row_cells for each in packed) // ROWS_OF_BLOCK)

        def work() -> None:
            module.launch(
                "edge_triage_place",
                stream,
                grid=(blocks, 1, len(packed)),
                block=(THREADS, 1, 1),
                arguments=(slots,),
            )

        seconds = time_on_device(device, stream, work, repeats=_ROUNDS, rounds=_ROUNDS)
    return len(packed) * (slot_bytes + picture_bytes) / seconds


def _median_seconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)
