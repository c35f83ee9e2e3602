"""Has this machine what a package asks for?"""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path

from engines.package import Requirements

# The drivers' device files: of discrete cards, and of the two generations of Jetson.
_GPU_DEVICES = (Path("/dev/nvidia0"), Path("/dev/nvgpu"), Path("/dev/nvhost-gpu"))
_MIB = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a device has."""

    runtime: str
    """Version of edge-triage."""
    memory_mib: int
    has_gpu: bool


def this_machine() -> Machine:
    """Looks at the machine that this runs on."""
    return Machine(
        runtime=importlib.metadata.version("edge-triage"),
        memory_mib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MIB,
        has_gpu=any(device.exists() for device in _GPU_DEVICES),
    )


def unmet(requires: Requirements, machine: Machine) -> tuple[str, ...]:
    """Returns what the machine lacks, each as a sentence for people; none when it will do."""
    lacks: list[str] = []
    if _numbers(machine.runtime) < _numbers(requires.runtime):
        lacks.append(f"it needs edge-triage {requires.runtime}, and this is {machine.runtime}")
    if machine.memory_mib < requires.memory_mib:
        lacks.append(
            f"it needs {requires.memory_mib} MiB of memory, and this machine has "
            f"{machine.memory_mib}"
        )
    if requires.accelerator == "gpu" and not machine.has_gpu:
        lacks.append("it needs a GPU, and this machine has none that edge-triage can use")
    return tuple(lacks)


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers: 0.2.0.dev1 is taken for 0.2.0."""
    parts = version.split(".")[:3]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
