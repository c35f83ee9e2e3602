"""What the paediatric chest radiograph model is, apart from its weights: ``package.toml``'s source.

Pictures are stretched to a square, not letterboxed, because those of the data set were: a network
that has seen squeezed chests must see squeezed chests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
)

from engines.package import (
    Calibration,
    Code,
    FindingRule,
    GateRules,
    InputRule,
    ModelPackage,
    OperatingPoint,
    SelectionRules,
    TensorRule,
    Urgency,
)
from engines.preprocessing.running import channels_of, prepare
from engines.preprocessing.values import StoredImage
from engines.steps import (
    EachImage,
    InvertMonochrome1,
    PercentileNormalise,
    PreprocessStep,
    Rescale,
    Resize,
    Standardise,
)

VERSION = "1.0.0"
FINDING = "pneumonia"
SIDE = 112
MEAN, DEVIATION = 0.59, 0.29
"""Of the training pictures after percentile normalisation."""
AGES = (1.0, 5.999)
"""Years: up to the sixth birthday."""
MAX_IMAGES = 8
"""Frontal radiographs of one study; more are no ordinary study."""

PICTURE_STEPS: tuple[PreprocessStep, ...] = (
    Rescale(step="rescale", padding=0),
    InvertMonochrome1(step="invert_monochrome1"),
    Resize(step="resize", rows=SIDE, columns=SIDE, method="area"),
    PercentileNormalise(step="percentile_normalise", percentiles=(1, 99)),
)
"""From a radiograph to a picture of 0 to 1. Percentiles come after the resize, so that they mean
the same for a small copy and for the detector's own matrix."""
STEPS: tuple[PreprocessStep, ...] = (
    *PICTURE_STEPS,
    EachImage(step="each_image", max_images=MAX_IMAGES),
    Standardise(step="standardise", mean=(MEAN,), deviation=(DEVIATION,)),
)
INPUT = InputRule(name="images", dtype="float32", shape=(-1, 1, SIDE, SIDE))
OUTPUT = TensorRule(name="logit", dtype="float32", shape=(-1,))

DISCLAIMER = (
    "Demonstration. Learnt from one hospital's radiographs of children of 1 to 5 years; networks "
    "of this kind were no better than chance on adults. Not a cleared medical device; must not be "
    "used for patients."
)
SELECTION = SelectionRules(
    modalities=("DX", "CR"),
    sop_class_uids=(ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation),
    body_parts=("CHEST", "THORAX"),
    view_positions=("AP", "PA"),
    series="all",
)
GATE = GateRules(
    pixel_spacing_mm=(0.05, 2.0),
    lossy="allowed",
    orientation="any",
    view_positions=("AP", "PA"),
    age_years=AGES,
)


def manifest(calibration: Calibration, operating_point: OperatingPoint) -> ModelPackage:
    """The package around a trained network."""
    return ModelPackage(
        format=1,
        name="paediatric_cxr_pneumonia",
        version=VERSION,
        title="PNEUMONIA (CHILD)",
        intended_use=(
            "Shows on frontal chest radiographs of children of 1 to 5 years how a triage model "
            "runs on this device: flags those that look like the ones that one hospital had "
            "labelled pneumonia. For demonstrations, tests and teaching only."
        ),
        disclaimer=DISCLAIMER,
        demonstration=True,
        procedure=Code(value="399208008", scheme="SCT", meaning="Plain X-ray of chest"),
        selection=SELECTION,
        gate=GATE,
        preprocess=STEPS,
        input=INPUT,
        outputs=(OUTPUT,),
        findings=(
            FindingRule(
                key=FINDING,
                code=Code(value="233604007", scheme="SCT", meaning="Pneumonia"),
                urgency=Urgency.URGENT,
                tensor=OUTPUT.name,
                calibration=calibration,
                operating_point=operating_point,
            ),
        ),
    )


def picture(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A radiograph as the device's own steps prepare it: (SIDE, SIDE), 0 to 1.

    Args:
        pixels: (rows, columns), larger is brighter.
    """
    return prepare(StoredImage(pixels=pixels, bits_stored=8), STEPS).values


def items(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's input (N, 1, SIDE, SIDE) of pictures (N, SIDE, SIDE)."""
    return channels_of(pictures, STEPS)
