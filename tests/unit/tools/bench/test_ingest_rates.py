"""From runs to figures: what counts, what is compared with what, and which goals are met."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.bench.ingest.names import LoadName, ReceiverName, SenderName
from tools.bench.ingest.rates import (
    Direction,
    Goal,
    Idle,
    Run,
    Way,
    cells_of,
    faults_of,
    goals_of,
    is_excused,
    ratios_of,
)

WAY = Way(load=LoadName.CT, sender=SenderName.BLAST, associations=1)
GOOD = Run(
    receiver=ReceiverName.OURS,
    way=WAY,
    round=0,
    asked=100,
    answered=100,
    stored=100,
    data_set_bytes=50_000_000,
    wall_s=0.5,
    sync_s=0.0,
    cpu_s=0.05,
    sender_cpu_s=0.01,
    peak_rss_bytes=60_000_000,
    statuses={"0000": 100},
)


def _run(receiver: ReceiverName, number: int, wall_s: float) -> Run:
    return replace(GOOD, receiver=receiver, round=number, wall_s=wall_s)


def test_a_run_in_which_everything_is_held_has_no_fault() -> None:
    assert GOOD.fault == ""
    assert faults_of([GOOD]) == ()


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (replace(GOOD, stored=99), "99 of 100 held"),
        (replace(GOOD, answered=90, stored=90), "90 of 100 answered"),
        (replace(GOOD, statuses={"0000": 99, "A700": 1}), "refused: {'A700': 1}"),
        (replace(GOOD, error="the receiver aborted"), "the receiver aborted"),
        (replace(GOOD, stored=101), "101 of 100 held"),
    ],
)
def test_whatever_is_lost_or_refused_is_a_fault(run: Run, words: str) -> None:
    assert words in run.fault
    assert faults_of([GOOD, run]) == (run,)


def test_peers_need_not_take_the_huge_object_but_we_must() -> None:
    huge = replace(GOOD, way=replace(WAY, load=LoadName.HUGE), asked=1, answered=0, stored=0)
    theirs = replace(huge, receiver=ReceiverName.PYNETDICOM)
    assert is_excused(theirs)
    assert faults_of([huge, theirs]) == (huge,)


def test_a_cell_has_the_median_of_its_good_runs() -> None:
    runs = [_run(ReceiverName.OURS, number, wall_s) for number, wall_s in enumerate((0.5, 1, 0.25))]
    (cell,) = cells_of([*runs, replace(GOOD, round=3, wall_s=0.001, stored=1)])
    rate = cell.instances_per_s
    assert (rate.count, rate.median, rate.lowest, rate.highest) == (3, 200.0, 100.0, 400.0)
    assert cell.mb_per_s.median == 100.0
    assert cell.cpu_ms_per_instance == 0.5
    assert cell.sender_cpu_ms_per_instance == 0.1
    assert cell.peak_rss_mb == 60.0


def test_ratios_compare_runs_of_the_same_round() -> None:
    runs = [
        *(_run(ReceiverName.OURS, number, wall_s) for number, wall_s in enumerate((1, 2, 4))),
        *(_run(ReceiverName.ORTHANC, number, wall_s) for number, wall_s in enumerate((3, 6, 13))),
        replace(_run(ReceiverName.ORTHANC, 3, 100), asked=101),
        _run(ReceiverName.STORESCP, 4, 1),
    ]
    (ratio,) = ratios_of(runs)
    assert ratio.other is ReceiverName.ORTHANC
    assert (ratio.ratio.count, ratio.ratio.lowest, ratio.ratio.highest) == (3, 3.0, 3.25)


def test_what_is_left_to_sync_counts_in_a_rate_of_its_own() -> None:
    lazy = replace(_run(ReceiverName.STORESCP, 0, 0.25), sync_s=0.75)
    (ratio,) = ratios_of([GOOD, lazy])
    assert ratio.ratio.median == 0.5
    assert ratio.synced_ratio.median == 2.0
    assert cells_of([lazy])[0].synced_per_s.median == 100.0


def test_ways_that_differ_are_never_compared() -> None:
    other = replace(_run(ReceiverName.ORTHANC, 0, 1), way=replace(WAY, associations=4))
    assert ratios_of([GOOD, other]) == ()


def test_goals_are_those_for_which_something_was_measured() -> None:
    runs = [GOOD, _run(ReceiverName.ORTHANC, 0, 1.5), _run(ReceiverName.SINK, 0, 0.1)]
    idle = [Idle(associations=25, cpu_percent=1.2)]
    found = {
        goal.name: (goal.measured, goal.is_met)
        for goal in goals_of(cells_of(runs), ratios_of(runs), idle)
    }
    assert found == {
        "ct, blast 1: times as fast as orthanc": (3.0, True),
        "ct, blast 1: peak RSS": (60.0, True),
        "ct, blast 1: processor time an instance": (0.5, True),
        "idle with 25 open associations": (1.2, False),
    }


def test_large_objects_have_no_goal_for_processor_time() -> None:
    way = replace(WAY, load=LoadName.RADIOGRAPH)
    (goal,) = goals_of(cells_of([replace(GOOD, way=way)]), [], [])
    assert goal.name == "radiograph, blast 1: peak RSS"


@pytest.mark.parametrize(
    ("direction", "measured", "is_met"),
    [
        (Direction.AT_LEAST, 2.4, False),
        (Direction.AT_LEAST, 2.5, True),
        (Direction.AT_MOST, 2.5, True),
        (Direction.AT_MOST, 2.6, False),
    ],
)
def test_a_goal_is_met_at_its_limit(direction: Direction, measured: float, is_met: bool) -> None:
    goal = Goal(name="", direction=direction, limit=2.5, measured=measured, unit="")
    assert goal.is_met is is_met
