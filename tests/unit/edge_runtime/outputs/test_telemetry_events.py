"""What the site's telemetry says of engines; all else is in the end-to-end tests."""

from __future__ import annotations

import pytest
from simulators.hand_clock import HandClock

from edge_runtime.config import settings
from edge_runtime.outputs.telemetry_events import birth_event, model_ref
from edge_runtime.store.engine_names import EngineName
from edge_runtime.store.engines import EngineInUse
from telemetry.events import BirthEvent, EngineBackend


def in_use(name: EngineName | None, model: str = "head") -> EngineInUse:
    return EngineInUse(
        model_key=model,
        engine=name.text if name else "",
        refusal="" if name else "2 decisions differ",
        passed_over=(),
    )


def name_of(backend: settings.EngineBackend, *in_place_of: settings.EngineBackend) -> EngineName:
    return EngineName(backend=backend, version="1.2", provider="any", in_place_of=in_place_of)


def birth(*engines: EngineInUse) -> BirthEvent:
    return birth_event(
        boots=1,
        software="0.1.0",
        models=(model_ref("head", "1.0.0"),),
        engines=engines,
        at=HandClock().now(),
    )


@pytest.mark.parametrize("backend", list(settings.EngineBackend))
def test_every_engine_has_its_word(backend: settings.EngineBackend) -> None:
    event = birth(in_use(name_of(backend)))
    assert len(event.backends) == 1
    assert event.in_place_of == ()


def test_what_was_passed_over_is_told_once() -> None:
    cpu, gpu = settings.EngineBackend.ONNXRUNTIME, settings.EngineBackend.TENSORRT
    event = birth(
        in_use(name_of(cpu, gpu)), in_use(name_of(cpu, gpu), "chest"), in_use(None, "other")
    )
    assert event.backends == (EngineBackend.ONNXRUNTIME_CPU,)
    assert event.in_place_of == (EngineBackend.TENSORRT,)


def test_a_device_without_engines_says_that_none_runs() -> None:
    assert birth(in_use(None)).backends == ()
