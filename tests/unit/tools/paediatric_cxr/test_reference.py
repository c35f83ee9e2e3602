from __future__ import annotations

import numpy as np
import pytest

from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.reference import (
    QUANTITIES,
    imitate_adult,
    measure_inputs,
    outside_reference,
    statistics_of,
    windows_outside,
)
from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import draw_chest_spec

CHESTS = [
    np.rint(draw_chest(draw_chest_spec(seed), rows=112, columns=112).density * 255).astype(np.uint8)
    for seed in range(24)
]


def measured(chests: list[np.ndarray]) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    pictures = np.stack([recipe.picture(pixels) for pixels in chests])
    return measure_inputs(pictures, np.zeros(len(chests)))


def test_each_quantity_is_measured_for_each_picture() -> None:
    found = measured(CHESTS)

    assert set(found) == set(QUANTITIES)
    assert all(values.shape == (len(CHESTS),) for values in found.values())


def test_a_picture_and_its_mirror_image_measure_the_same_and_symmetry_is_one_at_most() -> None:
    one, mirrored = measured(CHESTS), measured([pixels[:, ::-1] for pixels in CHESTS])

    for quantity, values in one.items():
        np.testing.assert_allclose(values, mirrored[quantity], atol=1e-6)
    assert one["input_symmetry"].max() <= 1
    symmetric = np.concatenate([CHESTS[0], CHESTS[0][:, ::-1]], axis=1)
    assert measured([symmetric])["input_symmetry"][0] == pytest.approx(1)


@pytest.mark.parametrize("shift", ["imitated", "inverted"])
def test_a_shift_leaves_the_reference_window(shift: str) -> None:
    changed = [imitate_adult(p) if shift == "imitated" else 255 - p for p in CHESTS]
    outside = outside_reference(measured(CHESTS), measured(changed))

    assert outside.mean() > 0.8


def test_windows_without_a_shift_are_seldom_reported_and_shifted_ones_always() -> None:
    reference = measured(CHESTS)
    inverted = measured([255 - pixels for pixels in CHESTS])

    assert windows_outside(reference, reference, seed=1).mean() < 0.05
    assert windows_outside(reference, inverted, seed=1).all()


def test_statistics_tell_population_and_cases() -> None:
    found = statistics_of(measured(CHESTS), key="drawn", population="Drawn chests")

    assert [item.key for item in found] == [f"{quantity}_drawn" for quantity in QUANTITIES]
    assert {item.cases for item in found} == {len(CHESTS)}
    assert all(len(item.quantiles) == 7 for item in found)


def test_one_case_has_no_spread() -> None:
    (first, *_) = statistics_of(measured(CHESTS[:1]), key="one", population="One")

    assert (first.cases, first.sd, len(first.quantiles)) == (1, 0.0, 1)
