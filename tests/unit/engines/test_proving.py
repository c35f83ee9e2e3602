"""An engine decides in place of the reference only where it gave the reference's numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from engines.backends import open_engine
from engines.checksums import VerifiedFile
from engines.contract import Backend, EngineOptions, Precision
from engines.errors import EngineOutputError, ModelFileError, ParityError
from engines.loading import LoadedPackage, load_package
from engines.plans.proof import Proof
from engines.proving import LEAST_COSINE, LEAST_COSINE_COARSE, ProofReport, prove

MakeModel = Callable[..., onnx.ModelProto]
ModelFile = Callable[[onnx.ModelProto], VerifiedFile]

FP16 = TensorProto.FLOAT16
NOT_CHECKED = EngineOptions(check_values=False)


@pytest.fixture
def package(builder: Any) -> LoadedPackage:
    return load_package(builder.write())


def proof_of(
    package: LoadedPackage,
    candidate: VerifiedFile,
    *,
    precision: Precision = Precision.FP32,
    options: EngineOptions = NOT_CHECKED,
    seed: int = 1,
) -> ProofReport:
    with (
        open_engine(Backend.ONNXRUNTIME, candidate, options) as engine,
        open_engine(Backend.ONNXRUNTIME, package.model, EngineOptions()) as reference,
    ):
        return prove(engine, reference, package, precision=precision, seed=seed)


def half_precision_model(make_model: MakeModel) -> onnx.ModelProto:
    """The package's model, computed in FP16 between FP32 input and output."""
    model = make_model(
        [
            helper.make_node("Cast", ["slabs"], ["halves"], to=FP16),
            helper.make_node("ReduceMean", ["halves"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "half16"], ["centred"]),
            helper.make_node("Mul", ["centred", "eight16"], ["scaled"]),
            helper.make_node("Cast", ["scaled"], ["logits"], to=TensorProto.FLOAT),
        ]
    )
    model.graph.initializer.extend(
        [
            helper.make_tensor("half16", FP16, [], [0.5]),
            helper.make_tensor("eight16", FP16, [], [8]),
        ]
    )
    return model


def shifted_model(make_model: MakeModel, shift: float) -> onnx.ModelProto:
    """Every logit lies higher by ``shift``."""
    model = make_model()
    model.graph.initializer[0].float_data[0] -= shift / 8
    return model


def test_the_reference_itself_is_proven(package: LoadedPackage) -> None:
    report = proof_of(package, package.model)
    assert report.holds
    assert (report.flips, report.golden_items, report.random_items) == (0, 6, 32)
    assert report.max_absolute < 1e-6
    assert report.cosine == pytest.approx(1.0, abs=1e-12)
    report.require()


def test_a_half_precision_engine_is_proven_as_such_and_not_as_full_precision(
    builder: Any, make_model: MakeModel, model_file: ModelFile
) -> None:
    # FP16 has 8 and 8.0078, and nothing between them.
    model = make_model()
    model.graph.initializer[1].float_data[0] = 8.003
    builder.model = model.SerializeToString()
    builder.golden_outputs = builder.golden_outputs / np.float32(8) * np.float32(8.003)
    builder.manifest += "[parity]\nabsolute = 1e-4\nrelative = 1e-4\n"
    package = load_package(builder.write())
    candidate = model_file(half_precision_model(make_model))
    report = proof_of(package, candidate, precision=Precision.FP16)
    assert report.holds
    assert 1e-3 < report.max_absolute < 1e-2
    assert not proof_of(package, candidate).holds


def test_a_flip_within_tolerance_is_no_proof(
    builder: Any, make_model: MakeModel, model_file: ModelFile
) -> None:
    level = np.float32(0.5 - 2**-18)
    builder.golden_inputs = np.array(builder.golden_inputs)
    builder.golden_inputs[2] = level
    builder.golden_outputs = np.array(builder.golden_outputs)
    builder.golden_outputs[2] = (level - np.float32(0.5)) * np.float32(8)
    package = load_package(builder.write())
    report = proof_of(package, model_file(shifted_model(make_model, 1e-4)))
    assert report.golden.outside_tolerance == report.random.outside_tolerance == 0
    assert report.golden.flips == 1
    assert not report.holds
    with pytest.raises(ParityError, match="1 decisions differ"):
        report.require()


def test_an_engine_that_deviates_off_the_golden_inputs_only_is_found_by_the_random_ones(
    package: LoadedPackage, make_model: MakeModel, model_file: ModelFile
) -> None:
    # Golden pictures are even: their contrast is 0.
    axes: dict[str, Any] = {"axes": [1, 2, 3], "keepdims": 0}
    model = make_model(
        [
            helper.make_node("ReduceMean", ["slabs"], ["mean"], **axes),
            helper.make_node("ReduceMax", ["slabs"], ["most"], **axes),
            helper.make_node("ReduceMin", ["slabs"], ["least"], **axes),
            helper.make_node("Sub", ["most", "least"], ["contrast"]),
            helper.make_node("Sub", ["mean", "half"], ["centred"]),
            helper.make_node("Mul", ["centred", "eight"], ["right"]),
            helper.make_node("Add", ["right", "contrast"], ["logits"]),
        ]
    )
    report = proof_of(package, model_file(model))
    assert report.golden.holds
    assert not report.random.holds
    assert not report.holds


@pytest.mark.parametrize("checked", [True, False])
def test_nan_is_never_a_result(
    package: LoadedPackage, make_model: MakeModel, model_file: ModelFile, *, checked: bool
) -> None:
    model = make_model(
        [
            helper.make_node("ReduceMean", ["slabs"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Sub", ["mean", "half"], ["centred"]),
            helper.make_node("Log", ["centred"], ["logits"]),
        ]
    )
    options = EngineOptions(check_values=checked)
    with pytest.raises(EngineOutputError, match="NaN or infinity"):
        proof_of(package, model_file(model), options=options)


def test_an_engine_of_other_tensors_is_refused(
    package: LoadedPackage, make_model: MakeModel, model_file: ModelFile
) -> None:
    model = make_model(
        [helper.make_node("ReduceMean", ["slabs"], ["logits"], axes=[1, 2, 3], keepdims=1)]
    )
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n", 1, 1, 1))
    )
    with pytest.raises(ModelFileError, match=r"outputs are \[logits float32 \(-1, 1, 1, 1\)\]"):
        proof_of(package, model_file(model))


def test_an_engine_that_answers_for_another_number_of_items_is_refused(
    package: LoadedPackage, make_model: MakeModel, model_file: ModelFile
) -> None:
    # The model promises one number for each item, and gives two.
    model = make_model(
        [
            helper.make_node("ReduceMean", ["slabs"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Concat", ["mean", "mean"], ["logits"], axis=0),
        ]
    )
    with pytest.raises(EngineOutputError, match=r"shape \(12,\) for an input of 6 items"):
        proof_of(package, model_file(model))


def test_a_reference_that_does_not_reproduce_the_golden_outputs_proves_nothing(
    builder: Any,
) -> None:
    builder.golden_outputs = builder.golden_outputs + np.float32(0.25)
    package = load_package(builder.write())
    with pytest.raises(ParityError, match="does not reproduce the golden outputs"):
        proof_of(package, package.model)


def test_small_outputs_that_point_elsewhere_are_no_proof(package: LoadedPackage) -> None:
    report = proof_of(package, package.model)
    turned = dataclasses.replace(report.random, cosine=0.5)
    assert not dataclasses.replace(report, random=turned).holds


@pytest.mark.parametrize("precision", list(Precision))
def test_a_quantised_model_is_held_to_what_its_maker_allows_in_either_precision(
    builder: Any, make_model: MakeModel, model_file: ModelFile, precision: Precision
) -> None:
    # Levels of the golden pictures and of the random ones lie far from the operating point.
    builder.manifest += "[parity]\nabsolute = 0.3\n"
    builder.manifest = builder.manifest.replace("threshold = 0.5", "threshold = 0.98").replace(
        "[0.4, 0.6]", "[0.4, 0.99]"
    )
    builder.evaluation["thresholds"] = {"bright": 0.98}
    package = load_package(builder.write())
    report = proof_of(package, model_file(shifted_model(make_model, 0.1)), precision=precision)
    assert 0.9 < report.cosine < LEAST_COSINE[Precision.FP32]
    assert (report.golden.holds, report.least_cosine) == (True, LEAST_COSINE_COARSE)
    assert report.holds is (report.random.flips == 0)


def test_the_same_seed_gives_the_same_proof(
    package: LoadedPackage, make_model: MakeModel, model_file: ModelFile
) -> None:
    candidate = model_file(half_precision_model(make_model))
    first, second, other = (
        proof_of(package, candidate, precision=Precision.FP16, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second
    assert first.random != other.random


@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_has_its_least_cosine(precision: Precision) -> None:
    assert 0.99 < LEAST_COSINE[precision] < 1


def test_what_is_kept_beside_a_plan_says_what_came_out(
    package: LoadedPackage, make_model: MakeModel, model_file: ModelFile
) -> None:
    for shift, passed in ((0.0, True), (0.5, False)):
        report = proof_of(package, model_file(shifted_model(make_model, shift)))
        proof = report.as_proof(key_digest="1" * 64, plan_sha256="2" * 64)
        assert Proof.parse(proof.canonical()) == proof
        assert proof.passed is passed
        assert proof.max_absolute == pytest.approx(shift, abs=1e-5)
        assert (proof.golden_items, proof.random_items) == (6, 32)
        assert proof.package_digest == package.digest
        assert proof.reference.startswith("onnxruntime ")
