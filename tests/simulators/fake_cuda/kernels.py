"""Kernels for tests of devices: one source, for the host, the fake libcuda and a real GPU."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from engines.device.contract import DeviceInfo
from simulators.fake_cuda.building import compile_kernels

HOST_SOURCE = """
void add_scaled(const unsigned *grid, const unsigned *block, void **arguments);
const unsigned add_scaled_sizes[] = {8, 8, 4, 4, 0};
void add_scaled(const unsigned *grid, const unsigned *block, void **arguments) {
    float *y = *(float **)arguments[0];
    const float *x = *(float **)arguments[1];
    float a = *(float *)arguments[2];
    int n = *(int *)arguments[3];
    for (unsigned i = 0; i < grid[0] * block[0]; i++)
        if ((int)i < n) y[i] += a * x[i];
}

void each_width(const unsigned *grid, const unsigned *block, void **arguments);
const unsigned each_width_sizes[] = {8, 1, 2, 4, 8, 1, 4, 8, 1, 0};
void each_width(const unsigned *grid, const unsigned *block, void **arguments) {
    (void)grid, (void)block;
    double *out = *(double **)arguments[0];
    out[0] = *(signed char *)arguments[1];
    out[1] = *(unsigned short *)arguments[2];
    out[2] = *(int *)arguments[3];
    out[3] = (double)*(long long *)arguments[4];
    out[4] = *(unsigned char *)arguments[5];
    out[5] = *(float *)arguments[6];
    out[6] = *(double *)arguments[7];
    out[7] = *(unsigned char *)arguments[8];
}

void no_arguments(const unsigned *grid, const unsigned *block, void **arguments);
const unsigned no_arguments_sizes[] = {0};
void no_arguments(const unsigned *grid, const unsigned *block, void **arguments) {
    (void)grid, (void)block, (void)arguments;
}
"""

GPU_SOURCE = """
extern "C" __global__ void add_scaled(float *y, const float *x, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}

extern "C" __global__ void each_width(
    double *out, signed char a, unsigned short b, int c, long long d, unsigned char e, float f,
    double g, bool h
) {
    out[0] = a;
    out[1] = b;
    out[2] = c;
    out[3] = d;
    out[4] = e;
    out[5] = f;
    out[6] = g;
    out[7] = h;
}

extern "C" __global__ void no_arguments() {}
"""

_DEADLINE_S = 120


def kernels_for(info: DeviceInfo, folder: Path, *, is_simulated: bool) -> bytes:
    """A module's image for a device; the test is skipped where no compiler makes one."""
    if is_simulated:
        if shutil.which("cc") is None:
            pytest.skip("needs cc")
        return compile_kernels(HOST_SOURCE, folder)
    if shutil.which("nvcc") is None:
        pytest.skip("needs nvcc, for kernels of a real GPU")
    source, image = folder / "kernels.cu", folder / "kernels.cubin"
    source.write_text(GPU_SOURCE, encoding="ascii")
    architecture = "-arch=sm_{}{}".format(*info.compute_capability)
    subprocess.run(
        ["nvcc", architecture, "-cubin", "-o", str(image), str(source)],
        check=True,
        timeout=_DEADLINE_S,
    )
    return image.read_bytes()
