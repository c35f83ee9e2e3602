"""The kernel makes of the shipped packages' own studies what NumPy makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simulators.fused import FusedKernel, by_numpy, grid_bound

from dicom_node.headers import read_headers
from edge_runtime.pipeline.decode import read_pixels
from edge_runtime.pipeline.preprocess import stored_image
from engines.loading import load_package
from engines.package import ModelPackage
from engines.preprocessing.running import prepare
from engines.preprocessing.values import Float32, StoredImage
from engines.shipped import shipped_packages
from engines.steps import PercentileNormalise, WindowChannels

STUDIES = [
    pytest.param(folder, study, id=f"{name}-{study.name}")
    for name, folder in sorted(shipped_packages().items())
    for study in sorted((folder / "golden" / "studies").iterdir())
]


def images_of(study: Path) -> list[StoredImage]:
    images = []
    for path in sorted(study.iterdir()):
        header, _ = read_headers(path)
        images.append(stored_image(read_pixels(path, header), header))
    return images


def bound_of(images: list[StoredImage], package: ModelPackage, theirs: Float32) -> float:
    """What follows the grid widens its bound: by a window's width, or by what percentiles span."""
    bound = grid_bound(images, package.preprocess)
    for step in package.preprocess:
        if isinstance(step, WindowChannels):
            return bound / min(window.high - window.low for window in step.windows) + 1e-6
        if isinstance(step, PercentileNormalise):
            grid = package.preprocess[: package.preprocess.index(step)]
            plain = [prepare(image, (*grid, package.preprocess[-2])).values for image in images]
            spans = [
                np.subtract(*np.percentile(values, step.percentiles[::-1])) for values in plain
            ]
            return 3 * bound / float(min(spans)) / 0.29 + 4e-7 * float(np.abs(theirs).max())
    raise AssertionError("nothing follows the grid")


@pytest.mark.parametrize(("folder", "study"), STUDIES)
def test_golden_studies_make_the_input_that_numpy_makes(
    kernel: FusedKernel, folder: Path, study: Path
) -> None:
    package = load_package(folder).manifest
    images = images_of(study)
    theirs = by_numpy(images, package.preprocess, package.input.layout)
    ours = kernel.assemble(images, package.preprocess, package.input.layout)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound_of(images, package, theirs))
