from __future__ import annotations

import numpy as np
import pytest

from tools.phantoms.chest import draw_chest
from tools.phantoms.chest_spec import OpacityKind, draw_chest_spec


def test_a_seed_decides_the_picture() -> None:
    one, again, other = (
        draw_chest(draw_chest_spec(seed), rows=96, columns=96) for seed in (1, 1, 2)
    )

    np.testing.assert_array_equal(one.density, again.density)
    assert np.abs(one.density - other.density).mean() > 0.01


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (128, 96), (96, 160)])
def test_density_lies_between_nothing_and_everything(rows: int, columns: int) -> None:
    drawn = draw_chest(draw_chest_spec(3), rows=rows, columns=columns)

    assert drawn.density.shape == (rows, columns)
    assert drawn.density.dtype == np.float32
    assert drawn.density.min() >= 0
    assert drawn.density.max() <= 1


@pytest.mark.parametrize("side", [63, 4097])
def test_a_size_out_of_bounds_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match="64 to 4096"):
        draw_chest(draw_chest_spec(3), rows=side, columns=128)


@pytest.mark.parametrize("seed", range(5))
def test_lungs_are_darker_than_what_is_around_them(seed: int) -> None:
    drawn = draw_chest(draw_chest_spec(seed), rows=160, columns=160)
    inside, belly = drawn.lungs > 0.9, drawn.density[-12:, 60:100]

    assert 0.1 < inside.mean() < 0.45
    assert drawn.density[inside].mean() + 0.1 < belly.mean()


@pytest.mark.parametrize("kind", list(OpacityKind))
def test_an_opacity_brightens_lungs_and_nothing_else(kind: OpacityKind) -> None:
    clear = draw_chest(draw_chest_spec(5), rows=160, columns=160)
    ill = draw_chest(draw_chest_spec(5, opacity=kind), rows=160, columns=160)
    inside = clear.lungs > 0.9

    assert not clear.opacity.any()
    assert ill.opacity[clear.lungs < 0.01].max() < 0.02
    assert ill.density[inside].mean() > clear.density[inside].mean() + 0.02
    difference = np.abs(ill.density - clear.density)[clear.lungs < 0.001]
    assert difference.mean() < 0.01


def test_the_seed_chooses_a_kind_when_none_is_named() -> None:
    kinds = set()
    for seed in range(40):
        opacity = draw_chest_spec(seed, positive=True).opacity
        assert opacity is not None
        kinds.add(opacity.kind)

    assert kinds == set(OpacityKind)
    assert draw_chest_spec(1).opacity is None
