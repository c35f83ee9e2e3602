"""What the tests of the whole device share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from simulators.model_package import write_model_package


@pytest.fixture
def bright_package(tmp_path: Path) -> Path:
    """A model package that suspects bright slices, and needs no time."""
    folder = tmp_path / "bright"
    write_model_package(folder)
    return folder


@pytest.fixture
def temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The folder that this test and all that it starts call the temporary one.

    Its path is short, because the supervisor's socket stands in it.
    """
    # pytest makes its own folder when it is first asked for it: not in one that goes with a test.
    tmp_path_factory.getbasetemp()
    folder = Path(tempfile.mkdtemp(prefix="et-"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it remembers what it found before
    yield folder
    monkeypatch.undo()
    shutil.rmtree(folder)
