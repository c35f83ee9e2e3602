from __future__ import annotations

from collections import Counter

import numpy as np

from tools.head_ct import recipe
from tools.head_ct.phantom_sets import PERIOD, PhantomSet, phantom_of, steep, table_mm
from tools.phantoms.spec import BleedKind, Filling

MATRIX = 64
SEEDS_OF_EARLIER_TESTS = (range(3_000_000, 4_000_000), range(5_000_000, 6_000_000))


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


def test_no_earlier_test_set_is_used_again() -> None:
    seed = phantom_of(PhantomSet.TEST, 0, matrix=MATRIX).seed

    assert not any(seed in seeds for seeds in SEEDS_OF_EARLIER_TESTS)


def test_training_phantoms_lie_straight_at_the_origin() -> None:
    specs = [phantom_of(PhantomSet.TRAINING, number, matrix=MATRIX) for number in range(PERIOD)]

    assert {spec.acquisition.gantry_tilt_deg for spec in specs} == {0.0}
    assert {table_mm(PhantomSet.TRAINING, spec) for spec in specs} == {0.0}


def test_test_phantoms_lie_anywhere_and_lean_as_far_as_the_gate_allows() -> None:
    specs = [phantom_of(PhantomSet.TEST, number, matrix=MATRIX) for number in range(200)]
    tilts = np.array([spec.acquisition.gantry_tilt_deg for spec in specs])
    phases = np.array([table_mm(PhantomSet.TEST, spec) % recipe.SLAB_MM for spec in specs])

    assert 0.3 < np.count_nonzero(tilts) / len(tilts) < 0.5
    assert 0.8 < np.abs(tilts).max() < recipe.GATE.max_gantry_tilt_deg
    assert np.histogram(phases, bins=5, range=(0, recipe.SLAB_MM))[0].min() > 20


def test_a_steep_phantom_differs_in_nothing_but_its_tilt() -> None:
    spec = phantom_of(PhantomSet.TEST, 3, matrix=MATRIX)
    other = steep(spec)

    assert abs(other.acquisition.gantry_tilt_deg) > recipe.GATE.max_gantry_tilt_deg
    assert (other.anatomy, other.placement, other.bleeds) == (
        spec.anatomy,
        spec.placement,
        spec.bleeds,
    )
