"""What a sender is told, and what it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from tools.bench.ingest.names import LoadName


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a receiver listens."""

    host: str
    port: int
    ae_title: str
    """"" for the plain receivers, which speak no DICOM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to send where."""

    address: Address
    load: LoadName
    instances: int
    associations: int

    def shares(self) -> tuple[range, ...]:
        """Return the numbers of the instances that each association sends."""
        return tuple(
            range(number, self.instances, self.associations) for number in range(self.associations)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of an order."""

    sent: int = 0
    """Objects whose answer has arrived."""
    data_set_bytes: int = 0
    wall_s: float = 0.0
    """From the first accepted association to the last answer."""
    cpu_s: float = 0.0
    """Of the sender."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """How often each status came, as four hexadecimal digits."""
    error: str = ""
    """Why not everything was sent."""


def encode(value: Order | Answer) -> str:
    """Return one line of JSON."""
    return json.dumps(asdict(value))


def decode_order(line: str) -> Order:
    """Read what ``encode`` wrote."""
    told = json.loads(line)
    return Order(
        address=Address(**told["address"]),
        load=LoadName(told["load"]),
        instances=told["instances"],
        associations=told["associations"],
    )


def decode_answer(line: str) -> Answer:
    """Read what ``encode`` wrote."""
    return Answer(**json.loads(line))
