from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import (
    Comprehensive3DSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
)

from dicom_node.instance import InstanceHeader
from edge_runtime.model.study import CompletionReason
from edge_runtime.pipeline.assembly import (
    AssemblyRules,
    AssemblyView,
    Complete,
    SeriesView,
    StudyTally,
    Wait,
    decide,
)
from edge_runtime.pipeline.selection import reopens

MakeHeader = Callable[..., InstanceHeader]
MakeStack = Callable[..., list[InstanceHeader]]

RULES = AssemblyRules()
SECOND = 1_000_000
WHOLE = SeriesView(images=40, missing_by_count=None, is_gapless_stack=True)
COUNTED = SeriesView(images=40, missing_by_count=0, is_gapless_stack=True)
RAGGED = SeriesView(images=40, missing_by_count=None, is_gapless_stack=False)


def view(*series: SeriesView, **changes: Any) -> AssemblyView:
    """First image at 0 s, last at 10 s, one association still open."""
    still_open = AssemblyView(
        series=series,
        first_stored_mono_us=0,
        last_stored_mono_us=10 * SECOND,
        longest_pause_us=10_000,
        open_associations=1,
        are_all_released=False,
        last_closed_mono_us=None,
    )
    return replace(still_open, **changes)


def released(*series: SeriesView, at_us: int = 10 * SECOND, **changes: Any) -> AssemblyView:
    closed = {"open_associations": 0, "are_all_released": True, "last_closed_mono_us": at_us}
    return view(*series, **{**closed, **changes})


def completion(of: AssemblyView) -> tuple[CompletionReason, int]:
    """Which rule completes the study if nothing changes, and how long after the last image."""
    waiting = decide(of, of.last_stored_mono_us, RULES)
    assert isinstance(waiting, Wait)
    just_before = decide(of, waiting.until_mono_us - 1, RULES)
    assert just_before == waiting
    complete = decide(of, waiting.until_mono_us, RULES)
    assert complete == Complete(reason=waiting.expected)
    return waiting.expected, waiting.until_mono_us - of.last_stored_mono_us


def test_counts_complete_a_study_although_the_association_is_open() -> None:
    assert completion(view(COUNTED)) == (CompletionReason.COUNTS, 150_000)


def test_one_series_without_counts_leaves_it_to_the_other_rules() -> None:
    assert completion(view(COUNTED, WHOLE)) == (CompletionReason.QUIET, 30 * SECOND)
    assert completion(released(COUNTED, RAGGED)) == (CompletionReason.ASSOCIATION, 2 * SECOND)


def test_series_with_images_missing_by_count_is_not_complete_by_counts() -> None:
    short = replace(COUNTED, missing_by_count=1)
    assert completion(view(COUNTED, short)) == (CompletionReason.QUIET, 30 * SECOND)


def test_geometry_completes_once_every_association_is_released() -> None:
    assert completion(released(WHOLE)) == (CompletionReason.GEOMETRY, 150_000)
    assert completion(view(WHOLE)) == (CompletionReason.QUIET, 30 * SECOND)


def test_release_long_after_the_last_image_completes_at_once() -> None:
    late = released(WHOLE, at_us=15 * SECOND)
    assert decide(late, 15 * SECOND, RULES) == Complete(reason=CompletionReason.GEOMETRY)


def test_aborted_association_is_not_trusted_to_have_sent_everything() -> None:
    aborted = released(WHOLE, are_all_released=False)
    assert completion(aborted) == (CompletionReason.ASSOCIATION, 2 * SECOND)


def test_gap_or_short_series_is_left_to_the_quiet_time() -> None:
    assert completion(released(WHOLE, RAGGED))[0] is CompletionReason.ASSOCIATION
    assert completion(released(replace(WHOLE, images=7)))[0] is CompletionReason.ASSOCIATION


@pytest.mark.parametrize(
    ("pause_us", "wait_us"), [(10_000, 150_000), (400_000, 1_200_000), (60 * SECOND, 2 * SECOND)]
)
def test_sender_that_pauses_between_associations_is_given_time(pause_us: int, wait_us: int) -> None:
    assert completion(released(WHOLE, longest_pause_us=pause_us))[1] == wait_us


def test_quiet_time_runs_from_the_later_of_last_image_and_last_association() -> None:
    assert completion(released(RAGGED, at_us=11 * SECOND)) == (
        CompletionReason.ASSOCIATION,
        3 * SECOND,
    )


def test_study_without_images_is_completed_too() -> None:
    assert completion(released()) == (CompletionReason.ASSOCIATION, 2 * SECOND)
    assert completion(view()) == (CompletionReason.QUIET, 30 * SECOND)


def test_endless_study_is_forced() -> None:
    endless = view(RAGGED, last_stored_mono_us=599 * SECOND)
    assert completion(endless) == (CompletionReason.FORCED, SECOND)


def test_most_certain_rule_names_the_reason_when_several_have_come_due() -> None:
    much_later = 10_000 * SECOND
    assert decide(released(COUNTED), much_later, RULES) == Complete(reason=CompletionReason.COUNTS)
    assert decide(released(WHOLE), much_later, RULES) == Complete(reason=CompletionReason.GEOMETRY)
    assert decide(view(RAGGED), much_later, RULES) == Complete(reason=CompletionReason.QUIET)


@settings(derandomize=True, deadline=None)
@given(
    series=st.lists(
        st.builds(
            SeriesView,
            images=st.integers(1, 3000),
            missing_by_count=st.none() | st.integers(0, 5),
            is_gapless_stack=st.booleans(),
        ),
        max_size=4,
    ),
    last_us=st.integers(0, 700 * SECOND),
    pause_us=st.integers(0, 700 * SECOND),
    closed_us=st.none() | st.integers(0, 700 * SECOND),
    aborted=st.booleans(),
)
def test_every_study_completes_by_its_longest_wait(
    series: list[SeriesView], last_us: int, pause_us: int, closed_us: int | None, *, aborted: bool
) -> None:
    state = AssemblyView(
        series=tuple(series),
        first_stored_mono_us=0,
        last_stored_mono_us=last_us,
        longest_pause_us=pause_us,
        open_associations=int(closed_us is None),
        are_all_released=closed_us is not None and not aborted,
        last_closed_mono_us=closed_us,
    )
    outcome = decide(state, 0, RULES)
    if isinstance(outcome, Wait):
        assert 0 < outcome.until_mono_us <= RULES.longest_wait_us
        assert isinstance(decide(state, outcome.until_mono_us, RULES), Complete)


def tally_of(headers: list[InstanceHeader]) -> tuple[SeriesView, ...]:
    tally = StudyTally()
    for header in headers:
        tally.add(header)
    return tally.series()


def test_tally_counts_each_image_of_an_acquisition_once(make_stack: MakeStack) -> None:
    stack = make_stack(10, images_in_acquisition=10, acquisition_number=1)
    whole = SeriesView(images=10, missing_by_count=0, is_gapless_stack=True)
    assert tally_of(stack) == (whole,)
    assert tally_of([*stack[:4], *stack[:4]])[0].missing_by_count == 6


def test_tally_adds_up_the_acquisitions_of_a_series(make_stack: MakeStack) -> None:
    stack = make_stack(10, images_in_acquisition=5)
    first = [replace(header, acquisition_number=1) for header in stack[:5]]
    second = [replace(header, acquisition_number=2) for header in stack[5:9]]
    assert tally_of([*first, *second])[0].missing_by_count == 1


@pytest.mark.parametrize("promises", [(10, 12), (10, None), (2, 2), (None, None)])
def test_promises_that_contradict_the_images_are_none(
    make_stack: MakeStack, promises: tuple[int | None, int | None]
) -> None:
    stack = make_stack(4)
    stack = [
        replace(header, images_in_acquisition=promises[index % 2])
        for index, header in enumerate(stack)
    ]
    assert tally_of(stack)[0].missing_by_count is None


def test_localizers_and_reports_do_not_hold_a_study_up(
    make_stack: MakeStack, make_header: MakeHeader
) -> None:
    localizer = make_header(
        sop_instance_uid="1.2.8",
        series_instance_uid="1.2.8",
        image_type=("ORIGINAL", "PRIMARY", "LOCALIZER"),
    )
    report = make_header(
        sop_instance_uid="1.2.7",
        series_instance_uid="1.2.7",
        sop_class_uid=Comprehensive3DSRStorage,
        has_pixel_data=False,
    )
    assert len(tally_of([localizer, *make_stack(10), report])) == 1


def test_view_of_a_series_follows_its_growth(make_stack: MakeStack) -> None:
    stack = make_stack(10)
    tally = StudyTally()
    for header in [*stack[:3], *stack[5:]]:
        tally.add(header)
    assert not tally.series()[0].is_gapless_stack
    for header in stack[3:5]:
        tally.add(header)
    assert tally.series()[0].is_gapless_stack


def test_only_images_reopen_a_study(make_header: MakeHeader) -> None:
    assert reopens(make_header())
    for sop_class in (
        Comprehensive3DSRStorage,
        GrayscaleSoftcopyPresentationStateStorage,
        KeyObjectSelectionDocumentStorage,
    ):
        assert not reopens(make_header(sop_class_uid=sop_class, has_pixel_data=False))
