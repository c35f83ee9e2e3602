from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.shipped import shipped_packages
from engines.writing import write_checksums
from tools.doctor.checks_models import check_models, model_checks
from tools.doctor.findings import Context, Finding, Status

MakeContext = Callable[..., Context]

SHIPPED = "head_ct_phantom"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the shipped package."""
    return shutil.copytree(shipped_packages()[SHIPPED], tmp_path / SHIPPED)


@pytest.fixture
def check(make_context: MakeContext) -> Callable[[Path | str], Finding]:
    def run(package: Path | str) -> Finding:
        context = make_context(models={"packages": [str(package)]})
        (only,) = model_checks(context.settings)
        assert only.name == f"model.{Path(package).name}"
        return only.run(context)

    return run


Run = Callable[[Path | str], Finding]


def test_the_shipped_package_is_reproduced_here(check: Run) -> None:
    found = check(SHIPPED)
    assert found.status is Status.OK, found
    assert "golden outputs" in found.found


def test_a_changed_file_fails_and_file_and_package_are_named(check: Run, package: Path) -> None:
    model = bytearray((package / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (package / "model.onnx").write_bytes(model)
    found = check(package)
    assert found.status is Status.FAILED
    assert "model.onnx" in found.found
    assert SHIPPED in (found.remedy or "")
    assert "install the package" in (found.remedy or "")


def test_a_package_outside_its_schema_fails(check: Run, package: Path) -> None:
    manifest = package / "package.toml"
    manifest.write_text(f"surprise = 1\n{manifest.read_text()}")
    write_checksums(package)
    found = check(package)
    assert found.status is Status.FAILED
    assert "surprise" in found.found
    assert SHIPPED in (found.remedy or "")


def test_golden_outputs_that_are_not_reproduced_fail(check: Run, package: Path) -> None:
    outputs = package / "golden" / "outputs.npz"
    with np.load(outputs) as stored:
        changed = {name: stored[name] + np.float32(0.5) for name in stored.files}
    np.savez(outputs, **changed)
    write_checksums(package)
    found = check(package)
    assert found.status is Status.FAILED
    assert "does not reproduce" in found.found
    assert "engine.preference" in (found.remedy or "")


def test_an_engine_that_is_preferred_and_not_here_is_a_warning_where_another_may_run(
    make_context: MakeContext,
) -> None:
    engine = {"preference": ["tensorrt", "onnxruntime"], "fallback": True}
    context = make_context(models={"packages": [SHIPPED]}, engine=engine)
    (only,) = model_checks(context.settings)
    found = only.run(context)
    assert found.status is Status.WARNING, found
    assert "tensorrt is preferred for head_ct_phantom" in found.found
    assert "engine.preference" in (found.remedy or "")


def test_an_engine_that_is_not_here_fails_where_no_other_may_run(
    make_context: MakeContext, state_dir: Path
) -> None:
    engine = {"preference": ["tensorrt", "onnxruntime"]}
    context = make_context(models={"packages": [SHIPPED]}, engine=engine)
    (only,) = model_checks(context.settings)
    found = only.run(context)
    assert found.status is Status.FAILED
    assert "onnxruntime may not run in its place" in found.found
    assert "edge-triage engines list" in (found.remedy or "")
    assert list(state_dir.iterdir()) == [], "the doctor changes nothing"


def test_a_package_that_nobody_knows_fails(check: Run) -> None:
    found = check("chest_xr_unheard_of")
    assert found.status is Status.FAILED
    assert "chest_xr_unheard_of" in found.found
    assert "models.packages" in (found.remedy or "")


def test_no_active_model_is_a_warning(make_context: MakeContext) -> None:
    found = check_models(make_context(models={"packages": []}))
    assert found.status is Status.WARNING
    assert "models.packages" in (found.remedy or "")


def test_two_packages_of_one_name_fail(make_context: MakeContext, package: Path) -> None:
    found = check_models(make_context(models={"packages": [SHIPPED, str(package)]}))
    assert found.status is Status.FAILED
    assert "models.packages" in (found.remedy or "")


def test_packages_that_cannot_be_read_are_left_to_their_own_checks(
    make_context: MakeContext,
) -> None:
    assert check_models(make_context(models={"packages": ["nobody"]})).status is Status.OK
