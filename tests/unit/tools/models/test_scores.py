"""From scores to the numbers of evaluation.json."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from simulators.model_package import write_model_package
from typer.testing import CliRunner

from engines.card import CurveKind, Evaluation
from engines.loading import load_package
from engines.package import ModelPackage
from tools.models.errors import ScoresError
from tools.models.scores import ROC_POINTS, evaluate, read_scores
from tools.models.sealing import seal, write_evaluation

HEADER = "case,finding,truth,probability,group\n"
SHA = "0" * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("package")
    write_model_package(target)
    return target


@pytest.fixture(scope="module")
def package(folder: Path) -> ModelPackage:
    return load_package(folder).manifest


def table(rows: int = 200) -> str:
    rng = np.random.default_rng(1)
    lines = []
    for case in range(rows):
        truth = int(rng.random() < 0.4)
        probability = np.clip(rng.normal(0.4 + 0.25 * truth, 0.2), 0, 1)
        group = f"sex={'F' if case % 2 else 'M'}; age={'young' if case % 5 else 'old'}"
        lines.append(f"c{case},bright,{truth},{probability:.6f},{group}")
    return HEADER + "\n".join(lines) + "\n"


def measured(text: str, package: ModelPackage) -> Evaluation:
    return evaluate(read_scores(text, package), package, model_sha256=SHA, test_set="Invented.")


def test_every_number_is_what_counting_by_hand_gives(package: ModelPackage) -> None:
    scores = read_scores(table(), package)
    evaluation = measured(table(), package)
    found = {estimate.key: estimate for estimate in evaluation.estimates}
    ill = [score for score in scores if score.truth]
    well = [score for score in scores if not score.truth]
    hits = sum(score.probability >= 0.5 for score in ill)
    pairs = [np.sign(a.probability - b.probability) / 2 + 0.5 for a in ill for b in well]
    assert found["sensitivity_bright"].value == round(hits / len(ill), 4)
    assert found["sensitivity_bright"].cases == len(ill)
    assert found["auc_bright"].value == round(float(np.mean(pairs)), 4)
    women = [score for score in well if ("sex", "F") in score.groups]
    spared = sum(score.probability < 0.5 for score in women)
    in_group = found["specificity_bright_sex_f"]
    assert (in_group.value, in_group.group) == (round(spared / len(women), 4), "By sex")
    assert (evaluation.positives, evaluation.negatives) == (len(ill), len(well))
    assert evaluation.thresholds == {"bright": 0.5}


def test_curves_lie_in_their_order_and_hold_the_operating_range(package: ModelPackage) -> None:
    roc, reliability = measured(table(), package).curves
    assert (roc.kind, reliability.kind) == (CurveKind.ROC, CurveKind.RELIABILITY)
    assert len(roc.points) == ROC_POINTS + 1
    assert (roc.points[0].x, roc.points[-1].x) == (0.0, 1.0)
    assert all(abs(point.x - point.y) < 0.5 for point in reliability.points)


def test_the_same_scores_give_the_same_file(package: ModelPackage) -> None:
    assert measured(table(), package) == measured(table(), package)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "scores need the columns"),
        ("case,finding,truth\n", "scores need the columns"),
        (HEADER + "1,bright,yes,0.5,\n", "line 2: .* truth 0 or 1"),
        (HEADER + "1,bright,1\n", "line 2: as many cells as columns"),
        (HEADER + "1,bright,1,0.5,,,\n", "line 2: as many cells as columns"),
        (HEADER + "1,dark,1,0.5,\n", "line 2: no finding 'dark'; there are bright"),
        (HEADER + "1,bright,1,half,\n", "line 2: probability is no number"),
        (HEADER + "1,bright,1,nan,\n", "line 2: a probability lies within 0 and 1"),
        (HEADER + "1,bright,1,0.5,\n1,bright,1,0.5,\n", "line 3: a case has one row"),
        (HEADER + "1,bright,1,0.5,female\n", "line 2: write groups as title=name"),
        (HEADER + "1,bright,1,0.5,\n2,bright,1,0.5,\n", "there are 2 of 2 with it"),
        (HEADER, "there are 0 of 0 with it"),
        (table(4) + "9,bright,1,0.5,sex=" + "x" * 55 + "\n", "longer than 64 letters"),
    ],
)
def test_a_table_that_cannot_be_right_is_refused_with_its_line(
    package: ModelPackage, text: str, words: str
) -> None:
    with pytest.raises(ScoresError, match=words):
        measured(text, package)


def test_an_evaluation_and_a_seal_make_the_package_load_again(tmp_path: Path) -> None:
    package = write_model_package(tmp_path / "package").folder
    card = package / "card.toml"
    card.write_text(card.read_text("utf-8").replace('"sensitivity"', '"auc_bright"'), "utf-8")
    (tmp_path / "scores.csv").write_text("\ufeff" + table(), "utf-8")
    write_evaluation(package, tmp_path / "scores.csv", "Invented.")
    app = typer.Typer()
    app.command()(seal)
    done = CliRunner().invoke(app, [str(package)])
    assert done.exit_code == 0
    assert load_package(package).digest in done.stdout.replace("\n", "")


def test_a_test_set_without_words_is_refused(tmp_path: Path) -> None:
    package = write_model_package(tmp_path / "package").folder
    (tmp_path / "scores.csv").write_text(table(), "utf-8")
    with pytest.raises(ScoresError, match="test_set"):
        write_evaluation(package, tmp_path / "scores.csv", " ")


def test_scores_that_are_no_text_are_refused(tmp_path: Path) -> None:
    package = write_model_package(tmp_path / "package").folder
    (tmp_path / "scores.csv").write_bytes(b"\xff\xfe" + sys.byteorder.encode())
    with pytest.raises(ScoresError, match="not UTF-8"):
        write_evaluation(package, tmp_path / "scores.csv", "Invented.")
