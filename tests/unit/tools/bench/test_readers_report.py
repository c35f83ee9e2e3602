"""What was measured is told as one object, and as tables."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tools.bench.machine import describe_machine
from tools.bench.readers.figures import Case, Found, Run
from tools.bench.readers.measure import Measured, Plan
from tools.bench.readers.names import Job, ReaderName, Trait
from tools.bench.readers.process import Timed
from tools.bench.readers.report import report, show
from tools.bench.readers.roster import ROSTER, missing_of, readers_of
from tools.bench.readers.series import Kind
from tools.phantoms.encoding import PhantomSyntax

PLAIN = Case(job=Job.VOLUME, kind=Kind(slices=40))
TILTED = Case(job=Job.VOLUME, kind=Kind(slices=40, trait=Trait.TILTED))
EXACT = {
    "verdict": "exact",
    "shape": (40, 512, 512),
    "max_error_hu": 0.0,
    "max_displacement_mm": 0.0,
}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(
        readers={Job.VOLUME: (ReaderName.OURS, ReaderName.PYDICOM)},
        slices=(40,),
        syntaxes=(PhantomSyntax.EXPLICIT,),
        rounds=1,
        trait_slices=40,
        folder=tmp_path,
    )


@pytest.fixture
def measured() -> Measured:
    def run(reader: ReaderName, wall_s: float) -> Run:
        timed = Timed(
            wall_s=wall_s,
            cpu_s=wall_s,
            cpu_since_start_s=wall_s,
            peak_rss_bytes=10**8,
            error="",
            said="",
        )
        return Run(case=PLAIN, reader=reader, round=0, timed=timed)

    def found(case: Case, reader: ReaderName, error: str = "") -> Found:
        return Found(case=case, reader=reader, answer=EXACT, error=error, said="")

    return Measured(
        runs=(run(ReaderName.OURS, 0.1), run(ReaderName.PYDICOM, 1.5)),
        found=(
            found(PLAIN, ReaderName.OURS),
            found(PLAIN, ReaderName.PYDICOM),
            found(TILTED, ReaderName.OURS, "gantry_tilt"),
            found(TILTED, ReaderName.PYDICOM),
        ),
    )


def test_the_report_is_one_object(plan: Plan, measured: Measured) -> None:
    told = json.loads(json.dumps(report(plan, measured)))
    assert told["readers"].keys() == {"ours", "pydicom"}
    assert [(each["reader"], each["wall_ms"]["median"]) for each in told["cells"]] == [
        ("ours", 100.0),
        ("pydicom", 1500.0),
    ]
    assert told["ratios"][0]["ratio"]["median"] == 15.0
    assert [each["right"] for each in told["found"]] == [True, True, False, True]


def test_the_tables_hold_times_ratios_and_what_each_does(plan: Plan, measured: Measured) -> None:
    console = Console(file=io.StringIO(), width=200)
    show(console, describe_machine(), plan, measured)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for words in ("volume: ms", "1,500", "100 MB", "15.0 / 15.0", "gantry-tilt", "refused", "met"):
        assert words in text


def test_series_that_are_not_plain_are_read_into_volumes_only(plan: Plan) -> None:
    assert plan.jobs_of(TILTED.kind) == (Job.VOLUME,)
    assert {kind.trait for kind in plan.trait_kinds()} == set(Trait) - {Trait.PLAIN}
    assert [kind.trait for kind in plan.kinds()] == [Trait.PLAIN]


def test_ours_are_always_there_and_peers_on_demand() -> None:
    assert readers_of(Job.VOLUME, peers_too=False) == (ReaderName.OURS,)
    every = {name for name, entry in ROSTER.items() if Job.VOLUME in entry.jobs}
    here = set(readers_of(Job.VOLUME, peers_too=True))
    assert here | set(missing_of(Job.VOLUME)) == every
    assert not here & set(missing_of(Job.VOLUME))
