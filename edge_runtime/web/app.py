"""Composes the page: routes, guard, error pages, and what lives as long as the server."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from edge_runtime.web.context import WebContext
from edge_runtime.web.database_thread import DatabaseThread
from edge_runtime.web.feed import Feed
from edge_runtime.web.guard import Guard
from edge_runtime.web.handlers import Handlers
from edge_runtime.web.rendering import Renderer

_STATIC = Path(__file__).with_name("static")

_ERROR_WORDS = {
    400: ("Not understood", "The device did not understand this request."),
    404: ("Not here", "There is nothing at this address. The study may have left the device."),
    405: ("Not possible", "This address does not do that."),
    413: ("Too large", "The request is larger than the page ever sends."),
    503: ("Too many pages", "Too many pages are open on this device. Close some and try again."),
}


def build_app(context: WebContext) -> Starlette:
    """Compose the page; its feed, as ``app.state.feed``, lives while the app's lifespan does."""
    renderer = Renderer(context, release=importlib.metadata.version("edge-triage"))
    watcher = DatabaseThread(context.database, "web-watcher")
    reader = DatabaseThread(context.database, "web-reader")
    writer = DatabaseThread(context.database, "web-writer", writes=True)
    feed = Feed(context, renderer, reader=watcher, writer=writer)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        del app
        async with watcher, reader, writer:
            await feed.start()
            async with anyio.create_task_group() as group:
                group.start_soon(feed.watch, name="web-watch")
                group.start_soon(feed.mark, name="web-mark")
                yield
                group.cancel_scope.cancel()

    app = Starlette(
        routes=_routes(Handlers(context, renderer, feed, reader=reader, writer=writer)),
        middleware=[Middleware(Guard, allowed_hosts=context.allowed_hosts)],
        exception_handlers={HTTPException: _error_page(renderer)},
        lifespan=lifespan,
    )
    app.state.feed = feed
    return app


def _routes(handlers: Handlers) -> list[Route | Mount]:
    return [
        Route("/", handlers.worklist),
        Route("/events", handlers.events),
        Route("/study/{study_key}", handlers.study),
        Route("/study/{study_key}/acknowledge", handlers.acknowledge, methods=["POST"]),
        Route("/device", handlers.device),
        Route("/models", handlers.models),
        Route("/models/{name}/card", handlers.model_card),
        Route("/api/studies", handlers.api_studies),
        Route("/api/studies/{study_key}", handlers.api_study),
        Route("/healthz", handlers.health),
        Mount("/static", StaticFiles(directory=_STATIC), name="static"),
    ]


def _error_page(renderer: Renderer) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title, sentence = _ERROR_WORDS.get(
            status, ("No answer", "The device could not answer this request.")
        )
        if request.url.path.startswith("/api/"):
            return JSONResponse({"error": sentence}, status_code=status)
        return HTMLResponse(
            renderer.error(status=status, title=title, sentence=sentence), status_code=status
        )

    return answer
