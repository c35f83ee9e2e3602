"""Compiles the fake libcuda, and what a process needs to find it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_SOURCES = Path(__file__).parent
_DEADLINE_S = 120
_STRICT = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-g")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeCuda:
    """A folder with a ``libcuda.so.1``."""

    folder: Path

    def environment(self, **settings: int | str) -> dict[str, str]:
        """What a process needs at its start to find it.

        Args:
            settings: ``devices``, ``version`` (13000), ``init`` (what cuInit answers), ``total``
                (bytes), ``compute`` (87), ``integrated`` (0 or 1), ``missing`` (functions, comma
                between), ``report`` (a file for the counts at the process's end).
        """
        before = os.environ.get("LD_LIBRARY_PATH")
        path = f"{self.folder}:{before}" if before else str(self.folder)
        return {
            **os.environ,
            "LD_LIBRARY_PATH": path,
            **{f"FAKE_CUDA_{name.upper()}": str(value) for name, value in settings.items()},
        }


def why_not() -> str | None:
    """Say why the fake cannot be compiled here, or None."""
    missing = [program for program in ("cc", "nm") if shutil.which(program) is None]
    return f"needs {' and '.join(missing)}" if missing else None


def build_fake_cuda(folder: Path, *, without: Collection[str] = ()) -> FakeCuda:
    """Compile it.

    Args:
        folder: In which the library shall lie.
        without: Functions that this driver shall not have, though pycuda was built with them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(_SOURCES.glob("*.c"))
    core = folder / "core.so"
    _compile([*map(str, sources), "-o", str(core)])
    stubs = folder / "stubs.c"
    others = _linked_by_pycuda() - _symbols(core, "--defined-only") - set(without)
    # NOT_SUPPORTED: what our code does not use. It links to them all the same.
    stubs.write_text(
        "".join(f"int {name}(void);\nint {name}(void) {{ return 801; }}\n" for name in others),
        encoding="ascii",
    )
    library = folder / "libcuda.so.1"
    _compile([*map(str, sources), str(stubs), "-Wl,-soname,libcuda.so.1", "-o", str(library)])
    return FakeCuda(folder=folder)


def compile_kernels(source: str, folder: Path) -> bytes:
    """Compile kernels for the host and the fake: C as ``modules.c`` describes it."""
    return compile_library(source, folder / "kernels.so").read_bytes()


def compile_library(source: str, library: Path) -> Path:
    """Compile C to a shared object."""
    path = library.with_name(f"{library.name}.c")
    path.write_text(source, encoding="ascii")
    _compile([str(path), "-o", str(library)])
    return library


def _compile(arguments: list[str]) -> None:
    command = ["cc", *_STRICT, "-shared", "-fPIC", "-pthread", *arguments, "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr


def _linked_by_pycuda() -> set[str]:
    try:
        found = find_spec("pycuda._driver")
    except ModuleNotFoundError:
        return set()
    if found is None or found.origin is None:
        return set()
    return {name for name in _symbols(Path(found.origin), "--undefined-only") if _is_cuda(name)}


def _is_cuda(name: str) -> bool:
    return name.startswith("cu") and name[2:3].isupper()


def _symbols(library: Path, which: str) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", which, str(library)],
        capture_output=True,
        text=True,
        timeout=_DEADLINE_S,
        check=True,
    )
    return {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines() if line}
