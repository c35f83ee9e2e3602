"""Layer by layer: from which tensor on do two engines part?

Both run copies of their models that give the tensors between the layers too. A tensor is compared
where both have it: the FP32 model and its Q/DQ or FP16 copy share most names. The first that is
off, in the order of computing, is the one at fault: all that it rests on still agrees.

A library fuses layers less when it must give what lies between them: a fault of a fusion may then
be gone, and no tensor parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.checksums import MAX_FILE_BYTES, VerifiedFile
from engines.contract import Engine, Precision, all_finite
from engines.golden import load_golden
from engines.loading import LoadedPackage
from engines.onnx_layers import InnerTensor, inner_tensors, with_outputs
from engines.parity import cosine_of
from engines.steps import FREE

Arrays = Mapping[str, NDArray[Any]]

LIMITS: Mapping[Precision, float] = MappingProxyType({Precision.FP32: 1e-3, Precision.FP16: 3e-2})
"""Of a deviation, as a fraction of the tensor's largest number: some hundred times of what rounding
does to one layer, for what it does to all layers before."""

MOST_ITEMS = 4
"""Of the golden inputs, that go through: tensors between layers are large."""
MOST_TENSORS = 64
"""That are made outputs of one copy: bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A model, and what runs it.

    Attributes:
        model: The ONNX file.
        open: Gives an engine for a copy of it, not yet entered. It should not check values, so that
            a layer that gives NaN can be named, and keep its plans away from those of the device.
    """

    model: bytes
    open: Callable[[VerifiedFile], Engine]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDeviation:
    """How far one tensor is off."""

    tensor: str
    operator: str
    """Of the reference's node that gives it."""
    max_absolute: float
    relative: float
    """``max_absolute`` as a fraction of the reference's largest number; infinite for NaN."""
    cosine: float
    parts: bool
    """Whether it is beyond the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """All tensors that were compared, in the order of computing."""

    layers: tuple[LayerDeviation, ...]
    uncompared: tuple[str, ...]
    """Tensors of the reference that the candidate has not, or in another shape."""

    @property
    def culprit(self) -> LayerDeviation | None:
        """The first tensor that is off; None where none is."""
        return next((layer for layer in self.layers if layer.parts), None)


def find_culprit(
    package: LoadedPackage,
    candidate: Callable[[VerifiedFile], Engine],
    reference: Callable[[VerifiedFile], Engine],
    *,
    precision: Precision = Precision.FP32,
) -> LayerReport:
    """Compares two engines that run the same package, on its golden inputs.

    Args:
        package: Whose model both run.
        candidate: Opens the engine that is to be judged, as ``Side.open``.
        reference: Opens the one that is right.
        precision: In which the candidate computes.

    Raises:
        PackageError: A file of the package is bad, or changed.
        EngineError: An engine failed.
    """
    model = package.model.read(MAX_FILE_BYTES)
    rule = package.manifest.input
    given = load_golden(package).inputs[rule.name]
    items = MOST_ITEMS if rule.shape[0] == FREE else rule.shape[0]
    # Filled up to the model's batch, and cut to it.
    given = given[np.arange(items) % len(given)]
    return compare_layers(
        Side(model=model, open=candidate),
        Side(model=model, open=reference),
        {rule.name: given},
        limit=LIMITS[precision],
    )


def compare_layers(
    candidate: Side,
    reference: Side,
    inputs: Arrays,
    *,
    limit: float,
    most_tensors: int = MOST_TENSORS,
) -> LayerReport:
    """Compares every tensor that two models have in common, on the same inputs.

    Args:
        candidate: What is to be judged.
        reference: What is right.
        inputs: Of one run.
        limit: Largest deviation, as a fraction of the tensor's largest number.
        most_tensors: Of one copy; each more costs a run of both engines.

    Raises:
        ModelFileError: A model is no ONNX file.
        EngineError: An engine failed.
    """
    theirs = {tensor.name for tensor in inner_tensors(candidate.model)}
    ours = inner_tensors(reference.model)
    common = [tensor for tensor in ours if tensor.name in theirs]
    uncompared = [tensor.name for tensor in ours if tensor.name not in theirs]
    layers = []
    for start in range(0, len(common), most_tensors):
        part = common[start : start + most_tensors]
        names = [tensor.name for tensor in part]
        wanted, found = _values(reference, names, inputs), _values(candidate, names, inputs)
        for tensor in part:
            pair = wanted[tensor.name], found[tensor.name]
            if pair[0].shape == pair[1].shape:
                layers.append(_deviation(tensor, *pair, limit))
            else:
                uncompared.append(tensor.name)
    return LayerReport(layers=tuple(layers), uncompared=tuple(uncompared))


def _values(side: Side, names: list[str], inputs: Arrays) -> Arrays:
    with _written(with_outputs(side.model, names)) as file, side.open(file) as engine:
        return engine.run(inputs)


@contextlib.contextmanager
def _written(model: bytes) -> Iterator[VerifiedFile]:
    # Engines read a file, which they check; this one lives as long as the engine.
    with tempfile.TemporaryDirectory(prefix="edge-triage-layers-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        yield VerifiedFile(path=path, sha256=hashlib.sha256(model).hexdigest())


def _deviation(
    tensor: InnerTensor, wanted: NDArray[Any], found: NDArray[Any], limit: float
) -> LayerDeviation:
    off, cosine, largest = _distance(wanted, found)
    relative = off / largest if largest else (0.0 if off == 0.0 else math.inf)
    return LayerDeviation(
        tensor=tensor.name,
        operator=tensor.operator,
        max_absolute=off,
        relative=relative,
        cosine=cosine,
        parts=not relative <= limit,
    )


def _distance(wanted: NDArray[Any], found: NDArray[Any]) -> tuple[float, float, float]:
    """Largest deviation, cosine, and the largest number of the reference."""
    if not (all_finite(wanted) and all_finite(found)):
        same = np.array_equal(wanted, found, equal_nan=True)
        return (0.0, 1.0, 1.0) if same else (math.inf, 0.0, 1.0)
    deviation = np.abs(found.astype(np.float64) - wanted)
    largest = np.abs(wanted.astype(np.float64)).max(initial=0.0)
    return float(deviation.max(initial=0.0)), cosine_of(wanted, found), float(largest)
