"""From single runs to figures: rates, ratios of the same round, goals; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from tools.bench.figures import Spread, spread_of
from tools.bench.ingest.names import LoadName, ReceiverName, SenderName

MB = 1_000_000
_SUCCESS = "0000"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Way:
    """What is the same for every receiver in a comparison."""

    load: LoadName
    sender: SenderName
    associations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One receiver, one sender, one load, once."""

    receiver: ReceiverName
    way: Way
    round: int
    asked: int
    """Objects that were to be sent."""
    answered: int
    stored: int
    """Objects that the receiver held more than before."""
    data_set_bytes: int
    wall_s: float
    sync_s: float
    """How long it took after the last answer until all of it was on the disk."""
    cpu_s: float
    """Of the receiver and its children."""
    sender_cpu_s: float
    peak_rss_bytes: int
    statuses: Mapping[str, int]
    error: str = ""

    @property
    def fault(self) -> str:
        """What went wrong, "" if every object was answered with Success and is held."""
        refused = {status: count for status, count in self.statuses.items() if status != _SUCCESS}
        faults = [
            self.error,
            f"refused: {refused}" if refused else "",
            f"{self.answered} of {self.asked} answered" if self.answered < self.asked else "",
            f"{self.stored} of {self.answered} held" if self.stored != self.answered else "",
        ]
        return "; ".join(fault for fault in faults if fault)

    @property
    def instances_per_s(self) -> float:
        """Objects a second."""
        return self.answered / self.wall_s

    @property
    def synced_per_s(self) -> float:
        """Objects a second until all of them are on the disk, durable receiver or not."""
        return self.answered / (self.wall_s + self.sync_s)


def is_excused(run: Run) -> bool:
    """Peers need not take the huge object; what they cannot do is no fault of this benchmark."""
    return run.way.load is LoadName.HUGE and run.receiver is not ReceiverName.OURS


def faults_of(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Return the runs in which something was lost or refused."""
    return tuple(run for run in runs if run.fault and not is_excused(run))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What all good runs of one receiver on one way have in common."""

    receiver: ReceiverName
    way: Way
    instances_per_s: Spread
    synced_per_s: Spread
    mb_per_s: Spread
    cpu_ms_per_instance: float
    """All runs together: the kernel counts in ticks of 10 ms."""
    sender_cpu_ms_per_instance: float
    """It shares the cores with the receiver."""
    peak_rss_mb: float


def cells_of(runs: Sequence[Run]) -> tuple[Cell, ...]:
    """Sum up, in the order in which they first appear."""
    groups: dict[tuple[ReceiverName, Way], list[Run]] = {}
    for run in runs:
        if not run.fault:
            groups.setdefault((run.receiver, run.way), []).append(run)
    return tuple(_cell(receiver, way, found) for (receiver, way), found in groups.items())


def _cell(receiver: ReceiverName, way: Way, runs: Sequence[Run]) -> Cell:
    instances = sum(run.answered for run in runs)
    return Cell(
        receiver=receiver,
        way=way,
        instances_per_s=_spread(run.instances_per_s for run in runs),
        synced_per_s=_spread(run.synced_per_s for run in runs),
        mb_per_s=_spread(run.data_set_bytes / MB / run.wall_s for run in runs),
        cpu_ms_per_instance=round(sum(run.cpu_s for run in runs) * 1000 / instances, 3),
        sender_cpu_ms_per_instance=round(
            sum(run.sender_cpu_s for run in runs) * 1000 / instances, 3
        ),
        peak_rss_mb=round(max(run.peak_rss_bytes for run in runs) / MB, 1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as fast our node is as another receiver, on one way."""

    way: Way
    other: ReceiverName
    ratio: Spread
    """Of the rates of the same round, so that a machine that slows down hits both."""
    synced_ratio: Spread
    """The same, each until all is on the disk."""


def ratios_of(runs: Sequence[Run]) -> tuple[Ratio, ...]:
    """Compare ours with every other receiver, round by round."""
    good = [run for run in runs if not run.fault]
    ours = {(run.way, run.round): run for run in good if run.receiver is ReceiverName.OURS}
    pairs: dict[tuple[Way, ReceiverName], list[tuple[Run, Run]]] = {}
    for run in good:
        mine = ours.get((run.way, run.round))
        if mine is not None and run.receiver is not ReceiverName.OURS:
            pairs.setdefault((run.way, run.receiver), []).append((mine, run))
    return tuple(
        Ratio(
            way=way,
            other=other,
            ratio=_spread(mine.instances_per_s / its.instances_per_s for mine, its in found),
            synced_ratio=_spread(mine.synced_per_s / its.synced_per_s for mine, its in found),
        )
        for (way, other), found in pairs.items()
    )


def _spread(values: Iterable[float]) -> Spread:
    return spread_of([round(value, 3) for value in values])


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What our node costs while nobody sends."""

    associations: int
    """That are open."""
    cpu_percent: float
    """Of one core."""


class Direction(str, Enum):
    """On which side of a limit the good values are."""

    AT_LEAST = "at least"
    AT_MOST = "at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound of the project, and what was measured."""

    name: str
    direction: Direction
    limit: float
    measured: float
    unit: str

    @property
    def is_met(self) -> bool:
        """On the good side, or at the limit."""
        if self.direction is Direction.AT_LEAST:
            return self.measured >= self.limit
        return self.measured <= self.limit


_LEAST_RATIOS: Mapping[tuple[LoadName, ReceiverName], float] = {
    (LoadName.CT, ReceiverName.ORTHANC): 2.5,
    (LoadName.SMALL, ReceiverName.ORTHANC): 2.0,
    (LoadName.RADIOGRAPH, ReceiverName.ORTHANC): 3.0,
    (LoadName.CT, ReceiverName.STORESCP): 1.0,
    (LoadName.CT, ReceiverName.PYNETDICOM): 4.0,
    (LoadName.SMALL, ReceiverName.PYNETDICOM): 4.0,
    (LoadName.RADIOGRAPH, ReceiverName.PYNETDICOM): 4.0,
}
_MOST_CPU_MS: Mapping[LoadName, float] = {LoadName.CT: 0.8, LoadName.SMALL: 0.8}
_MOST_RSS_MB = 80.0
_MOST_IDLE_PERCENT = 1.0


def goals_of(
    cells: Iterable[Cell], ratios: Iterable[Ratio], idle: Iterable[Idle]
) -> tuple[Goal, ...]:
    """Compare with every bound for which something was measured."""
    goals: list[Goal] = []
    for ratio in ratios:
        limit = _LEAST_RATIOS.get((ratio.way.load, ratio.other))
        if limit is not None:
            goals.append(
                Goal(
                    name=f"{words_of(ratio.way)}: times as fast as {ratio.other.value}",
                    direction=Direction.AT_LEAST,
                    limit=limit,
                    measured=round(ratio.ratio.median, 2),
                    unit="×",
                )
            )
    for cell in cells:
        if cell.receiver is ReceiverName.OURS:
            goals += _costs(cell)
    goals += [
        Goal(
            name=f"idle with {found.associations} open associations",
            direction=Direction.AT_MOST,
            limit=_MOST_IDLE_PERCENT,
            measured=found.cpu_percent,
            unit="% CPU",
        )
        for found in idle
    ]
    return tuple(goals)


def _costs(cell: Cell) -> list[Goal]:
    goals = [
        Goal(
            name=f"{words_of(cell.way)}: peak RSS",
            direction=Direction.AT_MOST,
            limit=_MOST_RSS_MB,
            measured=cell.peak_rss_mb,
            unit="MB",
        )
    ]
    limit = _MOST_CPU_MS.get(cell.way.load)
    if limit is not None:
        goals.append(
            Goal(
                name=f"{words_of(cell.way)}: processor time an instance",
                direction=Direction.AT_MOST,
                limit=limit,
                measured=cell.cpu_ms_per_instance,
                unit="ms",
            )
        )
    return goals


def words_of(way: Way) -> str:
    """Return a way in a few words."""
    return f"{way.load.value}, {way.sender.value} {way.associations}"
