"""The few words that may leave this device, fixed before the first event is encoded.

Every text in an outgoing message is an enum's value, a number's digits, or one of the words held
here. The words come from the device's own software and model packages, never from a study.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from telemetry.errors import EgressPolicyError

DEVICE_ID_PATTERN = r"^[a-z0-9]{8,32}$"
REASON_CODE_PATTERN = r"^[A-Z][A-Z0-9_]{0,39}$"
MODEL_NAME_PATTERN = r"^[a-z][a-z0-9_]{1,63}$"
VERSION_PATTERN = r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,6}$"

_VERSION_LIMITS = (9_999, 9_999, 999_999)
MIN_PAYLOAD_BYTES = 512
MAX_PAYLOAD_BYTES = 65_536


def _is_word(value: object, pattern: str) -> bool:
    # fullmatch: `$` alone would let a trailing newline through.
    return type(value) is str and re.fullmatch(pattern, value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version as three bounded numbers: text of that form could be an OID or an address."""

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read ``major.minor.patch``; what follows the third number (``rc1``, ``+local``) goes.

        Raises:
            EgressPolicyError: The text does not begin with three bounded numbers.
        """
        match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})\.([0-9]{1,6})(?![0-9.])", text)
        if match is None:
            raise EgressPolicyError("version", "must begin with major.minor.patch")
        return cls(major=int(match[1]), minor=int(match[2]), patch=int(match[3]))

    def is_bounded(self) -> bool:
        """Tell whether each part is a plain int within its limit."""
        parts = (self.major, self.minor, self.patch)
        return all(
            type(part) is int and 0 <= part <= limit
            for part, limit in zip(parts, _VERSION_LIMITS, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Name and version of a model package."""

    name: str
    version: Version


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressPolicy:
    """Who this device is and which words it may use.

    Raises:
        EgressPolicyError: A word does not have its form.
    """

    device_id: str
    """Opaque, made when the device was provisioned; the site's name stands only in the fleet."""
    reason_codes: frozenset[str] = frozenset()
    models: frozenset[ModelRef] = frozenset()
    max_payload_bytes: int = 4_096
    _codes: Mapping[str, str] = field(init=False, repr=False, compare=False)
    _models: Mapping[ModelRef, ModelRef] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _is_word(self.device_id, DEVICE_ID_PATTERN):
            raise EgressPolicyError("device_id", f"must match {DEVICE_ID_PATTERN}")
        for code in self.reason_codes:
            if not _is_word(code, REASON_CODE_PATTERN):
                raise EgressPolicyError("reason_codes", f"must match {REASON_CODE_PATTERN}")
        for model in self.models:
            if not _is_word(model.name, MODEL_NAME_PATTERN):
                raise EgressPolicyError("models.name", f"must match {MODEL_NAME_PATTERN}")
            if type(model.version) is not Version or not model.version.is_bounded():
                raise EgressPolicyError("models.version", "must be a bounded Version")
        if not MIN_PAYLOAD_BYTES <= self.max_payload_bytes <= MAX_PAYLOAD_BYTES:
            raise EgressPolicyError(
                "max_payload_bytes", f"must be {MIN_PAYLOAD_BYTES}..{MAX_PAYLOAD_BYTES}"
            )
        codes = MappingProxyType({code: code for code in self.reason_codes})
        models = MappingProxyType({model: model for model in self.models})
        object.__setattr__(self, "_codes", codes)
        object.__setattr__(self, "_models", models)

    def registered_code(self, value: str) -> str | None:
        """Return our own copy of a registered reason code, or None."""
        return self._codes.get(value)

    def registered_model(self, value: ModelRef) -> ModelRef | None:
        """Return our own copy of a registered model, or None."""
        return self._models.get(value)
