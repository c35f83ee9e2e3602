"""Golden tensors: the inputs and outputs that every engine must reproduce, read as hostile files.

``.npz`` is a zip of ``.npy`` members. NumPy's reader trusts what both headers declare; this one
checks them against each other and against a bound before it takes memory, and knows no objects, so
that there is no pickle to refuse. The members are the model's tensors by name, ``float32``, finite,
in the shapes of ``package.toml``.
"""

from __future__ import annotations

import dataclasses
import io
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines.checksums import VerifiedFile
from engines.contract import FREE, ElementType, TensorSpec, all_finite
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
        inputs=_read(package.golden_inputs, (package.manifest.input,)),
        outputs=_read(package.golden_outputs, package.manifest.outputs),
    )


def read_arrays(content: bytes, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """Reads an ``.npz`` of float32 arrays.

    Args:
        content: The file.
        names: Of all its arrays, in any order.

    Returns:
        The arrays, read-only.

    Raises:
        GoldenFileError: It is anything else; no input raises anything else.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name: _parse_npy(content) for name, content in _members(archive, names).items()}
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


def _read(file: VerifiedFile, rules: Sequence[TensorRule]) -> dict[str, NDArray[np.float32]]:
    try:
        arrays = read_arrays(file.read(MAX_GOLDEN_BYTES), [rule.name for rule in rules])
    except GoldenFileError as error:
        raise GoldenFileError(f"golden/{file.path.name}: {error}") from error
    for rule in rules:
        # As many cases as its maker liked, also of a model that takes one at a time.
        cases = dataclasses.replace(spec_of(rule), shape=(FREE, *rule.shape[1:]))
        mismatch = cases.mismatch(arrays[rule.name])
        if mismatch is not None:
            raise GoldenFileError(f"golden/{file.path.name}: {mismatch}")
        if not all_finite(arrays[rule.name]):
            raise GoldenFileError(f"golden/{file.path.name} holds NaN or infinity")
    return arrays


def _members(archive: zipfile.ZipFile, names: Sequence[str]) -> dict[str, bytes]:
    # A slash would make a folder of the name, which numpy.savez writes all the same.
    wanted = {f"{name}.npy": name for name in names}
    members = archive.infolist()
    if sorted(member.filename for member in members) != sorted(wanted):
        raise GoldenFileError(f"must hold exactly the arrays {', '.join(sorted(names))}")
    if sum(member.file_size for member in members) > MAX_GOLDEN_BYTES:
        raise GoldenFileError(f"unpacks to more than {MAX_GOLDEN_BYTES} bytes")
    # zipfile stops at the declared size, and then fails if the content had gone on (CRC).
    return {wanted[member.filename]: archive.read(member) for member in members}


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
