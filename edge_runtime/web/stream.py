"""Server-sent events over one response.

Written here, not taken from a library: the usual one logs each chunk, and chunks hold names.
"""

from __future__ import annotations

import anyio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from edge_runtime.web.feed import Feed

_SEND_TIMEOUT_S = 5.0  # a browser that takes nothing for so long is gone
_RETRY_MS = 1000


class EventStream(Response):
    """Sends a feed to one browser until either side ends."""

    media_type = "text/event-stream"

    def __init__(self, feed: Feed, *, last_event_id: str) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._feed = feed
        self._last_event_id = last_event_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the stream."""
        del scope
        await send(
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        )
        async with anyio.create_task_group() as group:
            group.start_soon(self._cancel_when_gone, receive, group.cancel_scope)
            await self._pump(send)
            group.cancel_scope.cancel()

    async def _pump(self, send: Send) -> None:
        with self._feed.subscribe(self._last_event_id) as subscriber:
            frame: bytes | None = f"retry: {_RETRY_MS}\n\n".encode()
            while frame is not None:
                with anyio.move_on_after(_SEND_TIMEOUT_S) as scope:
                    await send(_body(frame, more=True))
                if scope.cancelled_caught:
                    return
                frame = await subscriber.next_frame()
        await send(_body(b"", more=False))

    async def _cancel_when_gone(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


def _body(content: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}
