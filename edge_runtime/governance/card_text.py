"""The card as plain text for a terminal or an email."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from edge_runtime.governance.card_charts import Chart
from edge_runtime.governance.card_source import CardSource
from edge_runtime.governance.card_view import (
    Entry,
    EstimateTable,
    Section,
    StatisticTable,
    card_view,
)

_COLUMNS = 100
_INDENT = "  "


def render_card_text(source: CardSource) -> str:
    """Writes the card as text of at most 100 columns, tables apart."""
    view = card_view(source)
    lines = [f"{view.title}: {view.name} {view.version}", ""]
    lines += [line for notice in view.notices for line in _wrapped(notice, "! ", "  ")]
    for section in view.sections:
        lines += _section(section)
    lines += ["", f"Package {view.digest}"]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterable[str]:
    title = section.title.upper() if section.level == 2 else section.title  # noqa: PLR2004 - h2
    yield from ("", title, ("=" if section.level == 2 else "-") * len(title))  # noqa: PLR2004 - h2
    for entry in section.lead:
        yield from _entry(entry)
    for estimates in section.measurements.estimates:
        yield from _estimates(estimates)
    for statistics in section.measurements.statistics:
        yield from _statistics(statistics)
    for chart in section.measurements.charts:
        yield from _curve(chart)
    for figure in section.figures:
        yield from _wrapped(f"{figure.title} ({figure.file}): {figure.alt}", "", _INDENT)
    for entry in section.entries:
        yield from _entry(entry)


def _entry(entry: Entry) -> Iterable[str]:
    yield entry.label
    for paragraph in entry.paragraphs:
        yield from _wrapped(paragraph, _INDENT, _INDENT)
    for item in entry.items:
        yield from _wrapped(item, f"{_INDENT}- ", f"{_INDENT}  ")


def _estimates(table: EstimateTable) -> Iterable[str]:
    head = (table.caption, "value", f"{table.level} interval", "cases")
    return _columns(
        [head, *((row.label, row.value, row.interval, str(row.cases)) for row in table.rows)]
    )


def _statistics(table: StatisticTable) -> Iterable[str]:
    head = (f"{table.caption}, {table.unit}", "mean", "sd", *table.fractions, "cases")
    return _columns(
        [
            head,
            *(
                (row.population, row.mean, row.sd, *row.quantiles, str(row.cases))
                for row in table.rows
            ),
        ]
    )


def _curve(chart: Chart) -> Iterable[str]:
    head = (chart.x_label, chart.y_label, f"{chart.level} interval", "cases")
    yield chart.label
    yield from _columns([head, *((row.x, row.y, row.interval, row.cases) for row in chart.rows)])


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield (_INDENT + "  ".join((first, *others))).rstrip()
    yield ""


def _wrapped(text: str, first: str, later: str) -> Iterable[str]:
    for number, line in enumerate(text.splitlines()):
        start = first if number == 0 else later
        yield from textwrap.wrap(line, _COLUMNS, initial_indent=start, subsequent_indent=later) or [
            ""
        ]
