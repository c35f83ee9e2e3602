"""Puts the evaluation's figures into the model's page, so that nobody types them."""

from __future__ import annotations

from engines.card import Evaluation

BEGIN = "<!-- figures: written by tools.head_ct.build_package, do not edit -->\n"
END = "<!-- end of figures -->\n"


def figures_table(evaluation: Evaluation) -> str:
    """The figures as a Markdown table with a line about the cases."""
    rows = [
        f"| {estimate.label} | {estimate.value:.3f} | {estimate.lower:.3f}–{estimate.upper:.3f} "
        f"| {estimate.cases} |\n"
        for estimate in evaluation.estimates
    ]
    head = "| figure | value | 95 % interval | phantoms |\n|---|---|---|---|\n"
    cases = (
        f"\nVersion {evaluation.model_version}, operating point {evaluation.threshold}: "
        f"{evaluation.positives} phantoms with a bleed, {evaluation.negatives} without.\n"
    )
    return head + "".join(rows) + cases


def with_figures(page: str, evaluation: Evaluation) -> str:
    """The page with its figures renewed.

    Raises:
        ValueError: the page lacks the marks between which the figures stand.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must hold the lines {BEGIN.strip()!r} and {END.strip()!r}")
    return before + begin + figures_table(evaluation) + end + after
