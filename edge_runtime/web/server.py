"""Serves the page until told to stop; asyncio lives in here."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog
import uvicorn
from starlette.applications import Starlette

from edge_runtime.web.app import build_app
from edge_runtime.web.context import WebContext
from edge_runtime.web.errors import WebBindError
from edge_runtime.web.feed import MAX_READERS, Feed

_log = structlog.get_logger()

_STOP_POLL_S = 0.05
_GRACE_S = 1  # stopping takes 2 s at most
_BACKLOG = 128
_HEAD_BYTES = 16 * 1024
_CONNECTIONS = 4 * MAX_READERS  # beyond, answers are 503


class StopSignal(Protocol):
    """A threading or multiprocessing event."""

    def is_set(self) -> bool:
        """Say whether the process shall stop."""
        ...


def serve(
    context: WebContext,
    bind: str,
    port: int,
    stop: StopSignal,
    *,
    on_listening: Callable[[int], None] | None = None,
) -> int:
    """Serve the page until ``stop`` is set; open streams do not hold it up.

    Args:
        context: what the page is told.
        bind: address to listen on.
        port: TCP port; 0 takes a free one.
        stop: ends the server, within 2 s.
        on_listening: called with the port once pages are served.

    Returns:
        0, the exit status of the process.

    Raises:
        WebBindError: the address or the port cannot be had.
        StoreError: the database cannot be opened or read.
    """
    with contextlib.closing(_listen(bind, port)) as listener:
        asyncio.run(_serve(context, listener, stop, on_listening))
    return 0


def _listen(bind: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((bind, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise WebBindError(
            f"the page cannot listen on {bind}, port {port}: {error.strerror}. Change web.bind or "
            "web.port, or stop the program that uses it"
        ) from error
    return listener


async def _serve(
    context: WebContext,
    listener: socket.socket,
    stop: StopSignal,
    on_listening: Callable[[int], None] | None,
) -> None:
    app = build_app(context)
    async with app.router.lifespan_context(app):
        server = _Server(_uvicorn_config(app))
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="web-server")
        await _until(lambda: server.started or serving.done())
        if server.started:
            port = int(listener.getsockname()[1])
            _log.info("web.listening", port=port)
            if on_listening is not None:
                on_listening(port)
        await _until(lambda: stop.is_set() or serving.done())
        _log.info("web.stopping")
        feed: Feed = app.state.feed
        feed.close()
        server.should_exit = True
        await serving
    _log.info("web.stopped")


def _uvicorn_config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",  # entered above, where a failure is an exception
        loop="asyncio",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - the event belongs to another thread or process
        await asyncio.sleep(_STOP_POLL_S)


class _Server(uvicorn.Server):
    """Signals belong to the process's main, which sets ``stop``."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
