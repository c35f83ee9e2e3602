"""The kernel's checks, with the build of the same source for the host."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from simulators.gpu_check_rows import Found
from simulators.tensorrt_rig import TensorRtRig

from engines.device.host import HostDevice
from engines.errors import KernelBuildError
from engines.kernel.compiling import Target, compile_kernels
from engines.kernel.drawn_images import draw_ct, draw_radiographs
from engines.kernel.fusing import FusedPlan, fusable
from engines.loading import LoadedPackage
from engines.tensorrt.engine import TensorRtEngine
from tools.gpu_check import kernel_step, staged_step
from tools.gpu_check.kernel_step import Series
from tools.gpu_check.rows import Verdict


@pytest.fixture(scope="module")
def kernels() -> bytes:
    with HostDevice() as host:
        try:
            return compile_kernels(Target.of(host.info))
        except KernelBuildError as error:
            pytest.skip(str(error))


def small_ct(turn: int) -> Series:
    return Series(name=f"turn {turn}", images=draw_ct(9, rows=96, columns=80, turn=turn))


def test_the_kernel_equals_the_numpy_steps(
    found: Found, head_ct: LoadedPackage, kernels: bytes
) -> None:
    with HostDevice() as host:
        kernel_step.check_package(
            found.file, head_ct, host, kernels, [small_ct(turn) for turn in range(4)]
        )
    assert found.failed() == []
    assert sum(verdict is Verdict.OK for verdict in found.verdicts().values()) == 8
    assert found.value("elements with other bits than the host build's, turn 0").startswith("0 of")


def test_radiographs_of_both_photometries_are_equal_too(
    found: Found, radiographs: LoadedPackage, kernels: bytes
) -> None:
    images = draw_radiographs(4, rows=300, columns=260)
    assert {image.is_monochrome1 for image in images} == {True, False}
    with HostDevice() as host:
        series = [Series(name="radiographs", images=images)]
        kernel_step.check_package(found.file, radiographs, host, kernels, series)
    assert found.failed() == []


def test_another_rescale_would_be_found_out(head_ct: LoadedPackage, kernels: bytes) -> None:
    right = small_ct(0)
    wrong = [dataclasses.replace(image, intercept=-1000.0) for image in right.images]
    plan = fusable(head_ct.manifest)
    assert isinstance(plan, FusedPlan)
    with HostDevice() as host:
        made = kernel_step.device_input(host, plan, kernels, wrong)
    by_numpy = kernel_step.numpy_input(head_ct, right.images)
    assert np.abs(made - by_numpy).max() > 10 * kernel_step.MOST_DEVIATION


def test_an_engine_answers_to_what_the_kernel_made(
    found: Found, radiographs: LoadedPackage, kernels: bytes, tmp_path: Path
) -> None:
    assert kernels
    rig = TensorRtRig(tmp_path / "plans")
    images = draw_radiographs(4, rows=300, columns=260)
    with rig.open(radiographs.model) as engine:
        assert isinstance(engine, TensorRtEngine)
        staged_step.check_engine(found.file, "ours", radiographs, engine, images)
    assert found.failed() == []
    assert Verdict.OK in found.verdicts().values()
    assert rig.world.violations == []


def test_the_kernel_alone_is_timed(head_ct: LoadedPackage, kernels: bytes) -> None:
    plan = fusable(head_ct.manifest)
    assert isinstance(plan, FusedPlan)
    with HostDevice() as host:
        speed = kernel_step.place_bandwidth(host, plan, kernels, small_ct(0).images)
        assert speed > 0
        assert sum(host.open_resources().values()) == 0


def test_series_are_drawn_alike_each_time() -> None:
    one, other = draw_ct(2, rows=64, columns=64, turn=3), draw_ct(2, rows=64, columns=64, turn=3)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, other, strict=True))
    assert len({draw_ct(1, rows=8, columns=8, turn=turn)[0].turn for turn in range(4)}) == 4
