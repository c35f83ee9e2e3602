"""Lets every reader read every series, interleaved, and looks at what each made of it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tools.bench.readers.figures import Case, Found, Run, words_of
from tools.bench.readers.names import Job, ReaderName, Trait
from tools.bench.readers.process import ReaderProcess
from tools.bench.readers.series import DRAWN_SLICES, DrawnSlices, Kind
from tools.phantoms.encoding import PhantomSyntax

Say = Callable[[str], None]
Reader = TypeVar("Reader")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    readers: Mapping[Job, tuple[ReaderName, ...]]
    """Of each job that is measured."""
    slices: tuple[int, ...]
    syntaxes: tuple[PhantomSyntax, ...]
    rounds: int
    trait_slices: int
    """Of the series that readers may get wrong; 0: none are made."""
    folder: Path
    """Where the series lie."""

    def kinds(self) -> tuple[Kind, ...]:
        """Return what is timed."""
        return tuple(
            Kind(slices=count, syntax=syntax) for count in self.slices for syntax in self.syntaxes
        )

    def trait_kinds(self) -> tuple[Kind, ...]:
        """Return what is only looked at."""
        if not self.trait_slices:
            return ()
        return tuple(
            Kind(slices=self.trait_slices, trait=trait)
            for trait in Trait
            if trait is not Trait.PLAIN
        )

    def jobs_of(self, kind: Kind) -> tuple[Job, ...]:
        """Return what a series is read into.

        One that is not plain only into volumes; new processes are started for native ones only.
        """
        jobs = set(self.readers)
        if kind.trait is not Trait.PLAIN:
            jobs &= {Job.VOLUME}
        if kind.syntax is not PhantomSyntax.EXPLICIT:
            jobs -= {Job.COLD_REPORT}
        return tuple(job for job in self.readers if job in jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Everything that was measured."""

    runs: tuple[Run, ...]
    found: tuple[Found, ...]


def measure(plan: Plan, say: Say) -> Measured:
    """Measure everything that the plan says.

    Raises:
        ReaderFailedError: a reader's process ended.
    """
    runs: list[Run] = []
    found: list[Found] = []
    with tempfile.TemporaryDirectory(prefix="edge-triage-bench-", dir=plan.folder) as name:
        folder = Path(name)
        say("drawing ...")
        drawn = DrawnSlices(min(DRAWN_SLICES, *plan.slices))
        with contextlib.ExitStack() as stack:
            readers = [
                stack.enter_context(ReaderProcess(reader, job, folder))
                for job, names in plan.readers.items()
                if job is not Job.COLD_REPORT
                for reader in names
            ]
            for reader in readers:
                reader.wait_ready()
            for kind in (*plan.kinds(), *plan.trait_kinds()):
                say(f"{kind.words} ...")
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    series, truth = Path(place) / "series", Path(place) / "truth.npz"
                    drawn.write(kind, series).save(truth)
                    for job in plan.jobs_of(kind):
                        if job is Job.COLD_REPORT:
                            case = Case(job=job, kind=kind)
                            runs += _cold_rounds(case, plan, series, folder, say)
                            continue
                        mine = [reader for reader in readers if reader.job is job]
                        case = Case(job=job, kind=kind)
                        looked_at = _look(case, mine, series, truth, say)
                        found += looked_at
                        if kind.trait is Trait.PLAIN:
                            able = [
                                reader
                                for reader, each in zip(mine, looked_at, strict=True)
                                if not each.error
                            ]
                            runs += _rounds(case, able, series, plan.rounds, say)
    return Measured(runs=tuple(runs), found=tuple(found))


def _look(
    case: Case, readers: Sequence[ReaderProcess], series: Path, truth: Path, say: Say
) -> list[Found]:
    """The first reading, which fills the page cache and every cache of the reader."""
    found = []
    for reader in readers:
        timed = reader.read(series, keep=True)
        answer = reader.describe(truth)
        found.append(
            Found(case=case, reader=reader.name, answer=answer, error=timed.error, said=timed.said)
        )
        say(f"  {case.job.value} {reader.name.value:12} {words_of(found[-1])}")
    return found


def _cold_rounds(case: Case, plan: Plan, series: Path, folder: Path, say: Say) -> list[Run]:
    runs = []
    for number in range(plan.rounds):
        for name in _shifted(plan.readers[case.job], number):
            started_s = time.perf_counter()
            with ReaderProcess(name, case.job, folder) as reader:
                reader.wait_ready()
                timed = reader.read(series)
                wall_s = time.perf_counter() - started_s
            timed = dataclasses.replace(timed, wall_s=wall_s, cpu_s=timed.cpu_since_start_s)
            runs.append(Run(case=case, reader=name, round=number, timed=timed))
            say(f"  {number + 1} {name.value:12} {wall_s * 1000:8.0f} ms from its start")
    return runs


def _shifted(readers: Sequence[Reader], number: int) -> Sequence[Reader]:
    """Another one begins each round."""
    shift = number % max(len(readers), 1)
    return (*readers[shift:], *readers[:shift])


def _rounds(
    case: Case, readers: Sequence[ReaderProcess], series: Path, rounds: int, say: Say
) -> list[Run]:
    runs = []
    for number in range(rounds):
        for reader in _shifted(readers, number):
            timed = reader.read(series)
            runs.append(Run(case=case, reader=reader.name, round=number, timed=timed))
            say(f"  {number + 1} {reader.name.value:12} {timed.wall_s * 1000:8.0f} ms")
    return runs
