"""What every request must pass and every answer carries.

Pages hold patient names: no other site may read, frame or post to them, under any host name
(DNS rebinding), and no cache may keep them.
"""

from __future__ import annotations

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_log = structlog.get_logger()

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
MAX_BODY_BYTES = 4096  # the only form has a few small numbers

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_POLICY_HEADER = "Content-Security-Policy"
_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # 'no-referrer' would make browsers send 'Origin: null' with our own form.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
)


class Guard:
    """ASGI middleware: host allow-list, origin check, size bound, headers, last resort."""

    def __init__(self, app: ASGIApp, *, allowed_hosts: tuple[str, ...]) -> None:
        self._app = app
        self._hosts = LOOPBACK | {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message, scope["path"])
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)
            return
        try:
            await self._app(scope, receive, send_guarded)
        except Exception:  # noqa: BLE001 - the boundary of a request
            _log.exception("web.request_failed")
            if not started:
                answer = PlainTextResponse("The device could not answer.\n", status_code=500)
                await answer(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = host_name(headers.get("host", ""))
        if host not in self._hosts:
            return PlainTextResponse(
                "This name is not in web.allowed_hosts of the device's settings.\n",
                status_code=421,
            )
        if scope["method"] in {"GET", "HEAD"}:
            return None
        if not is_same_origin(headers):
            return PlainTextResponse("The request came from another site.\n", status_code=403)
        length = headers.get("content-length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            return PlainTextResponse("The request is too large.\n", status_code=413)
        return None


def host_name(host: str) -> str:
    """Return the name in a Host header, without the port, in lower case."""
    if host.startswith("["):
        return host[: host.find("]") + 1].lower()
    return host.partition(":")[0].lower()


def is_same_origin(headers: Headers) -> bool:
    """Say whether a request that changes something came from our own page.

    Browsers send Sec-Fetch-Site where they trust the connection, and Origin with every POST; a
    request with neither is not from a browser and is refused as well.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    _, _, origin = headers.get("origin", "").partition("://")
    return bool(origin) and origin.lower() == headers.get("host", "").lower()


def _add_headers(message: Message, path: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS:
        headers[name] = value
    headers.setdefault(_POLICY_HEADER, _POLICY)  # a model card comes with a closer one
    # Our own assets may be kept, if the browser asks each time whether they are still ours.
    headers["Cache-Control"] = "no-cache" if path.startswith("/static/") else "no-store"
