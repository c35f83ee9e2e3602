"""Preprocessing against definitions written as loops in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.errors import PackageStepsError, PreprocessError
from edge_runtime.pipeline.preprocess import (
    PreparedSlice,
    assemble_input,
    check_steps,
    prepare_slice,
)
from engines.package import (
    AverageSlabs,
    NeighbourSlabs,
    PreprocessStep,
    ResampleInPlane,
    Window,
    WindowChannels,
)

Float64 = npt.NDArray[np.float64]
Stored = npt.NDArray[np.integer[Any]]
MakeHeader = Callable[..., InstanceHeader]

# Float32 arithmetic on values up to some thousands.
HU_TOLERANCE = 0.01
# All eight ways in which an axial image can lie, and some that are not quite axial.
AXIAL_ORIENTATIONS = [
    (1, 0, 0, 0, 1, 0),
    (-1, 0, 0, 0, 1, 0),
    (1, 0, 0, 0, -1, 0),
    (-1, 0, 0, 0, -1, 0),
    (0, 1, 0, 1, 0, 0),
    (0, -1, 0, 1, 0, 0),
    (0, 1, 0, -1, 0, 0),
    (0, -1, 0, -1, 0, 0),
]


def resample(
    rows: int = 12, columns: int = 10, pixel_mm: float = 1.7, outside_hu: float = -1000.0
) -> ResampleInPlane:
    return ResampleInPlane(
        step="resample_in_plane",
        rows=rows,
        columns=columns,
        pixel_mm=pixel_mm,
        outside_hu=outside_hu,
    )


def slabs(thickness_mm: float, max_slabs: int = 128) -> AverageSlabs:
    return AverageSlabs(step="average_slabs", thickness_mm=thickness_mm, max_slabs=max_slabs)


def windows(*bounds: tuple[float, float]) -> WindowChannels:
    return WindowChannels(
        step="window_channels", windows=tuple(Window(low=low, high=high) for low, high in bounds)
    )


def neighbours(radius: int) -> NeighbourSlabs:
    return NeighbourSlabs(step="neighbour_slabs", radius=radius)


def plain_hu(pixels: Stored, header: InstanceHeader, outside_hu: float) -> Float64:
    """Definition: each stored value times slope plus intercept; padding lies outside."""
    slope = 1.0 if header.rescale_slope is None else header.rescale_slope
    intercept = header.rescale_intercept or 0.0
    hu = pixels.astype(np.float64) * slope + intercept
    hu[pixels == header.pixel_padding_value] = outside_hu
    return hu


def point_of(header: InstanceHeader, row: float, column: float) -> Float64:
    """Position of a pixel, in mm, relative to the image's centre (PS3.3 C.7.6.2.1.1)."""
    assert header.image_orientation is not None
    assert header.pixel_spacing_mm is not None
    assert header.rows is not None
    assert header.columns is not None
    across = np.array(header.image_orientation[:3], dtype=np.float64)
    down = np.array(header.image_orientation[3:], dtype=np.float64)
    row_spacing, column_spacing = header.pixel_spacing_mm
    return (
        across * (column - (header.columns - 1) / 2) * column_spacing
        + down * (row - (header.rows - 1) / 2) * row_spacing
    )


def plain_area_average(hu: Float64, header: InstanceHeader, step: ResampleInPlane) -> Float64:
    """Definition for unrotated axial images: every pixel adds its overlap with every cell."""
    assert header.pixel_spacing_mm is not None
    cells = np.zeros((step.rows, step.columns))
    covered = np.zeros_like(cells)
    assert header.image_orientation is not None
    size = np.abs(
        np.array(header.image_orientation[:3], dtype=np.float64) * header.pixel_spacing_mm[1]
        + np.array(header.image_orientation[3:], dtype=np.float64) * header.pixel_spacing_mm[0]
    )
    for row, column in product(range(hu.shape[0]), range(hu.shape[1])):
        x, y, _ = point_of(header, row, column)
        for i, j in product(range(step.rows), range(step.columns)):
            left = (j - step.columns / 2) * step.pixel_mm
            top = (i - step.rows / 2) * step.pixel_mm
            width = min(x + size[0] / 2, left + step.pixel_mm) - max(x - size[0] / 2, left)
            height = min(y + size[1] / 2, top + step.pixel_mm) - max(y - size[1] / 2, top)
            if width > 0 and height > 0:
                part = width * height / step.pixel_mm**2
                cells[i, j] += part * hu[row, column]
                covered[i, j] += part
    return cells + (1 - covered) * step.outside_hu


@pytest.mark.parametrize("orientation", AXIAL_ORIENTATIONS)
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_area_average_is_exact_however_the_image_lies(
    make_header: MakeHeader, orientation: tuple[float, ...], dtype: type[np.int16 | np.uint16]
) -> None:
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 4096, (17, 23)).astype(dtype)
    header = make_header(
        rows=17,
        columns=23,
        pixel_spacing_mm=(0.8, 0.4),
        image_orientation=orientation,
        rescale_slope=0.5,
        rescale_intercept=-800.25,
        pixel_padding_value=int(pixels[3, 4]),
    )
    step = resample()
    expected = plain_area_average(plain_hu(pixels, header, step.outside_hu), header, step)
    prepared = prepare_slice(pixels, header, [step])
    assert prepared.hu.dtype == np.float32
    np.testing.assert_allclose(prepared.hu, expected, atol=HU_TOLERANCE)


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    spacing=st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0)),
    pixel_mm=st.floats(0.3, 4.0),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_area_average_matches_the_definition_for_any_grid(
    make_header: MakeHeader,
    shape: tuple[int, int],
    spacing: tuple[float, float],
    pixel_mm: float,
    seed: int,
) -> None:
    pixels = np.random.default_rng(seed).integers(-1024, 3072, shape, dtype=np.int16)
    header = make_header(
        rows=shape[0], columns=shape[1], pixel_spacing_mm=spacing, rescale_intercept=0.0
    )
    step = resample(rows=8, columns=9, pixel_mm=pixel_mm)
    expected = plain_area_average(plain_hu(pixels, header, step.outside_hu), header, step)
    np.testing.assert_allclose(
        prepare_slice(pixels, header, [step]).hu, expected, atol=HU_TOLERANCE
    )


@pytest.mark.parametrize(
    "orientation",
    [
        *AXIAL_ORIENTATIONS,
        (0.9, 0.1, -0.42, -0.05, 0.99, 0.13),  # oblique
        (1, 0, 0, 0, 0, -1),  # coronal
        (0, 1, 0, 0, 0, -1),  # sagittal
        (0, 0, 1, 0, 1, 0),  # sagittal, lying on its side
    ],
)
def test_canonical_orientation_runs_to_the_left_and_then_posterior_or_to_the_feet(
    make_header: MakeHeader, orientation: tuple[float, ...]
) -> None:
    across = np.array(orientation[:3], dtype=np.float64)
    across /= np.linalg.norm(across)
    down = np.array(orientation[3:], dtype=np.float64)
    down -= across * (across @ down)
    down /= np.linalg.norm(down)
    header = make_header(
        rows=5,
        columns=7,
        image_orientation=(*across, *down),
        pixel_spacing_mm=(1.0, 1.0),
        rescale_intercept=0.0,
    )
    pixels = np.arange(35, dtype=np.int16).reshape(5, 7)
    where = {
        int(pixels[row, column]): point_of(header, row, column)
        for row, column in product(range(5), range(7))
    }
    hu = prepare_slice(pixels, header, []).hu
    to_the_right = where[int(hu[0, 1])] - where[int(hu[0, 0])]
    downwards = where[int(hu[1, 0])] - where[int(hu[0, 0])]
    axis = int(np.argmax(np.abs(np.cross(across, down))))
    horizontal, vertical, sign = ((1, 2, -1), (0, 2, -1), (0, 1, 1))[axis]
    assert to_the_right[horizontal] > 0.7
    assert downwards[vertical] * sign > 0.7


@pytest.mark.parametrize(
    ("dtype", "padding"), [(np.int16, -2000), (np.int16, 63536), (np.uint16, 63536)]
)
def test_padding_is_outside_even_when_its_sign_was_confused(
    make_header: MakeHeader, dtype: type[np.int16 | np.uint16], padding: int
) -> None:
    pixels = np.full((8, 8), 1024, dtype=dtype)
    pixels[0, 0] = np.array([63536], dtype=np.uint16).view(dtype)[0]
    header = make_header(
        rows=8, columns=8, pixel_padding_value=padding, pixel_spacing_mm=(1.0, 1.0)
    )
    hu = prepare_slice(pixels, header, [resample(8, 8, 1.0, outside_hu=-1000)]).hu
    assert hu[0, 0] == -1000.0
    assert (hu.ravel()[1:] == 0.0).all()


def test_each_slice_uses_its_own_slope_and_intercept(make_header: MakeHeader) -> None:
    pixels = np.full((8, 8), 100, dtype=np.int16)
    headers = [
        make_header(
            rows=8,
            columns=8,
            rescale_slope=slope,
            rescale_intercept=intercept,
            image_position_mm=(0.0, 0.0, float(z)),
        )
        for z, (slope, intercept) in enumerate([(1.0, 0.0), (0.25, -3.5), (2.0, -1024.0)])
    ]
    stack = assemble_input([prepare_slice(pixels, header, []) for header in headers], [])
    assert stack.shape == (3, 1, 8, 8)
    assert stack[:, 0, 0, 0].tolist() == [100.0, 21.5, -824.0]


def test_extreme_unsigned_values_stay_exact(make_header: MakeHeader) -> None:
    pixels = np.full((64, 64), 65535, dtype=np.uint16)
    header = make_header(
        rows=64, columns=64, rescale_intercept=-32768.0, pixel_spacing_mm=(0.5, 0.5)
    )
    hu = prepare_slice(pixels, header, [resample(8, 8, 3.0)]).hu
    np.testing.assert_allclose(hu, 32767.0, atol=0.05)


def test_peers_grid_never_grows_the_weights_beyond_the_band(make_header: MakeHeader) -> None:
    pixels = np.zeros((40_000, 1), dtype=np.int16)
    header = make_header(rows=40_000, columns=1, pixel_spacing_mm=(0.001, 0.001))
    assert prepare_slice(pixels, header, [resample(1024, 1024, 0.1)]).hu.shape == (1024, 1024)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rows": 9}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"rescale_slope": 0.0}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"rescale_slope": float("nan")}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"pixel_spacing_mm": None}, ReasonCode.GEOMETRY_MISSING),
        ({"pixel_spacing_mm": (0.5, 0.0)}, ReasonCode.GEOMETRY_MISSING),
    ],
)
def test_contradicting_headers_are_refused_with_a_reason(
    make_header: MakeHeader, changes: dict[str, Any], reason: ReasonCode
) -> None:
    header = make_header(**{"rows": 8, "columns": 8, **changes})
    with pytest.raises(PreprocessError) as caught:
        prepare_slice(np.zeros((8, 8), dtype=np.int16), header, [resample()])
    assert caught.value.reason is reason


def flat_slices(
    positions: Sequence[float | None], values: Sequence[float], thickness_mm: float | None = None
) -> list[PreparedSlice]:
    return [
        PreparedSlice(
            hu=np.full((2, 3), value, dtype=np.float32),
            position_mm=position,
            thickness_mm=thickness_mm,
        )
        for position, value in zip(positions, values, strict=True)
    ]


def plain_slabs(
    positions: Sequence[float], values: Sequence[float], thickness_mm: float
) -> list[float]:
    """Definition: walk along the normal in small steps and average what is there."""
    edges = [(a + b) / 2 for a, b in pairwise(positions)]
    first = 2 * positions[0] - edges[0]
    last = 2 * positions[-1] - edges[-1]
    faces = [first, *edges, last]
    means = []
    start = first
    while start < last:
        end = start + thickness_mm
        if last - end <= 1e-3 * thickness_mm:  # what is left is too thin for a slab of its own
            end = max(end, last)
        weights = [max(0.0, min(high, end) - max(low, start)) for low, high in pairwise(faces)]
        total = sum(w * v for w, v in zip(weights, values, strict=True))
        means.append(total / sum(weights))
        start = end
    return means


@given(
    gaps=st.lists(st.floats(0.5, 6.0), min_size=1, max_size=20),
    thickness_mm=st.floats(0.7, 20.0),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_slabs_weight_slices_by_their_overlap(
    gaps: list[float], thickness_mm: float, seed: int
) -> None:
    positions = np.concatenate([[-20.0], np.cumsum(gaps) - 20.0]).tolist()
    rng = np.random.default_rng(seed)
    values = rng.uniform(-1000, 2000, len(positions)).tolist()
    expected = plain_slabs(positions, values, thickness_mm)
    slices = flat_slices(positions, values)
    slices = [slices[index] for index in rng.permutation(len(slices))]
    tensor = assemble_input(slices, [slabs(thickness_mm, max_slabs=512)])
    assert tensor.shape == (len(expected), 1, 2, 3)
    np.testing.assert_allclose(tensor[:, 0, 1, 2], expected, atol=HU_TOLERANCE)


def test_slabs_run_from_inferior_to_superior_whatever_the_order_of_arrival() -> None:
    slices = flat_slices([10.0, 0.0, 15.0, 5.0], [3.0, 1.0, 4.0, 2.0])
    assert assemble_input(slices, [slabs(5.0)])[:, 0, 0, 0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_slices_as_thick_as_slabs_are_copied_without_an_extra_slab() -> None:
    positions = [0.1 * index for index in range(100)]
    tensor = assemble_input(flat_slices(positions, positions), [slabs(0.1)])
    np.testing.assert_allclose(tensor[:, 0, 0, 0], positions, atol=1e-4)


def test_single_slice_makes_one_slab_per_thickness_that_it_fills() -> None:
    assert assemble_input(flat_slices([7.0], [40.0], 5.0), [slabs(5.0)]).tolist() == [
        [[[40.0] * 3] * 2]
    ]


def test_windows_become_channels_and_neighbours_stand_around_each_slab() -> None:
    slices = flat_slices([0.0, 5.0, 10.0], [0.0, 40.0, 200.0])
    steps: list[PreprocessStep] = [
        slabs(5.0),
        windows((0, 80), (-100, 100)),
        neighbours(1),
    ]
    tensor = assemble_input(slices, steps)
    first, second, third = (0.0, 0.5), (0.5, 0.7), (1.0, 1.0)
    expected = [
        [*first, *first, *second],
        [*first, *second, *third],
        [*second, *third, *third],
    ]
    assert tensor.dtype == np.float32
    assert tensor.flags.c_contiguous
    np.testing.assert_allclose(tensor[:, :, 0, 0], expected, atol=1e-6)


def test_images_without_position_keep_their_order_when_no_slab_is_asked_for() -> None:
    tensor = assemble_input(flat_slices([None, None], [5.0, 3.0]), [windows((0, 10))])
    assert tensor[:, 0, 0, 0].tolist() == [0.5, pytest.approx(0.3)]


@pytest.mark.parametrize(
    ("positions", "reason"),
    [
        ([0.0, 5.0, 5.0], ReasonCode.DUPLICATE_POSITIONS),
        ([0.0, None, 5.0], ReasonCode.GEOMETRY_MISSING),
        ([None, None, None], ReasonCode.GEOMETRY_MISSING),
        ([0.0, 50.0, 100.0], ReasonCode.COVERAGE_OUT_OF_RANGE),
        ([], ReasonCode.NO_IMAGES),
    ],
)
def test_slices_that_make_no_volume_are_refused(
    positions: list[float | None], reason: ReasonCode
) -> None:
    with pytest.raises(PreprocessError) as caught:
        assemble_input(flat_slices(positions, [1.0] * len(positions)), [slabs(5.0, max_slabs=8)])
    assert caught.value.reason is reason


def test_slices_of_different_shape_are_refused() -> None:
    odd = PreparedSlice(hu=np.zeros((3, 3), dtype=np.float32), position_mm=9.0, thickness_mm=None)
    with pytest.raises(PreprocessError) as caught:
        assemble_input([*flat_slices([0.0], [1.0]), odd], [])
    assert caught.value.reason is ReasonCode.INCONSISTENT_IMAGES


@pytest.mark.parametrize(
    "steps",
    [
        [windows((0, 1)), slabs(5.0)],
        [slabs(5.0), slabs(5.0)],
        [neighbours(1), windows((0, 1))],
        [slabs(5.0), resample()],
    ],
)
def test_steps_in_an_order_without_meaning_are_the_packages_fault(steps: Any) -> None:
    with pytest.raises(PackageStepsError, match=r"package\.toml"):
        check_steps(steps)
