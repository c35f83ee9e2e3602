"""Every setting of a device: closed, frozen, with bounds, a unit and a default.

Units stand in the names: ``_s`` seconds, ``_bytes``, ``_mib``; a plain number is a count. Whatever
a peer controls has a maximum here (DESIGN.md section 3.7). Nothing reads settings after ``app.py``.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, SecretStr, model_validator

from edge_runtime.config.fields import Address, FindingKey, Host, Port, Section, Threshold
from edge_runtime.config.node_settings import NodeSettings
from edge_runtime.config.peers import PeerSettings

_ItemT = TypeVar("_ItemT")


def _each_once(items: tuple[_ItemT, ...]) -> tuple[_ItemT, ...]:
    if len(set(items)) < len(items):
        raise ValueError("names one of them twice")
    return items


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
    """Inference back ends of this release; the words of ``engines.contract.Backend``."""

    ONNXRUNTIME = "onnxruntime"
    ONNXRUNTIME_CUDA = "onnxruntime-cuda"
    ONNXRUNTIME_TENSORRT = "onnxruntime-tensorrt"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class EnginePrecision(str, Enum):
    """In which numbers a GPU computes; the words of ``engines.contract.Precision``."""

    FP32 = "fp32"
    FP16 = "fp16"


class EngineCudaLibrary(str, Enum):
    """What talks to the CUDA driver; the words of ``engines.contract.CudaLibrary``."""

    PYCUDA = "pycuda"
    CUDA_BINDINGS = "cuda-bindings"


class GpuSettings(Section):
    """How engines use a GPU; without one nothing of it counts."""

    index: Annotated[int, Field(ge=0, le=15)] = Field(
        default=0, description="Which GPU, as the driver counts"
    )
    precision: EnginePrecision = Field(
        default=EnginePrecision.FP32,
        description="In which numbers engines compute; a package with Q/DQ nodes has INT8 in both",
    )
    memory_mib: Annotated[int, Field(ge=64, le=131_072)] = Field(
        default=1_024,
        description="Most that building, and then running, one model may take; less where less "
        "is free",
    )
    dla_core: Annotated[int, Field(ge=0, le=7)] | None = Field(
        default=None,
        description="Deep learning accelerator to use; none computes on the GPU itself",
    )
    build: bool = Field(
        default=True,
        description="Build an engine that is not there when the worker starts; false waits for "
        "`edge-triage engines build`",
    )
    build_limit_s: Annotated[float, Field(ge=60, le=86_400)] = Field(
        default=1_800.0,
        description="Longest that opening an engine may go on without a word of progress; then "
        "the worker counts as hung and is started again",
    )
    cuda_libraries: Annotated[
        tuple[EngineCudaLibrary, ...], Field(min_length=1), AfterValidator(_each_once)
    ] = Field(
        default=(EngineCudaLibrary.PYCUDA, EngineCudaLibrary.CUDA_BINDINGS),
        max_length=2,
        description="What talks to the driver, the first that is installed",
    )


class EngineSettings(Section):
    """Inference."""

    preference: Annotated[
        tuple[EngineBackend, ...], Field(min_length=1), AfterValidator(_each_once)
    ] = Field(
        default=(EngineBackend.ONNXRUNTIME,),
        max_length=5,
        description="Which engine runs the models, the best first",
    )
    fallback: bool = Field(
        default=False,
        description="Whether a later engine of the preference may run where an earlier one cannot; "
        "doctor, page, reports and telemetry say so. Without it only the first may run",
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="Threads within one inference on the processor"
    )
    gpu: GpuSettings = Field(default=GpuSettings(), description="How engines use a GPU")


class ModelSettings(Section):
    """Which model packages the device holds, and who must agree before one is used."""

    packages: tuple[Path, ...] = Field(
        default=(Path("head_ct_phantom"),),
        max_length=16,
        description="Folders of model packages that the device shall hold; a bare name is a "
        "package that we ship",
    )
    approvals_required: Annotated[int, Field(ge=0, le=2)] = Field(
        default=0,
        description="How many people must approve a package before it is used; with 0 a "
        "demonstration needs nobody, any other package still needs one person",
    )
    operating_points: dict[FindingKey, Threshold] = Field(
        default={},
        max_length=64,
        description="Probability from which this site flags, in place of the package's, by "
        "'package.finding'; within the bounds that the package allows",
    )
    shadow_first: bool = Field(
        default=False,
        description="A new version must run beside the active one, unseen, before it replaces it",
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
    least_keep_s: Annotated[float, Field(ge=30, le=604_800)] = Field(
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
    models: ModelSettings = Field(default=ModelSettings(), description="Model packages")
    outputs: OutputSettings = Field(default=OutputSettings(), description="Where results go")
    courier: CourierSettings = Field(default=CourierSettings(), description="Deliveries")
    telemetry: TelemetrySettings = Field(
        default=TelemetrySettings(), description="What leaves the site"
    )
    web: WebSettings = Field(default=WebSettings(), description="The worklist page")
    logging: LoggingSettings = Field(default=LoggingSettings(), description="Logs")
