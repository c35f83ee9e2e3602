from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from engines.choosing import Choice, Obstacle, PassedOver, Preference, choose, obstacle_of
from engines.contract import Backend
from engines.errors import (
    DeviceUnavailableError,
    EngineBuildError,
    EngineError,
    EngineLoadError,
    EngineMemoryError,
    EngineNotBuiltError,
    EngineUnavailableError,
    ModelEngineError,
    ModelFileError,
    NoEngineError,
    OutOfDeviceMemoryError,
    ParityError,
    PlanRejectedError,
    TensorMismatchError,
)

BEST, NEXT, LAST = Backend.TENSORRT, Backend.ONNXRUNTIME_CUDA, Backend.ONNXRUNTIME


def attempts(
    errors: Mapping[Backend, ModelEngineError], tried: list[Backend] | None = None
) -> Callable[[Backend], str]:
    def attempt(backend: Backend) -> str:
        if tried is not None:
            tried.append(backend)
        if backend in errors:
            raise errors[backend]
        return f"{backend.value}, ready"

    return attempt


def test_the_best_engine_that_works_is_taken_and_no_other_is_tried() -> None:
    tried: list[Backend] = []
    preference = Preference(order=(BEST, NEXT, LAST), may_fall_back=True)
    found = choose(preference, attempts({}, tried))
    assert found == Choice(backend=BEST, opened="tensorrt, ready", passed_over=())
    assert tried == [BEST]


def test_what_was_passed_over_is_named_with_its_reason_in_the_order_of_preference() -> None:
    errors = {
        BEST: EngineUnavailableError("no libcuda; install the driver"),
        NEXT: ParityError("3 decisions differ"),
    }
    found = choose(Preference(order=(BEST, NEXT, LAST), may_fall_back=True), attempts(errors))
    assert found.backend is LAST
    assert found.passed_over == (
        PassedOver(
            backend=BEST, obstacle=Obstacle.NOT_AVAILABLE, detail="no libcuda; install the driver"
        ),
        PassedOver(backend=NEXT, obstacle=Obstacle.NOT_REPRODUCED, detail="3 decisions differ"),
    )


def test_without_leave_to_fall_back_nothing_else_is_tried() -> None:
    tried: list[Backend] = []
    errors = {BEST: EngineUnavailableError("no libcuda")}
    with pytest.raises(EngineUnavailableError, match="no libcuda") as caught:
        choose(Preference(order=(BEST, LAST)), attempts(errors, tried))
    assert tried == [BEST]
    assert "onnxruntime may not run in its place: engine.fallback = true" in str(caught.value)
    assert caught.value.__cause__ is errors[BEST]


def test_the_reason_keeps_its_kind_where_only_one_may_run() -> None:
    preference = Preference(order=(BEST, LAST))
    with pytest.raises(EngineNotBuiltError, match="not built yet; onnxruntime may not run"):
        choose(preference, attempts({BEST: EngineNotBuiltError("not built yet")}))


def test_the_only_engine_of_a_preference_fails_with_its_own_error() -> None:
    error = ParityError("one decision differs")
    with pytest.raises(ParityError) as caught:
        choose(Preference(order=(LAST,)), attempts({LAST: error}))
    assert caught.value is error


def test_when_no_engine_is_left_every_reason_is_given() -> None:
    preference = Preference(order=(BEST, LAST), may_fall_back=True)
    missing = {
        BEST: EngineUnavailableError("no libcuda"),
        LAST: EngineUnavailableError("not installed"),
    }
    with pytest.raises(EngineUnavailableError, match=r"no libcuda.*onnxruntime: not installed"):
        choose(preference, attempts(missing))
    broken = {BEST: EngineUnavailableError("no libcuda"), LAST: EngineLoadError("opset 99")}
    with pytest.raises(NoEngineError, match="opset 99"):
        choose(preference, attempts(broken))


@pytest.mark.parametrize("error", [ModelFileError("bad model"), TensorMismatchError("a bug")])
def test_a_bad_package_or_a_bug_is_no_reason_to_try_another_engine(error: ModelEngineError) -> None:
    tried: list[Backend] = []
    preference = Preference(order=(BEST, LAST), may_fall_back=True)
    with pytest.raises(type(error)):
        choose(preference, attempts({BEST: error}, tried))
    assert tried == [BEST]


@pytest.mark.parametrize(
    ("error", "obstacle"),
    [
        (EngineUnavailableError(), Obstacle.NOT_AVAILABLE),
        (DeviceUnavailableError(), Obstacle.NOT_AVAILABLE),
        (EngineMemoryError(), Obstacle.OUT_OF_MEMORY),
        (OutOfDeviceMemoryError(), Obstacle.OUT_OF_MEMORY),
        (ParityError(), Obstacle.NOT_REPRODUCED),
        (EngineBuildError(), Obstacle.FAILED),
        (PlanRejectedError(), Obstacle.FAILED),
    ],
)
def test_each_error_is_of_one_kind(error: EngineError, obstacle: Obstacle) -> None:
    assert obstacle_of(error) is obstacle


@pytest.mark.parametrize("order", [(), (BEST, BEST)])
def test_an_order_of_nothing_or_with_something_twice_is_refused(order: tuple[Backend, ...]) -> None:
    with pytest.raises(ValueError, match="each once"):
        Preference(order=order)
