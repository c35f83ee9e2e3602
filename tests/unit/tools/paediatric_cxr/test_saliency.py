from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.paediatric_cxr import recipe
from tools.paediatric_cxr.saliency import (
    CELLS,
    RING_SHARE,
    Paint,
    background,
    occlusion_map,
    opaque_cells,
    rank_correlation,
    ring_share,
    shuffled_model,
)
from tools.paediatric_cxr.scoring import scorer

MakeModel = Callable[[NDArray[Any]], Path]
CELL = recipe.SIDE // CELLS


def checks() -> NDArray[np.float32]:
    """A picture whose cells all have detail: fine checks."""
    rows, columns = np.indices((recipe.SIDE, recipe.SIDE))
    return np.asarray((rows // 4 + columns // 4) % 2, np.float32)


def test_the_map_finds_the_cell_that_the_network_looks_at(weighing_model: MakeModel) -> None:
    weights = np.zeros((recipe.SIDE, recipe.SIDE))
    top, left = 2 * CELL, 4 * CELL
    weights[top : top + CELL, left : left + CELL] = checks()[top : top + CELL, left : left + CELL]
    with scorer(weighing_model(weights)) as model:
        falls = occlusion_map(model, checks())

    assert divmod(int(falls.argmax()), CELLS) == (2, 4)
    assert np.abs(np.delete(falls.ravel(), 2 * CELLS + 4)).max() < 1e-3
    assert ring_share(falls) < 1e-3


def test_painting_the_mean_takes_a_smooth_density_away_and_the_background_does_not(
    weighing_model: MakeModel,
) -> None:
    picture = np.full((recipe.SIDE, recipe.SIDE), 0.2, np.float32)
    picture[: 3 * CELL, : 3 * CELL] = 0.9
    weights = np.zeros_like(picture)
    weights[CELL : 2 * CELL, CELL : 2 * CELL] = 1
    with scorer(weighing_model(weights)) as model:
        falls = {paint: occlusion_map(model, picture, paint)[1, 1] for paint in Paint}

    assert falls[Paint.MEAN] > 2 * abs(falls[Paint.BACKGROUND])


def test_a_network_of_the_border_has_its_effect_in_the_ring(weighing_model: MakeModel) -> None:
    weights = checks().copy()
    weights[CELL:-CELL, CELL:-CELL] = 0
    with scorer(weighing_model(weights)) as model:
        assert ring_share(occlusion_map(model, checks())) == pytest.approx(1, abs=0.01)


def test_even_effect_gives_the_ring_its_share_of_the_area() -> None:
    assert ring_share(np.ones((CELLS, CELLS))) == pytest.approx(RING_SHARE)
    assert ring_share(np.zeros((CELLS, CELLS))) == RING_SHARE
    assert round(RING_SHARE, 2) == 0.49


def test_the_background_keeps_the_mean_and_loses_the_detail() -> None:
    soft = background(checks())

    assert soft.shape == checks().shape
    assert float(soft[CELL:-CELL, CELL:-CELL].std()) < 0.02
    assert float(soft.mean()) == pytest.approx(0.5, abs=0.02)


def test_rank_correlation_is_that_of_ranks() -> None:
    one = np.arange(49, dtype=np.float64).reshape(7, 7)

    assert rank_correlation(one, np.exp(one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert rank_correlation(one, np.zeros((7, 7))) == 0


def test_shuffled_weights_are_the_same_numbers_elsewhere(
    weighing_model: MakeModel, tmp_path: Path
) -> None:
    weights = np.random.default_rng(1).normal(size=(recipe.SIDE, recipe.SIDE))
    path = weighing_model(weights)
    shuffled_model(path, tmp_path / "one.onnx", seed=1)
    shuffled_model(path, tmp_path / "again.onnx", seed=1)
    picture = np.random.default_rng(2).random((1, recipe.SIDE, recipe.SIDE)).astype(np.float32)
    logits = []
    for name in ("weighing.onnx", "one.onnx", "again.onnx"):
        with scorer(tmp_path / name) as model:
            logits.append(float(model.of_pictures(picture)[0]))

    assert logits[0] != pytest.approx(logits[1], abs=1e-3)
    assert logits[1] == logits[2]


def test_opaque_cells_are_those_that_the_opacity_reaches() -> None:
    opacity = np.zeros((224, 224), np.float32)
    opacity[40:60, 100:120] = 0.4

    cells = opaque_cells(opacity)

    assert cells[1, 3]
    assert cells.sum() <= 2
