"""Who may open an association, and on what terms: a pure decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from dicom_node.errors import HandshakeFault


class Rejection(Enum):
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 1, 2)
    CALLING_AE_NOT_RECOGNISED = (1, 1, 3)
    CALLED_AE_NOT_RECOGNISED = (1, 1, 7)
    LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coercion:
    """One attribute that the node sets in every instance of a peer (answered with B000)."""

    keyword: str
    """Of the data dictionary (PS3.6), for example InstitutionName."""
    value: str = field(repr=False)
    """"" empties the attribute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerRule:
    """One peer that may call, and what holds for it."""

    ae_title: str
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where it may call from; empty: from anywhere."""
    may_store: bool = True
    """False: C-ECHO only; C-STORE is answered with 0124, not authorised."""
    clear_text: bool = False
    """It may call without TLS although the node has a certificate."""
    certificate_sha256: str | None = None
    """SHA-256 of its client certificate (DER) in lower-case hex; None: any that is trusted."""
    storage_commitment: bool = True
    """False: commitment requests are refused; some scanners delete their copy after a promise."""
    quota_bytes: int | None = None
    """Most bytes in the spool that came from it; beyond, stores are refused with A700."""
    coercions: tuple[Coercion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionPolicy:
    """The node's settings that decide about a caller."""

    ae_title: str
    require_called_ae_title: bool = True
    peers: tuple[PeerRule, ...] = ()
    admit_unknown_peers: bool = False
    requires_tls: bool = False
    """Calls without TLS are admitted only from peers whose rule allows clear text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request for an association."""

    calling_ae_title: str = field(repr=False)
    """As sent, without padding."""
    called_ae_title: str = field(repr=False)
    """As sent, without padding."""
    address: str = field(repr=False)
    """The caller's IP address."""
    is_encrypted: bool = False
    certificate_sha256: str | None = None
    """SHA-256 of the certificate (DER) that the caller proved in the TLS handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The caller may associate, on the terms of a rule."""

    rule: PeerRule


class RefusalReason(Enum):
    """Why a caller is not admitted; the later ones were nearer to it."""

    CALLED_AE_TITLE = "called_ae_title"
    """It calls another title than the node's."""
    CALLING_AE_TITLE = "calling_ae_title"
    """No rule has its title."""
    ADDRESS = "address"
    """Its title may call from other addresses only."""
    CLEAR_TEXT = "clear_text"
    """It has to use TLS."""
    CERTIFICATE = "certificate"
    """Its title is bound to a certificate that it did not show."""


Reason = RefusalReason | HandshakeFault
"""Why a call came to nothing: refused, or not even a TLS connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The caller may not associate."""

    reason: RefusalReason

    @property
    def rejection(self) -> Rejection:
        """What the caller is told: no more than that its title, or ours, is not known."""
        if self.reason is RefusalReason.CALLED_AE_TITLE:
            return Rejection.CALLED_AE_NOT_RECOGNISED
        return Rejection.CALLING_AE_NOT_RECOGNISED


def decide(policy: AdmissionPolicy, call: Call) -> Admitted | Refused:
    """Decide about a caller.

    A peer that is listed is held to its rule even where unknown peers are admitted: an AE title
    that has an address in the settings cannot be used from another one.
    """
    if policy.require_called_ae_title and call.called_ae_title != policy.ae_title:
        return Refused(reason=RefusalReason.CALLED_AE_TITLE)
    objections = []
    for rule in policy.peers:
        if rule.ae_title == call.calling_ae_title:
            objection = _objection(policy, rule, call)
            if objection is None:
                return Admitted(rule=rule)
            objections.append(objection)
    if objections:
        return Refused(reason=max(objections, key=list(RefusalReason).index))
    if not policy.admit_unknown_peers:
        return Refused(reason=RefusalReason.CALLING_AE_TITLE)
    rule = PeerRule(ae_title=call.calling_ae_title)
    objection = _objection(policy, rule, call)
    return Admitted(rule=rule) if objection is None else Refused(reason=objection)


def _objection(policy: AdmissionPolicy, rule: PeerRule, call: Call) -> RefusalReason | None:
    """What speaks against admitting a caller by this rule, which has its title."""
    if not _is_within(call.address, rule.networks):
        return RefusalReason.ADDRESS
    if policy.requires_tls and not call.is_encrypted and not rule.clear_text:
        return RefusalReason.CLEAR_TEXT
    # A pinned certificate cannot be shown in clear text, so such a call is never the peer's.
    if rule.certificate_sha256 not in {None, call.certificate_sha256}:
        return RefusalReason.CERTIFICATE
    return None


def _is_within(address: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    if not networks:
        return True
    found = ip_address(plain_address(address))
    return any(found in network for network in networks)


def plain_address(address: str) -> str:
    """The address as people write it: IPv4 where it is one, no interface of this machine.

    Raises:
        ValueError: It is no IP address.
    """
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(found)
