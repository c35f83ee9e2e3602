"""Everything that ``telemetry`` raises, grouped by who is at fault.

No text here holds a refused value: what the egress guard refuses may be an identity, and
error texts reach logs.
"""

from __future__ import annotations


class TelemetryError(Exception):
    """Base of all errors of this package."""


class BugError(TelemetryError):
    """The caller broke a contract; nothing on the device or the network can mend it."""


class EgressRefusedError(BugError):
    """The egress guard refused an event; ``field`` names where, never what."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(
            f"{field} {rule}. Nothing was sent; build the event from enums, bounded numbers and "
            "registered codes (telemetry/events.py)."
        )
        self.field = field
        self.rule = rule


class EgressPolicyError(BugError):
    """A device id, reason code or model name does not have the form that may leave the site."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}. Change it where it is defined.")
        self.field = field


class MqttSettingsError(BugError):
    """An MQTT setting is out of bounds, or two of them contradict each other."""


class EventKeyError(BugError):
    """An event key does not have the opaque form that the outbox takes."""


class DeviceError(TelemetryError):
    """Disk, file or lock of this device failed."""


class AlreadyOpenError(DeviceError):
    """Another process writes this ledger or outbox."""


class LedgerWriteError(DeviceError):
    """The ledger could not be written, so nothing may be published."""


class LedgerDamagedError(DeviceError):
    """The ledger's last complete entry is not one that we wrote."""


class OutboxError(DeviceError):
    """The outbox's database could not be read or written."""


class OutboxNewerError(DeviceError):
    """The outbox was written by a newer version of this software."""


class PeerError(TelemetryError):
    """The broker or the way to it failed."""


class BrokerUnreachableError(PeerError):
    """No connection to the broker came about; ``reason`` is a stable code."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"no connection to the MQTT broker ({reason}). Check host, port, TLS files, user "
            "and firewall; messages wait in the outbox meanwhile."
        )
        self.reason = reason


class ConfirmLaterError(TelemetryError):
    """The caller of the publisher cannot note a confirmation yet: it is to be asked again."""
