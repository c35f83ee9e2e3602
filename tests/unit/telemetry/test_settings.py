"""MQTT settings are bounded and keep secrets out of their repr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from telemetry.errors import MqttSettingsError
from telemetry.settings import MqttSettings, TlsSettings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("host", ""),
        ("port", 0),
        ("port", 70_000),
        ("window", 0),
        ("keepalive_s", 1),
        ("ack_timeout_s", 0),
        ("backoff_max_s", 0.5),
        ("password", "secret"),
    ],
)
def test_setting_out_of_bounds_is_refused_by_name(name: str, value: Any) -> None:
    members: dict[str, Any] = {"host": "broker", name: value}
    with pytest.raises(MqttSettingsError, match=name):
        MqttSettings(**members)


def test_certificate_needs_its_key() -> None:
    with pytest.raises(MqttSettingsError, match="key_file"):
        TlsSettings(cert_file=Path("device.pem"))


def test_credentials_are_not_in_the_repr() -> None:
    text = repr(MqttSettings(host="broker", username="someone", password="hunter2"))
    assert "hunter2" not in text
    assert "someone" not in text
