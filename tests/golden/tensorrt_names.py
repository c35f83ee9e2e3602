"""Writes ``tensorrt_names.json``: which of the names that we use each TensorRT has.

``python tests/golden/tensorrt_names.py FOLDER`` with a folder of unpacked bindings wheels, one
folder each, named by version (``pip download --no-deps tensorrt-cu13-bindings==10.16.1.11`` and so
on; their licence is NVIDIA's and yours to accept). The bindings are imported over empty stand-ins
for the libraries, so that no TensorRT and no GPU is needed: only names are asked for. TensorRT-RTX
is looked at as it is installed.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from engines.tensorrt.library import has_name, used_names

TABLE = Path(__file__).with_name("tensorrt_names.json")
BINDINGS = "tensorrt_bindings"
RTX = "tensorrt_rtx"

# What the bindings link against, by `nm -D --undefined-only`.
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
_FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL"),
    *("createInferRuntime_INTERNAL", "createNvOnnxParser_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)
_SOURCE = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in _FUNCTIONS)


def all_used_names() -> frozenset[str]:
    """Return the required and the optional ones."""
    names = used_names()
    return names.required.union(*names.optional.values())


def names_by_version(folder: Path) -> dict[str, frozenset[str]]:
    """Ask each version for its names, in a process of its own.

    Raises:
        FileNotFoundError: The folder holds no unpacked bindings.
    """
    unpacked = [path.parent for path in folder.glob(f"*/{BINDINGS}")]
    if not unpacked:
        raise FileNotFoundError(f"{folder} holds no folder with {BINDINGS} in it")
    found = {}
    for version in sorted(unpacked, key=lambda path: _numbers(path.name)):
        with tempfile.TemporaryDirectory() as stand_ins:
            make_stand_ins(Path(stand_ins), version.name.split(".")[0])
            found[version.name] = _ask(
                BINDINGS,
                {"PYTHONPATH": str(version), "LD_LIBRARY_PATH": stand_ins},
            )[1]
    rtx_version, names = _ask(RTX, {})
    return {**found, f"{RTX} {rtx_version}": names}


def make_stand_ins(folder: Path, major: str) -> None:
    """Compile libraries that answer nothing."""
    source = folder / "stand_in.c"
    source.write_text(_SOURCE, encoding="ascii")
    for name in _LIBRARIES:
        target = f"lib{name}.so.{major}"
        subprocess.run(
            ["cc", "-shared", "-fPIC", f"-Wl,-soname,{target}", "-o", str(folder / target), source],
            check=True,
        )


def as_table(found: Mapping[str, frozenset[str]]) -> str:
    """Return the text of the table."""
    everywhere = frozenset.intersection(*found.values())
    somewhere = all_used_names() - everywhere
    table = {
        "versions": list(found),
        "everywhere": sorted(everywhere),
        "somewhere": {
            name: [version for version, names in found.items() if name in names]
            for name in sorted(somewhere)
        },
    }
    return json.dumps(table, indent=1) + "\n"


def _ask(module: str, settings: Mapping[str, str]) -> tuple[str, frozenset[str]]:
    paths = [settings.get("PYTHONPATH", ""), *sys.path]
    answer = subprocess.run(
        [sys.executable, __file__, "--names-of", module],
        env={**os.environ, **settings, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        check=True,
        capture_output=True,
        text=True,
    )
    version, names = json.loads(answer.stdout)
    return version, frozenset(names)


def _answer(name: str) -> None:
    module = importlib.import_module(name)
    names = [each for each in sorted(all_used_names()) if has_name(module, each)]
    sys.stdout.write(json.dumps([module.__version__, names]))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdigit()]


if __name__ == "__main__":
    if sys.argv[1] == "--names-of":
        _answer(sys.argv[2])
    else:
        TABLE.write_text(as_table(names_by_version(Path(sys.argv[1]))), encoding="ascii")
