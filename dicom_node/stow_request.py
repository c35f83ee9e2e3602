"""What is asked of the STOW-RS door, and whether it may be: a pure decision over the head.

Nothing of a body is read before this has said yes. Whoever shows no valid token learns nothing
but that: not which paths, methods or media types there are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit

from dicom_node.admission import AdmissionPolicy, Admitted, Call, PeerRule, decide
from dicom_node.media_type import accepted_type, parse_media_type
from dicom_node.multipart import is_valid_boundary
from dicom_node.reception import Caller
from dicom_node.uids import is_valid_uid

DICOM = "application/dicom"
_REPORT_TYPES = ("application/dicom+json", "application/json")
_METHODS = "OPTIONS, POST"
_DIGITS = re.compile(r"\d{1,19}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StowClient:
    """Who may come in by this door."""

    token_sha256: str = field(repr=False)
    """SHA-256 of its bearer token in lower-case hex; the token itself is with the client only."""
    rule: PeerRule
    """What holds for it; its AE title is what the index and the stored files call the sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StowPolicy:
    """What the decision depends on, besides the request."""

    clients: Sequence[StowClient] = ()
    path_prefix: str = ""
    """Without a slash at its end, for example /dicom-web."""
    max_request_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a request and the connection that it came on."""

    method: str
    target: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    """By name in lower case; what stands there twice is joined with a comma (RFC 9110 5.3)."""
    address: str = field(repr=False)
    is_encrypted: bool = False
    certificate_sha256: str | None = None

    def header(self, name: str) -> str:
        """The value of a header; "" if it is absent."""
        return self.headers.get(name, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequest:
    """A Store transaction that may begin (PS3.18 10.5)."""

    caller: Caller
    study_instance_uid: str = field(repr=False)
    """The only study that may be stored into; "" for any."""
    boundary: str
    report_type: str
    """Media type of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole response."""

    status: HTTPStatus
    body: bytes = field(default=b"", repr=False)
    headers: tuple[tuple[str, str], ...] = ()


def refusal(status: HTTPStatus, remedy: str, *headers: tuple[str, str]) -> Answer:
    """An answer in words, for the person who sets up the sender."""
    content_type = ("Content-Type", "text/plain; charset=utf-8")
    return Answer(status=status, body=f"{remedy}\n".encode(), headers=(content_type, *headers))


def decide_request(policy: StowPolicy, head: Head) -> StoreRequest | Answer:
    """Decide about a request before its body is read."""
    rule = _authenticated(policy.clients, head)
    if rule is None:
        return refusal(
            HTTPStatus.UNAUTHORIZED,
            "no valid bearer token for this address; see node.stow.clients",
            ("WWW-Authenticate", "Bearer"),
        )
    if not rule.may_store:
        return refusal(HTTPStatus.FORBIDDEN, "this client may not store; see node.stow.clients")
    study = _study_of(policy, head.target)
    if isinstance(study, Answer):
        return study
    if head.method == "OPTIONS":
        return Answer(status=HTTPStatus.OK, headers=(("Allow", _METHODS),))
    if head.method != "POST":
        return refusal(
            HTTPStatus.METHOD_NOT_ALLOWED,
            "this door only stores: there is nothing to query or to retrieve",
            ("Allow", _METHODS),
        )
    caller = Caller(ae_title=rule.ae_title, address=head.address, rule=rule)
    return _content_of(policy, head, caller, study)


def _authenticated(clients: Sequence[StowClient], head: Head) -> PeerRule | None:
    """The rule of whoever holds the token (RFC 6750 2.1), if it may be used from here."""
    scheme, _, token = head.header("authorization").partition(" ")
    if scheme.lower() != "bearer":
        return None
    digest = hashlib.sha256(token.strip().encode("latin-1", "replace")).hexdigest()
    # All are compared, each in constant time: the answer's delay says nothing about a near miss.
    matches = [each for each in clients if hmac.compare_digest(each.token_sha256, digest)]
    for client in matches:
        policy = AdmissionPolicy(ae_title="", require_called_ae_title=False, peers=(client.rule,))
        call = Call(
            calling_ae_title=client.rule.ae_title,
            called_ae_title="",
            address=head.address,
            is_encrypted=head.is_encrypted,
            certificate_sha256=head.certificate_sha256,
        )
        decision = decide(policy, call)
        if isinstance(decision, Admitted):
            return decision.rule
    return None


def _study_of(policy: StowPolicy, target: str) -> str | Answer:
    """The study that a path is for, "" for any (PS3.18 10.5.1, Table 10.5.1-1)."""
    not_found = refusal(
        HTTPStatus.NOT_FOUND,
        f"store to {policy.path_prefix}/studies or {policy.path_prefix}/studies/(study UID)",
    )
    try:
        path = urlsplit(target).path
    except ValueError:
        return not_found
    if not path.startswith(f"{policy.path_prefix}/"):
        return not_found
    resource, *rest = path[len(policy.path_prefix) + 1 :].split("/")
    if resource != "studies" or len(rest) > 1:
        return not_found
    study = "".join(rest)
    if study and not is_valid_uid(study):
        return refusal(HTTPStatus.BAD_REQUEST, "the path names no valid Study Instance UID")
    return study


def _content_of(
    policy: StowPolicy, head: Head, caller: Caller, study: str
) -> StoreRequest | Answer:
    """Check what the headers say about the body and the answer."""
    boundary = _boundary_of(head)
    if isinstance(boundary, Answer):
        return boundary
    report_type = accepted_type(head.header("accept"), _REPORT_TYPES)
    if report_type is None:
        return refusal(
            HTTPStatus.NOT_ACCEPTABLE, "the answer is application/dicom+json; accept that"
        )
    length = head.header("content-length")
    if _DIGITS.fullmatch(length) and int(length) > policy.max_request_bytes:
        return refusal(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large; send the study in several requests"
        )
    return StoreRequest(
        caller=caller,
        study_instance_uid=study,
        boundary=boundary,
        report_type=report_type,
    )


def _boundary_of(head: Head) -> str | Answer:
    """The boundary of a body of whole DICOM files (PS3.18 8.7.1, RFC 2387)."""
    content = parse_media_type(head.header("content-type"))
    if content is None or content.essence != "multipart/related":
        return refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            'send Content-Type: multipart/related; type="application/dicom"; boundary=...',
        )
    root = parse_media_type(content.parameters.get("type", ""))
    if root is None or root.essence != DICOM:
        return refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            'send whole files, type="application/dicom"; metadata with bulk data is not taken',
        )
    if head.header("content-encoding").strip().lower() not in {"", "identity"}:
        return refusal(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "send the body without Content-Encoding",
            ("Accept-Encoding", "identity"),
        )
    boundary = content.parameters.get("boundary", "")
    if not is_valid_boundary(boundary):
        return refusal(HTTPStatus.BAD_REQUEST, "Content-Type names no valid boundary (RFC 2046)")
    return boundary
