"""What ``card.toml`` and ``evaluation.json`` may say, and what they may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from simulators.model_papers import card_table, curve, estimate, evaluation_table, statistic

from engines.card import MAX_POINTS, Evaluation, ModelCard


@pytest.mark.parametrize(
    "text",
    [
        *("a\x00b", "a\x1bb", "a\x7fb", "a\x9bb", "a\rb", "\ufffe"),
        *("left \u202eto right", "\u2066isolated"),
        *("", "   ", "\n\n"),
        "x" * 4001,
    ],
    ids=ascii,
)
def test_text_that_cannot_be_written_or_read_as_it_stands_is_refused(text: str) -> None:
    table = card_table()
    table["summary"]["text"] = text
    with pytest.raises(ValidationError, match=r"summary\.text"):
        ModelCard.model_validate(table)


def test_text_of_any_language_and_any_markup_is_taken_as_it_stands() -> None:
    text = 'Tête, Kopf, 頭, رأس, 😀 <b>&amp;</b> "quoted" ]]> -- {{ 1 }}\n\tsecond line'
    table = card_table()
    table["summary"]["text"] = text
    assert ModelCard.model_validate(table).summary.text == text


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab"])
def test_a_line_is_one_line(text: str) -> None:
    table = card_table()
    table["developer"]["name"] = text
    with pytest.raises(ValidationError, match="one line"):
        ModelCard.model_validate(table)


@pytest.mark.parametrize(
    "file", ["../roc.png", "/roc.png", ".hidden.png", "roc.gif", "roc.PNG", "a b.svg", "roc.html"]
)
def test_a_figure_is_a_png_or_svg_of_the_package(file: str) -> None:
    table = card_table()
    table["figures"] = [{"file": file, "title": "A", "alt": "B"}]
    with pytest.raises(ValidationError, match=r"figures\.0\.file"):
        ModelCard.model_validate(table)


@pytest.mark.parametrize("kind", ["estimates", "curves", "statistics"])
def test_what_a_metric_quotes_must_have_been_measured_as_what_it_is(kind: str) -> None:
    table = card_table()
    evaluation = Evaluation.model_validate(evaluation_table())
    assert ModelCard.model_validate(table).unmeasured(evaluation) == ()
    other = "noise" if kind != "curves" else "sensitivity"
    table["metrics"]["safety"][kind] = [other, "never_measured"]
    assert ModelCard.model_validate(table).unmeasured(evaluation) == ("never_measured", other)


@pytest.mark.parametrize(
    ("kind", "item"),
    [
        ("estimates", estimate("sensitivity")),
        ("curves", curve("noise")),
        ("statistics", statistic("pixels_adults", "Adults", 0.5)),
    ],
)
def test_two_measurements_of_one_key_are_refused(kind: str, item: dict[str, Any]) -> None:
    table = evaluation_table()
    table[kind] = [item, item]
    with pytest.raises(ValidationError, match=f"two {kind} have the same 'key'"):
        Evaluation.model_validate(table)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"points": [{"x": 1, "y": 0.5}]}, "points"),
        ({"points": [{"x": 1, "y": 0.5}, {"x": 0, "y": 0.5}]}, "sort the points"),
        ({"points": [{"x": 0, "y": 0.5, "lower": 0.4}, {"x": 1, "y": 0.5}]}, "both"),
        ({"points": [{"x": 0, "y": 0.5, "lower": 0.6, "upper": 0.7}] * 2}, "within its interval"),
        ({"points": [{"x": 0, "y": float("nan")}] * 2}, "finite"),
        ({"points": [{"x": 0, "y": 1e13}] * 2}, "less than or equal"),
        ({"points": [{"x": 0, "y": 0.5}] * 257}, "at most 256"),
        ({"kind": "roc", "points": [{"x": 0, "y": 0.5}, {"x": 1.5, "y": 1}]}, "within 0 and 1"),
        ({"kind": "reliability", "points": [{"x": 0, "y": -0.5}] * 2}, "within 0 and 1"),
        ({"kind": "pie"}, "kind"),
        ({"colour": "red"}, "colour"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_impossible_curve_is_refused(changes: dict[str, object], words: str) -> None:
    table = evaluation_table()
    table["curves"] = [*table["curves"], curve("odd", **changes)]
    with pytest.raises(ValidationError, match=words):
        Evaluation.model_validate(table)


def test_curves_have_a_bound_together() -> None:
    table = evaluation_table()
    points = [{"x": x, "y": 0.5} for x in range(256)]
    curves = [curve(f"curve_{n}", points=points) for n in range(MAX_POINTS // 256)]
    table["curves"] = curves
    assert Evaluation.model_validate(table)
    table["curves"] = [*curves, curve("one_more")]
    with pytest.raises(ValidationError, match=f"at most {MAX_POINTS} points"):
        Evaluation.model_validate(table)


@pytest.mark.parametrize(
    "changes",
    [
        {"sd": -0.1},
        {"cases": 0},
        {"mean": float("inf")},
        {"unit": "u" * 41},
        {"quantiles": [{"fraction": 0.5, "value": 1}, {"fraction": 0.5, "value": 2}]},
        {"quantiles": [{"fraction": 0.1, "value": 2}, {"fraction": 0.5, "value": 1}]},
        {"quantiles": [{"fraction": 1.5, "value": 2}]},
    ],
    ids=str,
)
def test_an_impossible_distribution_is_refused(changes: dict[str, object]) -> None:
    table = evaluation_table()
    table["statistics"] = [statistic("odd", "Adults", 0.5, **changes)]
    with pytest.raises(ValidationError, match=r"statistics\.0"):
        Evaluation.model_validate(table)


def test_an_evaluation_without_curves_and_statistics_stays_valid() -> None:
    table = evaluation_table()
    del table["curves"], table["statistics"]
    evaluation = Evaluation.model_validate(table)
    assert evaluation.curves == ()
    assert evaluation.statistics == ()
    assert evaluation.estimates[0].group is None
