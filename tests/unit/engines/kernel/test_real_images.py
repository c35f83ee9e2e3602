"""Files of many makers, where ``EDGE_TRIAGE_TEST_DATA`` names a folder of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulators.fused import FusedKernel, by_numpy, grid_bound
from simulators.reference_images import steps_of

from dicom_node.errors import DicomNodeError
from dicom_node.headers import read_headers
from edge_runtime.pipeline.decode import read_pixels
from edge_runtime.pipeline.errors import StudyDataError
from edge_runtime.pipeline.preprocess import stored_image
from engines.errors import UnfitImagesError
from engines.preprocessing.values import StoredImage

AHEAD = (
    {"step": "rescale", "padding": -1000.0},
    {"step": "invert_monochrome1"},
    {"step": "canonical_orientation"},
)
GRIDS: list[dict[str, Any]] = [
    {"step": "resample_in_plane", "rows": 112, "columns": 112, "pixel_mm": 2.0, "fill": -1000.0},
    {"step": "letterbox", "rows": 128, "columns": 100, "fill": 0.0, "method": "linear"},
]


def images_in(folder: Path) -> Iterator[StoredImage]:
    """What of its files is an image of one frame."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                header, _ = read_headers(path)
                yield stored_image(read_pixels(path, header), header)
            except (DicomNodeError, StudyDataError):
                continue


def test_real_images_make_the_pictures_that_numpy_makes(kernel: FusedKernel) -> None:
    folder = os.environ.get("EDGE_TRIAGE_TEST_DATA")
    if not folder:
        pytest.skip("EDGE_TRIAGE_TEST_DATA is not set")
    compared = 0
    for image in images_in(Path(folder, "dicom")):
        for grid in GRIDS:
            steps = steps_of(*AHEAD, grid, {"step": "each_image"})
            try:
                wanted = by_numpy([image], steps)
            except UnfitImagesError as error:
                with pytest.raises(UnfitImagesError) as caught:
                    kernel.assemble([image], steps)
                assert caught.value.fault is error.fault  # noqa: PT017 - of both ways
                continue
            made = kernel.assemble([image], steps)
            np.testing.assert_allclose(made, wanted, rtol=0, atol=grid_bound([image], steps))
            compared += 1
    assert compared > 100
