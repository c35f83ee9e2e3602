"""Charts show the measured points where they are."""

from __future__ import annotations

from typing import Any

import pytest
from simulators.model_papers import curve, reliability, roc, statistic

from edge_runtime.governance.card_charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    STRIP_WIDTH,
    TOP,
    chart_of,
    strips_of,
    unit_position,
)
from edge_runtime.governance.card_source import interval_words, level_words
from engines.card import Curve, Statistic


def chart(table: dict[str, Any]) -> Any:
    return chart_of(Curve.model_validate(table))


def response(*points: tuple[float, float]) -> dict[str, Any]:
    return curve("any", points=[{"x": x, "y": y} for x, y in points])


def test_the_corners_of_the_unit_square_are_the_corners_of_the_drawing() -> None:
    drawn = chart(
        curve(
            "corners", kind="roc", points=[{"x": 0, "y": 0}, {"x": 0.5, "y": 1}, {"x": 1, "y": 1}]
        )
    )
    middle = (LEFT + RIGHT) / 2
    assert [(mark.x, mark.y) for mark in drawn.marks] == [
        (LEFT, BOTTOM),
        (middle, TOP),
        (RIGHT, TOP),
    ]
    assert [tick.label for tick in drawn.x_ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert drawn.diagonal == "chance"
    assert not drawn.has_intervals


def test_a_sparse_curve_has_marks_with_whiskers_and_a_dense_one_a_band() -> None:
    sparse, dense = chart(reliability()), chart(roc())
    assert len(sparse.marks) == 10
    assert sparse.band == ""
    assert all(mark.top <= mark.y <= mark.bottom for mark in sparse.marks)
    assert dense.marks == ()
    assert len(dense.band.split()) == 2 * len(dense.rows)


@pytest.mark.parametrize(
    "points",
    [
        ((0.0, 5.0), (1.0, 5.0)),
        ((3.0, 1.0), (3.0, 2.0)),
        ((-1e12, -1e12), (1e12, 1e12)),
        ((0.0, 1e-9), (1e-9, 2e-9)),
        ((1e12, 0.0), (1e12, 0.0)),
        ((0.5, 80.0), (97.3, 99.4)),
    ],
    ids=str,
)
def test_any_range_is_drawn_inside_the_drawing_with_few_labels(
    points: tuple[tuple[float, float], ...],
) -> None:
    drawn = chart(response(*points))
    for mark in drawn.marks:
        assert LEFT <= mark.x <= RIGHT
        assert TOP <= mark.y <= BOTTOM
    assert 2 <= len(drawn.x_ticks) <= 8
    assert 2 <= len(drawn.y_ticks) <= 8
    assert all(LEFT <= tick.at <= RIGHT for tick in drawn.x_ticks)


def test_the_table_below_a_chart_has_every_point() -> None:
    rows = chart(reliability()).rows
    assert len(rows) == 10
    assert (rows[0].x, rows[0].y, rows[0].cases) == ("0.05", "0.05", "40")
    assert rows[0].interval == "0–0.14"
    assert chart(response((0, 1), (1, 2))).rows[0].interval == ""


def test_populations_share_one_scale() -> None:
    children, adults = strips_of(
        [
            Statistic.model_validate(statistic("pixels_a", "Children", 0.4)),
            Statistic.model_validate(statistic("pixels_b", "Adults", 0.6)),
        ]
    )
    assert children.low == 4
    assert adults.high == STRIP_WIDTH - 4
    for strip in (children, adults):
        assert strip.low < strip.box_low < strip.middle < strip.box_high < strip.high
    assert children.middle < adults.middle


def test_a_population_without_quantiles_is_shown_by_mean_and_deviation() -> None:
    table = statistic("pixels_a", "Children", 0.4, quantiles=[])
    (strip,) = strips_of([Statistic.model_validate(table)])
    assert (strip.low, strip.box_low) == (4, 4)
    assert strip.middle == STRIP_WIDTH / 2
    (constant,) = strips_of([Statistic.model_validate(table | {"sd": 0})])
    assert constant.low == constant.high


def test_fractions_run_from_end_to_end() -> None:
    assert (unit_position(0), unit_position(0.5), unit_position(1)) == (4, 75, 146)


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        (0.905, 0.905, "0.905–0.905"),
        (0.9059, 0.9051, "0.905–0.906"),
        (0.0, 1.0, "0.000–1.000"),
        (1e-9, 0.99999, "0.000–1.000"),
    ],
)
def test_an_interval_is_rounded_outwards(lower: float, upper: float, words: str) -> None:
    assert interval_words(lower, upper) == words


def test_levels_are_said_without_noise() -> None:
    assert level_words(0.95) == "95\N{NO-BREAK SPACE}%"
    assert level_words(0.07) == "7\N{NO-BREAK SPACE}%"
    assert level_words(0.999) == "99.9\N{NO-BREAK SPACE}%"
