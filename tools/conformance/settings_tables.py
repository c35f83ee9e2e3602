"""What a site can set, from the settings' own schema."""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from edge_runtime.config import node_settings, settings
from edge_runtime.config import peers as peer_settings
from edge_runtime.config.fields import Section
from tools.conformance.markdown import code, table


def section(kind: type[Section]) -> str:
    """The keys of one section; those that are sections themselves are left out."""
    return table(
        ("Key", "Default", "Bounds", "Meaning"),
        (
            (code(name), _default(field), _bounds(field), field.description or "")
            for name, field in kind.model_fields.items()
            if not _is_section(field)
        ),
    )


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.default, Section)


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined:
        return "to be set"
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, tuple):
        return ", ".join(code(_plain(each)) for each in value)
    return code(_plain(value))


def _plain(value: object) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _bounds(field: FieldInfo) -> str:
    """What the schema's constraints say; those of optional values stand within their union."""
    found: dict[str, object] = {}
    for each in _constraints(field):
        for name in ("ge", "le", "max_length"):
            value = getattr(each, name, None)
            if value is not None:
                found[name] = value
    if "ge" in found and "le" in found:
        return f"{found['ge']} – {found['le']}"
    return f"at most {found['max_length']} long" if "max_length" in found else ""


def _constraints(field: FieldInfo) -> list[object]:
    found = list(field.metadata)
    for choice in getattr(field.annotation, "__args__", ()):
        for each in getattr(choice, "__metadata__", ()):
            found += each.metadata if isinstance(each, FieldInfo) else [each]
    return found


def node() -> str:
    """``[node]``."""
    return section(node_settings.NodeSettings)


def callers() -> str:
    """``[[node.callers]]``."""
    return section(peer_settings.CallerSettings)


def tls() -> str:
    """``[node.tls]``."""
    return section(node_settings.NodeTlsSettings)


def commitment() -> str:
    """``[node.commitment]``."""
    return section(node_settings.CommitmentSettings)


def mpps() -> str:
    """``[node.mpps]``."""
    return section(node_settings.MppsSettings)


def stow() -> str:
    """``[node.stow]``."""
    return section(node_settings.StowSettings)


def stow_clients() -> str:
    """``[[node.stow.clients]]``."""
    return section(node_settings.StowClientSettings)


def peers() -> str:
    """A peer that we call."""
    return section(peer_settings.PeerSettings)


def retry() -> str:
    """``[courier.retry]``."""
    return section(settings.RetrySettings)
