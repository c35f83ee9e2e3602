"""Whatever the size, spacing and turn: the kernel reads and writes inside, and every cell once."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from simulators.reference_images import steps_of

from engines.kernel.fusing import Grid
from engines.kernel.geometry import Geometry, Table, geometry_of
from engines.kernel.layout import SLICE
from engines.preprocessing.values import Turn
from engines.steps import Letterbox, ResampleInPlane, Resize

SIDES = st.one_of(st.integers(1, 70), st.sampled_from([511, 512, 513, 4096, 65_535]))
CELLS = st.sampled_from([8, 9, 112, 513])
SPACINGS = st.one_of(st.floats(0.01, 10.0), st.sampled_from([1e-6, 1e4]))


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    known: dict[str, Any] = {
        "step": draw(st.sampled_from(["resample_in_plane", "resize", "letterbox"])),
        "rows": draw(CELLS),
        "columns": draw(CELLS),
        "method": draw(st.sampled_from(["area", "linear", "nearest"])),
    }
    if known["step"] == "resample_in_plane":
        known["pixel_mm"] = draw(st.floats(0.01, 20.0))
    if known["step"] != "resize":
        known["fill"] = -1000.0
    grid = steps_of(known)[0]
    assert isinstance(grid, (ResampleInPlane, Resize, Letterbox))
    return grid


def check_table(table: Table, pixels: int) -> None:
    counts = np.diff(table.start)
    assert table.start[0] == 0
    assert table.start[-1] == len(table.weights)
    assert (counts >= 0).all()
    used = counts > 0
    assert (table.first[used] >= 0).all()
    assert (table.first[used] + counts[used] <= pixels).all()
    assert (table.weights >= 0).all()
    sums = np.add.reduceat(np.append(table.weights, 0), table.start[:-1])[used]
    assert (sums <= 1 + 1e-4).all()


def check_places(geometry: Geometry, grid: Grid) -> None:
    header = geometry.prefix[: SLICE.itemsize].view(SLICE)[0]
    rows = np.arange(header["row_cells"])[:, np.newaxis] * int(header["row_step"])
    columns = np.arange(header["column_cells"]) * int(header["column_step"])
    places = np.sort((int(header["first_place"]) + rows + columns).ravel())
    np.testing.assert_array_equal(places, np.arange(grid.rows * grid.columns))


@given(
    grid=grids(),
    shape=st.tuples(SIDES, SIDES),
    spacing=st.tuples(SPACINGS, SPACINGS),
    turn=st.builds(
        Turn, transpose=st.booleans(), flip_rows=st.booleans(), flip_columns=st.booleans()
    ),
)
@hypothesis_settings(max_examples=150, deadline=None)
def test_the_kernel_stays_inside_the_image_and_fills_the_picture(
    grid: Grid, shape: tuple[int, int], spacing: tuple[float, float], turn: Turn
) -> None:
    geometry = geometry_of(grid, shape, spacing, turn)
    check_table(geometry.row_table, shape[0])
    check_table(geometry.column_table, shape[1])
    check_places(geometry, grid)
    header = geometry.prefix[: SLICE.itemsize].view(SLICE)[0]
    assert header["columns"] == shape[1]
    assert header["row_table"] == SLICE.itemsize
    assert header["column_table"] - header["row_table"] == geometry.row_table.packed().nbytes
    assert header["pixels"] - header["column_table"] >= geometry.column_table.packed().nbytes
    assert header["pixels"] == geometry.prefix.nbytes
    assert geometry.nbytes >= geometry.prefix.nbytes + 2 * shape[0] * shape[1]


def test_images_of_one_series_share_their_geometry() -> None:
    grid = steps_of({"step": "resize", "rows": 8, "columns": 8})[0]
    assert isinstance(grid, Resize)
    first = geometry_of(grid, (512, 512), (0.5, 0.5), Turn())
    assert geometry_of(grid, (512, 512), (0.5, 0.5), Turn()) is first
    assert geometry_of(grid, (512, 512), (0.5, 0.5), Turn(flip_rows=True)) is not first
