"""From a folder to a structured report by a bare loop over libraries.

What one writes in an afternoon: all files by pydicom, one volume of floats, SimpleITK's resampling,
ONNX Runtime, highdicom's report. It checks nothing and refuses nothing. The model is the shipped
one; its input differs a little, since linear interpolation stands for the mean over each cell.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.calibration import Decision, decide
from engines.loading import LoadedPackage
from tools.bench.readers.answers import Read, Report
from tools.bench.readers.reporting import load_model, saved_bytes

Float32 = npt.NDArray[np.float32]

_SIDE, _PIXEL_MM, _SLAB_MM, _AIR_HU = 112, 2.0, 5.0, -1000.0
_WINDOWS = ((0.0, 80.0), (-20.0, 180.0), (-1000.0, 1400.0))


class BareModel:
    """The shipped model in ONNX Runtime as it comes."""

    def __init__(self) -> None:
        runtime = importlib.import_module("onnxruntime")
        self.package = load_model()
        self._session = runtime.InferenceSession(
            str(self.package.model.path), providers=["CPUExecutionProvider"]
        )

    def decide(self, tensor: Float32) -> Decision:
        """Say what the model says of a whole head."""
        names = [output.name for output in self._session.get_outputs()]
        found = self._session.run(names, {self._session.get_inputs()[0].name: tensor})
        return decide(dict(zip(names, found, strict=True)), self.package.manifest.findings[0])


def outcome_of(decision: Decision) -> str:
    """Return it as the device says it."""
    return "SUSPECTED" if decision.suspected else "NOT_SUSPECTED"


@contextlib.contextmanager
def bare_examination() -> Iterator[Read]:
    """Load the libraries and the model."""
    pydicom, sitk = importlib.import_module("pydicom"), importlib.import_module("SimpleITK")
    model = BareModel()

    def read(folder: Path) -> Report:
        datasets = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
        datasets.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
        decision = model.decide(_tensor(datasets, sitk))
        report = _report(datasets, model.package, is_suspected=decision.suspected)
        return Report(
            outcome=outcome_of(decision),
            probability=decision.probability,
            report_bytes=saved_bytes(report),
        )

    yield read


def _tensor(datasets: Sequence[Any], sitk: Any) -> Float32:
    volume = np.stack(
        [each.pixel_array * float(each.RescaleSlope) + each.RescaleIntercept for each in datasets]
    ).astype(np.float32)
    first, second = datasets[0], datasets[1]
    gap_mm = float(second.ImagePositionPatient[2] - first.ImagePositionPatient[2])
    row_mm, column_mm = (float(mm) for mm in first.PixelSpacing)
    return slab_input(volume, (gap_mm, row_mm, column_mm), sitk)


def slab_input(volume: Float32, spacing_mm: tuple[float, float, float], sitk: Any) -> Float32:
    """The model's input of a whole head.

    Args:
        volume: (slices, rows, columns), in Hounsfield units.
        spacing_mm: Between them.
        sitk: SimpleITK.
    """
    gap_mm, row_mm, column_mm = spacing_mm
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing((column_mm, row_mm, gap_mm))
    slabs = int(np.ceil(len(volume) * gap_mm / _SLAB_MM))
    size, spacing = (_SIDE, _SIDE, slabs), (_PIXEL_MM, _PIXEL_MM, _SLAB_MM)
    middle = image.TransformContinuousIndexToPhysicalPoint(
        [(count - 1) / 2 for count in image.GetSize()]
    )
    origin = [
        centre - (count - 1) / 2 * mm
        for centre, count, mm in zip(middle, size, spacing, strict=True)
    ]
    direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    small = sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, origin, spacing, direction, _AIR_HU
    )
    return _channels(sitk.GetArrayFromImage(small))


def _channels(slabs: Float32) -> Float32:
    """Windows of each slab and of its neighbours: (slabs, 9, rows, columns)."""
    windowed = np.stack(
        [np.clip((slabs - low) / (high - low), 0, 1) for low, high in _WINDOWS], axis=1
    )
    below = np.concatenate([windowed[:1], windowed[:-1]])
    above = np.concatenate([windowed[1:], windowed[-1:]])
    stacked: Float32 = np.concatenate([below, windowed, above], axis=1).astype(np.float32)
    return stacked


def _report(datasets: Sequence[Any], package: LoadedPackage, *, is_suspected: bool) -> Any:
    rule = package.manifest.findings[0]
    highdicom, sr = importlib.import_module("highdicom"), importlib.import_module("highdicom.sr")
    finding = sr.CodedConcept(rule.code.value, rule.code.scheme, rule.code.meaning)
    procedure = package.manifest.procedure
    presence = ("52101004", "Present") if is_suspected else ("272519000", "Absent")
    observer = sr.ObserverContext(
        observer_type=sr.CodedConcept("121007", "DCM", "Device"),
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(uid=highdicom.UID()),
    )
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=sr.CodedConcept(procedure.value, procedure.scheme, procedure.meaning),
        imaging_measurements=[
            sr.MeasurementsAndQualitativeEvaluations(
                tracking_identifier=sr.TrackingIdentifier(
                    identifier=package.manifest.title, uid=highdicom.UID()
                ),
                qualitative_evaluations=[
                    sr.QualitativeEvaluation(
                        finding, sr.CodedConcept(presence[0], "SCT", presence[1])
                    )
                ],
            )
        ],
    )
    return sr.Comprehensive3DSR(
        evidence=list(datasets),
        content=content[0],
        series_instance_uid=highdicom.UID(),
        series_number=1,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="bare loop",
    )
