"""Each library of a vendor is reached from one place, and imported when it is used.

A device without it starts, and what crashes without a driver is not touched before the driver was
asked.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
PACKAGES = ("edge_runtime", "engines", "dicom_node", "telemetry", "tools")
VENDORS = ("pycuda", "cuda", "tensorrt", "tensorrt_rtx")
ADAPTERS = {
    "pycuda": {"engines/device/pycuda_device.py"},
    "cuda": {"engines/device/cuda_bindings_device.py", "engines/kernel/compiling.py"},
    "tensorrt": {"engines/tensorrt/library.py"},
    "tensorrt_rtx": {"engines/tensorrt/library.py"},
}


def imported(tree: ast.Module) -> Iterator[str]:
    """Modules that a file imports, by statement or by a name that stands in it."""
    asks = False
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""
        elif isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            asks = asks or name in {"import_module", "__import__"}
    if asks:
        # Which name it asks for may stand elsewhere in the file.
        yield from (
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            # As PyTorch calls a GPU; nothing can be imported by this name alone.
            and node.value != "cuda"
        )


@cache
def places() -> dict[str, set[str]]:
    """Which files reach for which vendor."""
    found = defaultdict(set)
    for package in PACKAGES:
        for path in (CHECKOUT / package).rglob("*.py"):
            for module in imported(ast.parse(path.read_text(encoding="utf-8"))):
                if module.split(".")[0] in VENDORS and " " not in module:
                    found[module.split(".")[0]].add(path.relative_to(CHECKOUT).as_posix())
    return found


def test_each_vendor_is_reached_from_its_adapters_only() -> None:
    found = places()
    assert {vendor: found[vendor] - ADAPTERS[vendor] for vendor in VENDORS} == {
        vendor: set() for vendor in VENDORS
    }


def test_what_is_looked_for_is_found() -> None:
    assert places()["pycuda"] == ADAPTERS["pycuda"]
    assert places()["tensorrt"] == ADAPTERS["tensorrt"]


def test_importing_every_package_imports_no_vendor() -> None:
    # cuda-bindings has a .pth file that reaches for `cuda` in every Python of its environment.
    code = (
        "import sys; before = set(sys.modules); "
        "import tools.cli, edge_runtime.app.worker, engines.backends; "
        f"print(sorted((set(sys.modules) - before) & {set(VENDORS)}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr
