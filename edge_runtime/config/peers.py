"""Who may call us, and whom we call."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from edge_runtime.config.fields import AeTitle, Host, Network, Port, Section, Sha256


class PeerSettings(Section):
    """A DICOM application entity that we call."""

    ae_title: AeTitle = Field(description="Its application entity title")
    host: Host = Field(description="Its name or address")
    port: Port = Field(description="Its TCP port")
    tls: bool = Field(
        default=False,
        description="Call it by TLS, with the certificate of node.tls if there is one",
    )
    ca_file: Path | None = Field(
        default=None,
        description="Authorities of its certificate; none: node.tls.ca_file, else the system's",
    )
    tls_name: Host | None = Field(
        default=None, description="The name in its certificate, where it is not the host"
    )

    @model_validator(mode="after")
    def _tls_is_on(self) -> PeerSettings:
        if not self.tls and (self.ca_file is not None or self.tls_name is not None):
            raise ValueError("'ca_file' and 'tls_name' mean nothing without 'tls = true'")
        return self


class CoercionSettings(Section):
    """One attribute that we set in every instance of a caller."""

    attribute: Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9]{1,63}$", max_length=64)] = Field(
        description="Keyword of the attribute, for example InstitutionName"
    )
    value: Annotated[str, Field(max_length=64)] = Field(
        default="", description="Its value; empty empties the attribute"
    )


class CallerSettings(Section):
    """A DICOM application entity that may call us."""

    ae_title: AeTitle = Field(description="Its calling AE title")
    address: Network | None = Field(
        default=None, description="Its address or CIDR block; none means any address"
    )
    may_store: bool = Field(
        default=True, description="false: C-ECHO only, stores are refused with 0124"
    )
    clear_text: bool = Field(
        default=False, description="It may call without TLS although the node has a certificate"
    )
    certificate_sha256: Sha256 | None = Field(
        default=None, description="Fingerprint of its client certificate; none means any trusted"
    )
    storage_commitment: bool = Field(
        default=True, description="Answer its storage commitment requests"
    )
    report_to: PeerSettings | None = Field(
        default=None,
        description="Where its storage commitment reports go; none: to where it called from, at "
        "node.commitment.report_port",
    )
    forward: bool = Field(
        default=True, description="Forward its studies, where outputs.forward is set up"
    )
    quota_bytes: Annotated[int, Field(ge=1_048_576, le=1_099_511_627_776)] | None = Field(
        default=None, description="Most bytes that we hold of it; beyond, A700; none: no limit"
    )
    coercions: tuple[CoercionSettings, ...] = Field(
        default=(), max_length=16, description="Attributes that we set, answered with B000"
    )

    @model_validator(mode="after")
    def _pin_needs_tls(self) -> CallerSettings:
        if self.clear_text and self.certificate_sha256 is not None:
            raise ValueError("a caller with 'certificate_sha256' cannot have 'clear_text' as well")
        return self
