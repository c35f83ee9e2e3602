from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_network

import pytest
from simulators.stow_sender import CONTENT_TYPE, client, digest_of

from dicom_node.stow_request import Answer, Head, StoreRequest, StowPolicy, decide_request

PINNED = "ab" * 32
POLICY = StowPolicy(
    clients=(
        client(ae_title="ANYWHERE"),
        client("near", ae_title="NEAR", networks=(ip_network("10.1.0.0/16"),)),
        client("pinned", ae_title="PINNED", certificate_sha256=PINNED),
        client("mute", ae_title="MUTE", may_store=False),
    ),
    path_prefix="/dicom-web",
    max_request_bytes=1_000,
)


def ask(
    *,
    method: str = "POST",
    target: str = "/dicom-web/studies",
    token: str = "a-token-of-the-tests",
    address: str = "192.0.2.1",
    certificate: str | None = None,
    policy: StowPolicy = POLICY,
    **headers: str,
) -> StoreRequest | Answer:
    given = {
        "authorization": f"Bearer {token}",
        "content-type": CONTENT_TYPE,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return decide_request(
        policy,
        Head(
            method=method,
            target=target,
            headers=given,
            address=address,
            certificate_sha256=certificate,
        ),
    )


def status_of(**request: str) -> HTTPStatus:
    answer = ask(**request)  # type: ignore[arg-type]  # any of them
    assert isinstance(answer, Answer)
    return answer.status


def test_a_store_that_may_begin() -> None:
    request = ask()
    assert isinstance(request, StoreRequest)
    assert request.caller.ae_title == "ANYWHERE"
    assert request.caller.address == "192.0.2.1"
    assert request.caller.rule == POLICY.clients[0].rule
    assert request.study_instance_uid == ""
    assert request.boundary == "a-boundary-that-no-image-holds"
    assert request.report_type == "application/dicom+json"


@pytest.mark.parametrize(
    ("target", "study"),
    [
        ("/dicom-web/studies/", ""),
        ("/dicom-web/studies/1.2.3", "1.2.3"),
        ("/dicom-web/studies/1.2.3?x=y", "1.2.3"),
        ("http://door:8080/dicom-web/studies/1.2.3", "1.2.3"),
    ],
)
def test_paths_that_can_be_stored_to(target: str, study: str) -> None:
    request = ask(target=target)
    assert isinstance(request, StoreRequest)
    assert request.study_instance_uid == study


@pytest.mark.parametrize(
    "target",
    [
        "*",
        "/",
        "/studies",
        "/dicom-web",
        "/dicom-web/series",
        "/dicom-webs/studies",
        "/dicom-web/../dicom-web/studies",
        "/dicom-web//studies",
        "/dicom-web/studies/1.2.3/series",
        "/dicom-web/studies/1.2.3/",
        "/dicom-web/%73tudies",
        "//dicom-web/studies",
        "http://[/dicom-web/studies",
    ],
)
def test_other_paths_are_not_found(target: str) -> None:
    assert status_of(target=target) == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("study", ["..", "%2e%2e", "1.2.x", "1..2", "1" * 65, "1.2\u0663"])
def test_a_path_with_something_else_than_a_uid_is_bad(study: str) -> None:
    assert status_of(target=f"/dicom-web/studies/{study}") == HTTPStatus.BAD_REQUEST


def test_a_door_at_the_root() -> None:
    policy = StowPolicy(clients=POLICY.clients, path_prefix="", max_request_bytes=1)
    assert isinstance(ask(target="/studies", policy=policy), StoreRequest)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content_type": ""}, 415),
        ({"content_type": "application/dicom"}, 415),
        ({"content_type": "multipart/related; boundary=b"}, 415),
        ({"content_type": 'multipart/related; type="application/dicom+json"; boundary=b'}, 415),
        ({"content_type": 'multipart/related; type="application/dicom+xml"; boundary=b'}, 415),
        ({"content_type": "multipart/form-data; boundary=b"}, 415),
        ({"content_type": "multipart/related; type=application/dicom"}, 400),
        ({"content_type": 'multipart/related; type="application/dicom"; boundary=""'}, 400),
        ({"content_type": "multipart/related; type=application/dicom; boundary=" + "b" * 201}, 400),
        ({"content_encoding": "gzip"}, 415),
        ({"accept": "application/dicom+xml"}, 406),
        ({"content_length": "1001"}, 413),
        ({"content_length": "9" * 19}, 413),
    ],
)
def test_what_cannot_be_taken_is_told_before_it_is_sent(
    headers: dict[str, str], status: int
) -> None:
    assert status_of(**headers) == status


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/related; type=application/dicom; boundary=b",
        'MULTIPART/RELATED; boundary="b"; TYPE="Application/DICOM"; start="<x>"',
        'multipart/related; type="application/dicom; transfer-syntax=*"; boundary=b',
    ],
)
def test_content_types_as_senders_write_them(content_type: str) -> None:
    request = ask(content_type=content_type, content_encoding="identity", accept="*/*")
    assert isinstance(request, StoreRequest)
    assert request.boundary == "b"


def test_a_token_is_good_only_from_the_clients_network() -> None:
    assert isinstance(ask(token="near", address="10.1.2.3"), StoreRequest)
    assert status_of(token="near", address="10.2.0.1") == HTTPStatus.UNAUTHORIZED


def test_a_token_with_a_pinned_certificate_needs_both() -> None:
    assert isinstance(ask(token="pinned", certificate=PINNED), StoreRequest)
    assert status_of(token="pinned") == HTTPStatus.UNAUTHORIZED
    assert status_of(token="pinned", certificate="cd" * 32) == HTTPStatus.UNAUTHORIZED


def test_the_scheme_is_case_insensitive_and_nothing_but_bearer_counts() -> None:
    token = "a-token-of-the-tests"
    assert isinstance(ask(authorization=f"bEARER  {token} "), StoreRequest)
    for authorization in ("", token, f"Basic {token}", f"Bearer{token}", "Bearer \u20ac"):
        assert status_of(authorization=authorization) == HTTPStatus.UNAUTHORIZED


def test_a_stranger_learns_nothing_about_paths_methods_or_rights() -> None:
    answers = [
        ask(token="wrong", **request)  # type: ignore[arg-type]  # any of them
        for request in (
            {},
            {"method": "GET"},
            {"method": "OPTIONS"},
            {"target": "/elsewhere"},
            {"content_type": "text/html"},
            {"content_length": "9" * 12},
        )
    ]
    assert len(set(map(repr, answers))) == 1
    assert {each.body for each in answers if isinstance(each, Answer)} == {
        b"no valid bearer token for this address; see node.stow.clients\n"
    }


def test_a_client_that_may_not_store_is_forbidden_to() -> None:
    assert status_of(token="mute") == HTTPStatus.FORBIDDEN


def test_the_digest_of_a_token_is_no_token() -> None:
    assert status_of(token=digest_of("a-token-of-the-tests")) == HTTPStatus.UNAUTHORIZED


def test_no_repr_shows_a_token_an_address_or_a_study() -> None:
    request = ask(target="/dicom-web/studies/1.2.3")
    shown = repr(request) + repr(POLICY.clients)
    assert "192.0.2.1" not in shown
    assert "1.2.3" not in shown
    assert digest_of("near") not in shown
