"""Chest radiographs from elsewhere, to hold against the reference window. Optional."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import DicomNodeError
from dicom_node.headers import read_headers
from dicom_node.instance import InstanceHeader
from edge_runtime.pipeline.decode import read_pixels
from engines.preprocessing.running import prepare
from engines.preprocessing.values import StoredImage
from tools.paediatric_cxr import recipe

MIN_SIDE = 128
"""Test files of a few pixels hold no chest."""


def read_others(folder: Path | None) -> list[NDArray[np.float32]]:
    """Pictures of the DX and CR chest images under ``folder``, less children of the model's ages.

    Files that are something else are passed over. Without a folder there are none.
    """
    paths = [] if folder is None else sorted(path for path in folder.rglob("*") if path.is_file())
    found = []
    for path in paths:
        header = _header(path)
        if header is not None and _is_other_chest(header):
            found.append(_picture(path, header))
    return found


def _header(path: Path) -> InstanceHeader | None:
    try:
        header, _ = read_headers(path)
    except (DicomNodeError, OSError):
        return None
    return header


def _is_other_chest(header: InstanceHeader) -> bool:
    low, high = recipe.AGES
    age = header.patient_age_years
    return (
        header.modality in recipe.SELECTION.modalities
        and (header.body_part_examined or "").upper() in recipe.SELECTION.body_parts
        and min(header.rows or 0, header.columns or 0) >= MIN_SIDE
        and header.samples_per_pixel == 1
        and not (age is not None and low <= age <= high)
    )


def _picture(path: Path, header: InstanceHeader) -> NDArray[np.float32]:
    image = StoredImage(
        pixels=read_pixels(path, header),
        bits_stored=header.bits_stored or 16,
        is_signed=header.pixel_representation == 1,
        is_monochrome1=header.photometric_interpretation == "MONOCHROME1",
    )
    return prepare(image, recipe.STEPS).values
