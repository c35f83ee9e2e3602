from __future__ import annotations

from pathlib import Path

import pytest

from engines.contract import Backend, EngineOptions
from engines.loading import load_package
from engines.shipped import shipped_packages
from engines.verifying import verify_package

SHIPPED = list(shipped_packages().items())


@pytest.mark.parametrize(("name", "folder"), SHIPPED, ids=[name for name, _ in SHIPPED])
def test_a_shipped_package_verifies_and_has_the_name_of_its_folder(name: str, folder: Path) -> None:
    assert verify_package(folder, Backend.ONNXRUNTIME, EngineOptions()).holds
    package = load_package(folder)
    assert package.manifest.name == name


@pytest.mark.parametrize(("name", "folder"), SHIPPED, ids=[name for name, _ in SHIPPED])
def test_a_shipped_model_is_small_and_says_that_it_is_a_demonstration(
    name: str, folder: Path
) -> None:
    package = load_package(folder)
    assert (folder / "model.onnx").stat().st_size <= 5_000_000, name
    assert package.manifest.demonstration
    assert package.card.release.stage.value == "demonstration"
