"""A device and a model package as reports name them."""

from __future__ import annotations

from datetime import timezone

from edge_runtime.outputs.contract import ReportingDevice
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
from engines.steps import EachImage, Rescale, Window, WindowChannels

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"

DEVICE = ReportingDevice(
    token="0123456789abcdef",
    name="CT room 2",
    manufacturer="edge-triage",
    model_name="edge-triage",
    serial_number="0123456789abcdef",
    software_version="0.1.0",
    timezone=timezone.utc,
)


PACKAGE = ModelPackage(
    format=1,
    name="head_ct",
    version="1.2.3",
    title="ICH",
    intended_use="Tests",
    disclaimer="Reads phantoms only.",
    demonstration=True,
    procedure=Code(value="24725-4", scheme="LN", meaning="CT Head"),
    selection=SelectionRules(modalities=("CT",), sop_class_uids=(CT_IMAGE,)),
    gate=GateRules(),
    preprocess=(
        Rescale(step="rescale", padding=-1000),
        EachImage(step="each_image"),
        WindowChannels(step="window_channels", windows=(Window(low=0.0, high=80.0),)),
    ),
    input=InputRule(name="slices", dtype="float32", shape=(-1, 1, -1, -1)),
    outputs=(TensorRule(name="logits", dtype="float32", shape=(-1, 1)),),
    findings=(
        FindingRule(
            key="ich",
            code=Code(value="1386000", scheme="SCT", meaning="Intracranial hemorrhage"),
            urgency=Urgency.CRITICAL,
            tensor="logits",
            calibration=Calibration(slope=1.0, intercept=0.0),
            operating_point=OperatingPoint(threshold=0.5, allowed=(0.3, 0.7)),
        ),
    ),
)
