"""Writes the files of a new package so that a person likes to read and change them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.loading import (
    CARD_FILE,
    EVALUATION_FILE,
    GOLDEN_INPUTS_FILE,
    GOLDEN_OUTPUTS_FILE,
    MODEL_FILE,
    PACKAGE_FILE,
)
from engines.package import ModelPackage
from tools.models.card_form import card_text
from tools.models.golden import Golden
from tools.toml_text import TomlStyle, toml_text

INLINE = frozenset(
    {"code", "procedure", "aggregation", "calibration", "operating_point", "windows"}
)
COMMENTS: Mapping[str, str] = MappingProxyType(
    {
        "version": "A change of any byte is a new version.",
        "title": "What worklists show.",
        "demonstration": "true: not for patients; every screen and object says so.",
        "procedure": "What reports say was examined.",
        "requires": "What a device must have.",
        "selection": "Which series the model may look at; a series must pass every rule. Without "
        "body part or view position a series passes here.",
        "selection.prefer": "Which of several series is taken.",
        "gate": "What must hold of the selected series; else the study is not analysed, and the "
        "reason is reported.",
        "gate.lossy": "Lossy compression.",
        "gate.manufacturers": "Regular expressions; empty: any.",
        "selection.for_processing": "Images that no radiologist would see as they are.",
        "gate.age_years": "A patient of unknown age is refused as well.",
        "preprocess": "From stored pixels to the model's input, in this order: "
        "docs/model-package.md has every step with its units.",
        "input": "As in the ONNX file; -1 is free.",
        "outputs": "All of the model's outputs, in the order of the ONNX file.",
        "findings": "The most important first. Probability = sigmoid(slope x logit + intercept): "
        "slope 1 and intercept 0 stand for a model that is not calibrated yet. Suspected from "
        "'threshold' on; a site may move it within 'allowed'.",
        "parity": "How closely every engine must reproduce golden/outputs.npz: absolute + relative "
        "x |golden|.",
    }
)
HEADER = """\
# Model package: docs/model-package.md explains every key. Change what is wrong, then
# `edge-triage models evaluate`, `seal` and `verify`.

"""


def write_folder(folder: Path, model: bytes, golden: Golden, card: Mapping[str, Any]) -> None:
    """Writes everything but CHECKSUMS.

    Args:
        folder: empty.
        model: the ONNX file's content.
        golden: golden tensors and the package.
        card: the card's tables.
    """
    package = golden.package
    (folder / Path(GOLDEN_INPUTS_FILE).parent).mkdir()
    (folder / MODEL_FILE).write_bytes(model)
    (folder / PACKAGE_FILE).write_text(package_text(package), "utf-8")
    (folder / CARD_FILE).write_text(card_text(card), "utf-8")
    (folder / EVALUATION_FILE).write_text(_unmeasured(package, model), "utf-8")
    (folder / GOLDEN_INPUTS_FILE).write_bytes(_npz({package.input.name: golden.inputs}))
    (folder / GOLDEN_OUTPUTS_FILE).write_bytes(_npz(golden.outputs))


def package_text(package: ModelPackage) -> str:
    """``package.toml`` with comments."""
    tables = package.model_dump(mode="json", exclude_none=True)
    return HEADER + toml_text(tables, TomlStyle(comments=COMMENTS, inline=INLINE))


def _unmeasured(package: ModelPackage, model: bytes) -> str:
    """An evaluation of which nothing was measured: it does not verify."""
    form = {
        "model_version": package.version,
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "thresholds": {rule.key: rule.operating_point.threshold for rule in package.findings},
        "test_set": "",
        "positives": 0,
        "negatives": 0,
        "estimates": [],
    }
    return json.dumps(form, indent=2) + "\n"


def _npz(arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    stream = io.BytesIO()
    # Arrays are named after tensors, whatever their names.
    named: dict[str, Any] = dict(arrays)
    np.savez_compressed(stream, **named)
    return stream.getvalue()
