"""``edge-triage engines``: what the machine has, what is built, and whether it may be used."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulators.hand_clock import HandClock
from simulators.released_package import write_release
from simulators.tensorrt_rig import TensorRtRig
from typer.testing import CliRunner

from edge_runtime.config.loading import load_settings
from edge_runtime.config.settings import EngineBackend, Settings
from edge_runtime.process import database_path, engines_path
from edge_runtime.store.database import connect
from edge_runtime.store.engines import (
    EngineInUse,
    EngineObstacle,
    PassedOverEngine,
    record_engines,
)
from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, Engine, EngineOptions
from engines.going_live import OpenEngine
from engines.loading import LoadedPackage, load_package
from tools.cli import app
from tools.engines.building import build_one
from tools.engines.subjects import settings_of
from tools.engines.verifying import verify_one

WriteConfig = Callable[..., Path]

FALLEN_BACK = EngineInUse(
    model_key="bright",
    engine="onnxruntime 1.31.0 CPUExecutionProvider, in place of tensorrt",
    refusal="",
    passed_over=(
        PassedOverEngine(
            backend=EngineBackend.TENSORRT,
            obstacle=EngineObstacle.NOT_AVAILABLE,
            detail="no libcuda.so.1",
        ),
    ),
)


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    write_release(tmp_path / "bright", "1.0.0")

    def write(engine: str = "") -> Path:
        (tmp_path / "state").mkdir(exist_ok=True)
        config = tmp_path / "device.toml"
        config.write_text(
            f'[device]\nstate_dir = "{tmp_path / "state"}"\n'
            f'[models]\npackages = ["{tmp_path / "bright"}"]\n[engine]\n{engine}\n'
        )
        return config

    return write


def run(*arguments: str | Path, code: int = 0) -> str:
    answer = CliRunner().invoke(app, ["engines", *map(str, arguments)])
    assert answer.exit_code == code, (answer.stdout, answer.stderr)
    return answer.stdout


def run_json(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*arguments, "--json", code=code))
    return found


# ---------------------------------------------------------------- list


def test_every_engine_is_listed_with_its_place_or_why_it_is_not_here(
    write_config: WriteConfig,
) -> None:
    config = write_config('preference = ["tensorrt", "onnxruntime"]')
    found = run_json("list", "--config", config)
    assert (found["preference"], found["fallback"]) == (["tensorrt", "onnxruntime"], False)
    engines = {each["engine"]: each for each in found["engines"]}
    assert list(engines) == [backend.value for backend in Backend]
    reference = engines["onnxruntime"]
    assert (reference["available"], reference["place"]) == (True, 2)
    assert reference["runs_on"] == "CPUExecutionProvider"
    for each in engines.values():
        assert bool(each["obstacle"]) is not each["available"]
    assert (found["in_use"], found["plans"]) == ([], [])
    assert not (engines_path(load_settings(config))).exists(), "listing changes nothing"


def test_the_list_says_what_runs_and_what_was_passed_over(write_config: WriteConfig) -> None:
    config = write_config('preference = ["tensorrt", "onnxruntime"]')
    with contextlib.closing(connect(database_path(load_settings(config)))) as connection:
        record_engines(connection, [FALLEN_BACK], HandClock().now())
    (in_use,) = run_json("list", "--config", config)["in_use"]
    assert in_use["engine"] == FALLEN_BACK.engine
    assert in_use["passed_over"] == [
        {"engine": "tensorrt", "obstacle": "not_available", "detail": "no libcuda.so.1"}
    ]
    shown = " ".join(run("list", "--config", config).split())
    assert "not tensorrt: no libcuda.so.1" in shown
    assert "engine.fallback is off" in shown


def test_settings_that_cannot_be_read_are_an_error_with_a_remedy(tmp_path: Path) -> None:
    answer = CliRunner().invoke(app, ["engines", "list", "--config", str(tmp_path / "none.toml")])
    assert answer.exit_code == 1
    assert "none.toml" in answer.stderr


# ---------------------------------------------------------------- build and verify


def test_where_no_engine_is_built_there_is_nothing_to_do(write_config: WriteConfig) -> None:
    assert run_json("build", "--config", write_config()) == {"ok": True, "engines": []}
    assert "nothing to build" in run("build", "--config", write_config())


def test_an_engine_that_may_not_fall_back_is_the_only_one_that_is_built(
    write_config: WriteConfig,
) -> None:
    config = write_config('preference = ["onnxruntime", "tensorrt"]')
    assert run_json("build", "--config", config)["engines"] == []


def test_the_reference_is_verified(write_config: WriteConfig) -> None:
    (found,) = run_json("verify", "--config", write_config(), "--layers")["engines"]
    assert found["ok"]
    assert (found["flips"], found["culprit"], found["refusal"]) == (0, None, None)
    assert found["golden_items"] > 0
    assert found["layers"]
    shown = " ".join(run("verify", "--config", write_config(), "--layers").split())
    assert "decides as the reference does" in shown
    assert "no layer is off" in shown


def test_packages_can_be_named_and_an_unknown_one_is_an_error(write_config: WriteConfig) -> None:
    named = run_json("verify", "--config", write_config(), "--package", "head_ct_phantom")
    assert [each["model"].split()[0] for each in named["engines"]] == ["head_ct_phantom"]
    answer = CliRunner().invoke(
        app, ["engines", "verify", "--config", str(write_config()), "--package", "nobody"]
    )
    assert answer.exit_code == 1
    assert "nobody" in answer.stderr


def test_a_device_without_models_says_what_to_name(write_config: WriteConfig) -> None:
    config = write_config()
    with contextlib.closing(connect(database_path(load_settings(config)))):
        pass
    answer = CliRunner().invoke(app, ["engines", "verify", "--config", str(config)])
    assert answer.exit_code == 1
    assert "models.packages" in answer.stderr


# ---------------------------------------------------------------- with the stand-in for TensorRT


@pytest.fixture
def settings(write_config: WriteConfig) -> Settings:
    return load_settings(write_config('preference = ["tensorrt"]'))


@pytest.fixture
def package(tmp_path: Path, settings: Settings) -> LoadedPackage:
    assert settings
    return load_package(tmp_path / "bright")


def opener(rig: TensorRtRig) -> OpenEngine:
    def opens(backend: Backend, model: VerifiedFile, options: EngineOptions) -> Engine:
        accelerator = options.accelerator
        if backend is not Backend.TENSORRT or accelerator is None:
            return open_engine(backend, model, options)
        rig.folder = accelerator.folder
        return rig.open(model, options, most_items=32, on_build=accelerator.on_build)

    return opens


def test_what_was_built_and_proven_is_listed(
    settings: Settings, package: LoadedPackage, tmp_path: Path
) -> None:
    rig = TensorRtRig(tmp_path / "engines")
    built = build_one(package, Backend.TENSORRT, settings, opens=opener(rig))
    assert built.refusal == ""
    assert "fp32" in built.software
    (plan,) = run_json("list", "--config", tmp_path / "device.toml")["plans"]
    assert (plan["engine"], plan["precision"], plan["proven"]) == ("tensorrt", "fp32", True)
    assert plan["proven_against"].startswith("onnxruntime ")
    assert "proven" in run("list", "--config", tmp_path / "device.toml")
    assert rig.leftovers() == {}


def test_a_plan_that_this_device_did_not_seal_is_listed_as_never_used(
    settings: Settings, package: LoadedPackage, tmp_path: Path
) -> None:
    rig = TensorRtRig(tmp_path / "engines")
    assert not build_one(package, Backend.TENSORRT, settings, opens=opener(rig)).refusal
    (plan,) = run_json("list", "--config", tmp_path / "device.toml")["plans"]
    for file in engines_path(settings).rglob(f"{plan['digest']}*"):
        file.write_bytes(b"from elsewhere" * 100)
    (found,) = run_json("list", "--config", tmp_path / "device.toml")["plans"]
    assert (found["digest"], found["engine"], found["proven"]) == (plan["digest"], None, None)
    shown = " ".join(run("list", "--config", tmp_path / "device.toml").split())
    assert "not sealed by this device: it is never used" in shown


def test_why_nothing_was_built_is_told(
    settings: Settings, package: LoadedPackage, tmp_path: Path
) -> None:
    rig = TensorRtRig(tmp_path / "engines")
    rig.faults.no_plan = ("Could not find any implementation for node logits",)
    built = build_one(package, Backend.TENSORRT, settings, opens=opener(rig))
    assert "Could not find any implementation" in built.refusal
    assert run_json("list", "--config", tmp_path / "device.toml")["plans"] == []


def test_a_built_engine_is_verified_layer_by_layer(
    settings: Settings, package: LoadedPackage, tmp_path: Path
) -> None:
    rig = TensorRtRig(tmp_path / "engines")
    found = verify_one(package, Backend.TENSORRT, settings, with_layers=True, opens=opener(rig))
    assert found.holds
    assert found.layers is not None
    assert found.layers.culprit is None
    assert not replace(found, report=None).holds
    assert len(run_json("list", "--config", tmp_path / "device.toml")["plans"]) == 1, (
        "plans of the copies lie elsewhere"
    )


def test_a_machine_that_is_no_device_yet_is_told_what_the_defaults_would_give(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent.toml"
    assert settings_of(absent, default=absent) == Settings()
    assert "no device is set up here" in capsys.readouterr().err


def test_a_settings_file_that_is_named_and_absent_is_an_error(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.toml")
    listed = CliRunner().invoke(app, ["engines", "list", "--config", absent])
    assert listed.exit_code == 1
    assert "cannot be read" in listed.stderr
