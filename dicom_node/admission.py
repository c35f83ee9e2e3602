"""Who may open an association: a pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address


class Rejection(Enum):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
    CALLED_AE_NOT_RECOGNISED = (1, 1, 7)
    LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRule:
    """One peer that may call."""

    ae_title: str
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where it may call from; empty: from anywhere."""
    may_store: bool = True
    """False: C-ECHO only; C-STORE is answered with 0124, not authorised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPolicy:
    """The node's settings that decide about a caller."""

    ae_title: str
    require_called_ae_title: bool = True
    peers: tuple[PeerRule, ...] = ()
    admit_unknown_peers: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The caller may associate."""

    may_store: bool


def decide(
    policy: AdmissionPolicy, *, calling_ae_title: str, called_ae_title: str, address: str
) -> Admitted | Rejection:
    """Decide about a caller.

    A peer that is listed is held to its rule even where unknown peers are admitted: an AE title
    that has an address in the settings cannot be used from another one.

    Args:
        policy: The node's settings.
        calling_ae_title: As sent, without padding.
        called_ae_title: As sent, without padding.
        address: The caller's IP address.
    """
    if policy.require_called_ae_title and called_ae_title != policy.ae_title:
        return Rejection.CALLED_AE_NOT_RECOGNISED
    rules = [rule for rule in policy.peers if rule.ae_title == calling_ae_title]
    for rule in rules:
        if _is_within(address, rule.networks):
            return Admitted(may_store=rule.may_store)
    if not rules and policy.admit_unknown_peers:
        return Admitted(may_store=True)
    return Rejection.CALLING_AE_NOT_RECOGNISED


def _is_within(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    if not networks:
        return True
    found = ip_address(address)
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)
