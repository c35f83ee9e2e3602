"""Identifiers made by the device: opaque, and the same each time for the same thing.

Deterministic UIDs make delivery idempotent: a report that is rendered again after a crash carries
the UID of the first try, so the PACS keeps one (DESIGN.md section 3.6).
"""

from __future__ import annotations

import hashlib
import uuid

_NAMESPACE = uuid.UUID("6f0b3ad6-0a35-5f0b-9a3c-2f6c3a7d4e11")


def derived_uid(*parts: str | int) -> str:
    """Return a DICOM UID under 2.25 made from ``parts`` (PS3.5 B.2, name-based UUID)."""
    name = "\x1f".join(str(part) for part in parts)
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


def derived_token(*parts: str | int) -> str:
    """Return 24 hex digits made from ``parts``; only for parts that are opaque already."""
    name = "\x1f".join(str(part) for part in parts)
    return hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
