"""Shapes: what a field of an outgoing event may be, as data.

One shape both checks a value and describes itself as JSON Schema, so that the two never differ.
A check compares exact types: a subclass could carry text of its own into the encoder. A refusal
names the field and the rule, never the value.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Annotated, Any, Protocol, TypeGuard, Union, get_args, get_origin, get_type_hints

from telemetry.errors import EgressRefusedError
from telemetry.policy import (
    MODEL_NAME_PATTERN,
    REASON_CODE_PATTERN,
    VERSION_PATTERN,
    EgressPolicy,
    ModelRef,
    Version,
)

JsonValue = Union[None, bool, int, float, str, "list[JsonValue]", "dict[str, JsonValue]"]

HOUR_US = 3_600_000_000
LAST_HOUR_US = 4_102_444_800_000_000 - HOUR_US
"""Up to the year 2100; the lower bound is the epoch, where a device without a clock wakes up."""


class Shape(Protocol):
    """What a value may be."""

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:
        """Return the value as JSON, rebuilt from parts of our own.

        Raises:
            EgressRefusedError: The value is not of this shape; ``path`` names the field.
        """
        ...

    def schema(self) -> dict[str, JsonValue]:
        """Describe the shape as JSON Schema (draft 2020-12)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """True or false."""

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:  # noqa: ARG002 - the shape contract
        """See ``Shape``."""
        if value is True or value is False:
            return value
        raise EgressRefusedError(path, "must be a bool")

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A bounded int."""

    minimum: int
    maximum: int

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:  # noqa: ARG002 - the shape contract
        """See ``Shape``."""
        if type(value) is not int or not self.minimum <= value <= self.maximum:
            raise EgressRefusedError(path, f"must be an int of {self.minimum}..{self.maximum}")
        return value

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A bounded float, no finer than ``decimals``."""

    minimum: float
    maximum: float
    decimals: int

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:  # noqa: ARG002 - the shape contract
        """See ``Shape``."""
        if type(value) is not float or not math.isfinite(value):
            raise EgressRefusedError(path, "must be a finite float")
        if not self.minimum <= value <= self.maximum:
            raise EgressRefusedError(path, f"must lie in {self.minimum}..{self.maximum}")
        if round(value, self.decimals) != value:
            raise EgressRefusedError(path, f"must be rounded to {self.decimals} decimals")
        return value

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        # No multipleOf: 0.07 is no multiple of 0.01 in binary floating point.
        return {"type": "number", "minimum": self.minimum, "maximum": self.maximum}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """Wall-clock microseconds since the epoch (UTC) at a full hour: no finer date may leave."""

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:  # noqa: ARG002 - the shape contract
        """See ``Shape``."""
        if type(value) is not int or not 0 <= value <= LAST_HOUR_US or value % HOUR_US:
            raise EgressRefusedError(path, "must be wall microseconds at a full hour")
        return value

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {"type": "integer", "minimum": 0, "maximum": LAST_HOUR_US, "multipleOf": HOUR_US}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A member of one enum whose values are text."""

    members: type[Enum]

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:  # noqa: ARG002 - the shape contract
        """See ``Shape``."""
        for member in self.members:
            if member is value:
                return str(member.value)
        raise EgressRefusedError(path, f"must be a member of {self.members.__name__}")

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {"type": "string", "enum": [str(member.value) for member in self.members]}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonCode:
    """One of the reason codes that the policy registers."""

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:
        """See ``Shape``."""
        known = policy.registered_code(value) if type(value) is str else None
        if known is None:
            raise EgressRefusedError(path, "must be a registered reason code")
        return known

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {"type": "string", "pattern": REASON_CODE_PATTERN}


def _is_plain_model(value: object) -> TypeGuard[ModelRef]:
    """Tell whether looking the value up runs no code but ours: hashing calls its parts' own."""
    return (
        type(value) is ModelRef
        and type(value.name) is str
        and type(value.version) is Version
        and value.version.is_bounded()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """One of the models that the policy registers."""

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:
        """See ``Shape``."""
        known = policy.registered_model(value) if _is_plain_model(value) else None
        if known is None:
            raise EgressRefusedError(path, "must be a registered model")
        return {"name": known.name, "version": str(known.version)}

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": MODEL_NAME_PATTERN},
                "version": {"type": "string", "pattern": VERSION_PATTERN},
            },
            "required": ["name", "version"],
            "additionalProperties": False,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionNumber:
    """Three bounded numbers, written with dots."""

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:  # noqa: ARG002 - the shape contract
        """See ``Shape``."""
        if type(value) is not Version or not value.is_bounded():
            raise EgressRefusedError(path, "must be a bounded Version")
        return str(value)

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {"type": "string", "pattern": VERSION_PATTERN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """The shape, or nothing."""

    shape: Shape

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:
        """See ``Shape``."""
        return None if value is None else self.shape.check(value, path, policy)

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {"anyOf": [self.shape.schema(), {"type": "null"}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Annotates a tuple with the most items that it may hold."""

    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """A tuple of at most ``maximum`` items."""

    shape: Shape
    maximum: int

    def check(self, value: object, path: str, policy: EgressPolicy) -> JsonValue:
        """See ``Shape``."""
        if type(value) is not tuple or len(value) > self.maximum:
            raise EgressRefusedError(path, f"must be a tuple of at most {self.maximum} items")
        return [self.shape.check(item, f"{path}[{i}]", policy) for i, item in enumerate(value)]

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {"type": "array", "items": self.shape.schema(), "maxItems": self.maximum}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A frozen dataclass whose every field has a shape."""

    cls: type
    shapes: Mapping[str, Shape]

    def check(self, value: object, path: str, policy: EgressPolicy) -> dict[str, JsonValue]:
        """See ``Shape``."""
        if type(value) is not self.cls:
            raise EgressRefusedError(path, f"must be exactly a {self.cls.__name__}")
        return {
            name: shape.check(getattr(value, name), f"{path}.{name}", policy)
            for name, shape in self.shapes.items()
        }

    def schema(self) -> dict[str, JsonValue]:
        """See ``Shape``."""
        return {
            "type": "object",
            "properties": {name: shape.schema() for name, shape in self.shapes.items()},
            "required": list(self.shapes),
            "additionalProperties": False,
        }


def record_of(cls: type) -> Record:
    """Read the shapes of a dataclass from its annotations.

    Raises:
        TypeError: A field is not of a closed type: a bug in the event's definition.
    """
    hints = get_type_hints(cls, include_extras=True)
    return Record(cls=cls, shapes={f.name: _shape_of(hints[f.name]) for f in fields(cls)})


def _shape_of(hint: Any) -> Shape:
    shape: Shape | None = None
    if get_origin(hint) is Annotated:
        shape = _annotated(*get_args(hint))
    elif get_origin(hint) in (Union, types.UnionType):
        present = [part for part in get_args(hint) if part is not type(None)]
        shape = Absent(shape=_shape_of(present[0])) if len(present) == 1 else None
    elif isinstance(hint, type):
        shape = _plain(hint)
    if shape is None:
        raise TypeError(f"{hint!r} is open: annotate it with a shape (telemetry/closed.py)")
    return shape


def _plain(hint: type) -> Shape | None:
    known: dict[type, Shape] = {
        bool: Flag(),
        ModelRef: RegisteredModel(),
        Version: VersionNumber(),
    }
    if hint in known:
        return known[hint]
    if issubclass(hint, Enum):
        return Choice(members=hint)
    return record_of(hint) if is_dataclass(hint) else None


def _annotated(hint: Any, mark: Any) -> Shape | None:
    if isinstance(mark, Length):
        item, _ = get_args(hint)
        return Several(shape=_shape_of(item), maximum=mark.maximum)
    if hint is int and isinstance(mark, (Whole, Hour)):
        return mark
    if hint is float and isinstance(mark, Rounded):
        return mark
    if hint is str and isinstance(mark, ReasonCode):
        return mark
    return None
