"""From single readings to figures: times, ratios of the same round, goals; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tools.bench.figures import Spread, spread_of
from tools.bench.ingest.rates import MB, Direction, Goal
from tools.bench.readers.names import Job, ReaderName, Trait
from tools.bench.readers.process import Timed
from tools.bench.readers.series import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is the same for every reader in a comparison."""

    job: Job
    kind: Kind

    @property
    def words(self) -> str:
        """In a few words."""
        return f"{self.job.value}, {self.kind.slices} slices, {self.kind.syntax.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One reader, one series, once."""

    case: Case
    reader: ReaderName
    round: int
    timed: Timed


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a reader made of a series, looked at once."""

    case: Case
    reader: ReaderName
    answer: Mapping[str, Any]
    error: str
    said: str

    @property
    def is_right(self) -> bool:
        """Whether a volume is exact; of tensors and reports, whether there is one."""
        return not self.error and self.answer.get("verdict", "exact") == "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What all readings of one series by one reader have in common."""

    case: Case
    reader: ReaderName
    wall_ms: Spread
    cpu_ms: Spread
    peak_rss_mb: float


def cells_of(runs: Iterable[Run]) -> tuple[Cell, ...]:
    """Sum up the readings that ended well, in the order in which they first appear."""
    groups: dict[tuple[Case, ReaderName], list[Timed]] = {}
    for run in runs:
        if not run.timed.error:
            groups.setdefault((run.case, run.reader), []).append(run.timed)
    return tuple(
        Cell(
            case=case,
            reader=reader,
            wall_ms=_spread(each.wall_s * 1000 for each in found),
            cpu_ms=_spread(each.cpu_s * 1000 for each in found),
            peak_rss_mb=round(max(each.peak_rss_bytes for each in found) / MB, 1),
        )
        for (case, reader), found in groups.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """How many times as fast we are as a peer."""

    case: Case
    other: ReaderName
    ratio: Spread
    """Of the times of the same round, so that a machine that slows down hits both."""
    cpu_ratio: Spread
    """The same of processor time, which other work on the machine disturbs less."""


def ratios_of(runs: Sequence[Run]) -> tuple[Ratio, ...]:
    """Compare ours with each peer, round by round."""
    good = [run for run in runs if not run.timed.error]
    pairs: dict[tuple[Case, ReaderName], list[tuple[Timed, Timed]]] = {}
    for mine in (run for run in good if run.reader is ReaderName.OURS):
        for its in (run for run in good if run.reader is not ReaderName.OURS):
            if (mine.case, mine.round) == (its.case, its.round):
                pairs.setdefault((mine.case, its.reader), []).append((mine.timed, its.timed))
    return tuple(
        Ratio(
            case=case,
            other=other,
            ratio=_spread(its.wall_s / mine.wall_s for mine, its in found),
            cpu_ratio=_spread(its.cpu_s / mine.cpu_s for mine, its in found if mine.cpu_s),
        )
        for (case, other), found in pairs.items()
    )


def _spread(values: Iterable[float]) -> Spread:
    return spread_of([round(value, 3) for value in values])


GOAL_SLICES = 400
_LEAST: Mapping[tuple[Job, ReaderName], float] = {
    (Job.VOLUME, ReaderName.SIMPLEITK): 8.0,
    (Job.VOLUME, ReaderName.MONAI_DEPLOY): 8.0,
    (Job.VOLUME, ReaderName.DCM2NIIX): 5.0,
    (Job.REPORT, ReaderName.MONAI_DEPLOY): 10.0,
    (Job.COLD_REPORT, ReaderName.MONAI_DEPLOY): 12.0,
}


def goals_of(ratios: Iterable[Ratio], found: Iterable[Found]) -> tuple[Goal, ...]:
    """Compare with every bound for which something was measured."""
    goals = [
        Goal(
            name=f"{ratio.case.words}: ours times as fast as {ratio.other.value}",
            direction=Direction.AT_LEAST,
            limit=_LEAST[ratio.case.job, ratio.other],
            measured=round(ratio.ratio.median, 2),
            unit="×",
        )
        for ratio in ratios
        if (ratio.case.job, ratio.other) in _LEAST and ratio.case.kind == Kind(slices=GOAL_SLICES)
    ]
    ours = [
        each for each in found if each.reader is ReaderName.OURS and each.case.job is Job.VOLUME
    ]
    wrong = [each for each in ours if each.case.kind.trait.is_sound and not each.is_right]
    kept = [each for each in ours if not each.case.kind.trait.is_sound and not each.error]
    counts = (("wrong volumes of ours", wrong), ("bad series not refused by us", kept))
    goals += [
        Goal(name=name, direction=Direction.AT_MOST, limit=0, measured=len(bad), unit="series")
        for name, bad in counts
        if ours
    ]
    return tuple(goals)


def is_trait_case(case: Case) -> bool:
    """Whether a case asks what readers do with a series, not how fast they are."""
    return case.kind.trait is not Trait.PLAIN


def words_of(found: Found | None) -> str:
    """Return what a reader did, in a few words."""
    if found is None:
        return "–"
    if found.error:
        return "refused"
    if "outcome" in found.answer:
        return str(found.answer["outcome"])
    verdict = str(found.answer.get("verdict", found.answer.get("shape")))
    if found.is_right:
        return verdict
    warned = "warned" if "warning" in found.said.lower() else "silently"
    error, place = found.answer["max_error_hu"], found.answer["max_displacement_mm"]
    shape = "×".join(map(str, found.answer["shape"]))
    numbers = f", {shape}" if error is None else f", {error:g} HU, {place:g} mm"
    return f"{verdict}, {warned}{numbers}"
