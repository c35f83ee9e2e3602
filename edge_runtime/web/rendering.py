"""Templates with autoescape always on; nothing a peer sent reaches a page unescaped."""

from __future__ import annotations

import jinja2
from markupsafe import Markup

from edge_runtime.model.finding import TRIAGE_NOTICE
from edge_runtime.web.context import ModelWords, WebContext
from edge_runtime.web.lines import Line
from edge_runtime.web.reading import PAGE_LINES, Reading, Summary
from edge_runtime.web.words import clock_words, date_words, iso_words


class Renderer:
    """Renders pages and the fragments of the worklist, which the page and the feed share."""

    def __init__(self, context: WebContext, *, release: str) -> None:
        self._models = context.models
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("edge_runtime.web"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(clock=clock_words, date=date_words, iso=iso_words)
        self._environment.globals.update(
            triage_notice=TRIAGE_NOTICE,
            device_name=context.device_name,
            release=release,
            page_lines=PAGE_LINES,
        )
        self._row = self._environment.get_template("row.html")
        self._summary = self._environment.get_template("summary.html")

    def row(self, line: Line) -> str:
        """Render one line of the worklist."""
        return self._row.render(line=line)

    def summary(self, summary: Summary) -> str:
        """Render what stands above the worklist."""
        return self._summary.render(summary=summary)

    def worklist(
        self, reading: Reading, rows: tuple[str, ...], *, summary: str, page: int, event_id: str
    ) -> str:
        """Render the worklist from rows that are rendered already."""
        return self._render(
            "worklist.html",
            rows=Markup("").join(Markup(row) for row in rows),  # noqa: S704 - our own templates
            summary=Markup(summary),  # noqa: S704 - our own template
            counts=reading.summary.counts,
            page=page,
            event_id=event_id,
        )

    def study(self, detail: object) -> str:
        """Render one study."""
        return self._render("study.html", detail=detail)

    def device(self, device: object) -> str:
        """Render the device page."""
        return self._render("device.html", device=device)

    def models(self, models: tuple[tuple[str, ModelWords], ...]) -> str:
        """Render the list of active models."""
        return self._render("models.html", models=models)

    def error(self, *, status: int, title: str, sentence: str) -> str:
        """Render an error for a person."""
        return self._render("error.html", status=status, title=title, sentence=sentence)

    def _render(self, name: str, **values: object) -> str:
        models = tuple(self._models.values())  # they may change while pages are served
        return self._environment.get_template(name).render(
            values,
            disclaimers=tuple(dict.fromkeys(model.disclaimer for model in models)),
            demonstration=any(model.demonstration for model in models),
        )
