"""Headers and identities as JSON columns, and back as frozen values."""

from __future__ import annotations

import dataclasses
import json
from functools import lru_cache
from operator import attrgetter
from typing import Any

from dicom_node.instance import InstanceHeader, StudyIdentity

# What differs from one image of a series to the next; the others are encoded once for them all.
_OWN_FIELDS = ("sop_instance_uid", "instance_number", "image_position_mm", "pixel_data_offset")
_SERIES_FIELDS = tuple(
    field.name for field in dataclasses.fields(InstanceHeader) if field.name not in _OWN_FIELDS
)
_own_values, _series_values = attrgetter(*_OWN_FIELDS), attrgetter(*_SERIES_FIELDS)
_KEPT_SERIES = 32
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_IDENTITY_FIELDS = tuple(field.name for field in dataclasses.fields(StudyIdentity))


def encode_header(header: InstanceHeader) -> str:
    """Return the header as JSON; absent attributes are left out."""
    series = _encode_series(_series_values(header))
    return f"{series[:-1]},{_encode(_OWN_FIELDS, _own_values(header))[1:]}"


@lru_cache(maxsize=_KEPT_SERIES)
def _encode_series(values: tuple[object, ...]) -> str:
    return _encode(_SERIES_FIELDS, values)


def _encode(names: tuple[str, ...], values: tuple[object, ...]) -> str:
    return _ENCODER.encode(
        {name: value for name, value in zip(names, values, strict=True) if value is not None}
    )


def decode_header(text: str) -> InstanceHeader:
    """Return the header that ``encode_header`` wrote."""
    values: dict[str, Any] = json.loads(text)
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = tuple(value)
    return InstanceHeader(**values)


def encode_identity(identity: StudyIdentity) -> str:
    """Return the identity as JSON."""
    return json.dumps({name: getattr(identity, name) for name in _IDENTITY_FIELDS})


def decode_identity(text: str) -> StudyIdentity:
    """Return the identity that ``encode_identity`` wrote."""
    values: dict[str, Any] = json.loads(text)
    return StudyIdentity(**values)
