"""What a plan is of: everything that, when it changes, asks for another plan.

The key is part of what is sealed, and its digest is the plan's name. It holds names, never the
numbers behind them: the values of a vendor's enums move between its releases.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, fields

from engines.contract import Backend, Precision

KEY_FORMAT = 1
"""Changes when the fields do, or what this software makes of a model: every plan is built anew."""

MAX_KEY_BYTES = 32_768
"""Of the canonical form; a key of three profiles has less than 1,000."""

QUANTISED_FLAG = "q/dq"
"""Among the flags of a model whose Q/DQ nodes say which layers compute in INT8."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanKey:
    """Two plans of one key can stand for each other; nothing else can.

    Attributes:
        onnx_sha256: Of ``model.onnx``, as the package's CHECKSUMS has it.
        backend: Whose plan it is.
        library_version: Of the library that builds and runs it.
        compute_capability: Of the GPU.
        gpu_name: As the driver tells it: two boards of one capability may differ in size.
        driver_version: As the driver counts.
        cuda_version: That the library was built for, or brings along.
        profiles: The shapes that it is built for, as text.
        precision: In which numbers it computes, unless the model has Q/DQ nodes.
        flags: Every other choice of the builder, by name, in any order.
        dla_core: Which deep learning accelerator; None for the GPU itself.
    """

    onnx_sha256: str
    backend: Backend
    library_version: str
    compute_capability: tuple[int, int]
    gpu_name: str
    driver_version: int
    cuda_version: str
    profiles: str
    precision: Precision
    flags: tuple[str, ...] = ()
    dla_core: int | None = None

    def __post_init__(self) -> None:
        if _SHA256.fullmatch(self.onnx_sha256) is None:
            raise ValueError("onnx_sha256 is not a SHA-256 in 64 lower-case digits")
        if len(self.canonical()) > MAX_KEY_BYTES:
            raise ValueError(f"the key of a plan is larger than {MAX_KEY_BYTES} bytes")

    @property
    def numbers(self) -> str:
        """In which numbers it computes, for reports and people.

        A graph with Q/DQ nodes has settled that itself: the precision changes none of it.
        """
        return "int8 (Q/DQ)" if QUANTISED_FLAG in self.flags else self.precision.value

    def canonical(self) -> bytes:
        """The key as bytes; the same for keys that mean the same."""
        members = {field.name: getattr(self, field.name) for field in fields(self)}
        members["flags"] = sorted(set(self.flags))
        return _canonical({"format": KEY_FORMAT, **members})

    def digest(self) -> str:
        """SHA-256 of the canonical form: the name of the plan."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def platform(self) -> bytes:
        """What measured times depend on: library, GPU and driver, but no model; as bytes."""
        return _canonical(
            {
                "format": KEY_FORMAT,
                "backend": self.backend,
                "library_version": self.library_version,
                "compute_capability": self.compute_capability,
                "gpu_name": self.gpu_name,
                "driver_version": self.driver_version,
                "cuda_version": self.cuda_version,
            }
        )

    @classmethod
    def parse(cls, canonical: bytes) -> PlanKey:
        """Read a canonical form.

        Raises:
            ValueError: It is none, or one of another release of this software.
        """
        members = json.loads(canonical)
        try:
            if members.pop("format") != KEY_FORMAT:
                raise ValueError("the key is of another release of this software")
            members["backend"] = Backend(members["backend"])
            members["precision"] = Precision(members["precision"])
            members["compute_capability"] = tuple(members["compute_capability"])
            members["flags"] = tuple(members["flags"])
            key = cls(**members)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError("the key of a plan has other fields than this software's") from error
        if key.canonical() != canonical:
            raise ValueError("the key of a plan is not in its canonical form")
        return key


def _canonical(members: dict[str, object]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
