"""Every setting of a device: closed, frozen, with bounds, a unit and a default.

Units stand in the names: ``_s`` seconds, ``_bytes``, ``_mib``; a plain number is a count. Whatever
a peer controls has a maximum here (DESIGN.md section 3.7). Nothing reads settings after ``app.py``.
"""

from __future__ import annotations

import ipaddress
from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)


def _ip_address(text: str) -> str:
    ipaddress.ip_address(text)
    return text


def _ip_network(text: str) -> str:
    ipaddress.ip_network(text)
    return text


# PS3.5 6.2, AE: printable ASCII but the backslash; spaces at either end mean nothing.
AeTitle = Annotated[
    str,
    Field(
        pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$",
        min_length=1,
        max_length=16,
    ),
]
Port = Annotated[int, Field(ge=1, le=65_535)]

Host = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_.:\-]+$")]
Address = Annotated[
    str,
    Field(min_length=2, max_length=45, pattern=r"^[0-9A-Fa-f.:]+$"),
    AfterValidator(_ip_address),
]
Network = Annotated[
    str,
    Field(min_length=2, max_length=49, pattern=r"^[0-9A-Fa-f.:/]+$"),
    AfterValidator(_ip_network),
]


Uid = Annotated[str, Field(pattern=r"^[0-2](\.(0|[1-9]\d*))+$", max_length=64)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]


class Section(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """TOML has types: ``port = true`` and ``tls = "off"`` are mistakes, not 1 and false."""
        is_switch = cls.model_fields[info.field_name or ""].annotation is bool
        if is_switch and not isinstance(value, bool):
            raise ValueError("must be true or false, without quotes")
        if isinstance(value, bool) and not is_switch:
            raise ValueError("must not be true or false")
        return value


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


class DeviceSettings(Section):
    """The box itself."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w .\-]+$")] = Field(
        default="edge-triage", description="What people at the site call it; never leaves the site"
    )
    state_dir: Path = Field(
        default=Path("/var/lib/edge-triage"), description="Folder of database, spool and ledger"
    )
    heartbeat_s: Annotated[float, Field(ge=0.2, le=10)] = Field(
        default=2.0,
        description="How often each process says that it lives; after 30 s of silence it is killed",
    )
    stop_grace_s: Annotated[float, Field(ge=0.5, le=120)] = Field(
        default=10.0, description="Time to finish or hand back work before a process is killed"
    )


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


class AssemblySettings(Section):
    """When a study counts as complete."""

    settle_s: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.1, description="Silence needed after counts or geometry say complete"
    )
    quiet_s: Annotated[float, Field(ge=0.1, le=600)] = Field(
        default=2.0, description="Silence needed after the last association ended"
    )
    open_quiet_s: Annotated[float, Field(ge=1, le=3_600)] = Field(
        default=30.0, description="Silence needed while an association stays open"
    )
    longest_wait_s: Annotated[float, Field(ge=5, le=86_400)] = Field(
        default=600.0, description="A study is analysed with what is there after this time"
    )


class EngineBackend(str, Enum):
    """Inference back ends of this release."""

    ONNXRUNTIME = "onnxruntime"


class EngineSettings(Section):
    """Inference."""

    backend: EngineBackend = Field(
        default=EngineBackend.ONNXRUNTIME, description="Which engine runs; never replaced silently"
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Threads within one inference"
    )


class ModelSettings(Section):
    """Which model packages are active."""

    packages: tuple[Path, ...] = Field(
        default=(Path("head_ct_phantom"),),
        max_length=16,
        description="Folders of model packages; a bare name is a package that we ship",
    )


class WorkerSettings(Section):
    """The pipeline."""

    lease_s: Annotated[float, Field(ge=1, le=600)] = Field(
        default=15.0, description="A worker that is silent for longer loses its work"
    )
    max_attempts: Annotated[int, Field(ge=1, le=10)] = Field(
        default=3, description="After so many crashes on one study it is reported as failed"
    )
    max_instances_per_study: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=20_000, description="A larger study is not analysed"
    )
    max_pixels_per_frame: Annotated[int, Field(ge=1_024, le=1_073_741_824)] = Field(
        default=67_108_864, description="A larger image is not decoded"
    )
    prepared_cache_mib: Annotated[int, Field(ge=8, le=8_192)] = Field(
        default=96, description="Memory for slices that were prepared on arrival"
    )


class RetentionSettings(Section):
    """How long studies stay on the device."""

    keep_s: Annotated[float, Field(ge=60, le=315_360_000)] = Field(
        default=604_800.0, description="A delivered study leaves so long after it was decided"
    )
    least_keep_s: Annotated[float, Field(ge=0, le=604_800)] = Field(
        default=600.0, description="It stays at least so long when the disk fills up"
    )
    headroom_bytes: Annotated[int, Field(ge=67_108_864, le=1_099_511_627_776)] = Field(
        default=2_147_483_648,
        description="The oldest studies leave early while less is free above node.min_free_bytes",
    )


class RetrySettings(Section):
    """How deliveries are tried again."""

    first_delay_s: Annotated[float, Field(ge=0.05, le=3_600)] = Field(
        default=1.0, description="Delay after the first failure; doubles each time"
    )
    max_delay_s: Annotated[float, Field(ge=0.1, le=86_400)] = Field(
        default=300.0, description="Longest delay"
    )
    max_attempts: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=600, description="After so many failures the delivery is dead and an alarm stands"
    )


class CourierSettings(Section):
    """The process that delivers."""

    lease_s: Annotated[float, Field(ge=1, le=3_600)] = Field(
        default=60.0, description="A delivery that takes longer may be taken over"
    )
    timeout_s: Annotated[float, Field(ge=0.5, le=600)] = Field(
        default=20.0, description="Longest wait for a peer's answer"
    )
    retry: RetrySettings = Field(default=RetrySettings(), description="How to try again")


class OutcomeName(str, Enum):
    """Outcomes that a channel can be asked to report."""

    SUSPECTED = "SUSPECTED"
    NOT_SUSPECTED = "NOT_SUSPECTED"
    NOT_ANALYSED = "NOT_ANALYSED"
    FAILED = "FAILED"


class ReportSettings(Section):
    """Structured report to a PACS."""

    peer: PeerSettings | None = Field(default=None, description="The PACS; none sends no reports")
    outcomes: tuple[OutcomeName, ...] = Field(
        default=tuple(OutcomeName), description="Outcomes that are reported", max_length=4
    )
    out_of_scope: bool = Field(
        default=False, description="Also report studies that are not for any active model"
    )


class ForwardSettings(Section):
    """The original study to a PACS; off by default: the scanner's own path does not need us."""

    peer: PeerSettings | None = Field(default=None, description="The PACS; none forwards nothing")


class MppsRelaySettings(Section):
    """Procedure steps to the information system that waits for them."""

    peer: PeerSettings | None = Field(
        default=None, description="The system upstream; none passes nothing on"
    )


class OutputSettings(Section):
    """Where results go."""

    structured_report: ReportSettings = Field(
        default=ReportSettings(), description="Structured report to a PACS"
    )
    forward: ForwardSettings = Field(
        default=ForwardSettings(), description="Original study to a PACS"
    )
    mpps: MppsRelaySettings = Field(
        default=MppsRelaySettings(), description="Procedure steps to the system upstream"
    )


class MqttVersion(str, Enum):
    """Protocol versions."""

    V5 = "5"
    V311 = "3.1.1"


class TelemetrySettings(Section):
    """De-identified telemetry over MQTT."""

    host: Host | None = Field(default=None, description="The broker; none sends no telemetry")
    port: Port = Field(default=8883, description="The broker's TCP port")
    mqtt_version: MqttVersion = Field(default=MqttVersion.V5, description="Protocol version")
    tls: bool = Field(default=True, description="Encrypt; plain text only inside the site")
    ca_file: Path | None = Field(default=None, description="Certificates that vouch for the broker")
    certificate_file: Path | None = Field(default=None, description="Our client certificate")
    key_file: Path | None = Field(default=None, description="Its private key")
    username: Annotated[str, Field(max_length=64)] | None = Field(
        default=None, description="User name at the broker"
    )
    password: Annotated[SecretStr, Field(max_length=1_024)] | None = Field(
        default=None,
        description="From EDGE_TRIAGE_TELEMETRY_PASSWORD only; refused in the file",
    )
    health_interval_s: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=60.0, description="How often the device reports its health"
    )
    outbox_max_bytes: Annotated[int, Field(ge=1_048_576, le=1_073_741_824)] = Field(
        default=67_108_864, description="Bound of the telemetry outbox; drops are counted"
    )

    @model_validator(mode="after")
    def _certificate_with_key(self) -> TelemetrySettings:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("'certificate_file' and 'key_file' go together")
        return self


class WebSettings(Section):
    """The worklist page."""

    bind: Address = Field(default="127.0.0.1", description="Address to listen on")
    port: Port = Field(default=8080, description="TCP port")
    allowed_hosts: tuple[Host, ...] = Field(
        default=("localhost", "127.0.0.1"),
        max_length=32,
        description="Names under which browsers may call the page",
    )


class LogFormat(str, Enum):
    """How log lines look."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


class LogLevel(str, Enum):
    """The least severe level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LoggingSettings(Section):
    """Logs; they hold no patient data at any level."""

    format: LogFormat = Field(
        default=LogFormat.AUTO, description="auto: console on a terminal, else JSON"
    )
    level: LogLevel = Field(default=LogLevel.INFO, description="Least severe level written")


class Settings(Section):
    """Everything a device can be told."""

    device: DeviceSettings = Field(default=DeviceSettings(), description="The box itself")
    node: NodeSettings = Field(default=NodeSettings(), description="The storage SCP")
    assembly: AssemblySettings = Field(
        default=AssemblySettings(), description="When a study counts as complete"
    )
    retention: RetentionSettings = Field(
        default=RetentionSettings(), description="How long studies stay on the device"
    )
    worker: WorkerSettings = Field(default=WorkerSettings(), description="The pipeline")
    engine: EngineSettings = Field(default=EngineSettings(), description="Inference")
    models: ModelSettings = Field(default=ModelSettings(), description="Active model packages")
    outputs: OutputSettings = Field(default=OutputSettings(), description="Where results go")
    courier: CourierSettings = Field(default=CourierSettings(), description="Deliveries")
    telemetry: TelemetrySettings = Field(
        default=TelemetrySettings(), description="What leaves the site"
    )
    web: WebSettings = Field(default=WebSettings(), description="The worklist page")
    logging: LoggingSettings = Field(default=LoggingSettings(), description="Logs")
