"""Hears all that a broker passes on: mosquitto's own subscriber, writing into a file."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulators.waiting import wait_until

_READY_TOPIC = "ear/ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """One message."""

    topic: str
    payload: bytes

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.payload)
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerEar:
    """What was heard so far."""

    file: Path

    def messages(self) -> list[Heard]:
        """Return the messages, in order, but for a line that is still being written."""
        lines = self.file.read_text("ascii").split("\n")[:-1]
        heard = [line.split(" ") for line in lines]
        return [
            Heard(topic=topic, payload=bytes.fromhex(payload))
            for topic, payload in heard
            if topic != _READY_TOPIC
        ]

    def events(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the bodies of one kind of event by their ids, each once."""
        bodies = (message.body for message in self.messages() if message.payload)
        return {body["id"]: body for body in bodies if body["type"] == f"edge-triage.{kind}.v1"}


@contextlib.contextmanager
def listen_to_broker(port: int, file: Path) -> Iterator[BrokerEar]:
    """Subscribe to everything until the block ends."""
    to_broker = ("-h", "127.0.0.1", "-p", str(port), "-q", "1")
    with file.open("wb") as written:
        listener = subprocess.Popen(
            ["mosquitto_sub", *to_broker, "-t", "#", "-F", "%t %x"], stdout=written
        )
    try:
        subprocess.run(
            ["mosquitto_pub", *to_broker, "-t", _READY_TOPIC, "-m", "x", "-r"], check=True
        )
        wait_until(lambda: _READY_TOPIC in file.read_text("ascii"))
        yield BrokerEar(file=file)
    finally:
        listener.terminate()
        listener.wait()
