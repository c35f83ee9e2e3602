"""Whoever prepares the images, the model answers alike; and who does is not left to chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulators.tensorrt_rig import TensorRtRig

from engines.contract import EngineOptions, Precision
from engines.kernel import compiling
from engines.kernel.drawn_images import draw_ct, draw_radiographs
from engines.kernel.opening import answers_of, open_runner
from engines.kernel.runner import FusedRunner
from engines.loading import LoadedPackage, load_package
from engines.onnxruntime_engine import OnnxRuntimeEngine
from engines.package import ModelPackage
from engines.plans.sealed import SealedKind
from engines.plans.sealed_folder import SealedFolder
from engines.preprocessing.running import plan_items
from engines.preprocessing.values import StoredImage
from engines.runner import AnyRunner, HostRunner, ItemRun, Outputs
from engines.shipped import shipped_packages
from engines.steps import Part, parts_of

HEAD_CT, CHEST = "head_ct_phantom", "paediatric_cxr_pneumonia"
MOST_DEVIATION = 1e-3
"""Of a logit, as the packages allow."""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[TensorRtRig]:
    made = TensorRtRig(tmp_path / "plans")
    yield made
    assert made.leftovers() == {}


def package_of(name: str) -> LoadedPackage:
    return load_package(shipped_packages()[name])


def images_for(name: str) -> list[StoredImage]:
    return draw_ct(30, turn=1) if name == HEAD_CT else draw_radiographs(5, rows=300, columns=400)


def fused(
    stack: ExitStack, rig: TensorRtRig, package: LoadedPackage, most_items: int = 8
) -> FusedRunner:
    engine = stack.enter_context(rig.open(package.model, most_items=most_items))
    opened = stack.enter_context(open_runner(package.manifest, engine, Precision.FP32))
    assert opened.obstacle == ""
    assert opened.parity is not None
    assert opened.parity.holds
    assert isinstance(opened.runner, FusedRunner)
    return opened.runner


def assert_alike(found: Outputs, expected: Outputs) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=MOST_DEVIATION)


@pytest.mark.usefixtures("host_image")
@pytest.mark.parametrize("name", [HEAD_CT, CHEST])
@pytest.mark.parametrize("most_items", [1, 3, 32])
def test_the_device_prepares_as_the_processor_does(
    rig: TensorRtRig, name: str, most_items: int
) -> None:
    package, images = package_of(name), images_for(name)
    with ExitStack() as stack:
        reference = stack.enter_context(OnnxRuntimeEngine(package.model, EngineOptions()))
        host = HostRunner(package.manifest, reference)
        runner = fused(stack, rig, package, most_items)
        expected = answers_of(host, package.manifest, images)
        for _ in range(3):  # also in memory that other pictures had
            assert_alike(answers_of(runner, package.manifest, images), expected)


def runs_of_items(
    runner: AnyRunner, package: ModelPackage, series: Sequence[Sequence[StoredImage]]
) -> list[ItemRun[Any]]:
    """Of each series some items in the middle, then one at its beginning."""
    runs = []
    for images in series:
        items = plan_items(
            [image.position_mm for image in images],
            [image.thickness_mm for image in images],
            parts_of(package.preprocess)[Part.COLLECT][0],
        )
        pictures = dict(enumerate(runner.prepare(image) for image in images))
        runs.append(ItemRun(pictures=pictures, items=items, places=range(2, 5)))
        runs.append(ItemRun(pictures=pictures, items=items[:3], places=range(1)))
    return runs


@pytest.mark.usefixtures("host_image")
@pytest.mark.parametrize("name", [HEAD_CT, CHEST])
def test_items_of_several_studies_are_run_together(rig: TensorRtRig, name: str) -> None:
    package, images = package_of(name), images_for(name)
    manifest = package.manifest
    series = [images, images[::2] * 2] if name == CHEST else [images, images[3:]]
    with ExitStack() as stack:
        reference = stack.enter_context(OnnxRuntimeEngine(package.model, EngineOptions()))
        host = HostRunner(manifest, reference)
        runner = fused(stack, rig, package)
        expected = host.run(runs_of_items(host, manifest, series))
        found = runner.run(runs_of_items(runner, manifest, series))
        assert all(len(values) == 8 for values in found.values())
        assert_alike(found, expected)


@pytest.mark.usefixtures("host_image")
def test_an_image_is_read_to_pinned_memory_and_from_there(rig: TensorRtRig) -> None:
    package = package_of(CHEST)
    images = images_for(CHEST)
    with ExitStack() as stack:
        runner = fused(stack, rig, package)
        expected = answers_of(runner, package.manifest, images)
        moved = []
        for image in images:
            place = runner.place_for(image)
            assert place is not None
            place[...] = image.pixels
            moved.append(runner.prepare(replace(image, pixels=place)))
        items = plan_items(
            [None] * len(images),
            [None] * len(images),
            parts_of(package.manifest.preprocess)[Part.COLLECT][0],
        )
        assert_alike(runner.run_series(moved, items), expected)


def test_beside_another_engine_the_processor_prepares() -> None:
    package = package_of(HEAD_CT)
    with (
        OnnxRuntimeEngine(package.model, EngineOptions()) as engine,
        open_runner(package.manifest, engine, Precision.FP32) as opened,
    ):
        assert isinstance(opened.runner, HostRunner)
        assert opened.obstacle == ""
        assert opened.parity is None


def test_without_a_compiler_the_processor_prepares_and_the_reason_is_told(
    rig: TensorRtRig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    package = package_of(CHEST)
    images = images_for(CHEST)
    with (
        rig.open(package.model) as engine,
        open_runner(package.manifest, engine, Precision.FP32) as opened,
    ):
        assert isinstance(opened.runner, HostRunner)
        assert "compiler" in opened.obstacle
        assert len(next(iter(answers_of(opened.runner, package.manifest, images).values()))) == 5


def test_a_package_that_the_kernel_does_not_serve_is_prepared_by_the_processor(
    rig: TensorRtRig,
) -> None:
    package = package_of(CHEST)
    grids = {"resize", "letterbox", "resample_in_plane"}
    steps = [step for step in package.manifest.preprocess if step.step not in grids]
    manifest = package.manifest.model_copy(update={"preprocess": tuple(steps)})
    with (
        rig.open(package.model) as engine,
        open_runner(manifest, engine, Precision.FP32) as opened,
    ):
        assert isinstance(opened.runner, HostRunner)
        assert "grid" in opened.obstacle


@pytest.mark.usefixtures("host_image")
def test_a_kernel_that_computes_something_else_never_prepares_an_image(
    rig: TensorRtRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = package_of(HEAD_CT)
    with rig.open(package.model) as engine:
        right = compiling.sources()
        wrong = {name: text.replace("1.0f", "1.25f") for name, text in right.items()}
        assert wrong != right
        with monkeypatch.context() as patch:
            patch.setattr(compiling, "sources", lambda: wrong)
            image = compiling.compile_for_host()
        key = compiling.Target.of(engine.device.info).key()
        SealedFolder(engine.plans.folder).keep(SealedKind.KERNEL, key, image)
        with open_runner(package.manifest, engine, Precision.FP32) as opened:
            assert isinstance(opened.runner, HostRunner)
            assert "does not decide" in opened.obstacle
