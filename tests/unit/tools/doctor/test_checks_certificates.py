from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.certificates import Authority, Identity, KeyKind, Purpose

from tools.doctor.checks_certificates import check_node_certificates, judge_end
from tools.doctor.findings import Context, Finding, Status

MakeContext = Callable[..., Context]
Examine = Callable[..., Finding]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def examine(make_context: MakeContext, authority: Authority) -> Examine:
    """Judge the node's certificate; keyword arguments are keys of node.tls."""

    def judge(node: Identity, **keys: object) -> Finding:
        tls = {
            "certificate_file": str(node.certificate_file),
            "key_file": str(node.key_file),
            "ca_file": str(authority.ca_file),
        }
        return check_node_certificates(make_context(node={"tls": {**tls, **keys}}))

    return judge


def test_a_node_without_tls_is_fine(make_context: MakeContext) -> None:
    found = check_node_certificates(make_context())
    assert found.status is Status.OK
    assert "clear text only" in found.found


@pytest.mark.parametrize("kind", [KeyKind.RSA, KeyKind.ECDSA])
def test_a_good_certificate_is_fine_with_its_days(
    examine: Examine, authority: Authority, kind: KeyKind
) -> None:
    found = examine(authority.issue("node", kind=kind, valid_days=90.2))
    assert found.status is Status.OK
    assert "valid for 90 more days" in found.found


@pytest.mark.parametrize(
    ("valid_days", "status", "words"),
    [
        (-2.0, Status.FAILED, "has expired"),
        (29.0, Status.WARNING, "expires in 29 days"),
        (31.0, Status.OK, "31 more days"),
    ],
)
def test_the_end_of_the_certificate_is_seen_coming(
    examine: Examine, authority: Authority, valid_days: float, status: Status, words: str
) -> None:
    found = examine(authority.issue("node", valid_days=valid_days))
    assert found.status is status
    assert words in found.found
    assert (found.remedy is None) == (status is Status.OK)


def test_a_key_of_another_certificate_fails(examine: Examine, authority: Authority) -> None:
    node, other = authority.issue("node"), authority.issue("other")
    found = examine(node, key_file=str(other.key_file))
    assert found.status is Status.FAILED
    assert "is not the key of" in found.found


@pytest.mark.parametrize("key", ["certificate_file", "key_file", "ca_file"])
def test_a_file_that_is_missing_fails_and_is_named(
    examine: Examine, authority: Authority, tmp_path: Path, key: str
) -> None:
    found = examine(authority.issue("node"), **{key: str(tmp_path / "gone.pem")})
    assert found.status is Status.FAILED
    assert "gone.pem" in found.found
    assert f"node.tls.{key}" in (found.remedy or "")


def test_authorities_that_are_none_fail(examine: Examine, authority: Authority) -> None:
    node = authority.issue("node")
    found = examine(node, ca_file=str(node.certificate_file))
    assert found.status is Status.FAILED
    assert "none of an authority" in found.found


def test_the_end_of_an_authority_is_seen_coming(
    examine: Examine, authority: Authority, tmp_path: Path
) -> None:
    ending = Authority(tmp_path, "ending", valid_days=5)
    found = examine(authority.issue("node"), ca_file=str(ending.ca_file))
    assert found.status is Status.WARNING
    assert "ending.pem expires in 5 days" in found.found


def test_a_key_that_is_too_short_fails(examine: Examine, authority: Authority) -> None:
    found = examine(authority.issue("node", kind=KeyKind.WEAK_RSA))
    assert found.status is Status.FAILED
    assert "2048 bits" in found.found


@pytest.mark.parametrize(
    ("mode", "status"), [(0o600, Status.OK), (0o640, Status.WARNING), (0o604, Status.WARNING)]
)
def test_a_key_that_others_may_read_is_a_warning(
    examine: Examine, authority: Authority, mode: int, status: Status
) -> None:
    node = authority.issue("node")
    node.key_file.chmod(mode)
    found = examine(node)
    assert found.status is status
    assert (f"mode {mode:03o}" in found.found) == (status is Status.WARNING)


def test_a_node_that_asks_callers_for_nothing_needs_no_authorities(
    make_context: MakeContext, authority: Authority
) -> None:
    node = authority.issue("node")
    tls = {
        "certificate_file": str(node.certificate_file),
        "key_file": str(node.key_file),
        "require_client_certificate": False,
    }
    assert check_node_certificates(make_context(node={"tls": tls})).status is Status.OK


def test_a_certificate_for_clients_only_fails(examine: Examine, authority: Authority) -> None:
    found = examine(authority.issue("node", purpose=Purpose.CLIENT))
    assert found.status is Status.FAILED
    assert "not for servers" in found.found


@pytest.mark.parametrize(
    ("days", "status"), [(-1, Status.FAILED), (29, Status.WARNING), (31, Status.OK)]
)
def test_days_are_judged_alike_for_all(days: float, status: Status) -> None:
    assert judge_end(days, "a certificate", "renew it").status is status
