"""Takes a study's files through the device's own stages, without its processes and database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dicom_node.headers import read_headers
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.decode import read_pixels
from edge_runtime.pipeline.gate import check_series
from edge_runtime.pipeline.preprocess import assemble_input, prepare_slice
from edge_runtime.pipeline.selection import Rejected, select_series
from engines.calibration import decide
from engines.contract import Engine
from engines.package import ModelPackage
from tools.phantoms.variants import Expectation


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the device would say of a study."""

    outcome: Expectation
    reason: ReasonCode | None = None
    probability: float | None = None
    """Of the model; None when it did not look."""


def examine(paths: Iterable[Path], package: ModelPackage, engine: Engine) -> Verdict:
    """Select, check, preprocess, infer and decide.

    Args:
        paths: all files of one study.
        package: the model's rules.
        engine: the model, loaded.
    """
    headers = {}
    for path in paths:
        header, _ = read_headers(path)
        headers[header.sop_instance_uid] = (path, header)
    chosen = select_series((header for _, header in headers.values()), package.selection)
    if isinstance(chosen, Rejected):
        return Verdict(outcome=Expectation.NOT_ANALYSED, reason=chosen.reason)
    refusal = check_series(chosen.headers, package.gate)
    if refusal is not None:
        return Verdict(outcome=Expectation.NOT_ANALYSED, reason=refusal.reason)
    slices = [
        prepare_slice(
            read_pixels(headers[header.sop_instance_uid][0], header), header, package.preprocess
        )
        for header in chosen.headers
    ]
    tensor = assemble_input(slices, package.preprocess)
    outputs = engine.run({package.input.name: tensor})
    decision = decide(outputs[package.output.tensor.name], package.output)
    outcome = Expectation.SUSPECTED if decision.suspected else Expectation.NOT_SUSPECTED
    return Verdict(outcome=outcome, probability=decision.probability)
