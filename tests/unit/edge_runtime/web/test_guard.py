from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from edge_runtime.web.guard import host_name, is_same_origin


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("triage.example", "triage.example"),
        ("Triage.Example:8080", "triage.example"),
        ("[::1]:8080", "[::1]"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1", ""),
        ("", ""),
    ],
)
def test_the_host_is_compared_without_its_port(host: str, name: str) -> None:
    assert host_name(host) == name


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({"host": "a:80", "origin": "http://a:80"}, True),
        ({"host": "a:80", "origin": "http://A:80"}, True),
        ({"host": "a:80", "origin": "http://b:80"}, False),
        ({"host": "a:80", "origin": "http://a:81"}, False),
        ({"host": "a:80", "origin": "null"}, False),
        ({"host": "a:80"}, False),
        ({"host": "a:80", "sec-fetch-site": "same-origin"}, True),
        ({"host": "a:80", "sec-fetch-site": "cross-site", "origin": "http://a:80"}, False),
        ({"host": "a:80", "sec-fetch-site": "same-site", "origin": "http://a:80"}, False),
    ],
)
def test_only_our_own_page_may_change_something(headers: dict[str, str], *, same: bool) -> None:
    assert is_same_origin(Headers(headers)) is same
