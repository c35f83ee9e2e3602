from __future__ import annotations

import threading
from collections.abc import Callable

from tools.doctor.findings import Check, Context, Finding, Status, failed, fine, warning, worst
from tools.doctor.running import run_checks

MakeContext = Callable[..., Context]


def test_answers_come_in_the_order_of_the_checks(make_context: MakeContext) -> None:
    second_ran = threading.Event()

    def first(_context: Context) -> Finding:
        assert second_ran.wait(10)
        return fine("first")

    def second(_context: Context) -> Finding:
        second_ran.set()
        return fine("second")

    answers = run_checks([Check("a", first), Check("b", second)], make_context())
    assert [(answer.name, answer.finding.found) for answer in answers] == [
        ("a", "first"),
        ("b", "second"),
    ]


def test_a_check_that_breaks_fails_without_its_text_and_costs_no_other(
    make_context: MakeContext,
) -> None:
    def breaks(_context: Context) -> Finding:
        raise ValueError("DOE^JANE")

    broken, other = run_checks(
        [Check("breaks", breaks), Check("other", lambda _: fine("well"))], make_context()
    )
    assert broken.finding.status is Status.FAILED
    assert "ValueError" in broken.finding.found
    assert "DOE" not in f"{broken.finding}"
    assert other.finding.status is Status.OK


def test_a_check_that_hangs_fails_at_its_limit_and_costs_no_other(
    make_context: MakeContext,
) -> None:
    release = threading.Event()

    def hangs(_context: Context) -> Finding:
        release.wait()
        return fine("late")

    hung, other = run_checks(
        [Check("hangs", hangs, 0.2), Check("other", lambda _: fine("well"))], make_context()
    )
    release.set()
    assert hung.finding.status is Status.FAILED
    assert "0.2 s" in hung.finding.found
    assert "hangs" in (hung.finding.remedy or "")
    assert other.finding.status is Status.OK


def test_the_worst_of_several_findings_wins_and_hides_what_is_fine() -> None:
    joined = worst([fine("good"), warning("odd", "look"), failed("bad", "mend")])
    assert joined == Finding(status=Status.FAILED, found="odd; bad", remedy="look; mend")


def test_findings_that_are_all_fine_stay_so() -> None:
    assert worst([fine("good"), fine("well")]) == fine("good; well")
