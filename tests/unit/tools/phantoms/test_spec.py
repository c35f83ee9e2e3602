from __future__ import annotations

import dataclasses

import pytest

from tools.phantoms.errors import PhantomUsageError
from tools.phantoms.spec import (
    COVERAGE_MM,
    AcquisitionChoice,
    BleedKind,
    Filling,
    draw_spec,
)


def test_one_seed_gives_one_specification() -> None:
    assert draw_spec(5, positive=True) == draw_spec(5, positive=True)
    assert draw_spec(5) != draw_spec(6)


def test_a_bleed_changes_nothing_else_of_the_head() -> None:
    healthy = draw_spec(5)
    ill = draw_spec(5, bleed=BleedKind.SUBDURAL)

    assert ill.anatomy == healthy.anatomy
    assert ill.placement == healthy.placement
    assert ill.acquisition == healthy.acquisition


@pytest.mark.parametrize("kind", BleedKind)
def test_a_bleed_is_as_dense_as_fresh_blood(kind: BleedKind) -> None:
    for seed in range(20):
        spec = draw_spec(seed, bleed=kind)

        assert spec.positive
        assert [bleed.kind for bleed in spec.bleeds] == [kind]
        assert 50 <= spec.bleeds[0].hu <= 85


def test_positive_lets_the_seed_choose_the_bleed() -> None:
    kinds = {draw_spec(seed, positive=True).bleeds[0].kind for seed in range(40)}

    assert kinds == set(BleedKind)


@pytest.mark.parametrize("slices", [30, 40, 150, 400])
def test_a_full_stack_covers_the_head(slices: int) -> None:
    scan = draw_spec(1, choice=AcquisitionChoice(slices=slices)).acquisition

    assert scan.slices * scan.spacing_mm == pytest.approx(COVERAGE_MM, rel=0.01)
    assert scan.thickness_mm == scan.spacing_mm


@pytest.mark.parametrize("seed", range(12))
def test_a_short_stack_lies_around_the_bleed(seed: int) -> None:
    spec = draw_spec(seed, positive=True, choice=AcquisitionChoice(slices=14))
    scan = spec.acquisition
    height = spec.bleeds[0].centre_mm[2]

    assert scan.spacing_mm == 5.0
    assert scan.first_mm <= height <= scan.first_mm + scan.slices * scan.spacing_mm


def test_a_thin_slice_is_noisier_than_a_thick_one() -> None:
    thick, thin = (
        draw_spec(3, choice=AcquisitionChoice(thickness_mm=mm)).acquisition for mm in (5.0, 1.25)
    )

    assert thin.noise_hu == pytest.approx(2 * thick.noise_hu)


def test_contrast_fills_vessels() -> None:
    assert draw_spec(1).anatomy.vessel_hu is None
    assert draw_spec(1, contrast=True).anatomy.vessel_hu is not None


@pytest.mark.parametrize(("slices", "matrix"), [(0, 512), (4001, 512), (30, 30), (30, 65)])
def test_an_impossible_acquisition_is_refused_with_the_bounds(slices: int, matrix: int) -> None:
    with pytest.raises(PhantomUsageError, match="choose"):
        AcquisitionChoice(slices=slices, matrix=matrix)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(PhantomUsageError, match="seed"):
        draw_spec(-1)


def test_a_phantom_without_brain_cannot_bleed() -> None:
    with pytest.raises(PhantomUsageError, match="cannot bleed"):
        draw_spec(1, positive=True, filling=Filling.QA_INSERTS)


def test_specifications_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        draw_spec(1).seed = 2  # type: ignore[misc]  # what the test is about
