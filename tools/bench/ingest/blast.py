"""The sender that costs next to nothing: a process that is told what to send, line by line.

``main`` reads one JSON object a line from standard input, sends what it says, and writes one JSON
object a line to standard output. It ends with its input. One thread serves each association;
Python's lock is free while the kernel copies.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tools.bench.ingest.association import (
    Association,
    Lane,
    OutgoingObject,
    PlainConnection,
)
from tools.bench.ingest.errors import ProtocolError, SenderFailedError
from tools.bench.ingest.loads import (
    INSTANCE_PLACEHOLDER,
    LOADS,
    FreshUids,
    Load,
    fresh_uids,
    make_head,
    make_noise,
)
from tools.bench.ingest.messages import Parts, encode_plain, encode_store, encode_store_command
from tools.bench.ingest.names import LoadName
from tools.bench.ingest.orders import Address, Answer, Order, decode_order, encode


class Arsenal:
    """Encoded objects, kept because encoding takes longer than sending."""

    def __init__(self) -> None:
        self._heads: dict[LoadName, bytes] = {}
        self._noise: dict[LoadName, bytes] = {}
        self._encoded: dict[tuple[LoadName, int], Parts] = {}

    def object_of(self, load: Load, max_pdu_bytes: int) -> Parts:
        """Return a load's object in PDUs of a size, or without any for 0."""
        key = load.name, max_pdu_bytes
        if key not in self._encoded:
            self._encoded[key] = self._encode(load, max_pdu_bytes)
        return self._encoded[key]

    def object_bytes(self, load: Load) -> int:
        """Return the length of a load's data set."""
        return len(self._head(load)) + load.pixel_bytes

    def _head(self, load: Load) -> bytes:
        if load.name not in self._heads:
            self._heads[load.name] = make_head(load)
            self._noise[load.name] = make_noise(load)
        return self._heads[load.name]

    def _encode(self, load: Load, max_pdu_bytes: int) -> Parts:
        head = self._head(load)
        noise = self._noise[load.name]
        if not max_pdu_bytes:
            return encode_plain(head, load.pixel_bytes, noise)
        command = encode_store_command(
            sop_class_uid=load.sop_class_uid, sop_instance_uid=INSTANCE_PLACEHOLDER
        )
        return encode_store(command, head, load.pixel_bytes, noise, max_pdu_bytes)


def carry_out(order: Order, arsenal: Arsenal) -> Answer:
    """Open the associations, send everything, release."""
    load = LOADS[order.load]
    uids = fresh_uids()
    shares = order.shares()
    object_bytes = arsenal.object_bytes(load)
    cpu_s = time.process_time()
    with ThreadPoolExecutor(order.associations, "lane") as threads:
        shipments = list(
            threads.map(
                lambda number: _ship(order, arsenal, uids, number, shares[number]),
                range(order.associations),
            )
        )
    statuses: Counter[str] = Counter()
    for shipment in shipments:
        statuses += shipment.statuses
    sent = statuses.total()
    return Answer(
        sent=sent,
        data_set_bytes=sent * object_bytes,
        wall_s=max(each.ended_s for each in shipments) - min(each.started_s for each in shipments),
        cpu_s=time.process_time() - cpu_s,
        statuses=dict(statuses),
        error="; ".join(sorted({shipment.error for shipment in shipments if shipment.error})),
    )


@dataclass(slots=True, kw_only=True)
class _Shipment:
    """What one association brings."""

    started_s: float
    """When the receiver had accepted the association."""
    ended_s: float
    """When its last answer had arrived."""
    statuses: Counter[str] = field(default_factory=Counter)
    error: str = ""


def _ship(
    order: Order, arsenal: Arsenal, uids: FreshUids, association: int, share: range
) -> _Shipment:
    load = LOADS[order.load]
    now_s = time.perf_counter()
    shipment = _Shipment(started_s=now_s, ended_s=now_s)
    try:
        with contextlib.closing(_open(order.address, load)) as lane:
            parts = arsenal.object_of(load, lane.max_pdu_bytes)
            item = OutgoingObject(parts, uids, association=association)
            shipment.started_s = time.perf_counter()
            for number in share:
                item.become(number)
                shipment.statuses[f"{lane.store(item):04X}"] += 1
                shipment.ended_s = time.perf_counter()
    except (SenderFailedError, ProtocolError) as error:
        shipment.error = str(error)
    return shipment


def _open(address: Address, load: Load) -> Lane:
    if address.ae_title:
        return Association(address, load.sop_class_uid)
    return PlainConnection(address)


def main() -> None:
    """Serve orders until the input ends."""
    arsenal = Arsenal()
    for line in sys.stdin:
        print(encode(carry_out(decode_order(line), arsenal)), flush=True)
