"""The wheel holds every file of the packages and nothing else, and what it installs works."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
PACKAGES = ("edge_runtime", "engines", "dicom_node", "telemetry", "tools", "firmware_configs")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end, away from the checkout, and return what it printed."""
    done = subprocess.run(
        command, check=False, cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built with what is installed."""
    out = tmp_path_factory.mktemp("wheel")
    options = ("--wheel", "--no-isolation", "--outdir", out)
    run(sys.executable, "-m", "build", *options, CHECKOUT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def shipped(wheel: Path) -> frozenset[str]:
    """Names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return frozenset(archive.namelist())


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty virtual environment with the wheel in it, and the dependencies from here."""
    made = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", "--without-pip", made, cwd=made)
    python = made / "bin" / "python"
    where = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=made)
    # As a line of a .pth file the folder comes last, and the .pth files in it are not obeyed: an
    # editable install there stays out of sight.
    dependencies = importlib.metadata.distribution("pydicom").locate_file("")
    Path(where.strip(), "dependencies.pth").write_text(f"{dependencies}\n")
    options = ("--quiet", "--disable-pip-version-check", "--ignore-installed", "--no-deps")
    run(python, "-m", "pip", "install", *options, "--no-index", wheel, cwd=made)
    return made


def test_every_file_of_the_packages_ships_and_nothing_else(shipped: frozenset[str]) -> None:
    in_packages = {name for name in shipped if ".dist-info/" not in name}
    on_disk = {
        path.relative_to(CHECKOUT).as_posix()
        for package in PACKAGES
        for path in (CHECKOUT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_packages == on_disk


@pytest.mark.parametrize(
    "pattern",
    [
        "*/py.typed",
        "edge_runtime/store/migrations/*.sql",
        "edge_runtime/web/templates/*.html",
        "edge_runtime/web/static/*",
        "engines/models/*/model.onnx",
        "engines/models/*/package.toml",
        "engines/models/*/card.toml",
        "engines/models/*/CHECKSUMS",
        "engines/models/*/golden/*",
        "firmware_configs/*",
        "*.dist-info/licenses/LICENSE",
    ],
)
def test_data_of_this_kind_ships(shipped: frozenset[str], pattern: str) -> None:
    assert any(Path(name).match(pattern) for name in shipped), f"the wheel has no {pattern}"


def test_no_library_engine_or_wheel_of_anybody_ships(shipped: frozenset[str]) -> None:
    foreign = re.compile(r"\.(so(\.\d+)*|dll|dylib|a|whl|plan|engine|cubin|ptx)$")
    assert [name for name in shipped if foreign.search(name)] == []


def test_no_test_ships(shipped: frozenset[str]) -> None:
    assert not [name for name in shipped if "tests" in Path(name).parts]


def test_packages_are_imported_from_where_the_wheel_was_installed(
    venv: Path, tmp_path: Path
) -> None:
    code = (
        f"import {', '.join(PACKAGES)}, sys; print(*(sys.modules[p].__file__ for p in {PACKAGES}))"
    )
    places = run(venv / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert len(places) == len(PACKAGES)
    assert all(Path(place).is_relative_to(venv) for place in places)


def test_installed_command_explains_itself(venv: Path, tmp_path: Path) -> None:
    printed = run(venv / "bin" / "edge-triage", "--help", cwd=tmp_path)
    assert "Usage" in printed


def test_suite_runs_on_the_code_that_is_installed_here() -> None:
    # Editable, the installed code is the checkout; from a wheel, none of it may come from there.
    distribution = importlib.metadata.distribution("edge-triage")
    editable = '"editable": true' in (distribution.read_text("direct_url.json") or "")
    home = CHECKOUT if editable else Path(str(distribution.locate_file("")))
    for package in PACKAGES:
        source = __import__(package).__file__
        assert source is not None
        assert Path(source).resolve().parent == (home / package).resolve()
