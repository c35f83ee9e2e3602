"""The fused kernel on a device, and how far its results may lie from those of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engines.device.contract import Device
from engines.kernel.fusing import FusedPlan, fused
from engines.kernel.packing import fits, pack_slice
from engines.kernel.staging import DeviceInput, FusedStaging
from engines.package import Layout
from engines.preprocessing.rescaling import rescale
from engines.preprocessing.running import assemble, prepare
from engines.preprocessing.values import Float32, StoredImage
from engines.steps import Letterbox, PreprocessStep, ResampleInPlane

Steps = Sequence[PreprocessStep]
HALF_ULP = 2.0**-24
"""Of one rounding, relative to the result."""


def plan_of(steps: Steps, layout: Layout = Layout.NCHW) -> FusedPlan:
    """The plan of steps that the kernel serves."""
    plan = fused(steps, layout)
    assert isinstance(plan, FusedPlan), plan
    return plan


@dataclass(kw_only=True)
class FusedKernel:
    """Carries out a package's steps with the kernel, on a device."""

    device: Device
    kernels: bytes = field(repr=False)

    def staging(self, steps: Steps, layout: Layout = Layout.NCHW) -> FusedStaging:
        """A staging that is yet to be entered."""
        return FusedStaging(self.device, plan_of(steps, layout), self.kernels)

    def read(self, made: DeviceInput) -> Float32:
        """Copy an input back."""
        array = np.empty(made.shape, dtype=np.float32)
        stream = self.device.stream()
        try:
            stream.wait_for(made.ready)
            self.device.copy_out(array, made.buffer, stream)
            stream.synchronize()
        finally:
            stream.free()
        return array

    def assemble(
        self, images: Sequence[StoredImage], steps: Steps, layout: Layout = Layout.NCHW
    ) -> Float32:
        """The same as ``prepare`` of each image and ``assemble`` of all."""
        with self.staging(steps, layout) as staging:
            return self.read(staging.whole_input([staging.add(image) for image in images]))


def by_numpy(images: Sequence[StoredImage], steps: Steps, layout: Layout = Layout.NCHW) -> Float32:
    """The model's input as engines.preprocessing makes it."""
    return assemble([prepare(image, steps) for image in images], steps, layout)


def grid_bound(images: Sequence[StoredImage], steps: Steps) -> float:
    """By how much pictures behind the grid may differ (``engines.kernel.fusing``)."""
    return max(_bound_of(image, plan_of(steps)) for image in images)


def _bound_of(image: StoredImage, plan: FusedPlan) -> float:
    if not fits(image):
        return 0.0
    packed = pack_slice(image, plan)
    taps = sum(
        _most_taps(table) for table in (packed.geometry.row_table, packed.geometry.column_table)
    )
    fill = plan.grid.fill if isinstance(plan.grid, (ResampleInPlane, Letterbox)) else 0.0
    values = rescale(image, plan.rescale).values
    largest = float(np.abs(values - np.float32(fill)).max(initial=0.0)) + abs(fill)
    if plan.inverts and image.is_monochrome1:
        largest += abs(float(packed.header["inverted_from"][0])) + float(np.abs(values).max())
    return 2 * (taps + 2) * HALF_ULP * largest


def _most_taps(table: Any) -> int:
    return int(np.diff(table.start).max(initial=0))
