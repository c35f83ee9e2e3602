from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tools.head_ct import recipe
from tools.head_ct.simulate import (
    PERIOD,
    PhantomSet,
    channels,
    phantom_of,
    simulate,
    simulate_set,
)
from tools.phantoms.head_ct import HeadPhantom
from tools.phantoms.spec import AcquisitionChoice, BleedKind, Filling, draw_spec

MATRIX = 64


def test_no_seed_is_in_two_sets() -> None:
    seeds = [
        phantom_of(phantoms, number, matrix=MATRIX).seed
        for phantoms in PhantomSet
        for number in (0, 999_999)
    ]

    assert len(set(seeds)) == len(seeds)


def test_half_of_a_set_bleeds_and_all_types_are_equally_frequent() -> None:
    specs = [phantom_of(PhantomSet.TRAINING, number, matrix=MATRIX) for number in range(PERIOD)]
    kinds = Counter(bleed.kind for spec in specs for bleed in spec.bleeds)

    assert kinds == Counter(dict.fromkeys(BleedKind, 2))
    assert sum(spec.anatomy.filling is Filling.QA_INSERTS for spec in specs) == 1


def test_slabs_hold_the_bleed_that_was_drawn() -> None:
    spec = draw_spec(
        8,
        bleed=BleedKind.INTRAPARENCHYMAL,
        choice=AcquisitionChoice(slices=75, spacing_mm=2.0, thickness_mm=2.0, matrix=128),
    )
    placement = dataclasses.replace(spec.placement, motion_mm=0.0)
    spec = dataclasses.replace(spec, placement=placement)
    study = simulate(spec)
    (truth,) = HeadPhantom(spec).truth()

    assert study.positive
    assert study.slab_ml.sum() == pytest.approx(study.volume_ml)
    assert study.volume_ml == pytest.approx(truth.volume_ml, rel=0.1, abs=0.1)
    brightest = int(study.slab_ml.argmax())
    height = spec.acquisition.first_mm + brightest * recipe.SLAB_MM
    assert abs(height - truth.centre_mm[2]) < 2 * recipe.SLAB_MM


def test_a_healthy_phantom_has_no_bleed_in_any_slab() -> None:
    study = simulate(draw_spec(8, choice=AcquisitionChoice(slices=30, matrix=MATRIX)))

    assert not study.positive
    assert not study.slab_ml.any()
    assert study.slab_hu.shape == (30, recipe.GRID, recipe.GRID)


def test_channels_are_what_the_package_promises() -> None:
    study = simulate(draw_spec(8, choice=AcquisitionChoice(slices=15, matrix=MATRIX)))
    tensor = channels(study.slab_hu)

    assert tensor.shape == (15, *recipe.INPUT.shape[1:])
    assert tensor.dtype == np.float32
    assert tensor.min() >= 0
    assert tensor.max() <= 1


def test_a_set_is_drawn_once_and_then_read(tmp_path: Path) -> None:
    first, again = (
        list(simulate_set(PhantomSet.SMOKE, 3, matrix=32, folder=tmp_path, processes=1))
        for _ in range(2)
    )

    assert [study.kind for study in first] == [BleedKind.EPIDURAL, None, BleedKind.SUBDURAL]
    assert [study.plastic for study in first] == [False, True, False]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.slab_hu, other.slab_hu)
