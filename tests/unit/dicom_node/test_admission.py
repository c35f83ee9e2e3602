from __future__ import annotations

from ipaddress import ip_network

import pytest

from dicom_node.admission import AdmissionPolicy, Admitted, PeerRule, Rejection, decide

_POLICY = AdmissionPolicy(
    ae_title="NODE",
    peers=(
        PeerRule(ae_title="CT1", networks=(ip_network("10.1.0.0/16"), ip_network("fd00::/8"))),
        PeerRule(ae_title="ECHO", may_store=False),
    ),
)


@pytest.mark.parametrize(
    ("calling", "called", "address", "expected"),
    [
        ("CT1", "NODE", "10.1.2.3", Admitted(may_store=True)),
        ("CT1", "NODE", "fd00::7", Admitted(may_store=True)),
        ("CT1", "NODE", "::ffff:10.1.2.3", Admitted(may_store=True)),
        ("ECHO", "NODE", "192.0.2.1", Admitted(may_store=False)),
        ("CT1", "NODE", "10.2.0.1", Rejection.CALLING_AE_NOT_RECOGNISED),
        ("ct1", "NODE", "10.1.2.3", Rejection.CALLING_AE_NOT_RECOGNISED),
        ("CT2", "NODE", "10.1.2.3", Rejection.CALLING_AE_NOT_RECOGNISED),
        ("CT1", "OTHER", "10.1.2.3", Rejection.CALLED_AE_NOT_RECOGNISED),
        ("CT2", "OTHER", "10.1.2.3", Rejection.CALLED_AE_NOT_RECOGNISED),
    ],
)
def test_caller_is_admitted_by_title_and_address(
    calling: str, called: str, address: str, expected: Admitted | Rejection
) -> None:
    decision = decide(_POLICY, calling_ae_title=calling, called_ae_title=called, address=address)
    assert decision == expected


def test_listed_title_cannot_be_borrowed_even_where_unknown_peers_are_admitted() -> None:
    policy = AdmissionPolicy(ae_title="NODE", peers=_POLICY.peers, admit_unknown_peers=True)
    borrowed = decide(policy, calling_ae_title="CT1", called_ae_title="NODE", address="192.0.2.1")
    assert borrowed is Rejection.CALLING_AE_NOT_RECOGNISED
    unknown = decide(policy, calling_ae_title="X", called_ae_title="NODE", address="192.0.2.1")
    assert unknown == Admitted(may_store=True)


def test_called_title_may_be_left_unchecked() -> None:
    policy = AdmissionPolicy(
        ae_title="NODE", require_called_ae_title=False, admit_unknown_peers=True
    )
    decision = decide(policy, calling_ae_title="X", called_ae_title="Y", address="192.0.2.1")
    assert decision == Admitted(may_store=True)
