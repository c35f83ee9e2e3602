"""Golden tensors: the inputs and outputs that every engine must reproduce, read as hostile files.

``.npz`` is a zip of ``.npy`` members. NumPy's reader trusts what both headers declare; this one
checks them against each other and against a bound before it takes memory, and knows no objects, so
that there is no pickle to refuse. The members are the model's tensors by name, ``float32``, finite,
in the shapes of ``package.toml``.
"""

from __future__ import annotations

import io
import lzma
import math
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.checksums import VerifiedFile
from engines.contract import ElementType, TensorSpec, all_finite
from engines.errors import GoldenFileError
from engines.loading import LoadedPackage
from engines.package import TensorRule

MAX_GOLDEN_BYTES = 64 * 1024**2
"""Of each file, packed and unpacked: some 30 slabs of 9 x 224 x 224."""

# What numpy.save writes for float32 (NEP 1, format 1.0), and nothing else: no Python is parsed.
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    r"\{'descr': '<f4', 'fortran_order': (True|False), 'shape': \(([0-9, ]{0,64})\), \} *\n"
)
_PREFIX_BYTES = len(_MAGIC) + 2
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSet:
    """Inputs, and the outputs that the reference engine gave for them."""

    inputs: dict[str, NDArray[np.float32]]
    outputs: dict[str, NDArray[np.float32]]


def spec_of(rule: TensorRule) -> TensorSpec:
    """Returns the engine's view of a tensor in ``package.toml``."""
    return TensorSpec(name=rule.name, element_type=ElementType(rule.dtype), shape=rule.shape)


def load_golden(package: LoadedPackage) -> GoldenSet:
    """Reads both golden files.

    Raises:
        PackageIntegrityError: A file changed after the package was checked.
        GoldenFileError: A file is unreadable, too large, or does not fit ``package.toml``.
    """
    return GoldenSet(
        inputs=_read(package.golden_inputs, spec_of(package.manifest.input)),
        outputs=_read(package.golden_outputs, spec_of(package.manifest.output.tensor)),
    )


def read_array(content: bytes, name: str) -> NDArray[np.float32]:
    """Reads an ``.npz`` of one float32 array.

    Args:
        content: The file.
        name: Of the array.

    Returns:
        The array, read-only.

    Raises:
        GoldenFileError: It is anything else; no input raises anything else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _parse_npy(_only_member(archive, name))
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        NotImplementedError,  # a way of packing that zipfile does not know
        RuntimeError,  # an encrypted member
        EOFError,
        OSError,  # an offset outside the file, bad bzip2
        ValueError,  # a name that is not text
        struct.error,
    ) as error:
        raise GoldenFileError("is not a readable .npz file") from error


def _read(file: VerifiedFile, spec: TensorSpec) -> dict[str, NDArray[np.float32]]:
    try:
        array = read_array(file.read(MAX_GOLDEN_BYTES), spec.name)
    except GoldenFileError as error:
        raise GoldenFileError(f"golden/{file.path.name}: {error}") from error
    mismatch = spec.mismatch(array)
    if mismatch is not None:
        raise GoldenFileError(f"golden/{file.path.name}: {mismatch}")
    if not all_finite(array):
        raise GoldenFileError(f"golden/{file.path.name} holds NaN or infinity")
    return {spec.name: array}


def _only_member(archive: zipfile.ZipFile, name: str) -> bytes:
    members = archive.infolist()
    if [member.filename for member in members] != [f"{name}.npy"]:
        raise GoldenFileError(f"must hold one array, named {name!r}")
    if members[0].file_size > MAX_GOLDEN_BYTES:
        raise GoldenFileError(f"unpacks to more than {MAX_GOLDEN_BYTES} bytes")
    # zipfile stops at the declared size, and then fails if the content had gone on (CRC).
    return archive.read(members[0])


def _parse_npy(content: bytes) -> NDArray[np.float32]:
    start = _PREFIX_BYTES + int.from_bytes(content[len(_MAGIC) : _PREFIX_BYTES], "little")
    header = _HEADER.fullmatch(content[_PREFIX_BYTES:start].decode("latin-1"))
    # NumPy pads headers so that the numbers start aligned; engines read them in place.
    if not content.startswith(_MAGIC) or header is None or start % _ALIGNMENT:
        raise GoldenFileError("must hold float32, little endian, as numpy.savez writes it")
    shape = tuple(int(size) for size in header[2].split(",") if size.strip())
    if math.prod(shape) * np.dtype(np.float32).itemsize != len(content) - start:
        raise GoldenFileError("declares another size than it has")
    flat = np.frombuffer(content, dtype=np.float32, offset=start)
    return flat.reshape(shape, order="F" if header[1] == "True" else "C")
