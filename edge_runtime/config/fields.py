"""What settings are made of: closed sections, and the types of their fields."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)


def _ip_address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


def _ip_network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


# PS3.5 6.2, AE: printable ASCII but the backslash; spaces at either end mean nothing.
AeTitle = Annotated[
    str,
    Field(
        pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$",
        min_length=1,
        max_length=16,
    ),
]
Port = Annotated[int, Field(ge=1, le=65_535)]

Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_.:\-]+$")]
Address = Annotated[
    str,
    Field(min_length=2, max_length=45, pattern=r"^[0-9A-Fa-f.:]+$"),
    AfterValidator(_ip_address),
]
Network = Annotated[
    str,
    Field(min_length=2, max_length=49, pattern=r"^[0-9A-Fa-f.:/]+$"),
    AfterValidator(_ip_network),
]


Uid = Annotated[str, Field(pattern=r"^[0-2](\.(0|[1-9]\d*))+$", max_length=64)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]


FindingKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,63}\.[a-z][a-z0-9_]{1,63}$")]
"""A finding of a model package: package.finding."""
Threshold = Annotated[float, Field(gt=0, lt=1)]
"""A probability at or above which a finding is suspected."""


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """TOML has types: ``port = true`` and ``tls = "off"`` are mistakes, not 1 and false."""
        is_switch = cls.model_fields[info.field_name or ""].annotation is bool
        if is_switch and not isinstance(value, bool):
            raise ValueError("must be true or false, without quotes")
        if isinstance(value, bool) and not is_switch:
            raise ValueError("must not be true or false")
        return value
