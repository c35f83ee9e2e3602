"""What the head CT phantom model is, apart from its weights: the one source of ``package.toml``.

Training, evaluation and the package take the preprocessing from here, and all of them run it with
the device's own functions, so that no study is ever seen differently from how it was learnt.
"""

from __future__ import annotations

from pydicom.uid import CTImageStorage

from engines.package import (
    Aggregation,
    Calibration,
    Code,
    FindingRule,
    GateRules,
    InputRule,
    Layout,
    ModelPackage,
    OperatingPoint,
    SelectionRules,
    TensorRule,
    Urgency,
)
from engines.steps import (
    AverageSlabs,
    CanonicalOrientation,
    Neighbours,
    PreprocessStep,
    ResampleInPlane,
    Rescale,
    Window,
    WindowChannels,
)

VERSION = "1.1.0"
GRID = 112
PIXEL_MM = 2.0
SLAB_MM = 5.0
NEIGHBOURS = 1
TOP_SLABS = 2
"""A bleed worth a flag reaches into two slabs or fills one so well that one suffices."""

AIR_HU = -1000.0

SLABS = AverageSlabs(step="average_slabs", thickness_mm=SLAB_MM, origin="patient", max_slabs=64)
"""At multiples of their thickness in the patient's coordinates: a slab is complete as soon as its
slices are there, so that the model runs while the study arrives."""
TRAINING_SLABS = AverageSlabs(
    step="average_slabs", thickness_mm=SLAB_MM, origin="first_slice", max_slabs=64
)
"""What the network learnt from, version 1.0.0 on: slabs that begin with the first slice. It keeps
the weights the same; that it may be fed otherwise is shown by the evaluation, not assumed."""
STEPS: tuple[PreprocessStep, ...] = (
    Rescale(step="rescale", padding=AIR_HU),
    CanonicalOrientation(step="canonical_orientation"),
    ResampleInPlane(
        step="resample_in_plane",
        rows=GRID,
        columns=GRID,
        pixel_mm=PIXEL_MM,
        method="area",
        fill=AIR_HU,
    ),
    SLABS,
    WindowChannels(
        step="window_channels",
        windows=(
            Window(low=0, high=80),  # brain
            Window(low=-20, high=180),  # blood against calcification, next to bone
            Window(low=-1000, high=1400),  # air, tissue, bone
        ),
    ),
    Neighbours(step="neighbours", radius=NEIGHBOURS),
)

CHANNELS = 3 * (2 * NEIGHBOURS + 1)
INPUT = InputRule(
    name="slabs", dtype="float32", shape=(-1, CHANNELS, GRID, GRID), layout=Layout.NCHW
)
OUTPUT = TensorRule(name="logit", dtype="float32", shape=(-1,))
FINDING = "ich"
"""Key of the one finding."""

DISCLAIMER = (
    "Demonstration on synthetic phantoms. It has seen no patient, is not a cleared medical device "
    "and must not be used for patients."
)

SELECTION = SelectionRules(
    modalities=("CT",),
    sop_class_uids=(CTImageStorage,),
    image_type_required=("ORIGINAL", "PRIMARY", "AXIAL"),
    body_parts=("HEAD", "BRAIN", "SKULL"),
    min_images=10,
    prefer=("soft_kernel", "most_images"),
    soft_kernels=(
        r"^(soft|standard|stnd)$",
        r"^[hj]r?[234]\d",
        r"^u[abc]$",
        r"^fc[26]\d$",
    ),
)
GATE = GateRules(
    slice_thickness_mm=(0.3, 6.0),
    slice_spacing_mm=(0.3, 6.0),
    pixel_spacing_mm=(0.2, 2.0),
    coverage_mm=(60.0, 300.0),
    max_gantry_tilt_deg=1.0,
    contrast="forbidden",
    lossy="forbidden",
    orientation="axial",
    max_obliquity_deg=20.0,
)


def manifest(calibration: Calibration, operating_point: OperatingPoint) -> ModelPackage:
    """The package around a trained network."""
    return ModelPackage(
        format=1,
        name="head_ct_phantom",
        version=VERSION,
        title="ICH",
        intended_use=(
            "Shows on synthetic head CT phantoms how a triage model runs on this device: flags "
            "non-contrast head CT series in which a hyperdense lesion like an acute intracranial "
            "haemorrhage was drawn. For demonstrations, tests and load measurements only."
        ),
        disclaimer=DISCLAIMER,
        demonstration=True,
        procedure=Code(value="303653007", scheme="SCT", meaning="CT of head"),
        selection=SELECTION,
        gate=GATE,
        preprocess=STEPS,
        input=INPUT,
        outputs=(OUTPUT,),
        findings=(
            FindingRule(
                key=FINDING,
                code=Code(value="1386000", scheme="SCT", meaning="Intracranial hemorrhage"),
                urgency=Urgency.CRITICAL,
                tensor=OUTPUT.name,
                scale="logit",
                aggregation=Aggregation(top=TOP_SLABS),
                calibration=calibration,
                operating_point=operating_point,
            ),
        ),
    )
