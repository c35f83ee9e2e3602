from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tools.phantoms.head_ct import HIGHEST_HU, LOWEST_HU, HeadPhantom
from tools.phantoms.spec import (
    AcquisitionChoice,
    BleedKind,
    Filling,
    Kernel,
    PhantomSpec,
    draw_spec,
)

SMALL = AcquisitionChoice(slices=30, matrix=128)


def quiet(spec: PhantomSpec) -> PhantomSpec:
    """The same head without noise, motion, turn and beam hardening."""
    placement = dataclasses.replace(
        spec.placement,
        shift_mm=(0.0, 0.0),
        roll_deg=0.0,
        pitch_deg=0.0,
        yaw_deg=0.0,
        motion_mm=0.0,
    )
    scan = dataclasses.replace(spec.acquisition, noise_hu=0.0, cupping_hu=0.0)
    return dataclasses.replace(spec, placement=placement, acquisition=scan)


def test_slices_depend_on_nothing_but_the_specification() -> None:
    phantom = HeadPhantom(draw_spec(4, choice=SMALL))
    again = HeadPhantom(draw_spec(4, choice=SMALL))
    backwards = [again.slice_hu(index) for index in reversed(range(30))]

    for forwards, other in zip(phantom.slices(), reversed(backwards), strict=True):
        np.testing.assert_array_equal(forwards, other)


def test_values_stay_within_twelve_bits() -> None:
    volume = np.stack(list(HeadPhantom(draw_spec(4, choice=SMALL)).slices()))

    assert volume.dtype == np.int16
    assert volume.min() >= LOWEST_HU
    assert volume.max() <= HIGHEST_HU


@pytest.mark.parametrize("matrix", [64, 256, 512])
def test_a_slice_has_the_matrix_that_was_asked_for(matrix: int) -> None:
    choice = AcquisitionChoice(slices=3, matrix=matrix)

    assert HeadPhantom(draw_spec(1, choice=choice)).slice_hu(1).shape == (matrix, matrix)


def test_tissues_have_their_densities() -> None:
    phantom = HeadPhantom(quiet(draw_spec(2, choice=AcquisitionChoice(slices=30, matrix=256))))
    image = phantom.slice_hu(18)
    brain = image[100:156, 100:156]

    assert np.median(image[:8, :8]) == -1000
    assert 25 <= np.median(brain) <= 42
    assert image.max() > 700


def test_partial_volume_blurs_the_vertex_of_a_thick_slice() -> None:
    thin, thick = (
        HeadPhantom(
            quiet(
                draw_spec(
                    2,
                    choice=AcquisitionChoice(
                        slices=90, spacing_mm=1.5, thickness_mm=mm, matrix=128
                    ),
                )
            )
        )
        for mm in (1.5, 12.0)
    )
    between = [
        max(np.count_nonzero((image > 200) & (image < 600)) for image in phantom.slices())
        for phantom in (thin, thick)
    ]

    assert between[1] > 1.5 * between[0]


@pytest.mark.parametrize("kind", BleedKind)
def test_truth_measures_the_bleed_that_was_drawn(kind: BleedKind) -> None:
    spec = quiet(draw_spec(3, bleed=kind, choice=SMALL))
    healthy = HeadPhantom(dataclasses.replace(spec, bleeds=()))
    (truth,) = HeadPhantom(spec).truth()
    changed = [
        np.abs(ill.astype(int) - well) > 8
        for ill, well in zip(HeadPhantom(spec).slices(), healthy.slices(), strict=True)
    ]
    extent = np.argwhere(np.stack(changed))
    heights = spec.acquisition.first_mm + extent[:, 0] * spec.acquisition.spacing_mm

    assert truth.kind is kind
    assert truth.volume_ml > 0.1
    assert truth.contrast_hu == pytest.approx(spec.bleeds[0].hu - spec.anatomy.grey_hu)
    assert heights.min() - 6 <= truth.centre_mm[2] <= heights.max() + 6


@pytest.mark.parametrize("kind", BleedKind)
def test_a_bleed_has_the_density_of_its_specification(kind: BleedKind) -> None:
    spec = quiet(draw_spec(3, bleed=kind, choice=SMALL))
    phantom = HeadPhantom(spec)
    drawn = [phantom.draw(phantom.geometry(n), noise_stream=n) for n in range(30)]
    index = int(np.argmax([image.bleed_mm2 for image in drawn]))
    healthy = HeadPhantom(dataclasses.replace(spec, bleeds=())).slice_hu(index)
    ill, well = (
        np.count_nonzero(np.abs(image - spec.bleeds[0].hu) < 9)
        for image in (drawn[index].hu, healthy)
    )
    pixel_mm2 = spec.acquisition.pixel_mm**2

    assert ill - well > 0.3 * drawn[index].bleed_mm2 / pixel_mm2 > 0


def test_a_lump_has_the_volume_of_its_ellipsoid() -> None:
    spec = quiet(draw_spec(8, bleed=BleedKind.INTRAPARENCHYMAL, choice=SMALL))
    bleed = dataclasses.replace(
        spec.bleeds[0], centre_mm=(25.0, 0.0, 15.0), size_mm=15.0, elongation=(1.0, 1.0, 1.0)
    )
    (truth,) = HeadPhantom(dataclasses.replace(spec, bleeds=(bleed,))).truth()

    assert truth.volume_ml == pytest.approx(4 / 3 * np.pi * 1.5**3, rel=0.2)
    assert truth.centre_mm == pytest.approx((25.0, 0.0, 15.0), abs=2.0)


def test_a_healthy_head_has_no_truth_of_a_bleed() -> None:
    assert HeadPhantom(draw_spec(3, choice=SMALL)).truth() == ()


def test_noise_has_the_size_that_the_dose_allows() -> None:
    choice = AcquisitionChoice(slices=30, matrix=512, kernel=Kernel.SOFT)
    spec = draw_spec(6, choice=choice)
    scan = dataclasses.replace(spec.acquisition, pixel_mm=0.45, noise_hu=6.0)
    noisy = HeadPhantom(dataclasses.replace(spec, acquisition=scan))
    silent = HeadPhantom(
        dataclasses.replace(spec, acquisition=dataclasses.replace(scan, noise_hu=0.0))
    )
    noise = noisy.slice_hu(18).astype(float) - silent.slice_hu(18)

    assert noise[206:306, 206:306].std() == pytest.approx(6.0, rel=0.2)


def test_a_bone_kernel_has_finer_grain_than_a_soft_one() -> None:
    def neighbours_agree(kernel: Kernel) -> float:
        spec = draw_spec(6, choice=AcquisitionChoice(slices=30, kernel=kernel))
        image = HeadPhantom(spec).slice_hu(18)[:60, 200:300].astype(float)
        return float(np.corrcoef(image[:, 1:].ravel(), image[:, :-1].ravel())[0, 1])

    assert neighbours_agree(Kernel.BONE) < neighbours_agree(Kernel.SOFT)


def test_slices_of_one_study_have_different_noise() -> None:
    phantom = HeadPhantom(draw_spec(6, choice=SMALL))
    geometry = phantom.geometry(15)
    first, second = (phantom.draw(geometry, noise_stream=n).hu for n in (1, 2))

    assert not np.array_equal(first, second)


def test_a_tilted_gantry_shears_the_stack() -> None:
    phantom = HeadPhantom(draw_spec(1, choice=AcquisitionChoice(slices=10, gantry_tilt_deg=15.0)))
    first, second = phantom.geometry(0), phantom.geometry(1)
    step = np.subtract(second.position_mm, first.position_mm)

    assert step == pytest.approx((0.0, 0.0, phantom.spec.acquisition.spacing_mm))
    assert float(np.dot(first.normal, (0, 0, 1))) == pytest.approx(np.cos(np.radians(15)))


def test_a_plastic_skull_is_full_of_air() -> None:
    spec = quiet(draw_spec(3, filling=Filling.QA_INSERTS, choice=SMALL))
    spec = dataclasses.replace(spec, anatomy=dataclasses.replace(spec.anatomy, inserts=()))

    assert np.median(HeadPhantom(spec).slice_hu(16)[54:74, 54:74]) == -1000


def test_a_moved_head_has_a_double_contour() -> None:
    spec = quiet(draw_spec(3, choice=SMALL))
    moved = dataclasses.replace(spec, placement=dataclasses.replace(spec.placement, motion_mm=6.0))

    assert not np.array_equal(HeadPhantom(spec).slice_hu(16), HeadPhantom(moved).slice_hu(16))
