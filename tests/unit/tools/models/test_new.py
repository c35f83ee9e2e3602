"""``edge-triage models new``: what is asked, what is refused, and what an interruption leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from onnx import TensorProto
from simulators.tiny_model import tiny_model
from simulators.waiting import wait_until
from typer.testing import CliRunner

from engines.checksums import VerifiedFile, digest_of
from engines.errors import ModelFileError
from engines.loading import parse_toml
from engines.package import Layout, ModelPackage
from tools.models.errors import AnswersError, TargetFolderError, UnfitModelError
from tools.models.new import new
from tools.models.scaffold import Scaffold, read_answers, scaffold
from tools.toml_text import toml_text

RADIOGRAPH = {
    "kind": "radiograph",
    "title": "CHEST",
    "intended_use": "Tests.",
    "labels": {"logits": ["Pneumothorax", "Effusion"]},
}
VOLUME = {
    "title": "ICH",
    "intended_use": "Tests.",
    "windows": "0:80",
    "labels": {"logits": ["ICH", "-"]},
}


def made(folder: Path, answers: dict[str, Any], model: Any = None, **more: Any) -> Scaffold:
    file = folder / "tiny.onnx"
    file.write_bytes((model or tiny_model()).SerializeToString())
    return scaffold(file, folder / "package", name="", answers=answers, ask=None, **more)


def written(folder: Path) -> ModelPackage:
    path = folder / "package" / "package.toml"
    return parse_toml(VerifiedFile(path=path, sha256=digest_of(path)), ModelPackage)


def test_what_is_written_is_what_was_made(tmp_path: Path) -> None:
    result = made(tmp_path, RADIOGRAPH)
    package = written(tmp_path)
    assert package == result.package
    assert (package.name, package.input.layout) == ("tiny", Layout.NCHW)
    assert [finding.key for finding in package.findings] == ["pneumothorax", "effusion"]
    assert [finding.element for finding in package.findings] == [0, 1]
    assert result.automatic == ("pneumothorax", "effusion")
    assert result.one_sided == ()
    text = (tmp_path / "package" / "package.toml").read_text(encoding="utf-8")
    assert "# What must hold of the selected series" in text


@pytest.mark.parametrize(
    ("shape", "answers", "layout"),
    [
        (("n", 3, 16, 16), RADIOGRAPH, Layout.NCHW),
        (("n", 80, 16, 3), RADIOGRAPH | {"rows": 80}, Layout.NHWC),
        ((1, 1, 8, 16, 16), VOLUME, Layout.NCDHW),
        (("n", 80, 16, 16, 1), VOLUME, Layout.NDHWC),
        (
            ("n", 9, 16, 16),
            VOLUME | {"kind": "slabs", "windows": "0:80, -20:180, 0:9"},
            Layout.NCHW,
        ),
        (("n", 1, 16, 16), VOLUME | {"kind": "slices"}, Layout.NCHW),
    ],
)
def test_layout_and_sizes_are_read_off_the_model(
    tmp_path: Path, shape: tuple[str | int, ...], answers: dict[str, Any], layout: Layout
) -> None:
    given = {key: value for key, value in answers.items() if key != "rows"}
    package = made(tmp_path, given, tiny_model(shape)).package
    assert package.input.layout is layout
    assert package.input.shape == tuple(-1 if size == "n" else size for size in shape)


def test_sizes_that_the_model_leaves_open_are_asked_for(tmp_path: Path) -> None:
    model = tiny_model(("n", 1, "rows", "columns"))
    with pytest.raises(AnswersError, match="the answers lack 'rows'"):
        made(tmp_path, RADIOGRAPH, model)
    package = made(tmp_path, RADIOGRAPH | {"rows": 32, "columns": 24}, model).package
    assert package.input.shape == (-1, 1, -1, -1)
    assert {step.step: step for step in package.preprocess}["letterbox"].rows == 32  # type: ignore[union-attr]  # it has rows


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (tiny_model(("n", 1, 16, 16), element_type=TensorProto.DOUBLE), "export the model with"),
        (tiny_model(("n", 16)), "has 2 axes"),
        (tiny_model(("n", 80, 80, 80)), "fixed number of channels"),
    ],
)
def test_a_model_that_no_package_can_hold_is_refused(
    tmp_path: Path, model: Any, words: str
) -> None:
    with pytest.raises(UnfitModelError, match=words):
        made(tmp_path, RADIOGRAPH, model)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tiny.onnx"
    file.write_bytes(b"no model")
    with pytest.raises(ModelFileError):
        scaffold(file, tmp_path / "package", name="", answers=RADIOGRAPH, ask=None)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"titel": "CHEST"}, "the answers hold what this model does not need: titel"),
        ({"title": "x" * 39}, "title: String should have at most 38 characters"),
        ({"labels": {"logits": ["Pneumothorax"]}}, "labels.logits: .* at least 2 items"),
        ({"labels": {"logits": ["-", "-"]}}, "findings: .* at least 1 item"),
        ({"labels": {"logits": ["Mass", "mass"]}}, "labels.logits: .* two names are the same"),
        ({"labels": {"logits": ["Mass", "Zebra"]}}, "the answers lack 'findings.zebra.code'"),
        ({"findings": {"effusion": {"threshold": 1.5}}}, "findings.effusion.threshold"),
        ({"findings": {"effusion": {"code": "60046008"}}}, "write value, scheme and meaning"),
        ({"modalities": "CT", "windows": "wide"}, "write each window as low:high"),
        ({"intensity": "windows"}, "intensity: Input should be"),
        ({"card": {"developer": {"nickname": "x"}}}, "card.developer.nickname: the card has no"),
        ({"card": {"developer": {"name": 3}}}, "card.developer.name: Input should be"),
        ({"card": "none"}, r"such as \[card.developer\]"),
    ],
)
def test_a_wrong_answer_is_named_and_nothing_is_written(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(AnswersError, match=words):
        made(tmp_path, RADIOGRAPH | more)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.onnx"}


@pytest.mark.parametrize(
    ("model", "more", "words"),
    [
        (tiny_model(), {"windows": "0:80, 0:40"}, "2 windows do not make 1 channels"),
        (tiny_model(), {"kind": "slabs", "radius": 1}, "3 slabs do not make 1 channels"),
        (tiny_model(("n", 1, 4, 4)), {}, "make no package: rows: .* greater than or equal to 8"),
    ],
)
def test_what_cannot_end_in_the_input_is_refused(
    tmp_path: Path, model: Any, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(AnswersError, match=words):
        made(tmp_path, VOLUME | {"kind": "slices"} | more, model)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    with pytest.raises(TargetFolderError, match="exists; remove it, or choose another folder"):
        made(tmp_path, RADIOGRAPH)


def test_answers_that_are_no_toml_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    file.write_text("title =", encoding="utf-8")
    with pytest.raises(AnswersError, match="is not valid TOML"):
        read_answers(file)


def test_golden_inputs_of_the_maker_are_taken(tmp_path: Path) -> None:
    pixels = np.linspace(0, 1, 5, dtype=np.float32).reshape(5, 1, 1, 1) * np.ones(
        (5, 1, 16, 16), np.float32
    )
    np.savez(tmp_path / "inputs.npz", pixels=pixels)
    result = made(tmp_path, RADIOGRAPH, inputs=tmp_path / "inputs.npz")
    assert result.one_sided == ()
    with np.load(tmp_path / "package" / "golden" / "inputs.npz") as golden:
        assert np.array_equal(golden["pixels"], pixels)


def test_golden_inputs_of_another_shape_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", pixels=np.zeros((5, 1, 8, 8), np.float32))
    with pytest.raises(UnfitModelError, match="has shape"):
        made(tmp_path, RADIOGRAPH, inputs=tmp_path / "inputs.npz")


def test_the_command_says_what_is_left_to_do(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(tiny_model().SerializeToString())
    answers = RADIOGRAPH | {
        "demonstration": False,
        "fit": "spacing",
        "pixel_mm": 1.5,
        "findings": {"effusion": {"threshold": 0.999999, "code": "60046008 SCT Effusion"}},
    }
    (tmp_path / "answers.toml").write_text(toml_text(answers), encoding="utf-8")
    app = typer.Typer()
    app.command()(new)
    arguments = ["tiny.onnx", "--out", "package", "--answers", "answers.toml"]
    given = [
        str(tmp_path / word) if "." in word or word == "package" else word for word in arguments
    ]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "set calibration and operating point of pneumothorax;" in said
    assert "lie all on one side of the operating point of effusion" in said
    assert "golden/studies: add a suspected study" in said
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 1
    assert "exists; remove it" in again.stderr


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "tiny.onnx").write_bytes(tiny_model().SerializeToString())
    target = tmp_path / "file" / "package"
    with pytest.raises(TargetFolderError, match="cannot be made"):
        scaffold(tmp_path / "tiny.onnx", target, name="", answers=RADIOGRAPH, ask=None)


# A shell's background job ignores Ctrl-C, and what it starts inherits that.
PROGRAM = """
import signal, typer
from tools.models.new import new
signal.signal(signal.SIGINT, signal.default_int_handler)
typer.run(new)
"""
TYPED = (
    *("radiograph", "bad name", "chest_pair", "", "CHEST", "Tests.", "", "", "DX", "", "", "", ""),
    *("", "", "", "", "Pneumothorax, Zebra", "", "", "", "", "3 SCT", "3 SCT Zebra", "", "0.5"),
)


@contextmanager
def at_terminal(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """``models new`` on a terminal of its own; yields the process and the terminal's other end."""
    (folder / "tiny.onnx").write_bytes(tiny_model().SerializeToString())
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "tiny.onnx", "--out", "package"],
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def heard(terminal: int, words: bytes | None = None) -> str:
    """What the terminal shows until ``words`` appear, or until it closes."""
    shown = b""
    while words is None or words not in shown:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how a pty tells that nobody is left
            break
        if not part:
            break
        shown += part
    return shown.decode()


def test_a_person_is_asked_once_for_each_thing_and_again_after_a_mistake(tmp_path: Path) -> None:
    with at_terminal(tmp_path) as (process, terminal):
        os.write(terminal, "".join(f"{line}\n" for line in TYPED).encode())
        shown = heard(terminal)
        assert process.wait() == 0, shown
    package = written(tmp_path)
    assert package.name == "chest_pair"
    assert package.selection.modalities == ("DX",)
    assert package.findings[1].code.meaning == "Zebra"
    assert package.findings[1].operating_point.threshold == 0.5
    assert shown.count("Name of the package") == 2
    assert shown.count("Zebra: code (value scheme meaning)") == 2
    assert shown.count("What it looks for, in a few letters") == 1
    assert "card.toml: fill in" in shown


def test_an_interruption_leaves_nothing_behind(tmp_path: Path) -> None:
    with at_terminal(tmp_path) as (process, terminal):
        assert "What the model looks at" in heard(terminal, b"What the model looks at")

        def is_gone() -> bool:
            # Like a person, who presses again: a signal that comes between the prompt and the
            # read behind it is looked at only after the next key.
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=2)
            return process.poll() is not None

        wait_until(is_gone)
        assert process.wait() != 0
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.onnx"}
