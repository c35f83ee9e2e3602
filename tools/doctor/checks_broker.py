"""The MQTT broker, by a real CONNECT, and the certificates for it."""

from __future__ import annotations

import sqlite3
import ssl
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from edge_runtime.app.courier import mqtt_settings
from edge_runtime.config.settings import Settings, TelemetrySettings
from edge_runtime.process import database_path
from telemetry.errors import BrokerUnreachableError, TelemetryError
from telemetry.publisher import probe_broker
from telemetry.settings import TlsSettings
from telemetry.sockets import tls_context
from tools.doctor.findings import Advice, Context, Finding, failed, fine, warning
from tools.doctor.own_device import read_database

_CONNECT_TIMEOUT_S = 4.0
_EXPIRES_SOON_DAYS = 30
_DAY_S = 86_400


def check_broker(context: Context) -> Finding:
    """Does the broker let the device in?"""
    telemetry = context.settings.telemetry
    if telemetry.host is None:
        return fine("not set (telemetry.host): no telemetry is sent")
    where = f"the MQTT broker at {telemetry.host} port {telemetry.port}"
    try:
        probe = replace(
            mqtt_settings(telemetry, telemetry.host), connect_timeout_s=_CONNECT_TIMEOUT_S
        )
        probe_broker(probe, _device_id(context.settings))
    except BrokerUnreachableError as error:
        advice = BROKER_REASONS.get(error.reason, _OTHER_REASON)
        return failed(f"{where} {advice.meaning} ({error.reason})", advice.remedy)
    except TelemetryError as error:
        return failed(f"the settings of the MQTT broker are wrong: {error}", "correct telemetry.*")
    return fine(f"{where} lets the device in")


_LOCKED_OUT = Advice(
    meaning="does not let this user in",
    remedy="correct telemetry.username, and the password in EDGE_TRIAGE_TELEMETRY_PASSWORD, which "
    "has to be set for this command too; then look whether the broker's access list has the user, "
    "or the device's certificate",
)
"""Brokers answer a wrong password and a missing right alike."""
_OTHER_REASON = Advice(
    meaning="does not let the device in",
    remedy="check telemetry.host, telemetry.port, telemetry.mqtt_version and telemetry.tls, and "
    "look into the broker's log",
)
_SILENT = Advice(
    meaning="does not answer",
    remedy="start the broker; check telemetry.host and telemetry.port, that no firewall lies "
    "between, and that telemetry.tls is as the broker has it on this port",
)
BROKER_REASONS: Mapping[str, Advice] = MappingProxyType(
    {
        "refused": Advice(
            meaning="refuses the connection: nothing listens there",
            remedy="start the broker, or correct telemetry.host and telemetry.port",
        ),
        "no_answer": _SILENT,
        "timeout": _SILENT,
        "network": _SILENT,
        "name_unknown": Advice(
            meaning="is not known under this name",
            remedy="correct telemetry.host, or the device's name server (`resolvectl status`)",
        ),
        "tls_certificate": Advice(
            meaning="shows a certificate that telemetry.ca_file does not vouch for, or of another "
            "name",
            remedy="set telemetry.ca_file to the authority of the broker's certificate, and "
            "telemetry.host to a name that stands in it; also check the clock",
        ),
        "tls": Advice(
            meaning="does not speak TLS with us",
            remedy="check that telemetry.port is the broker's TLS port, that it speaks TLS 1.2 or "
            "later, and that telemetry.certificate_file and telemetry.key_file belong together",
        ),
        "tls_file_missing": Advice(
            meaning="was not called: a certificate file is missing",
            remedy="correct telemetry.ca_file, telemetry.certificate_file and telemetry.key_file",
        ),
        "tls_file_unreadable": Advice(
            meaning="was not called: a certificate file may not be read",
            remedy="give the user that runs the device the right to read telemetry.ca_file, "
            "telemetry.certificate_file and telemetry.key_file",
        ),
        "refused_0x84": Advice(
            meaning="does not speak this version of MQTT",
            remedy="set telemetry.mqtt_version to one that the broker speaks",
        ),
        "refused_0x86": _LOCKED_OUT,
        "refused_0x87": _LOCKED_OUT,
        "refused_0x8a": _LOCKED_OUT,
    }
)
"""What each reason of ``BrokerUnreachableError`` means, and what to do (MQTT 5, 3.2.2.2)."""


def check_certificates(context: Context) -> Finding:
    """Can the certificates be loaded, and do they last?"""
    telemetry = context.settings.telemetry
    if telemetry.host is None or not telemetry.tls:
        return fine("none is used")
    try:
        authorities = _load_certificates(telemetry)
    except OSError as error:
        return failed(
            "the certificates of the MQTT broker cannot be loaded: "
            f"{error.strerror or type(error).__name__}",
            "check that telemetry.ca_file, telemetry.certificate_file and telemetry.key_file are "
            "PEM files that the device's user may read, and that the key is the certificate's",
        )
    if telemetry.ca_file is None or not authorities:
        return fine("the certificates load")
    first_s = min(ssl.cert_time_to_seconds(text) for text in authorities)
    return judge_expiry(telemetry.ca_file, (first_s - time.time()) / _DAY_S)


def _load_certificates(telemetry: TelemetrySettings) -> list[str]:
    """Load them as the publisher does; return the ends of the authorities' validity.

    Raises:
        OSError: a file is missing, unreadable, or no certificate.
    """
    context = tls_context(
        TlsSettings(
            ca_file=telemetry.ca_file,
            cert_file=telemetry.certificate_file,
            key_file=telemetry.key_file,
        )
    )
    return [str(authority["notAfter"]) for authority in context.get_ca_certs()]


def judge_expiry(file: Path, days_left: float) -> Finding:
    """Judge the authority that ends first."""
    if days_left <= 0:
        return failed(
            f"a certificate in {file} has expired: no broker can be trusted with it",
            "put the authority's new certificate into telemetry.ca_file; if it is new, set the "
            "device's clock",
        )
    if days_left <= _EXPIRES_SOON_DAYS:
        return warning(
            f"a certificate in {file} expires in {days_left:.0f} days",
            "put the authority's new certificate into telemetry.ca_file",
        )
    return fine(f"the certificates load, the first authority expires in {days_left:.0f} days")


def _device_id(settings: Settings) -> str:
    """The device's id, by which brokers may know it; before the first start there is none."""
    try:
        with read_database(database_path(settings)) as connection:
            row = connection.execute("SELECT device_id FROM device").fetchone()
    except sqlite3.Error:
        return "doctor"
    return "doctor" if row is None else str(row["device_id"])
