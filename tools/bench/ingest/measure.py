"""Runs every sender against every receiver, interleaved, and counts what was stored."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.bench.ingest import process_tree
from tools.bench.ingest.association import Association
from tools.bench.ingest.errors import NoRoomError, ReceiverNotFoundError
from tools.bench.ingest.loads import LOADS, Load
from tools.bench.ingest.names import LoadName, ReceiverName, SenderName
from tools.bench.ingest.orders import Order
from tools.bench.ingest.rates import Idle, Run, Way
from tools.bench.ingest.receivers import (
    KINDS,
    Receiver,
    find_program,
    running,
)
from tools.bench.ingest.senders import Blast, Sender, Storescu
from tools.bench.ingest.stored import free_bytes

_SETTLE_LIMIT_S = 10.0
_WATCH_S = 0.05
_WARM_UP_SHARE = 20
_HEADER_BYTES = 4_096
_RESERVE_BYTES = 2 * 1024**3  # our node refuses when less than 1 GiB is free
IDLE_ASSOCIATIONS = (0, 25)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    receivers: tuple[ReceiverName, ...]
    senders: tuple[SenderName, ...]
    loads: tuple[LoadName, ...]
    associations: tuple[int, ...]
    rounds: int
    instances: int | None
    """Objects of each load in a run; None: as many as the load says."""
    idle_s: float
    """How long idling is watched; 0 not at all."""
    folder: Path
    """Where everything is stored, on the disk that is to be measured."""

    def ways(self, load: LoadName) -> tuple[Way, ...]:
        """Return how a load is sent; the one huge object only by us and once."""
        if load is LoadName.HUGE:
            return (Way(load=load, sender=SenderName.BLAST, associations=1),)
        return tuple(
            Way(load=load, sender=sender, associations=count)
            for sender in self.senders
            for count in self.associations
        )

    def rounds_of(self, load: LoadName) -> int:
        """Return how often a load is sent on each way."""
        return 1 if load is LoadName.HUGE else self.rounds

    def instances_of(self, load: Load) -> int:
        """Return how many objects of a load one run sends."""
        if self.instances is None or load.name is LoadName.HUGE:
            return load.instances
        return self.instances


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that was measured."""

    runs: tuple[Run, ...]
    idle: tuple[Idle, ...]


def measure(plan: Plan, say: Say) -> Measured:
    """Measure everything that the plan says.

    Raises:
        NoRoomError: the disk is too small.
        ReceiverNotFoundError: a program is not installed.
        ReceiverNotStartedError: a receiver did not start.
        SenderFailedError: our sender's process died.
    """
    _check_room(plan)
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="edge-triage-bench-", dir=plan.folder) as name:
        folder = Path(name)
        with Blast() as blast:
            senders = _senders(plan, blast, folder)
            for load in plan.loads:
                runs += _measure_load(plan, LOADS[load], senders, folder, say)
        idle = _measure_idle(plan, folder, say)
    return Measured(runs=tuple(runs), idle=idle)


def _senders(plan: Plan, blast: Blast, folder: Path) -> Mapping[SenderName, Sender]:
    senders: dict[SenderName, Sender] = {SenderName.BLAST: blast}
    if SenderName.STORESCU in plan.senders:
        program = find_program("storescu")
        if program is None:
            raise ReceiverNotFoundError("storescu is not installed: install dcmtk, or leave it out")
        senders[SenderName.STORESCU] = Storescu(program, folder)
    return senders


def _measure_load(
    plan: Plan,
    load: Load,
    senders: Mapping[SenderName, Sender],
    folder: Path,
    say: Say,
) -> Iterator[Run]:
    """Receivers of their own for this load, so that their peaks are this load's."""
    with contextlib.ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        say(f"{load.title}: starting {len(plan.receivers)} receivers ...")
        receivers = [
            stack.enter_context(running(name, place / name.value)) for name in plan.receivers
        ]
        if load.name is not LoadName.HUGE:
            for receiver in receivers:
                _warm_up(receiver, senders[SenderName.BLAST], load, plan.instances_of(load))
        for number in range(plan.rounds_of(load.name)):
            # Another one begins each round: what the one before leaves to the disk hits each once.
            shift = number % len(receivers)
            for receiver in receivers[shift:] + receivers[:shift]:
                for way in plan.ways(load.name):
                    if _can_take(receiver, way):
                        run = _measure_run(receiver, senders[way.sender], way, number, plan)
                        say(_line(run))
                        yield run


def _can_take(receiver: Receiver, way: Way) -> bool:
    """The plain receivers speak no DICOM; dcmtk's sender speaks nothing else."""
    return bool(receiver.address.ae_title) or way.sender is SenderName.BLAST


def _warm_up(receiver: Receiver, sender: Sender, load: Load, instances: int) -> None:
    """Load what receiver and sender load at their first object."""
    sender.send(
        Order(
            address=receiver.address,
            load=load.name,
            instances=max(instances // _WARM_UP_SHARE, 1),
            associations=1,
        )
    )
    receiver.stored.clear()


def _measure_run(receiver: Receiver, sender: Sender, way: Way, number: int, plan: Plan) -> Run:
    instances = plan.instances_of(LOADS[way.load])
    # Peers that sync nothing would have their bytes written during the next one's run.
    os.sync()
    held = receiver.stored.count()
    process_tree.reset_peak(receiver.pid)
    cpu_s = process_tree.cpu_s(receiver.pid)
    with _PeakWatch(receiver) as watch:
        answer = sender.send(
            Order(
                address=receiver.address,
                load=way.load,
                instances=instances,
                associations=way.associations,
            )
        )
        sync_s = _time_sync()
        _settle(receiver, held + answer.sent)
    run = Run(
        receiver=receiver.name,
        way=way,
        round=number,
        asked=instances,
        answered=answer.sent,
        stored=receiver.stored.count() - held,
        data_set_bytes=answer.data_set_bytes,
        wall_s=answer.wall_s,
        sync_s=sync_s,
        cpu_s=process_tree.cpu_s(receiver.pid) - cpu_s,
        sender_cpu_s=answer.cpu_s,
        peak_rss_bytes=watch.peak_bytes,
        statuses=answer.statuses,
        error=answer.error,
    )
    receiver.stored.clear()
    return run


def _time_sync() -> float:
    started_s = time.perf_counter()
    os.sync()
    return time.perf_counter() - started_s


def _settle(receiver: Receiver, expected: int) -> None:
    """Give a receiver that answers before it has stored the time to do so."""
    deadline_s = time.monotonic() + _SETTLE_LIMIT_S
    pause = threading.Event()
    while receiver.stored.count() < expected and time.monotonic() < deadline_s:
        pause.wait(_WATCH_S)


class _PeakWatch:
    """The highest peak of a receiver; children that come and go are looked at while they live."""

    def __init__(self, receiver: Receiver) -> None:
        self._pid = receiver.pid
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if KINDS[receiver.name].forks:
            self._thread = threading.Thread(target=self._watch, name="peak-watch")
        self.peak_bytes = 0

    def __enter__(self) -> _PeakWatch:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(_WATCH_S):
            self._look()

    def _look(self) -> None:
        self.peak_bytes = max(self.peak_bytes, process_tree.peak_rss_bytes(self._pid))


def _measure_idle(plan: Plan, folder: Path, say: Say) -> tuple[Idle, ...]:
    if not plan.idle_s or ReceiverName.OURS not in plan.receivers:
        return ()
    found = []
    with (
        running(ReceiverName.OURS, folder / "idle") as receiver,
        contextlib.ExitStack() as stack,
    ):
        opened = 0
        for count in IDLE_ASSOCIATIONS:
            say(f"idling with {count} open associations for {plan.idle_s:.0f} s ...")
            for _ in range(count - opened):
                lane = Association(receiver.address, LOADS[LoadName.CT].sop_class_uid)
                stack.enter_context(contextlib.closing(lane))
            opened = count
            percent = _cpu_percent(receiver.pid, plan.idle_s)
            found.append(Idle(associations=count, cpu_percent=percent))
    return tuple(found)


def _cpu_percent(pid: int, seconds: float) -> float:
    before_s, started_s = process_tree.cpu_s(pid), time.monotonic()
    threading.Event().wait(seconds)
    spent_s = process_tree.cpu_s(pid) - before_s
    return round(100 * spent_s / (time.monotonic() - started_s), 2)


def _check_room(plan: Plan) -> None:
    """Raises NoRoomError unless everything fits that stays until its load is done."""
    needed = _RESERVE_BYTES + max(_bytes_of(plan, LOADS[load]) for load in plan.loads)
    free = free_bytes(plan.folder)
    if free < needed:
        raise NoRoomError(
            f"{plan.folder} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed: "
            "free some, name another --folder, or measure fewer rounds or loads"
        )


def _bytes_of(plan: Plan, load: Load) -> int:
    one_run = plan.instances_of(load) * (load.pixel_bytes + _HEADER_BYTES)
    runs = plan.rounds_of(load.name) * len(plan.ways(load.name))
    keepers = sum(KINDS[name].keeps_everything for name in plan.receivers)
    # All others together hold one run at a time: what they have stored is deleted after it.
    return one_run * (keepers * runs + 1)


def _line(run: Run) -> str:
    way = run.way
    start = f"  {run.round + 1} {run.receiver.value:16} {way.sender.value:8} {way.associations}"
    if run.fault:
        return f"{start}  FAULT {run.fault}"
    return f"{start} {run.instances_per_s:8.0f}/s {run.data_set_bytes / 1e6 / run.wall_s:7.0f} MB/s"
