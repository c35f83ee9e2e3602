"""The storage node: its doors, its services, and their bounds."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from edge_runtime.config.fields import Address, AeTitle, Network, Port, Section, Sha256, Uid
from edge_runtime.config.peers import CallerSettings, CoercionSettings

# Four segments, each of which holds a few files.
_LEAST_JOURNAL_BYTES = 4 << 20


class NodeTlsSettings(Section):
    """A second port of the storage SCP, for TLS."""

    port: Port = Field(default=2762, description="TCP port")
    certificate_file: Path = Field(description="Our certificate, with those between it and a root")
    key_file: Path = Field(description="Its private key, without a pass phrase")
    ca_file: Path | None = Field(
        default=None, description="Authorities whose certificates callers may show"
    )
    require_client_certificate: bool = Field(
        default=True, description="Callers have to show a certificate"
    )
    only: bool = Field(default=False, description="No port for clear text at all")

    @model_validator(mode="after")
    def _somebody_is_trusted(self) -> NodeTlsSettings:
        if self.require_client_certificate and self.ca_file is None:
            raise ValueError(
                "'require_client_certificate' needs 'ca_file': whose certificates are trusted?"
            )
        return self


class StowClientSettings(Section):
    """A sender that may store by STOW-RS."""

    name: AeTitle = Field(description="What the index calls it; shaped like an AE title")
    token_sha256: Sha256 = Field(
        description="SHA-256 of its bearer token; the token itself is with the sender only"
    )
    address: Network | None = Field(
        default=None, description="Its address or CIDR block; none means any address"
    )
    may_store: bool = Field(
        default=True, description="false: it is known, but each request gets 403"
    )
    certificate_sha256: Sha256 | None = Field(
        default=None, description="Fingerprint of its client certificate; none asks for none"
    )
    quota_bytes: Annotated[int, Field(ge=1_048_576, le=1_099_511_627_776)] | None = Field(
        default=None, description="Most bytes that we hold of it; none: no limit"
    )
    coercions: tuple[CoercionSettings, ...] = Field(
        default=(), max_length=16, description="Attributes that we set, answered with B000"
    )


class StowSettings(Section):
    """The second door: DICOMweb STOW-RS, for senders that have no DIMSE."""

    enabled: bool = Field(default=False, description="Open the door")
    bind: Address = Field(default="127.0.0.1", description="Address to listen on")
    port: Port = Field(default=11180, description="TCP port")
    path_prefix: Annotated[str, Field(max_length=64, pattern=r"^(/[A-Za-z0-9._~-]+)*$")] = Field(
        default="/dicom-web", description="What stands before /studies in the path"
    )
    allow_clear_text: bool = Field(
        default=False, description="Tokens and images may pass the network without TLS"
    )
    clients: tuple[StowClientSettings, ...] = Field(
        default=(), max_length=64, description="Who may store; nobody else is answered"
    )
    max_requests: Annotated[int, Field(ge=1, le=64)] = Field(
        default=4, description="Requests that store at the same time; one more gets 503"
    )
    max_instances_per_request: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=5_000, description="Instances in one request; the rest of a larger one is not read"
    )
    idle_timeout_s: Annotated[float, Field(ge=1, le=3_600)] = Field(
        default=30.0, description="A request whose body stops for longer is cut off"
    )
    min_bytes_per_s: Annotated[int, Field(ge=1, le=1_048_576)] = Field(
        default=1_024, description="A sender that stays slower for 20 s is cut off"
    )

    @model_validator(mode="after")
    def _clients_differ(self) -> StowSettings:
        if self.enabled and not self.clients:
            raise ValueError("'enabled' needs at least one of 'clients'; nobody could store")
        for key in ("name", "token_sha256"):
            if len({getattr(client, key) for client in self.clients}) < len(self.clients):
                raise ValueError(f"two clients have the same '{key}'; give each its own")
        return self


class CommitmentSettings(Section):
    """Storage commitment: which requests we take, and what a report promises."""

    report_port: Port = Field(
        default=104, description="TCP port for reports to callers without a 'report_to'"
    )
    patience_s: Annotated[float, Field(ge=0, le=3_600)] = Field(
        default=30.0, description="An instance that is not here yet is waited for this long"
    )
    hold_s: Annotated[float, Field(ge=0, le=2_678_400)] = Field(
        default=86_400.0, description="Retention keeps what was committed at least this long"
    )
    max_references: Annotated[int, Field(ge=1, le=50_000)] = Field(
        default=50_000, description="Instances in one request; a larger one is refused with 0213"
    )
    max_open: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=1_000, description="Reports that are owed at a time; one more is refused with 0213"
    )


class MppsSettings(Section):
    """Modality performed procedure steps."""

    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=10_000, description="Steps that are kept; the oldest without a study make room"
    )
    keep_s: Annotated[float, Field(ge=60, le=31_536_000)] = Field(
        default=604_800.0, description="Steps whose study is not here are forgotten after this time"
    )


class NodeSettings(Section):
    """The storage SCP."""

    ae_title: AeTitle = Field(default="EDGETRIAGE", description="Our application entity title")
    bind: Address = Field(default="0.0.0.0", description="Address to listen on")  # noqa: S104 - a scanner calls from the network
    port: Port = Field(default=11112, description="TCP port")
    require_called_ae_title: bool = Field(
        default=True, description="Refuse associations that call another title"
    )
    callers: tuple[CallerSettings, ...] = Field(
        default=(),
        max_length=256,
        description="Who may call; an empty list admits everyone, but nobody while learning",
    )
    learning: bool = Field(
        default=False,
        description="Note who calls without being listed; `edge-triage callers` shows them",
    )
    tls: NodeTlsSettings | None = Field(
        default=None, description="A second port for TLS; clear text is then by permission only"
    )
    max_associations: Annotated[int, Field(ge=1, le=256)] = Field(
        default=32, description="Associations at a time; one more is refused as transient"
    )
    max_pdu_bytes: Annotated[int, Field(ge=16_384, le=1_048_576)] = Field(
        default=262_144, description="Largest PDU that we accept"
    )
    idle_timeout_s: Annotated[float, Field(ge=5, le=86_400)] = Field(
        default=3_600.0, description="An association that is silent for longer is aborted"
    )
    min_free_bytes: Annotated[int, Field(ge=0, le=1_099_511_627_776)] = Field(
        default=1_073_741_824, description="Disk reserve: below it stores are refused with A700"
    )
    journal_bytes: Annotated[int, Field(ge=0, le=4_294_967_296)] = Field(
        default=134_217_728,
        description="Size of the journal in front of the files; 0: each file is synced by itself",
    )
    max_instance_bytes: Annotated[int, Field(ge=1_048_576, le=68_719_476_736)] = Field(
        default=8_589_934_592, description="A larger instance is refused with A700"
    )
    private_sop_classes: tuple[Uid, ...] = Field(
        default=(), max_length=64, description="Storage classes beyond the standard's to accept"
    )
    max_pending_per_address: Annotated[int, Field(ge=1, le=256)] = Field(
        default=32, description="Connections of one address that have not associated yet"
    )
    fast_path: bool = Field(
        default=True,
        description="Data sets go straight from the socket to the disk; false: the library's way",
    )
    stow: StowSettings = Field(
        default=StowSettings(), description="The second door: DICOMweb STOW-RS"
    )

    @model_validator(mode="after")
    def _tls_fits(self) -> NodeSettings:
        tls = self.tls
        pinned = any(caller.certificate_sha256 is not None for caller in self.callers)
        if tls is None:
            if pinned:
                raise ValueError("'certificate_sha256' of a caller needs the section node.tls")
            return self
        if pinned and tls.ca_file is None:
            raise ValueError("'certificate_sha256' of a caller needs 'ca_file' in node.tls")
        if tls.only and any(caller.clear_text for caller in self.callers):
            raise ValueError("callers with 'clear_text' cannot call while node.tls has 'only'")
        if not tls.only and tls.port == self.port:
            raise ValueError("node.port and node.tls.port have to differ")
        return self

    @field_validator("journal_bytes")
    @classmethod
    def _journal_holds_files(cls, size: int) -> int:
        if 0 < size < _LEAST_JOURNAL_BYTES:
            raise ValueError(f"a journal has at least {_LEAST_JOURNAL_BYTES} bytes; 0 is none")
        return size

    @model_validator(mode="after")
    def _stow_fits(self) -> NodeSettings:
        stow = self.stow
        if not stow.enabled:
            return self
        if stow.port in {self.port, self.tls.port if self.tls else 0}:
            raise ValueError("node.stow.port has to differ from the node's other ports")
        is_local = ipaddress.ip_address(stow.bind).is_loopback
        if self.tls is None and not is_local and not stow.allow_clear_text:
            raise ValueError(
                "node.stow would take tokens in clear text: give node.tls a certificate, bind the "
                "door to 127.0.0.1, or set node.stow.allow_clear_text"
            )
        pinned = any(client.certificate_sha256 is not None for client in stow.clients)
        if pinned and (self.tls is None or self.tls.ca_file is None):
            raise ValueError("'certificate_sha256' of a client needs 'ca_file' in node.tls")
        return self

    commitment: CommitmentSettings = Field(
        default=CommitmentSettings(), description="Storage commitment"
    )
    mpps: MppsSettings = Field(
        default=MppsSettings(), description="Modality performed procedure steps"
    )
