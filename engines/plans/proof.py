"""That a plan gave the reference's numbers: on this device, for this package, and for no other."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields

PROOF_FORMAT = 1

MAX_PROOF_BYTES = 16_384

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_REFERENCE_CHARACTERS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What came out when a plan was compared with the reference.

    Attributes:
        key_digest: Of the plan's key.
        plan_sha256: Of the plan: building twice gives two plans, and only one was compared.
        package_digest: Whose golden inputs, tolerance and operating point were used.
        reference: Engine and version that gave the right numbers, such as ``onnxruntime 1.23.2``.
        golden_items: Of the package, that were compared; at least 1.
        random_items: Drawn, that were compared.
        max_absolute: Largest |plan - reference|.
        cosine: Smallest cosine between an output of the plan and the reference's.
        flips: Items whose decision at the operating point differs.
        passed: Whether all of it is within what the package allows.
    """

    key_digest: str
    plan_sha256: str
    package_digest: str
    reference: str
    golden_items: int
    random_items: int
    max_absolute: float
    cosine: float
    flips: int
    passed: bool

    def __post_init__(self) -> None:
        for name in ("key_digest", "plan_sha256", "package_digest"):
            if _SHA256.fullmatch(getattr(self, name)) is None:
                raise ValueError(f"{name} is not a SHA-256 in 64 lower-case digits")
        if not 1 <= len(self.reference) <= _MAX_REFERENCE_CHARACTERS:
            raise ValueError("a proof names the reference that it rests on")
        if self.golden_items < 1 or self.random_items < 0 or self.flips < 0:
            raise ValueError("a proof rests on golden items, and counts are not negative")
        if not (math.isfinite(self.max_absolute) and math.isfinite(self.cosine)):
            raise ValueError("the figures of a proof are numbers")
        if self.passed and self.flips:
            raise ValueError("a plan that decides otherwise has not passed")

    def canonical(self) -> bytes:
        """The proof as bytes."""
        members = {"format": PROOF_FORMAT, **asdict(self)}
        return json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")

    @classmethod
    def parse(cls, canonical: bytes) -> Proof:
        """Read a canonical form.

        Raises:
            ValueError: It is none, or one of another release of this software.
        """
        members = json.loads(canonical)
        if not isinstance(members, dict) or members.pop("format", None) != PROOF_FORMAT:
            raise ValueError("the proof is of another release of this software")
        if members.keys() != {field.name for field in fields(cls)}:
            raise ValueError("the proof has other fields than this software's")
        return cls(**members)
