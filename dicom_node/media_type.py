"""Media types as HTTP and MIME headers write them (RFC 9110 8.3.1, RFC 2045 5.1); all pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_ESSENCE = re.compile(rf"\s*({_NAME}/{_NAME})\s*")
# RFC 2387 has the type parameter quoted, since it holds a slash; many senders leave the quotes out.
_PARAMETER = re.compile(rf';\s*(?:({_NAME})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))\s*)?')
_ESCAPED = re.compile(r"\\(.)")
# Real ones stay below 300.
_MAX_CHARACTERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaType:
    """One media type."""

    essence: str
    """``type/subtype`` in lower case."""
    parameters: Mapping[str, str]
    """By name in lower case; values as written, without quotes."""


def parse_media_type(text: str) -> MediaType | None:
    """Read one media type; None if ``text`` is none, is too long, or says a parameter twice."""
    found = _ESSENCE.match(text) if len(text) <= _MAX_CHARACTERS else None
    if found is None:
        return None
    parameters: dict[str, str] = {}
    position = found.end()
    while position < len(text):
        parameter = _PARAMETER.match(text, position)
        if parameter is None:
            return None
        position = parameter.end()
        name, quoted, plain = parameter.groups()
        if name is None:
            continue  # a semicolon with nothing behind it
        if name.lower() in parameters:
            return None
        parameters[name.lower()] = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
    return MediaType(essence=found.group(1).lower(), parameters=parameters)


def accepted_type(accept: str, offers: tuple[str, ...]) -> str | None:
    """Choose what to answer with.

    Args:
        accept: The Accept header; "" accepts everything (RFC 9110 12.5.1).
        offers: Media types that can be had, the preferred one first.

    Returns:
        The first offer that is accepted, or None.
    """
    if not accept.strip():
        return offers[0]
    ranges = set()
    for item in accept.split(","):
        wanted = parse_media_type(item)
        if wanted is not None and not _is_refused(wanted.parameters.get("q", "1")):
            ranges.add(wanted.essence)
    for offer in offers:
        if ranges & {offer, f"{offer.partition('/')[0]}/*", "*/*"}:
            return offer
    return None


def _is_refused(quality: str) -> bool:
    """A weight of nought means "not acceptable" (RFC 9110 12.4.2)."""
    return re.fullmatch(r"0(\.0{0,3})?", quality.strip()) is not None
