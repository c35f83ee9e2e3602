"""``python -m tools.gpu_check.prepare``: what a GPU machine without network lacks, in parts.

Run from a checkout with its .venv, on a machine that reaches a package registry. What it fetches
matches the pins of ``requirements/``; TensorRT-RTX comes under NVIDIA's licence, which whoever runs
this accepts (docs/licences.md). The parts stay out of the repository.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.markers import Marker

from tools.gpu_check.packing import plan_parts, write_parts

PINS = ("dev", "pycuda")

NEEDED = (
    *("annotated-types", "pydantic", "pydantic-core", "structlog"),
    *("typing-extensions", "typing-inspection"),
)
"""What ``engines`` and this check import, and a machine for machine learning often lacks. It has
NumPy, onnx, onnxruntime and protobuf itself."""
TENSORRT_RTX = ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs")
FROM_SOURCE = ("tensorrt-rtx", "tensorrt-rtx-cu13")
"""Published as source only: Python without a compiler."""
WITH_PYCUDA = ("mako", "markupsafe", "platformdirs", "pytools", "siphash24")

MOST_BYTES = 52_000_000
"""Of a part: what can be carried at once is 64 MB, and the checkout goes with it."""
_PIN = re.compile(r"^(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\\n]+?))? \\?$")
_GLIBC = range(17, 40)


class PrepareError(Exception):
    """Something could not be gathered."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather and pack."""
    chosen = _parser().parse_args(arguments)
    wanted = [*NEEDED, *TENSORRT_RTX, *chosen.also]
    if chosen.pycuda_python:
        wanted += WITH_PYCUDA
    checkout = Path.cwd()
    if not (checkout / "requirements" / "build-pycuda").is_file():
        print("prepare: this is no checkout: change into one", file=sys.stderr)
        return 2
    if chosen.out.resolve().is_relative_to(checkout):
        print(f"prepare: {chosen.out} lies in it: choose a folder beside it", file=sys.stderr)
        return 2
    pins = checkout / "requirements"
    with tempfile.TemporaryDirectory(prefix="edge-triage-gpu-check-") as name:
        folder = Path(name)
        try:
            fetch(pins_of(wanted, chosen.python, pins), chosen.python, folder)
            build_sources(pins_of(FROM_SOURCE, chosen.python, pins), folder)
            if chosen.pycuda_python:
                add_pycuda(pins / "build-pycuda", chosen.pycuda_python, folder)
        except PrepareError as error:
            print(f"prepare: {error}", file=sys.stderr)
            return 1
        parts = write_parts(plan_parts(folder.glob("*.whl"), MOST_BYTES), chosen.out)
    for part in parts:
        size = sum(path.stat().st_size for path in part.iterdir())
        print(f"{part}: {size / 1e6:.1f} MB, {', '.join(sorted(p.name for p in part.iterdir()))}")
    print("There: python3 tools/gpu_check/receive.py PART --into /tmp/site, once for each part")
    return 0


def pins_of(names: Iterable[str], python: str, pins: Path) -> list[str]:
    """The pins of some distributions for another Python, as lines of a requirements file.

    Args:
        names: Of the distributions.
        python: Such as 3.12.
        pins: The folder with the pin files.

    Raises:
        PrepareError: One of them is not pinned.
    """
    found: dict[str, str] = {}
    for which in PINS:
        text = (pins / f"{which}.txt").read_text(encoding="utf-8")
        found |= read_pins(text, python)
    missing = [name for name in names if name not in found]
    if missing:
        raise PrepareError(f"{', '.join(missing)}: not pinned; --also takes pinned names only")
    return [found[name] for name in names]


def read_pins(text: str, python: str) -> dict[str, str]:
    """Each distribution's pin with its hashes and without its marker, where the marker fits."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": "x86_64",
        "sys_platform": "linux",
        "os_name": "posix",
    }
    pins: dict[str, str] = {}
    for block in re.split(r"\n(?=[a-z0-9])", text):
        first, *rest = block.splitlines()
        matched = _PIN.match(first)
        if matched is None:
            continue
        marker = matched["marker"]
        if marker is None or Marker(marker).evaluate(environment):
            hashes = re.findall(r"--hash=\S+", "\n".join(rest))
            pins[matched["name"]] = f"{matched['name']}=={matched['version']} {' '.join(hashes)}"
    return pins


def fetch(pins: Sequence[str], python: str, folder: Path) -> None:
    """Download wheels for the other Python.

    Raises:
        PrepareError: pip finds none.
    """
    tag = f"cp{python.replace('.', '')}"
    command = [*_pip("download"), "--only-binary=:all:", "--python-version", python]
    command += ["--implementation", "cp", "--abi", tag, "--abi", "abi3", "--abi", "none"]
    # pip takes each version of the C library for another platform.
    for glibc in _GLIBC:
        command += ["--platform", f"manylinux_2_{glibc}_x86_64"]
    _run([*command, "--dest", str(folder), "-r", str(_written(pins, folder))])


def build_sources(pins: Sequence[str], folder: Path) -> None:
    """Make wheels of what is published as source; they fit every Python.

    Raises:
        PrepareError: pip cannot.
    """
    command = [*_pip("wheel"), "--no-build-isolation", "--wheel-dir", str(folder)]
    _run([*command, "-r", str(_written(pins, folder))])


def add_pycuda(script: Path, python: str, folder: Path) -> None:
    """Build pycuda for the other Python, which has to be here.

    Raises:
        PrepareError: It cannot be built here.
    """
    done = subprocess.run([script, python], stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        raise PrepareError("pycuda is not built here; the reason stands above")
    wheel = Path(done.stdout.strip())
    (folder / wheel.name).write_bytes(wheel.read_bytes())


def _pip(command: str) -> list[str]:
    # Quiet, and only what the pins name: every file has a hash.
    return [sys.executable, "-m", "pip", command, "--quiet", "--no-deps", "--require-hashes"]


def _written(pins: Sequence[str], folder: Path) -> Path:
    path = folder / "pins.txt"
    path.write_text("\n".join(pins) + "\n", encoding="utf-8")
    return path


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    if done.returncode:
        last = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [""]
        raise PrepareError(f"{command[3]} failed: {last[-1] or done.stderr[-500:]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.gpu_check.prepare",
        description="Gathers what a GPU machine without network lacks, in parts of 52 MB.",
    )
    parser.add_argument("--out", required=True, type=Path, help="a folder outside the checkout")
    parser.add_argument("--python", default="3.12", help="the GPU machine's; default 3.12")
    parser.add_argument(
        "--pycuda-python", default="", help="such a Python here, to build pycuda with"
    )
    parser.add_argument(
        "--also", nargs="*", default=[], help="more pinned distributions, such as onnxruntime"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
