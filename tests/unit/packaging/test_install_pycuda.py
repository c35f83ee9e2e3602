"""Where pycuda cannot be compiled, the setup goes on without it and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the script, its pins and a .venv that is this Python."""
    shutil.copytree(CHECKOUT / "requirements", tmp_path / "requirements")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path


def install(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "requirements" / "install-pycuda"],
        env={**os.environ, "EDGE_TRIAGE_CACHE": str(checkout / "cache"), **environment},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_without_a_compiler_it_says_so_and_ends_well(checkout: Path) -> None:
    done = install(checkout, CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert "no compiler 'no-such-compiler'" in done.stdout
    assert "pycuda is left out" in done.stdout
    assert not (checkout / "cache").exists()


def test_without_cuda_it_says_where_it_looked_and_ends_well(checkout: Path) -> None:
    empty = checkout / "nothing"
    empty.mkdir()
    done = install(checkout, CC="true", CXX="true", CUDA_ROOTS=str(empty))
    assert done.returncode == 0, done.stderr
    assert "no CUDA with bin/nvcc and include/cuda.h in" in done.stdout
    assert "pycuda is left out" in done.stdout


def test_a_compiler_that_fails_is_told_and_ends_well(checkout: Path) -> None:
    cuda = checkout / "cuda"
    (cuda / "bin").mkdir(parents=True)
    (cuda / "include").mkdir()
    (cuda / "bin" / "nvcc").symlink_to("/bin/false")
    (cuda / "include" / "cuda.h").write_text("")
    # pip finds no source: no index is asked.
    done = install(checkout, CC="false", CXX="true", CUDA_ROOTS=str(cuda), PIP_NO_INDEX="1")
    assert done.returncode == 0, done.stderr
    assert "it could not be compiled" in done.stdout
    assert "pycuda is left out" in done.stdout
    assert not list((checkout / "cache").rglob("*.whl"))


def test_without_a_venv_it_names_the_command_that_makes_one(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "python").unlink()
    done = install(checkout)
    assert done.returncode == 1
    assert "make setup" in done.stderr
