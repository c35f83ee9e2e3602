"""What each address answers."""

from __future__ import annotations

import sqlite3
from urllib.parse import parse_qs

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from edge_runtime.store.alarms import standing_alarms
from edge_runtime.store.engines import engines_in_use
from edge_runtime.store.model_packages import list_packages
from edge_runtime.store.processes import list_processes
from edge_runtime.store.worklist import StudyDetail, count_studies, find_study, list_studies
from edge_runtime.web.api import Json, detail_json, studies_json
from edge_runtime.web.context import WebContext
from edge_runtime.web.database_thread import DatabaseThread
from edge_runtime.web.details import DevicePage, device_page, study_page
from edge_runtime.web.feed import Feed
from edge_runtime.web.guard import MAX_BODY_BYTES
from edge_runtime.web.marks import mark_acknowledged
from edge_runtime.web.reading import PAGE_LINES, read_page
from edge_runtime.web.rendering import Renderer
from edge_runtime.web.stream import EventStream

_MAX_NUMBER = 10_000_000  # of a page, an offset or a row: far beyond any device, safe for SQLite
_API_LIMIT = 500
_FIELDS = 32
_HEALTHY_US = 5_000_000


class Handlers:
    """The endpoints; each reads what it shows and holds no state of its own."""

    def __init__(
        self,
        context: WebContext,
        renderer: Renderer,
        feed: Feed,
        *,
        reader: DatabaseThread,
        writer: DatabaseThread,
    ) -> None:
        self._context = context
        self._renderer = renderer
        self._feed = feed
        self._reader = reader
        self._writer = writer

    async def worklist(self, request: Request) -> Response:
        """The worklist; the first page comes from the feed, without touching the database."""
        page = _number(request, "page", default=1, lowest=1)
        if page > 1:
            return HTMLResponse(await self._reader.run(lambda db: self._later_page(db, page)))
        snapshot = self._feed.snapshot
        self._feed.note_shown(snapshot.reading.lines)
        return HTMLResponse(
            self._renderer.worklist(
                snapshot.reading,
                snapshot.rows,
                summary=snapshot.summary,
                page=1,
                event_id=snapshot.event_id,
            )
        )

    def _later_page(self, connection: sqlite3.Connection, page: int) -> str:
        now_wall_us = self._context.clock.now().wall_us
        reading = read_page(connection, self._context.models, page=page, now_wall_us=now_wall_us)
        if not reading.lines:
            raise HTTPException(404)
        return self._renderer.worklist(
            reading,
            tuple(self._renderer.row(line) for line in reading.lines),
            summary=self._renderer.summary(reading.summary),
            page=page,
            event_id="",
        )

    async def study(self, request: Request) -> Response:
        """One study with all that happened to it."""
        detail = await self._find(request)
        page = study_page(detail, self._context.models)
        self._feed.note_shown((page.line,))
        return HTMLResponse(self._renderer.study(page))

    async def acknowledge(self, request: Request) -> Response:
        """A reader saw the outcomes that the form names."""
        form = _parse_form(await _bounded_body(request))
        ids = frozenset(int(v) for v in form.get("analysis", ()) if v.isascii() and v.isdigit())
        key = request.path_params["study_key"]
        at = self._context.clock.now()
        seen = await self._writer.run(lambda db: mark_acknowledged(db, key, ids, at))
        if seen is None:
            raise HTTPException(404)
        if seen == 0:
            raise HTTPException(400)
        back = "/" if form.get("back") == ["worklist"] else f"/study/{key}"
        return RedirectResponse(back, status_code=303)

    async def device(self, request: Request) -> Response:
        """Processes, alarms and versions."""
        del request
        return HTMLResponse(self._renderer.device(await self._reader.run(self._device)))

    def _device(self, connection: sqlite3.Connection) -> DevicePage:
        return device_page(
            list_processes(connection),
            standing_alarms(connection),
            models=self._context.models,
            packages=list_packages(connection),
            engines=engines_in_use(connection),
            studies=count_studies(connection),
            now=self._context.clock.now(),
        )

    async def models(self, request: Request) -> Response:
        """The active models, with the way to their cards."""
        del request
        return HTMLResponse(self._renderer.models(tuple(sorted(self._context.models.items()))))

    async def model_card(self, request: Request) -> Response:
        """What a model is for, what it is not for, and what was measured."""
        name = request.path_params["name"]
        page = await anyio.to_thread.run_sync(self._context.read_card, name)
        if page is None:
            raise HTTPException(404)
        return HTMLResponse(page.html, headers={"Content-Security-Policy": page.policy})

    async def events(self, request: Request) -> Response:
        """The live feed of the first page."""
        if self._feed.is_full:
            raise HTTPException(503)
        last = request.headers.get("last-event-id") or request.query_params.get("after", "")
        return EventStream(self._feed, last_event_id=last)

    async def api_studies(self, request: Request) -> Response:
        """The worklist as JSON, paged."""
        limit = min(_number(request, "limit", default=PAGE_LINES, lowest=1), _API_LIMIT)
        offset = _number(request, "offset", default=0, lowest=0)

        def read(connection: sqlite3.Connection) -> Json:
            return studies_json(
                list_studies(connection, limit=limit, offset=offset),
                self._context.models,
                total=count_studies(connection),
                limit=limit,
                offset=offset,
            )

        return JSONResponse(await self._reader.run(read))

    async def api_study(self, request: Request) -> Response:
        """One study as JSON."""
        return JSONResponse(detail_json(await self._find(request), self._context.models))

    async def health(self, request: Request) -> Response:
        """Says to the supervisor whether the page shows what the database holds."""
        del request
        age_us = self._feed.age_us()
        healthy = age_us < _HEALTHY_US
        return JSONResponse(
            {"healthy": healthy, "behind_ms": age_us // 1000}, status_code=200 if healthy else 503
        )

    async def _find(self, request: Request) -> StudyDetail:
        key = request.path_params["study_key"]
        detail = await self._reader.run(lambda db: find_study(db, key))
        if detail is None or detail.study.study_key != key:  # no UIDs in addresses
            raise HTTPException(404)
        return detail


def _number(request: Request, name: str, *, default: int, lowest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and lowest <= int(text[:9]) <= _MAX_NUMBER):
        raise HTTPException(400)
    return int(text[:9])


def _parse_form(body: str) -> dict[str, list[str]]:
    try:
        return parse_qs(body, max_num_fields=_FIELDS)
    except ValueError:
        raise HTTPException(400) from None


async def _bounded_body(request: Request) -> str:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413)
    return body.decode("ascii", "replace")
