"""The process ``courier``: deliveries and telemetry; the only one that opens connections."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import timezone, tzinfo
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from dicom_node.requestor import PeerAddress, RequestorTimeouts
from dicom_node.tls import RequestorTls
from edge_runtime.app.models import Changes, KnownManifests, active_manifests
from edge_runtime.app.services import errand_couriers, make_forgetting
from edge_runtime.clock import SystemClock
from edge_runtime.config.node_settings import NodeTlsSettings
from edge_runtime.config.peers import PeerSettings
from edge_runtime.config.settings import MqttVersion, Settings, TelemetrySettings
from edge_runtime.outputs.contract import ReportingDevice, Sink
from edge_runtime.outputs.courier import ChannelCourier, Courier, run_channels
from edge_runtime.outputs.forward import ForwardSink
from edge_runtime.outputs.report_sink import ReportSink
from edge_runtime.outputs.retry import RetryRule
from edge_runtime.outputs.telemetry_link import TelemetryLink
from edge_runtime.process import Pulse, database_path, models_path, spool_path
from edge_runtime.store.database import connect
from edge_runtime.store.deliveries import return_leases
from edge_runtime.store.device import read_device
from edge_runtime.store.engines import engines_in_use
from edge_runtime.store.errands import return_errand_leases
from edge_runtime.store.model_packages import list_packages
from engines.package import ModelPackage
from telemetry.settings import MqttProtocol, MqttSettings, TlsSettings

MANUFACTURER = "edge-triage project"
MODEL_NAME = "edge-triage"


def run(settings: Settings, stop: threading.Event, pulse: Pulse) -> int:
    """Deliver the outbox; the only process that opens connections."""
    with contextlib.closing(connect(database_path(settings))) as connection:
        return_leases(connection)
        return_errand_leases(connection)
        with contextlib.ExitStack() as stack:
            packages = KnownManifests(connection, models_path(settings))
            sinks = _sinks(settings, packages, stop, stack)
            goes_on = True
            while goes_on and not stop.is_set():
                goes_on = _deliver(settings, connection, stop, pulse, kept=sinks, packages=packages)
    return 0


def _deliver(
    settings: Settings,
    connection: sqlite3.Connection,
    stop: threading.Event,
    pulse: Pulse,
    *,
    kept: Sequence[Sink],
    packages: KnownManifests,
) -> bool:
    """Deliver until ``stop``, or until packages or engines are others; True in the latter case.

    Telemetry may only name packages that it was told of, so its link is made anew for others; and
    whoever reads it is told anew what runs them.
    """
    clock = SystemClock()
    changes = Changes(connection, _told_of)
    packages.refresh()
    for sink in kept:
        if isinstance(sink, ReportSink):
            sink.prepare()
    sinks = list(kept)
    leave = threading.Event()
    others = threading.Event()

    def look() -> None:
        if changes.have_come():
            others.set()
        if stop.is_set() or others.is_set():
            leave.set()

    with contextlib.ExitStack() as stack:
        ticks: list[Callable[[], None]] = [
            pulse.beat,
            look,
            make_forgetting(settings, connection, clock).tick,
        ]
        if settings.telemetry.host is not None:
            link = stack.enter_context(
                TelemetryLink(
                    mqtt_settings(settings.telemetry, settings.telemetry.host),
                    state_dir=settings.device.state_dir,
                    database=database_path(settings),
                    clock=clock,
                    device=read_device(connection),
                    software=software_version(),
                    models=list(active_manifests(connection, models_path(settings)).values()),
                    known=list(packages.values()),
                    engines=engines_in_use(connection),
                    cap_bytes=settings.telemetry.outbox_max_bytes,
                    health_interval_s=settings.telemetry.health_interval_s,
                )
            )
            sinks.append(link.sink)
            ticks.append(link.tick)
        couriers: dict[str, Courier] = {
            sink.channel.value: _channel_courier(settings, sink, clock) for sink in sinks
        }
        couriers.update(
            errand_couriers(
                settings,
                clock,
                make_address=partial(peer_address, own=settings.node.tls),
                timeouts=_timeouts(settings),
                rule=_retry_rule(settings),
            )
        )
        pulse.ready()

        def tick_all() -> None:
            for tick in ticks:
                tick()

        run_channels(couriers, leave, tick_all)
    return others.is_set()


def _told_of(connection: sqlite3.Connection) -> object:
    return list_packages(connection), engines_in_use(connection)


def software_version() -> str:
    """Return this release."""
    return importlib.metadata.version("edge-triage")


def mqtt_settings(telemetry: TelemetrySettings, host: str) -> MqttSettings:
    """Translate settings into those of the telemetry leaf."""
    tls = TlsSettings(
        ca_file=telemetry.ca_file,
        cert_file=telemetry.certificate_file,
        key_file=telemetry.key_file,
    )
    return MqttSettings(
        host=host,
        port=telemetry.port,
        protocol=(
            MqttProtocol.V5 if telemetry.mqtt_version is MqttVersion.V5 else MqttProtocol.V311
        ),
        tls=tls if telemetry.tls else None,
        username=telemetry.username,
        password=telemetry.password.get_secret_value() if telemetry.password else None,
    )


def _sinks(
    settings: Settings,
    packages: Mapping[tuple[str, str], ModelPackage],
    stop: threading.Event,
    stack: contextlib.ExitStack,
) -> list[Sink]:
    timeouts = _timeouts(settings)
    sinks: list[Sink] = []
    report, forward = settings.outputs.structured_report, settings.outputs.forward
    if report.peer is not None:
        sinks.append(
            stack.enter_context(
                ReportSink(
                    peer_address(report.peer, settings.node.tls),
                    calling_ae_title=settings.node.ae_title,
                    device=_reporting_device(settings),
                    packages=packages,
                    timeouts=timeouts,
                )
            )
        )
    if forward.peer is not None:
        sinks.append(
            ForwardSink(
                peer_address(forward.peer, settings.node.tls),
                calling_ae_title=settings.node.ae_title,
                spool_dir=spool_path(settings),
                stop=stop,
                timeouts=timeouts,
            )
        )
    return sinks


def _channel_courier(settings: Settings, sink: Sink, clock: SystemClock) -> ChannelCourier:
    return ChannelCourier(
        sink,
        database=database_path(settings),
        clock=clock,
        rule=_retry_rule(settings),
        lease_us=_us(settings.courier.lease_s),
        owner=f"courier-{os.getpid()}",
    )


def _timeouts(settings: Settings) -> RequestorTimeouts:
    return RequestorTimeouts(
        connect_s=min(settings.courier.timeout_s, 10.0), answer_s=settings.courier.timeout_s
    )


def _retry_rule(settings: Settings) -> RetryRule:
    retry = settings.courier.retry
    return RetryRule(
        first_delay_s=retry.first_delay_s,
        max_delay_s=max(retry.max_delay_s, retry.first_delay_s),
        max_attempts=retry.max_attempts,
    )


def _reporting_device(settings: Settings) -> ReportingDevice:
    with contextlib.closing(connect(database_path(settings))) as connection:
        device = read_device(connection)
    return ReportingDevice(
        token=device.uid_root_token,
        name=settings.device.name,
        manufacturer=MANUFACTURER,
        model_name=MODEL_NAME,
        serial_number=device.device_id,
        software_version=software_version(),
        timezone=_site_timezone(),
    )


def _site_timezone() -> tzinfo:
    """Return the machine's zone, which is the one that the scanner's dates are in."""
    try:
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file, key="localtime")
    except (OSError, ValueError):
        return timezone.utc


def peer_address(peer: PeerSettings, own: NodeTlsSettings | None) -> PeerAddress:
    """Translate settings into those of the DICOM leaf; ``own`` is what we prove ourselves with."""
    tls = RequestorTls(
        ca_file=peer.ca_file or (own.ca_file if own else None),
        certificate_file=own.certificate_file if own else None,
        key_file=own.key_file if own else None,
        server_name=peer.tls_name,
    )
    return PeerAddress(
        ae_title=peer.ae_title, host=peer.host, port=peer.port, tls=tls if peer.tls else None
    )


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
