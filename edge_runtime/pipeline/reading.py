"""From a stored file to a prepared image, by way of whoever prepares for the model's engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dicom_node.instance import InstanceHeader
from edge_runtime.pipeline.decode import MAX_PIXEL_BYTES, pixel_layout, read_pixels
from edge_runtime.pipeline.preprocess import reasons_told, stored_image
from engines.runner import AnyRunner, Prepared


def read_image(
    runner: AnyRunner, path: Path, header: InstanceHeader, max_bytes: int = MAX_PIXEL_BYTES
) -> Prepared:
    """Read the pixels of an instance to where its runner wants them, and prepare them.

    Args:
        runner: the model's.
        path: DICOM file (PS3.10).
        header: of the same instance.
        max_bytes: bound on the decoded frame.

    Raises:
        StudyDataError: pixels that cannot be read, or that the steps cannot use.
        CodecMissingError: this installation lacks the codec.
        OSError: the file cannot be read.
        DeviceError: a GPU failed, or has not so much memory.
    """
    layout = pixel_layout(header, max_bytes=max_bytes)
    promised = np.broadcast_to(
        layout.dtype.newbyteorder("=").type(0), (layout.rows, layout.columns)
    )
    with reasons_told():
        place = runner.place_for(stored_image(promised, header))
    pixels = read_pixels(path, header, max_bytes=max_bytes, into=place)
    with reasons_told():
        prepared: Prepared = runner.prepare(stored_image(pixels, header))
    return prepared
