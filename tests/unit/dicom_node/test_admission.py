from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.admission import (
    AdmissionPolicy,
    Admitted,
    Call,
    PeerRule,
    RefusalReason,
    Refused,
    Rejection,
    decide,
    plain_address,
)

_FINGERPRINT, _OTHER = "ab" * 32, "cd" * 32
_CT = PeerRule(ae_title="CT1", networks=(ip_network("10.1.0.0/16"), ip_network("fd00::/8")))
_ECHO = PeerRule(ae_title="ECHO", may_store=False)
_OLD = PeerRule(ae_title="OLD", clear_text=True)
_PINNED = PeerRule(ae_title="PINNED", certificate_sha256=_FINGERPRINT)
_POLICY = AdmissionPolicy(ae_title="NODE", peers=(_CT, _ECHO, _OLD, _PINNED))
_WITH_TLS = replace(_POLICY, requires_tls=True)


def _call(
    calling: str = "CT1",
    called: str = "NODE",
    address: str = "10.1.2.3",
    *,
    certificate: str | None = None,
    is_encrypted: bool = False,
) -> Call:
    return Call(
        calling_ae_title=calling,
        called_ae_title=called,
        address=address,
        is_encrypted=is_encrypted or certificate is not None,
        certificate_sha256=certificate,
    )


@pytest.mark.parametrize(
    ("calling", "called", "address", "expected"),
    [
        ("CT1", "NODE", "10.1.2.3", _CT),
        ("CT1", "NODE", "fd00::7", _CT),
        ("CT1", "NODE", "fd00::7%eth0", _CT),
        ("CT1", "NODE", "::ffff:10.1.2.3", _CT),
        ("ECHO", "NODE", "192.0.2.1", _ECHO),
        ("CT1", "NODE", "10.2.0.1", RefusalReason.ADDRESS),
        ("ct1", "NODE", "10.1.2.3", RefusalReason.CALLING_AE_TITLE),
        ("CT2", "NODE", "10.1.2.3", RefusalReason.CALLING_AE_TITLE),
        ("CT1", "OTHER", "10.1.2.3", RefusalReason.CALLED_AE_TITLE),
        ("CT2", "OTHER", "10.1.2.3", RefusalReason.CALLED_AE_TITLE),
    ],
)
def test_caller_is_admitted_by_title_and_address(
    calling: str, called: str, address: str, expected: PeerRule | RefusalReason
) -> None:
    wanted = Admitted(rule=expected) if isinstance(expected, PeerRule) else Refused(reason=expected)
    assert decide(_POLICY, _call(calling, called, address)) == wanted


def test_listed_title_cannot_be_borrowed_even_where_unknown_peers_are_admitted() -> None:
    policy = replace(_POLICY, admit_unknown_peers=True)
    assert decide(policy, _call("CT1", address="192.0.2.1")) == Refused(
        reason=RefusalReason.ADDRESS
    )
    unknown = decide(policy, _call("X", address="192.0.2.1"))
    assert unknown == Admitted(rule=PeerRule(ae_title="X"))


def test_called_title_may_be_left_unchecked() -> None:
    policy = AdmissionPolicy(
        ae_title="NODE", require_called_ae_title=False, admit_unknown_peers=True
    )
    assert isinstance(decide(policy, _call("X", "Y")), Admitted)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (_call("CT1", is_encrypted=True), _CT),
        (_call("CT1"), RefusalReason.CLEAR_TEXT),
        (_call("OLD"), _OLD),
        (_call("OLD", is_encrypted=True), _OLD),
        (_call("PINNED", certificate=_FINGERPRINT), _PINNED),
        (_call("PINNED", certificate=_OTHER), RefusalReason.CERTIFICATE),
        (_call("PINNED", is_encrypted=True), RefusalReason.CERTIFICATE),
        (_call("PINNED"), RefusalReason.CLEAR_TEXT),
    ],
)
def test_clear_text_and_certificates_count_once_the_node_has_a_certificate(
    call: Call, expected: PeerRule | RefusalReason
) -> None:
    wanted = Admitted(rule=expected) if isinstance(expected, PeerRule) else Refused(reason=expected)
    assert decide(_WITH_TLS, call) == wanted


def test_a_pinned_title_never_comes_in_clear_text() -> None:
    for policy in (_POLICY, _WITH_TLS):
        for rule in (_PINNED, replace(_PINNED, clear_text=True)):
            decision = decide(replace(policy, peers=(rule,)), _call("PINNED"))
            assert isinstance(decision, Refused)


def test_unknown_peers_have_to_use_tls_where_the_node_has_a_certificate() -> None:
    policy = AdmissionPolicy(ae_title="NODE", admit_unknown_peers=True, requires_tls=True)
    assert decide(policy, _call("X")) == Refused(reason=RefusalReason.CLEAR_TEXT)
    assert isinstance(decide(policy, _call("X", is_encrypted=True)), Admitted)


def test_the_reason_is_that_of_the_rule_which_fits_best() -> None:
    elsewhere = PeerRule(ae_title="PINNED", networks=(ip_network("192.0.2.0/24"),))
    for peers in ((elsewhere, _PINNED), (_PINNED, elsewhere)):
        policy = replace(_WITH_TLS, peers=peers)
        decision = decide(policy, _call("PINNED", certificate=_OTHER))
        assert decision == Refused(reason=RefusalReason.CERTIFICATE)


def test_a_caller_is_told_no_more_than_which_title_is_wrong() -> None:
    told = {reason: Refused(reason=reason).rejection for reason in RefusalReason}
    assert told.pop(RefusalReason.CALLED_AE_TITLE) is Rejection.CALLED_AE_NOT_RECOGNISED
    assert set(told.values()) == {Rejection.CALLING_AE_NOT_RECOGNISED}


_TITLES = st.sampled_from(["CT1", "ECHO", "OLD", "PINNED", "X"])


@given(
    calling=_TITLES,
    called=st.sampled_from(["NODE", "OTHER"]),
    address=st.ip_addresses().map(str),
    certificate=st.sampled_from([None, _FINGERPRINT, _OTHER]),
    is_encrypted=st.booleans(),
)
def test_a_node_with_a_certificate_lets_in_clear_text_only_where_a_rule_says_so(
    calling: str, called: str, address: str, certificate: str | None, is_encrypted: bool
) -> None:
    call = _call(calling, called, address, certificate=certificate, is_encrypted=is_encrypted)
    decision = decide(replace(_WITH_TLS, admit_unknown_peers=True), call)
    if isinstance(decision, Admitted):
        assert call.is_encrypted or decision.rule.clear_text
        assert decision.rule.ae_title == calling
        assert called == "NODE"


@pytest.mark.parametrize(
    ("given_address", "plain"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("FD00:0::1", "fd00::1"),
    ],
)
def test_an_address_is_written_as_the_settings_take_it(given_address: str, plain: str) -> None:
    assert plain_address(given_address) == plain


def test_no_text_of_a_call_shows_who_called() -> None:
    call = _call("CANARY", "CANARY", "192.0.2.99", certificate=_FINGERPRINT)
    assert "CANARY" not in repr(call)
    assert "192.0.2.99" not in repr(call)
