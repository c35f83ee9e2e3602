"""The fused kernel's host build beside the NumPy steps; ``pytest -s`` shows how fast each is."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from simulators.fused import FusedKernel, by_numpy

from engines.device.host import HostDevice
from engines.kernel.compiling import compile_for_host
from engines.loading import load_package
from engines.preprocessing.values import StoredImage, Turn
from engines.shipped import shipped_packages

ROUNDS = 5
MOST_DEVIATION = 2e-4
"""Of the model's input, for images whose windows are the shipped ones."""


def ct(count: int) -> list[StoredImage]:
    rng = np.random.default_rng(1)
    return [
        StoredImage(
            pixels=rng.integers(-1024, 2000, (512, 512)).astype(np.int16),
            is_signed=True,
            padding=-2000,
            spacing_mm=(0.45, 0.45),
            turn=Turn(),
            position_mm=160.0 / count * place,
        )
        for place in range(count)
    ]


def radiographs(count: int) -> list[StoredImage]:
    rng = np.random.default_rng(1)
    return [
        StoredImage(
            pixels=rng.integers(0, 4096, (1800, 1500)).astype(np.uint16),
            bits_stored=12,
            is_monochrome1=bool(place % 2),
            spacing_mm=(0.2, 0.2),
        )
        for place in range(count)
    ]


@pytest.mark.parametrize(
    ("name", "images"),
    [("head_ct_phantom", ct(40)), ("paediatric_cxr_pneumonia", radiographs(4))],
    ids=["40-ct", "4-radiographs"],
)
def test_the_host_build_makes_the_same_input_and_says_in_what_time(
    name: str, images: list[StoredImage]
) -> None:
    if shutil.which("c++") is None:
        pytest.skip(
            "no C++ compiler here (apt-get install g++): the kernels cannot run on the host"
        )
    package = load_package(shipped_packages()[name]).manifest
    with HostDevice() as device:
        kernel = FusedKernel(device=device, kernels=compile_for_host())
        with kernel.staging(package.preprocess, package.input.layout) as staging:

            def by_kernel() -> None:
                staging.whole_input(staging.add_all(images))

            ours, theirs = _interleaved(
                by_kernel, lambda: by_numpy(images, package.preprocess, package.input.layout)
            )
        made = kernel.assemble(images, package.preprocess, package.input.layout)
    wanted = by_numpy(images, package.preprocess, package.input.layout)
    np.testing.assert_allclose(made, wanted, rtol=0, atol=MOST_DEVIATION)
    sys.stdout.write(
        f"{name}, {len(images)} images: kernel {ours:.1f} ms, NumPy {theirs:.1f} ms of processor\n"
    )


def _interleaved(*works: Callable[[], object]) -> list[float]:
    """Median processor time of each in ms: a shared machine does not change it much."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, times in zip(works, taken, strict=True):
            started = time.process_time()
            work()
            times.append(time.process_time() - started)
    return [statistics.median(times) * 1000 for times in taken]
