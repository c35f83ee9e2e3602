"""Headers and identities as JSON columns, and back as frozen values."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from dicom_node.instance import InstanceHeader, StudyIdentity

_HEADER_FIELDS = tuple(field.name for field in dataclasses.fields(InstanceHeader))
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_IDENTITY_FIELDS = tuple(field.name for field in dataclasses.fields(StudyIdentity))


def encode_header(header: InstanceHeader) -> str:
    """Return the header as JSON; absent attributes are left out."""
    values = {
        name: value for name in _HEADER_FIELDS if (value := getattr(header, name)) is not None
    }
    return _ENCODER.encode(values)


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
