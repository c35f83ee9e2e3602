"""Puts the evaluation's figures into the model's page, so that nobody types them."""

from __future__ import annotations

from collections.abc import Iterable

from engines.card import Estimate, Evaluation, Statistic
from tools.paediatric_cxr import recipe

BEGIN = "<!-- figures: written by tools.paediatric_cxr.build_package, do not edit -->\n"
END = "<!-- end of figures -->\n"
MAIN_TABLE = "Main figures"


def with_figures(page: str, evaluation: Evaluation) -> str:
    """The page with its figures renewed.

    Raises:
        ValueError: the page lacks the marks between which the figures stand.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page must hold the lines {BEGIN.strip()!r} and {END.strip()!r}")
    return before + begin + figures_text(evaluation) + end + after


def figures_text(evaluation: Evaluation) -> str:
    """All figures as Markdown tables, one for each group, and the input statistics."""
    groups: dict[str, list[Estimate]] = {}
    for estimate in evaluation.estimates:
        groups.setdefault(estimate.group or MAIN_TABLE, []).append(estimate)
    threshold = evaluation.thresholds[recipe.FINDING]
    cases = (
        f"Version {evaluation.model_version}, operating point {threshold}: "
        f"{evaluation.positives} radiographs with pneumonia, {evaluation.negatives} without.\n"
    )
    tables = [f"\n**{group}**\n\n{_table(estimates)}" for group, estimates in groups.items()]
    return cases + "".join(tables) + _statistics(evaluation.statistics)


def _table(estimates: Iterable[Estimate]) -> str:
    rows = [
        f"| {item.label} | {item.value:.3f} | {item.lower:.3f}–{item.upper:.3f} | {item.cases} |\n"
        for item in estimates
    ]
    return "| figure | value | 95 % interval | cases |\n|---|---|---|---|\n" + "".join(rows)


def _statistics(statistics: Iterable[Statistic]) -> str:
    rows = [
        f"| {item.label} ({item.unit}) | {item.population} | {item.cases} | {item.mean:.3f} "
        f"| {item.sd:.3f} | {_ends(item)} |\n"
        for item in statistics
    ]
    head = "| quantity | population | cases | mean | deviation | 1 % to 99 % |\n"
    return "\n**Input statistics**\n\n" + head + "|---|---|---|---|---|---|\n" + "".join(rows)


def _ends(statistic: Statistic) -> str:
    if statistic.cases == 1:
        return "one radiograph"
    return f"{statistic.quantiles[0].value:.3f} to {statistic.quantiles[-1].value:.3f}"
