"""The live feed as a browser gets it, and the server's end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from simulators.scores import scored

from edge_runtime.errors import StoreError
from edge_runtime.web.context import WebContext
from edge_runtime.web.errors import WebBindError
from edge_runtime.web.feed import Subscriber, encode_frame
from edge_runtime.web.server import serve

if TYPE_CHECKING:
    from unit.edge_runtime.web.conftest import Device, Serve, Site

POSITIVE = scored(0.93, series_instance_uid="2.25.1")


class _Event:
    def __init__(self, name: str, event_id: str, data: dict[str, Any]) -> None:
        self.name = name
        self.event_id = event_id
        self.data = data


def _events(answer: httpx.Response) -> Iterator[_Event]:
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        else:
            if "event" in fields:
                yield _Event(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
            fields = {}


def test_a_new_page_gets_a_snapshot_then_each_change(device: Device, site: Site) -> None:
    first = device.store(1)
    with site.until(lambda text: first in text):
        pass
    with site.client() as client, client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        events = _events(answer)
        snapshot = next(events)
        assert snapshot.name == "snapshot"
        assert snapshot.data["order"] == [first]
        assert "Receiving" in snapshot.data["rows"][first]
        assert next(events).name == "beat"
        second = device.analyse(2, POSITIVE)
        change = next(
            e for e in events if second in str(e.data.get("rows")) and "Suspected" in str(e.data)
        )
        assert change.data["order"][0] == second
        assert "suspected" in change.data["summary"]
        assert change.event_id != snapshot.event_id


def test_a_page_that_has_the_newest_state_gets_no_snapshot(device: Device, site: Site) -> None:
    device.store(1)
    with site.until(lambda text: "Receiving" in text) as html:
        event_id = html.partition('data-after="')[2].partition('"')[0]
    with (
        site.client() as client,
        client.stream("GET", "/events", headers={"last-event-id": event_id}) as answer,
    ):
        assert next(_events(answer)).name == "beat"
    with (
        site.client() as client,
        client.stream("GET", "/events", headers={"last-event-id": "old-1"}) as answer,
    ):
        assert next(_events(answer)).name == "snapshot"


def test_a_shown_flag_comes_again_with_its_time_to_notification(device: Device, site: Site) -> None:
    with site.client() as client, client.stream("GET", "/events") as answer:
        events = _events(answer)
        key = device.analyse(1, POSITIVE)
        for event in events:
            row = event.data.get("rows", {}).get(key, "")
            if "Suspected" in row and "–</td>" not in row:
                break
    assert " s</td>" in row or " h " in row or " d " in row or "clock was set" in row


def test_beats_tell_the_time_and_how_far_the_page_is_behind(site: Site) -> None:
    with site.client() as client, client.stream("GET", "/events") as answer:
        beats = (event for event in _events(answer) if event.name == "beat")
        first, second = next(beats), next(beats)
    assert second.data["now_ms"] > first.data["now_ms"]
    assert second.data["behind_ms"] < 5000


def test_open_streams_do_not_hold_up_the_end(site: Site) -> None:
    with site.client() as client, client.stream("GET", "/events") as answer:
        events = _events(answer)
        next(events)
        site.stop.set()
        site.thread.join(60)
        assert not site.thread.is_alive()
        for _ in events:  # the stream ends in order
            pass


def test_a_stream_that_nobody_reads_does_not_hold_up_the_end(device: Device, site: Site) -> None:
    host, _, port = site.base_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as idle:
        idle.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(16)
        device.store(1)
        site.stop.set()
        site.thread.join(60)
        assert not site.thread.is_alive()


def test_a_subscriber_that_is_too_slow_is_dropped() -> None:
    subscriber = Subscriber()
    for number in range(200):
        subscriber.put(encode_frame("change", {"number": number}, str(number)))
    assert asyncio.run(subscriber.next_frame()) is None


def test_frames_are_one_line_of_data_whatever_the_text_holds() -> None:
    frame = encode_frame("change", {"text": "a\nb\r\n\ndata: x\u2028"}, "run-1").decode()
    assert frame.startswith("id: run-1\nevent: change\ndata: ")
    assert frame.endswith("\n\n")
    assert frame.count("\n") == 4


def test_a_taken_port_is_named_with_its_remedy(context: WebContext) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(WebBindError, match=r"web\.port"):
            serve(context, "127.0.0.1", taken.getsockname()[1], threading.Event())


def test_a_database_that_cannot_be_read_ends_the_start(context: WebContext, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database at all, and long enough to be looked at" * 100)
    with pytest.raises(StoreError):
        serve(
            WebContext(
                database=broken,
                clock=context.clock,
                device_name="",
                allowed_hosts=(),
                models={},
                read_card=context.read_card,
            ),
            "127.0.0.1",
            0,
            threading.Event(),
        )


def test_many_pages_share_one_reading(
    device: Device, serve_site: Serve, context: WebContext
) -> None:
    site = serve_site(context)
    clients = [site.client() for _ in range(20)]
    streams = [client.stream("GET", "/events") for client in clients]
    try:
        events = [_events(stream.__enter__()) for stream in streams]
        key = device.analyse(1, POSITIVE)
        changes = [
            next(e for e in each if "Suspected" in e.data.get("rows", {}).get(key, ""))
            for each in events
        ]
        assert len({change.event_id for change in changes}) <= 2  # with and without the time
    finally:
        for stream in streams:
            stream.__exit__(None, None, None)
        for client in clients:
            client.close()
