"""What the board takes, where the kernel says so; nothing is asked of a vendor's tools.

Jetson boards have an INA3221 at each rail, which hwmon shows as voltages and currents; other
monitors show a power; processors of Intel and AMD count energy (powercap). Rails may contain each
other: they are told one by one and never added up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_PERIOD_S = 0.05
_MICRO = 1e-6
_MILLI = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rail:
    """One place where power is measured."""

    name: str
    watts: Callable[[], float | None] = field(repr=False)
    """Now; None where it cannot be read any more."""


def find_rails(root: Path = Path("/sys/class")) -> tuple[Rail, ...]:
    """Return what can be read here; ``root`` is where the kernel shows its classes."""
    rails: list[Rail] = []
    for monitor in sorted((root / "hwmon").glob("hwmon*")):
        name = _text(monitor / "name") or monitor.name
        rails += _powers(monitor, name)
        rails += _voltages_and_currents(monitor, name)
    for zone in sorted((root / "powercap").glob("intel-rapl:*")):
        if _number(zone / "energy_uj") is not None:
            rails.append(Rail(name=_text(zone / "name") or zone.name, watts=_EnergyCounter(zone)))
    return tuple(rails)


def _powers(monitor: Path, name: str) -> Iterator[Rail]:
    for file in sorted([*monitor.glob("power*_input"), *monitor.glob("power*_average")]):
        if _number(file) is not None:
            label = _text(file.with_name(file.name.partition("_")[0] + "_label")) or file.name
            yield Rail(name=f"{name} {label}", watts=lambda file=file: _scaled(file, _MICRO))  # type: ignore[misc]


def _voltages_and_currents(monitor: Path, name: str) -> Iterator[Rail]:
    for current in sorted(monitor.glob("curr*_input")):
        number = current.name.removeprefix("curr").removesuffix("_input")
        voltage = monitor / f"in{number}_input"
        if _number(current) is None or _number(voltage) is None:
            continue
        label = _text(monitor / f"in{number}_label") or f"rail {number}"
        yield Rail(name=f"{name} {label}", watts=_Product(voltage, current).read)


class _Product:
    def __init__(self, voltage: Path, current: Path) -> None:
        self._voltage, self._current = voltage, current

    def read(self) -> float | None:
        volts, amperes = _scaled(self._voltage, _MILLI), _scaled(self._current, _MILLI)
        return None if volts is None or amperes is None else volts * amperes


class _EnergyCounter:
    """Power since the last look; the counter starts again at ``max_energy_range_uj``."""

    def __init__(self, zone: Path) -> None:
        self._zone = zone
        self._last: tuple[float, float] | None = None

    def __call__(self) -> float | None:
        energy, now_s = _number(self._zone / "energy_uj"), time.monotonic()
        if energy is None:
            return None
        last, self._last = self._last, (energy, now_s)
        if last is None or energy < last[0] or now_s <= last[1]:
            return None
        return (energy - last[0]) * _MICRO / (now_s - last[1])


class PowerWatch:
    """Looks at every rail again and again, until the ``with`` block ends."""

    def __init__(self, rails: tuple[Rail, ...]) -> None:
        self._rails = rails
        self._seen: dict[str, list[float]] = defaultdict(list)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="power")

    def __enter__(self) -> PowerWatch:
        if self._rails:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._rails:
            self._thread.join()

    def _look(self) -> None:
        while True:
            for rail in self._rails:
                watts = rail.watts()
                if watts is not None:
                    self._seen[rail.name].append(watts)
            if self._stop.wait(_PERIOD_S):
                return

    @property
    def means(self) -> Mapping[str, float]:
        """Watts by rail; to be asked for after the block."""
        return {name: sum(seen) / len(seen) for name, seen in self._seen.items()}


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text("utf-8", "replace").strip()
    return ""


def _number(file: Path) -> float | None:
    with contextlib.suppress(ValueError):
        return float(_text(file))
    return None


def _scaled(file: Path, scale: float) -> float | None:
    number = _number(file)
    return None if number is None else number * scale
