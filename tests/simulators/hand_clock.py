"""A clock that moves only when told to; it implements ``edge_runtime.clock.Clock``."""

from __future__ import annotations

from edge_runtime.model.clock import Instant


class HandClock:
    """Both clocks of a device, in a test's hand."""

    def __init__(self) -> None:
        self.instant = Instant(
            wall_us=1_800_000_000_000_000, mono_us=5_000_000, boot_id="boot-1", clock_synced=True
        )

    def now(self) -> Instant:
        return self.instant

    def advance(self, seconds: float) -> None:
        step = int(seconds * 1_000_000)
        self.instant = Instant(
            wall_us=self.instant.wall_us + step,
            mono_us=self.instant.mono_us + step,
            boot_id=self.instant.boot_id,
            clock_synced=True,
        )

    def set_back(self, seconds: float) -> None:
        """Move the wall clock back, as a wrong time server does; monotonic time goes on."""
        self.instant = Instant(
            wall_us=self.instant.wall_us - int(seconds * 1_000_000),
            mono_us=self.instant.mono_us,
            boot_id=self.instant.boot_id,
            clock_synced=False,
        )

    def reboot(self) -> None:
        self.instant = Instant(
            wall_us=self.instant.wall_us + 60_000_000,
            mono_us=1_000_000,
            boot_id=self.instant.boot_id + "x",
            clock_synced=False,
        )
