"""Where the broker is and how this device speaks to it: closed, bounded, with units."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from telemetry.errors import MqttSettingsError


class MqttProtocol(str, Enum):
    """The protocol's version; 3.1.1 is for older clustered brokers and knows no reason codes."""

    V5 = "5"
    V311 = "3.1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """TLS 1.2 or later; the broker's name is always checked, there is no switch for it.

    Raises:
        MqttSettingsError: A certificate without its key, or the reverse.
    """

    ca_file: Path | None = None
    """PEM; None takes the system's authorities."""
    cert_file: Path | None = None
    """This device's own certificate, PEM."""
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise MqttSettingsError("cert_file and key_file go together: give both or neither.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttSettings:
    """One broker.

    Raises:
        MqttSettingsError: A value is out of its bounds.
    """

    host: str
    port: int = 8883
    protocol: MqttProtocol = MqttProtocol.V5
    tls: TlsSettings | None = None
    """None speaks plain TCP: for a broker on the device, or behind a tunnel."""
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    require_subscriber: bool = False
    """Keep a message that the broker acknowledged with 0x10 "no matching subscribers".

    Such a broker threw the message away. Off by default, because a broker that stores for
    somebody who subscribes later (a bridge, a retained topic) may answer so too, and because the
    outbox would fill up on a site where nobody listens yet. MQTT 3.1.1 cannot tell.
    """
    keepalive_s: int = 30
    connect_timeout_s: float = 5.0
    ack_timeout_s: float = 30.0
    """A broker that does not acknowledge for so long is left and connected to again."""
    will_delay_s: int = 30
    """MQTT 5: how long the device may be gone before the fleet hears of it."""
    window: int = 20
    """Messages in flight: paho slows down as they grow more."""
    backoff_min_s: float = 1.0
    backoff_max_s: float = 120.0

    def __post_init__(self) -> None:
        bounds: tuple[tuple[str, float, float, float], ...] = (
            ("port", self.port, 1, 65_535),
            ("keepalive_s", self.keepalive_s, 5, 3_600),
            ("connect_timeout_s", self.connect_timeout_s, 0.1, 60),
            ("ack_timeout_s", self.ack_timeout_s, 1, 600),
            ("will_delay_s", self.will_delay_s, 0, 3_600),
            ("window", self.window, 1, 100),
            ("backoff_min_s", self.backoff_min_s, 0.01, 60),
            ("backoff_max_s", self.backoff_max_s, self.backoff_min_s, 3_600),
        )
        for name, value, minimum, maximum in bounds:
            if not minimum <= value <= maximum:
                raise MqttSettingsError(f"{name} must be {minimum}..{maximum}.")
        if not self.host:
            raise MqttSettingsError("host must name the broker.")
        if self.password is not None and self.username is None:
            raise MqttSettingsError("a password needs a username.")
