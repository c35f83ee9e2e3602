"""What is packed into parts comes out again on the other machine, or is refused."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tools.gpu_check import prepare, receive
from tools.gpu_check.packing import plan_parts, write_parts

RECEIVE = Path(receive.__file__)
PINS = Path(__file__).parents[4] / "requirements"
WHEEL = "carried-1.0-py3-none-any.whl"


def make_wheel(folder: Path, content: str = "ANSWER = 42\n") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / WHEEL
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("carried.py", content)
        archive.writestr(
            "carried-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1.0\n"
        )
        archive.writestr(
            "carried-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("carried-1.0.dist-info/RECORD", "")
    return path


def pack(folder: Path, files: list[Path], most_bytes: int) -> list[Path]:
    return write_parts(plan_parts(files, most_bytes), folder / "parts")


def received(*parts: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """As on the other machine: a plain Python, and nothing of ours but this one file."""
    return subprocess.run(
        [sys.executable, "-I", RECEIVE, *parts, "--into", into],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )


def test_no_part_is_larger_than_allowed_and_nothing_is_lost(tmp_path: Path) -> None:
    files = []
    for number, size in enumerate((10, 999, 1000, 1001, 2500)):
        path = tmp_path / f"file-{number}"
        path.write_bytes(bytes([number]) * size)
        files.append(path)
    parts = plan_parts(files, 1000)
    assert all(sum(each.size for each in part) <= 1000 for part in parts)
    assert sum(each.size for part in parts for each in part) == 5510
    assert len(parts) == 6


def test_a_part_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds nothing"):
        plan_parts([tmp_path], 0)


def test_a_wheel_in_pieces_is_put_together_and_installed(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    parts = pack(tmp_path, [wheel], 300)
    assert len(parts) > 1
    first = received(*parts[:-1], into=tmp_path / "site")
    assert first.returncode == 0, first.stderr
    assert f"not complete yet: {WHEEL}" in first.stdout
    last = received(parts[-1], into=tmp_path / "site")
    assert last.returncode == 0, last.stderr
    assert f"{WHEEL}: installed" in last.stdout
    assert "not complete" not in last.stdout
    assert (tmp_path / "site" / "carried.py").read_text() == "ANSWER = 42\n"


def test_a_file_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    (part,) = pack(tmp_path, [make_wheel(tmp_path / "wheels")], 100_000)
    with (part / WHEEL).open("ab") as file:
        file.write(b"!")
    done = received(part, into=tmp_path / "site")
    assert done.returncode == 1
    assert "is not what was sent: carry this part again" in done.stderr
    assert not (tmp_path / "site").exists()


def test_pieces_of_two_files_of_one_name_are_not_joined(tmp_path: Path) -> None:
    one = pack(tmp_path / "one", [make_wheel(tmp_path / "a")], 400)
    two = pack(tmp_path / "two", [make_wheel(tmp_path / "b", "ANSWER = 43\n")], 400)
    assert len(one) == len(two) > 1
    done = received(one[0], *two[1:], into=tmp_path / "site")
    assert done.returncode == 1
    assert f"the pieces do not make {WHEEL}" in done.stderr


def test_a_part_that_names_a_file_elsewhere_is_refused(tmp_path: Path) -> None:
    part = tmp_path / "part"
    part.mkdir()
    digest = hashlib.sha256(b"x").hexdigest()
    (tmp_path / "x").write_bytes(b"x")
    entry = {"name": "../x", "sha256": digest, "whole": "../x", "whole_sha256": digest}
    (part / "part.json").write_text(json.dumps([{**entry, "piece": 0, "pieces": 1}]))
    done = received(part, into=tmp_path / "site")
    assert done.returncode == 1
    assert "outside its folder" in done.stderr


def test_a_folder_that_is_no_part_is_refused(tmp_path: Path) -> None:
    done = received(tmp_path, into=tmp_path / "site")
    assert done.returncode == 1
    assert "is no part" in done.stderr


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_all_that_is_needed_is_pinned_for_every_python(python: str) -> None:
    names = [
        *prepare.NEEDED,
        *prepare.TENSORRT_RTX,
        *prepare.FROM_SOURCE,
        *prepare.WITH_PYCUDA,
    ]
    pins = prepare.pins_of(names, python, PINS)
    assert [pin.split("==")[0] for pin in pins] == names
    assert all("--hash=sha256:" in pin and ";" not in pin for pin in pins)


def test_pins_are_those_of_the_other_python() -> None:
    text = (
        "one==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:aa\n    # via us\n"
        "one==2.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:bb \\\n"
        "    --hash=sha256:cc\n"
        "two==3.0 \\\n    --hash=sha256:dd\n"
    )
    assert prepare.read_pins(text, "3.12") == {
        "one": "one==2.0 --hash=sha256:bb --hash=sha256:cc",
        "two": "two==3.0 --hash=sha256:dd",
    }
    assert prepare.read_pins(text, "3.11")["one"].startswith("one==1.0 ")


def test_what_is_not_pinned_is_refused() -> None:
    with pytest.raises(prepare.PrepareError, match="nothing-of-the-kind: not pinned"):
        prepare.pins_of(["nothing-of-the-kind"], "3.12", PINS)


def test_parts_are_not_written_into_the_checkout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PINS.parent)
    assert prepare.main(["--out", "parts"]) == 2
    assert "choose a folder beside it" in capsys.readouterr().err


def test_parts_are_prepared_from_a_checkout_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare.main(["--out", "parts"]) == 2
    assert "change into one" in capsys.readouterr().err


def test_the_other_machine_gets_all_that_the_check_imports() -> None:
    code = (
        "import importlib, sys; from tools.gpu_check.steps import STEPS; "
        "[importlib.import_module(f'tools.gpu_check.{step.module}_step') for step in STEPS]; "
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=120
    )
    owners = importlib.metadata.packages_distributions()
    needed = {
        owner.lower().replace("_", "-")
        for module in done.stdout.split()
        for owner in owners.get(module, ())
    }
    # NumPy, onnx and onnxruntime bring the next line; structlog does without the last.
    there = {"numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "protobuf", "ml-dtypes"}
    there |= {"packaging", "flatbuffers", "sympy", "mpmath"}
    there |= {"rich", "pygments", "setuptools", "cuda-bindings", "cuda-pathfinder"}
    assert needed - there - {"edge-triage"} <= set(prepare.NEEDED)
