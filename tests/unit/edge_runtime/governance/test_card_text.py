"""The card as plain text."""

from __future__ import annotations

from simulators.model_papers import card_source, card_table

from edge_runtime.governance.card_text import render_card_text


def test_the_text_opens_with_the_model_and_its_disclaimers() -> None:
    lines = render_card_text(card_source()).splitlines()
    assert lines[:6] == [
        "BRIGHT: bright_phantom 1.2.3",
        "",
        "! For triage, not for diagnosis.",
        "! Demonstration, not a cleared device.",
        "! For tests only.",
        "! Not for patients.",
    ]


def test_texts_wrap_and_lists_are_marked() -> None:
    table = card_table()
    table["summary"]["text"] = "word " * 100
    table["uses"]["out_of_scope"] = ["Dogs", "Cats and other animals " * 10]
    text = render_card_text(card_source(table))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "\n  - Dogs\n  - Cats and other" in text


def test_every_measurement_stands_in_a_table() -> None:
    text = render_card_text(card_source())
    for words in (
        "Sensitivity  0.938  0.905–0.960",
        "By sex",
        "Specificity, blurred",
        "Reference window: children",
        "Sensitivity under noise",
        "Under blur",
        "ROC picture (figures/roc.png): A curve near the corner.",
    ):
        assert words in text


def test_the_text_ends_with_the_package_it_belongs_to() -> None:
    assert render_card_text(card_source()).endswith(f"\nPackage {'ab' * 32}\n")
