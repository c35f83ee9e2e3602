"""A block of several threads makes the same bits as one, in whichever order they run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulators.fused
from simulators.fused import FusedKernel
from simulators.reference_images import steps_of

from engines.device.host import HostDevice
from engines.kernel.compiling import HEADERS, HOST_FLAGS, sources
from engines.preprocessing.values import StoredImage, Turn

HARNESS = Path(simulators.fused.__file__).parent / "block_of_threads.cpp"


@pytest.fixture(scope="module")
def threaded_image(host_image: bytes, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The kernels with a block of threads; ``host_image`` says whether there is a compiler."""
    assert host_image
    folder = tmp_path_factory.mktemp("threads")
    for name in HEADERS:
        (folder / name).write_text(sources()[name])
    made = folder / "kernels.so"
    flags = (*HOST_FLAGS, "-Wall", "-Wextra", "-Werror", "-pthread", "-I", folder)
    command = ("c++", *flags, "-o", made, HARNESS)
    subprocess.run(command, check=True, capture_output=True, timeout=240)
    return made.read_bytes()


@pytest.fixture
def threaded(threaded_image: bytes) -> Iterator[FusedKernel]:
    with HostDevice() as device:
        yield FusedKernel(device=device, kernels=threaded_image)


def image(z: float, columns: int) -> StoredImage:
    rng = np.random.default_rng(int(z * 10))
    return StoredImage(
        pixels=rng.integers(-1000, 3000, (40, columns)).astype(np.int16),
        is_signed=True,
        slope=0.1,
        spacing_mm=(1.1, 0.02),
        position_mm=z,
        turn=Turn(transpose=True, flip_rows=True),
    )


@pytest.mark.parametrize(
    "maps",
    [
        [],
        [{"step": "percentile_normalise", "percentiles": [1, 99]}],
        [{"step": "percentile_normalise", "percentiles": [5, 50], "foreground_above": 40}],
        [{"step": "zscore_normalise"}],
        [
            {"step": "zscore_normalise", "foreground_above": 40},
            {"step": "scale_range", "source": [-1, 1], "target": [0, 2]},
        ],
    ],
)
# Of an odd number not every row begins where two values can be loaded at once.
@pytest.mark.parametrize(("method", "columns"), [("area", 2500), ("linear", 2501)])
def test_the_number_of_lanes_changes_no_bit(
    kernel: FusedKernel,
    threaded: FusedKernel,
    method: str,
    columns: int,
    maps: list[dict[str, Any]],
) -> None:
    steps = steps_of(
        {"step": "rescale", "padding": -1000.0},
        {"step": "canonical_orientation"},
        {"step": "resample_in_plane", "rows": 36, "columns": 31, "pixel_mm": 1.3, "fill": -1000.0}
        | {"method": method},
        *maps,
        {"step": "average_slabs", "thickness_mm": 5.0},
        {
            "step": "window_channels",
            "windows": [{"low": -999, "high": 3e3}, {"low": -1, "high": 2}],
        },
        {"step": "neighbours", "radius": 1},
    )
    images = [image(3.0 * number, columns) for number in range(4)]
    alone = kernel.assemble(images, steps)
    np.testing.assert_array_equal(threaded.assemble(images, steps), alone)
    assert len(np.unique(alone)) > 1000


def test_a_picture_in_which_nothing_counts_leaves_no_thread_behind(threaded: FusedKernel) -> None:
    steps = steps_of(
        {"step": "rescale", "padding": -1000.0},
        {"step": "resize", "rows": 8, "columns": 8},
        {"step": "zscore_normalise", "foreground_above": 100_000},
        {"step": "each_image"},
    )
    with threaded.staging(steps) as staging:
        staging.add(image(0.0, 30))
