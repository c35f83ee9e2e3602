"""From an ONNX file of a known network to a package that verifies and that a study goes through."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from simulators.model_card import CARD_TOML
from simulators.radiograph import write_radiograph
from typer.testing import CliRunner

from edge_runtime.model.finding import Result, Scored
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline.trial import examine
from engines.backends import open_engine
from engines.contract import Backend, EngineOptions
from engines.errors import PackageSchemaError
from engines.golden_studies import GoldenStudies
from engines.loading import load_package
from engines.package import FindingRule
from engines.verifying import verify_package
from tools.architectures.densenet import densenet121
from tools.architectures.resnet3d import resnet18_3d
from tools.models.new import new
from tools.models.sealing import evaluate, seal
from tools.phantoms.variants import PhantomName, make_study, write_study
from tools.toml_text import toml_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

app = typer.Typer()
app.command("new")(new)
app.command("evaluate")(evaluate)
app.command("seal")(seal)

TUTORIAL = Path(__file__).parents[4] / "docs" / "models" / "tutorial.md"


def of_the_tutorial(words: str) -> dict[str, Any]:
    """The TOML in it that holds these words."""
    blocks = re.findall(r"```toml\n(.*?)```", TUTORIAL.read_text("utf-8"), re.DOTALL)
    return tomllib.loads(next(block for block in blocks if words in block))


def answers_of_the_tutorial() -> dict[str, Any]:
    """Its file of answers, but for the card."""
    return {key: value for key, value in of_the_tutorial("kind =").items() if key != "card"}


RADIOGRAPHS = answers_of_the_tutorial()
CT_VOLUMES = {
    "title": "ICH",
    "intended_use": "Tests.",
    "body_parts": ["HEAD", "BRAIN", "SKULL"],
    "age_years": "any",
    "windows": "0:80",
    "labels": {"logit": ["ICH"]},
    "findings": {"ich": {"urgency": "critical"}},
}


def run(*arguments: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def card_words() -> dict[str, Any]:
    """What people say in a card; the numbers that it quotes come from the evaluation."""
    card = tomllib.loads(CARD_TOML)
    for metric in card["metrics"].values():
        del metric["estimates"]
    return card


def write_scores(path: Path, findings: list[str]) -> None:
    rng = np.random.default_rng(3)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["case", "finding", "truth", "probability", "group"])
        for case in range(24):
            for finding in findings:
                truth = case % 2
                probability = float(np.clip(rng.normal(0.35 + 0.3 * truth, 0.2), 0, 1))
                group = f"sex={'female' if case % 3 else 'male'}"
                table.writerow([f"case-{case}", finding, truth, f"{probability:.4f}", group])


def make(folder: Path, model: onnx.ModelProto, answers: dict[str, Any]) -> Path:
    """Every step of the tutorial, with a filled card and invented scores."""
    onnx_file, target = folder / "model.onnx", folder / "package"
    onnx_file.write_bytes(model.SerializeToString())
    card = card_words()
    key = next(iter(answers["findings"]))
    card["metrics"]["fairness"]["estimates"] = [f"sensitivity_{key}_sex_female"]
    (folder / "answers.toml").write_text(toml_text({**answers, "card": card}), "utf-8")
    made = run(
        *("new", onnx_file, "--out", target, "--answers", folder / "answers.toml", "--json"),
    )
    assert made["one_sided"] == []
    assert made["card_to_fill"] == []
    write_scores(folder / "scores.csv", list(made["findings"]))
    arguments = ("--scores", folder / "scores.csv", "--test-set", "Invented.", "--json")
    assert run("evaluate", target, *arguments)["positives"] == 12
    assert len(run("seal", target, "--json")["digest"]) == 64
    return target


def outcome(package: Path, paths: list[Path]) -> Result:
    report = verify_package(package, Backend.ONNXRUNTIME, EngineOptions())
    assert report.holds
    loaded = load_package(package)
    with open_engine(Backend.ONNXRUNTIME, loaded.model, EngineOptions()) as engine:
        return examine(paths, loaded.manifest, engine)


def test_densenet_for_radiographs_becomes_a_package_that_a_study_goes_through(
    tmp_path: Path,
) -> None:
    package = make(tmp_path, densenet121(deviation=590).model, RADIOGRAPHS)
    write_radiograph(tmp_path / "pa.dcm")
    result = outcome(package, [tmp_path / "pa.dcm"])
    assert isinstance(result, Scored)
    assert [score.key for score in result.findings] == [
        *("atelectasis", "consolidation", "pneumothorax", "edema", "emphysema", "fibrosis"),
        *("effusion", "pneumonia", "cardiomegaly", "nodule", "mass", "hernia", "fracture"),
    ]


def test_resnet_for_ct_becomes_a_package_that_a_study_goes_through(tmp_path: Path) -> None:
    package = make(tmp_path, resnet18_3d(size=(16, 48, 48)).model, CT_VOLUMES)
    study = make_study(PhantomName.HEAD_CT, seed=2, slices=14, matrix=64)
    result = outcome(package, list(write_study(study, tmp_path / "study")))
    assert isinstance(result, Scored)
    assert [score.key for score in result.findings] == ["ich"]


def test_a_package_whose_card_nobody_filled_in_does_not_verify(tmp_path: Path) -> None:
    onnx_file, target = tmp_path / "model.onnx", tmp_path / "package"
    onnx_file.write_bytes(densenet121(side=32, outputs=1).model.SerializeToString())
    answers = {**RADIOGRAPHS, "labels": {"logits": ["Pneumothorax"]}}
    (tmp_path / "answers.toml").write_text(toml_text(answers), "utf-8")
    made = run(
        *("new", onnx_file, "--out", target, "--answers", tmp_path / "answers.toml", "--json")
    )
    assert "developer.name" in made["card_to_fill"]
    run("seal", target, "--json")
    with pytest.raises(PackageSchemaError, match=r"card\.toml: developer\.name"):
        load_package(target)


def test_a_package_without_an_evaluation_does_not_verify(tmp_path: Path) -> None:
    onnx_file, target = tmp_path / "model.onnx", tmp_path / "package"
    onnx_file.write_bytes(densenet121(side=32, outputs=1).model.SerializeToString())
    card = card_words()
    card["metrics"]["fairness"]["estimates"] = ["sensitivity_pneumothorax"]
    answers = {**RADIOGRAPHS, "labels": {"logits": ["Pneumothorax"]}, "card": card}
    (tmp_path / "answers.toml").write_text(toml_text(answers), "utf-8")
    run("new", onnx_file, "--out", target, "--answers", tmp_path / "answers.toml", "--json")
    run("seal", target, "--json")
    with pytest.raises(PackageSchemaError, match=r"evaluation\.json: .*test_set"):
        load_package(target)


def test_the_other_files_of_the_tutorial_obey_their_schemas() -> None:
    studies = GoldenStudies.model_validate(of_the_tutorial("[[studies]]")).studies
    assert {study.reason for study in studies} <= {None, *(code.value for code in ReasonCode)}
    (finding,) = of_the_tutorial("[[findings]]")["findings"]
    assert FindingRule.model_validate(finding).element == 3
