"""Releases of the small bright package: any name, version and kind."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

from edge_runtime.governance.models import Proof
from engines.loading import EVALUATION_FILE, PACKAGE_FILE, LoadedPackage, load_package
from engines.writing import write_checksums
from simulators.golden_studies import write_golden_studies
from simulators.model_package import write_model_package


def write_release(
    folder: Path,
    version: str = "1.0.0",
    *,
    name: str = "bright",
    demonstration: bool = True,
    golden_error: float = 0.0,
    title: str = "BRIGHT",
) -> LoadedPackage:
    """Write and load one; another ``title`` is another digest."""
    write_model_package(folder, name=name, golden_error=golden_error)
    manifest = folder / PACKAGE_FILE
    text = manifest.read_text("utf-8")
    for key, old, new in (
        ("version", '"1.0.0"', f'"{version}"'),
        ("demonstration", "true", str(demonstration).lower()),
        ("title", '"BRIGHT"', f'"{title}"'),
    ):
        assert f"\n{key} = {old}" in text
        text = text.replace(f"\n{key} = {old}", f"\n{key} = {new}")
    manifest.write_text(text, "utf-8")
    evaluation = json.loads((folder / EVALUATION_FILE).read_text("utf-8"))
    evaluation["model_version"] = version
    (folder / EVALUATION_FILE).write_text(json.dumps(evaluation), "utf-8")
    if not demonstration:
        write_golden_studies(folder)
    write_checksums(folder)
    return load_package(folder)


def pack(folder: Path, archive: Path, *, inside: str = "") -> Path:
    """Pack a folder as the archive's name says; ``inside``: below a folder of that name."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(folder.rglob("*")):
                packed.write(path, Path(inside) / path.relative_to(folder))
    else:
        is_packed = archive.suffix in {".gz", ".tgz"}
        with (
            tarfile.open(archive, "w:gz") if is_packed else tarfile.open(archive, "w") as packed_tar
        ):
            packed_tar.add(folder, inside or ".")
    return archive


def copy_of(folder: Path, target: Path) -> Path:
    """Copy a package, to change it."""
    return shutil.copytree(folder, target)


def believe(_folder: Path) -> Proof:
    """Takes any package for verified, at once."""
    return Proof(backend="none", largest_deviation=0.0)
