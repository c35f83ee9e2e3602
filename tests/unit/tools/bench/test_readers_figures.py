"""Ratios compare readings of one round, and goals say what was missed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tools.bench.ingest.rates import Goal
from tools.bench.readers.figures import Case, Found, Run, cells_of, goals_of, ratios_of, words_of
from tools.bench.readers.names import Job, ReaderName, Trait
from tools.bench.readers.process import Timed
from tools.bench.readers.series import Kind

CASE = Case(job=Job.VOLUME, kind=Kind(slices=400))


def _run(reader: ReaderName, number: int, wall_s: float, error: str = "") -> Run:
    timed = Timed(
        wall_s=wall_s,
        cpu_s=wall_s / 2,
        cpu_since_start_s=wall_s,
        peak_rss_bytes=10**8,
        error=error,
        said="",
    )
    return Run(case=CASE, reader=reader, round=number, timed=timed)


def _found(
    reader: ReaderName, trait: Trait, verdict: str = "exact", error: str = "", said: str = ""
) -> Found:
    answer = {
        "verdict": verdict,
        "shape": [40, 512, 512],
        "max_error_hu": 0.0,
        "max_displacement_mm": 40.7,
    }
    case = Case(job=Job.VOLUME, kind=Kind(slices=40, trait=trait))
    return Found(case=case, reader=reader, answer=answer, error=error, said=said)


def _goal(goals: tuple[Goal, ...], words: str) -> Goal:
    (goal,) = [each for each in goals if words in each.name]
    return goal


RUNS = [
    _run(ReaderName.OURS, 0, 0.1),
    _run(ReaderName.SIMPLEITK, 0, 0.9),
    _run(ReaderName.SIMPLEITK, 1, 2.0),
    _run(ReaderName.OURS, 1, 0.2),
    _run(ReaderName.OURS, 2, 0.1),
    _run(ReaderName.SIMPLEITK, 2, 0.7),
    _run(ReaderName.DCM2NIIX, 0, 0.01, error="exit code 1"),
]


def test_ratios_are_those_of_one_round() -> None:
    (ratio,) = ratios_of(RUNS)
    assert ratio.other is ReaderName.SIMPLEITK
    assert (ratio.ratio.lowest, ratio.ratio.median, ratio.ratio.highest) == (7.0, 9.0, 10.0)
    assert ratio.cpu_ratio.median == 9.0


def test_a_reader_that_refuses_has_no_time() -> None:
    assert [cell.reader for cell in cells_of(RUNS)] == [ReaderName.OURS, ReaderName.SIMPLEITK]
    assert cells_of(RUNS)[0].wall_ms.median == 100.0


def test_speed_is_a_goal_where_the_project_names_one() -> None:
    goals = goals_of(ratios_of(RUNS), [])
    goal = _goal(goals, "simpleitk")
    assert (goal.limit, goal.measured, goal.is_met) == (8.0, 9.0, True)


@pytest.mark.parametrize(("job", "least"), [(Job.REPORT, 10.0), (Job.COLD_REPORT, 12.0)])
def test_a_report_has_its_own_goals(job: Job, least: float) -> None:
    case = Case(job=job, kind=Kind(slices=400))
    runs = [
        replace(_run(reader, 0, wall_s), case=case)
        for reader, wall_s in (
            (ReaderName.OURS, 0.1),
            (ReaderName.MONAI_DEPLOY, 1.1),
            (ReaderName.BARE, 0.5),
        )
    ]
    (goal,) = goals_of(ratios_of(runs), [])
    assert (goal.limit, goal.measured) == (least, 11.0)


def test_a_wrong_volume_of_ours_misses_the_goal_and_one_of_a_peer_does_not() -> None:
    theirs = _found(ReaderName.SIMPLEITK, Trait.SLOPES, "wrong values")
    exact = _found(ReaderName.OURS, Trait.SLOPES)
    assert _goal(goals_of([], [theirs, exact]), "wrong volumes").is_met
    assert goals_of([], [theirs]) == ()
    ours = _found(ReaderName.OURS, Trait.SLOPES, "wrong values")
    assert not _goal(goals_of([], [ours]), "wrong volumes").is_met


def test_a_bad_series_that_we_take_misses_the_goal() -> None:
    taken = _found(ReaderName.OURS, Trait.TILTED)
    assert not _goal(goals_of([], [taken]), "not refused").is_met
    refused = _found(ReaderName.OURS, Trait.TILTED, error="gantry_tilt")
    assert _goal(goals_of([], [refused]), "not refused").is_met


def test_words_tell_a_warning_from_silence() -> None:
    wrong = _found(ReaderName.SIMPLEITK, Trait.TILTED, "wrong places")
    assert words_of(wrong) == "wrong places, silently, 0 HU, 40.7 mm"
    loud = _found(ReaderName.SIMPLEITK, Trait.TILTED, "wrong places", said="WARNING: odd")
    assert words_of(loud).startswith("wrong places, warned")
    assert words_of(_found(ReaderName.OURS, Trait.TILTED, error="tilt")) == "refused"
    assert words_of(None) == "–"
