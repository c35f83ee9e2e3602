"""``edge-triage models quantise``: from a package in FP32 to one in INT8 that verifies."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from simulators.model_package import write_model_package
from typer.testing import CliRunner

from edge_runtime.pipeline.confinement import verify_confined
from engines.checksums import digest_of
from engines.contract import Backend, EngineOptions
from engines.golden import load_golden
from engines.loading import EVALUATION_FILE, load_package
from engines.onnx_checks import check_model
from engines.shipped import shipped_packages
from engines.verifying import verify_package
from engines.writing import write_checksums
from tools.models import app
from tools.models.sealing import write_evaluation
from tools.quantise.folder import parity_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHEST = shipped_packages()["paediatric_cxr_pneumonia"]


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["quantise", *map(str, words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The shipped radiograph package in INT8, and the report."""
    folder = tmp_path_factory.mktemp("quantise") / "int8"
    done = run(CHEST, "--out", folder, "--version", "9.0.0", "--json")
    assert done.exit_code == 0, done.output
    return folder, json.loads(done.stdout)


def tables(folder: Path, file: str) -> dict[str, Any]:
    return tomllib.loads((folder / file).read_text(encoding="utf-8"))


def test_the_report_says_what_became_of_every_decision(
    made: tuple[Path, dict[str, Any]],
) -> None:
    report = made[1]
    assert report["flips"] == report["golden"]["flips"] == 0
    assert report["layers_int8"] == 10
    assert report["bytes"]["after"] < report["bytes"]["before"] / 3
    assert 0 < report["golden"]["max_absolute"] < 1
    assert report["processor_time_ratio"] > 0
    outcomes = [(study["before"], study["after"]) for study in report["studies"]]
    assert len(outcomes) == 13
    assert all(before == after for before, after in outcomes)
    analysed = [study for study in report["studies"] if study["before"] != "NOT_ANALYSED"]
    assert all(
        abs(study["probabilities_after"]["pneumonia"] - study["probabilities_before"]["pneumonia"])
        < 0.05
        for study in analysed
    )


def test_the_folder_waits_for_its_evaluation_and_its_seal(
    made: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = made
    assert not (folder / "CHECKSUMS").exists()
    assert not (folder / EVALUATION_FILE).exists()
    old, new = tables(CHEST, "package.toml"), tables(folder, "package.toml")
    assert new.pop("version") == "9.0.0"
    old.pop("version")
    tolerance = new["parity"].pop("absolute")
    old["parity"].pop("absolute")
    assert new == old
    assert tolerance >= 3 * made[1]["rounding_between_engines"]
    assert tolerance == made[1]["parity_absolute"]


def test_evaluated_and_sealed_it_verifies_with_its_golden_studies(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, _ = made
    scores = tmp_path / "scores.csv"
    lines = [f"case{n},pneumonia,{n % 2},{0.9 if n % 2 else 0.1}" for n in range(40)]
    scores.write_text("\n".join(["case,finding,truth,probability", *lines]), encoding="utf-8")
    write_evaluation(folder, scores, "Invented for a test.")
    # The card quotes what only the radiographs' own evaluation measures.
    evaluation = json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
    theirs = json.loads((CHEST / EVALUATION_FILE).read_text(encoding="utf-8"))
    kept = {"model_sha256", "model_version", "thresholds"}
    merged = theirs | {key: evaluation[key] for key in kept}
    (folder / EVALUATION_FILE).write_text(json.dumps(merged), encoding="utf-8")
    write_checksums(folder)
    verification = verify_confined(folder, Backend.ONNXRUNTIME)
    assert verification.fault is None, verification.fault


def layered_package(folder: Path, *levels: float) -> Path:
    """A package with a convolution that does nothing, and even golden pictures of these levels."""
    write_model_package(folder)
    model = onnx.load(folder / "model.onnx")
    model.graph.node[0].input[0] = "same"
    conv = helper.make_node("Conv", ["slices", "one"], ["same"], name="conv")
    model.graph.node.insert(0, conv)
    model.graph.initializer.append(
        numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "one")
    )
    content = model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    values = np.array(levels, np.float32)
    inputs = np.ascontiguousarray(
        np.broadcast_to(values[:, None, None, None], (len(levels), 1, 8, 8))
    )
    np.savez(folder / "golden" / "inputs.npz", slices=inputs)
    np.savez(folder / "golden" / "outputs.npz", logits=(values - np.float32(0.5)) * np.float32(8))
    evaluation = json.loads((folder / EVALUATION_FILE).read_text(encoding="utf-8"))
    evaluation["model_sha256"] = hashlib.sha256(content).hexdigest()
    (folder / EVALUATION_FILE).write_text(json.dumps(evaluation), encoding="utf-8")
    write_checksums(folder)
    return folder


def test_golden_outputs_are_those_of_the_new_model(tmp_path: Path) -> None:
    old = layered_package(tmp_path / "old", 0.1, 0.3, 0.8, 0.9)
    new = tmp_path / "new"
    assert run(old, "--out", new, "--version", "1.1.0").exit_code == 0
    (new / EVALUATION_FILE).write_bytes(
        (old / EVALUATION_FILE)
        .read_bytes()
        .replace(digest_of(old / "model.onnx").encode(), digest_of(new / "model.onnx").encode())
        .replace(b"1.0.0", b"1.1.0")
    )
    write_checksums(new)
    before, after = load_golden(load_package(old)), load_golden(load_package(new))
    np.testing.assert_array_equal(before.inputs["slices"], after.inputs["slices"])
    # 0.9 / 127 is a step of the input.
    steps = np.rint(np.array([0.1, 0.3, 0.8, 0.9]) * 127 / 0.9) * 0.9 / 127
    np.testing.assert_allclose(after.outputs["logits"], (steps - 0.5) * 8, atol=1e-5)
    check_model(load_package(new))
    assert verify_package(new, Backend.ONNXRUNTIME, EngineOptions()).holds


def test_a_decision_that_would_change_is_refused_and_nothing_written(tmp_path: Path) -> None:
    # In steps of 0.9 / 127, 0.4998 becomes 0.5031.
    old = layered_package(tmp_path / "old", 0.1, 0.4998, 0.8, 0.9)
    done = run(old, "--out", tmp_path / "new", "--version", "1.1.0")
    assert done.exit_code == 1
    assert "1 decisions differ, so nothing was written" in done.stderr
    assert "golden decisions that differ: 1 of 4" in done.stderr
    assert not (tmp_path / "new").exists()


def test_own_tensors_are_what_it_is_calibrated_with(tmp_path: Path) -> None:
    old = layered_package(tmp_path / "old", 0.1, 0.3, 0.8, 0.9)
    tensors = tmp_path / "tensors"
    tensors.mkdir()
    np.savez(tensors / "a.npz", slices=np.full((3, 1, 8, 8), 12.7, np.float32))
    done = run(old, "--out", tmp_path / "new", "--version", "1.1.0", "--tensors", tensors, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["calibration_items"] == 3
    # In steps of 0.1 all four levels are met.
    assert report["golden"]["max_absolute"] < 1e-4
    assert report["parity_absolute"] == 0.001


@pytest.mark.parametrize("version", ["1.0.0", "1.1", "next"])
def test_the_new_package_has_a_version_of_its_own(tmp_path: Path, version: str) -> None:
    old = layered_package(tmp_path / "old", 0.1, 0.3, 0.8, 0.9)
    assert run(old, "--out", tmp_path / "new", "--version", version).exit_code == 2
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    old = layered_package(tmp_path / "old", 0.1, 0.3, 0.8, 0.9)
    (tmp_path / "new").mkdir()
    done = run(old, "--out", tmp_path / "new", "--version", "1.1.0")
    assert done.exit_code == 1
    assert "exists; remove it" in done.stderr
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    old = layered_package(tmp_path / "old", 0.1, 0.3, 0.8, 0.9)
    (tmp_path / "file").touch()
    done = run(old, "--out", tmp_path / "file" / "new", "--version", "1.1.0")
    assert done.exit_code == 1
    assert "cannot be made" in done.stderr


def test_a_package_that_was_changed_is_not_quantised(tmp_path: Path) -> None:
    old = layered_package(tmp_path / "old", 0.1, 0.3, 0.8, 0.9)
    (old / "model.onnx").write_bytes(b"another")
    done = run(old, "--out", tmp_path / "new", "--version", "1.1.0")
    assert done.exit_code == 1
    assert "does not match its checksum" in done.stderr


@pytest.mark.parametrize(
    ("rounding", "tolerance"), [(0.0, 0.001), (0.0001, 0.001), (0.0371, 0.12), (5.0, 1.0)]
)
def test_the_tolerance_leaves_room_for_other_engines(
    tmp_path: Path, rounding: float, tolerance: float
) -> None:
    package = write_model_package(tmp_path)
    assert parity_of(package, rounding) == pytest.approx(tolerance)
