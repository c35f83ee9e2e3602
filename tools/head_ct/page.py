"""Puts the evaluation's figures into the model's page, so that nobody types them."""

from __future__ import annotations

from itertools import groupby

from engines.card import Estimate, Evaluation

BEGIN = "<!-- figures: written by tools.head_ct.build_package, do not edit -->\n"
END = "<!-- end of figures -->\n"
MAIN_TITLE = "All phantoms"


def figures_tables(evaluation: Evaluation) -> str:
    """The figures as Markdown tables, one for each group, with a line about the cases."""
    tables = [
        _table(title or MAIN_TITLE, list(estimates))
        for title, estimates in groupby(
            sorted(evaluation.estimates, key=lambda item: _first_place(item, evaluation)),
            key=lambda item: item.group,
        )
    ]
    points = ", ".join(str(threshold) for threshold in evaluation.thresholds.values())
    cases = (
        f"Version {evaluation.model_version}, operating point {points}: "
        f"{evaluation.positives} phantoms with a bleed, {evaluation.negatives} without.\n"
    )
    return "\n".join([*tables, cases])


def _first_place(estimate: Estimate, evaluation: Evaluation) -> int:
    """Where the estimate's group is first met: groups stay together in the order of the file."""
    return [item.group for item in evaluation.estimates].index(estimate.group)


def _table(title: str, estimates: list[Estimate]) -> str:
    rows = [
        f"| {estimate.label} | {estimate.value:.3f} | {estimate.lower:.3f}–{estimate.upper:.3f} "
        f"| {estimate.cases} |\n"
        for estimate in estimates
    ]
    return f"| {title} | value | 95 % interval | phantoms |\n|---|---|---|---|\n" + "".join(rows)


def with_figures(page: str, evaluation: Evaluation) -> str:
    """The page with its figures renewed.

    Raises:
        ValueError: the page lacks the marks between which the figures stand.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must hold the lines {BEGIN.strip()!r} and {END.strip()!r}")
    return before + begin + figures_tables(evaluation) + end + after
