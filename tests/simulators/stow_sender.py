"""A sender that speaks STOW-RS by hand, so that it can also speak it wrongly."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dicom_node.admission import PeerRule
from dicom_node.stow_request import StowClient

TOKEN = "a-token-of-the-tests"
BOUNDARY = "a-boundary-that-no-image-holds"
CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
PART_HEADERS = b"Content-Type: application/dicom\r\n"
_ANSWER_DEADLINE_S = 20.0


def digest_of(token: str) -> str:
    """What the settings hold of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def client(token: str = TOKEN, **rule: Any) -> StowClient:
    """A client as the door knows it; keyword arguments are fields of its rule."""
    return StowClient(
        token_sha256=digest_of(token), rule=PeerRule(**{"ae_title": "WEBCLIENT", **rule})
    )


def multipart(
    parts: Sequence[bytes], *, boundary: str = BOUNDARY, headers: bytes = PART_HEADERS
) -> bytes:
    """A body of these parts."""
    line = f"--{boundary}".encode()
    pieces = [line + b"\r\n" + headers + b"\r\n" + part + b"\r\n" for part in parts]
    return b"".join(pieces) + line + b"--\r\n"


def head(
    *,
    method: str = "POST",
    path: str = "/dicom-web/studies",
    headers: Mapping[str, str] | None = None,
    token: str = TOKEN,
    content_type: str = CONTENT_TYPE,
) -> bytes:
    """The head of a request; ``headers`` of "" are left out."""
    given = {
        "Host": "door",
        "Authorization": f"Bearer {token}",
        "Content-Type": content_type,
        **(headers or {}),
    }
    lines = [f"{name}: {value}" for name, value in given.items() if value]
    return "\r\n".join((f"{method} {path} HTTP/1.1", *lines, "", "")).encode("latin-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StowAnswer:
    """A response, and what its report says."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def report(self) -> dict[str, Any]:
        """The Store Instances Response Module."""
        found: dict[str, Any] = json.loads(self.body)
        return found

    def _items(self, tag: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.report.get(tag, {}).get("Value", [])
        return items

    @property
    def stored(self) -> list[str]:
        """SOP Instance UIDs of the Referenced SOP Sequence."""
        return [item["00081155"]["Value"][0] for item in self._items("00081199")]

    @property
    def failed(self) -> dict[str, int]:
        """SOP Instance UID to reason, of the Failed SOP Sequence."""
        return {
            item["00081155"]["Value"][0]: item["00081197"]["Value"][0]
            for item in self._items("00081198")
        }

    @property
    def other_failures(self) -> list[int]:
        """Reasons of the Other Failures Sequence."""
        return [item["00081197"]["Value"][0] for item in self._items("0008119A")]


class StowSender:
    """One connection to the door."""

    def __init__(self, port: int, *, connection: socket.socket | None = None) -> None:
        self.socket = connection or socket.create_connection(
            ("127.0.0.1", port), timeout=_ANSWER_DEADLINE_S
        )

    def __enter__(self) -> StowSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Put bytes on the wire."""
        for piece in pieces:
            self.socket.sendall(piece)

    def store(self, body: bytes, **of_head: Any) -> StowAnswer:
        """Send a whole request and wait for the answer."""
        headers = {"Content-Length": str(len(body)), **of_head.pop("headers", {})}
        self.send(head(headers=headers, **of_head), body)
        return self.answer()

    def answer(self, method: str = "POST") -> StowAnswer:
        """Wait for an answer."""
        response = http.client.HTTPResponse(self.socket, method=method)
        response.begin()
        return StowAnswer(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=response.read(),
        )

    def is_closed(self) -> bool:
        """Whether the other side closes the connection without a word."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True


def chunked(*pieces: bytes) -> bytes:
    """A body in chunks (RFC 9112 7.1)."""
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"
