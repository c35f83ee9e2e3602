from __future__ import annotations

import pytest

from engines.package import Requirements
from engines.requirements import Machine, this_machine, unmet

MACHINE = Machine(runtime="0.10.2", memory_mib=4096, has_gpu=False)


def test_the_least_that_a_package_may_ask_for_is_here() -> None:
    assert unmet(Requirements(memory_mib=64, runtime="0.0.1"), this_machine()) == ()


@pytest.mark.parametrize("runtime", ["0.9.9", "0.10.2"])
def test_a_release_as_new_as_asked_for_will_do(runtime: str) -> None:
    assert unmet(Requirements(runtime=runtime), MACHINE) == ()


def test_everything_that_is_missing_is_named() -> None:
    requires = Requirements(runtime="0.10.3", memory_mib=8192, accelerator="gpu")
    assert unmet(requires, MACHINE) == (
        "it needs edge-triage 0.10.3, and this is 0.10.2",
        "it needs 8192 MiB of memory, and this machine has 4096",
        "it needs a GPU, and this machine has none that edge-triage can use",
    )


def test_a_release_on_the_way_counts_as_the_release() -> None:
    machine = Machine(runtime="0.10.2.dev1", memory_mib=4096, has_gpu=True)
    assert unmet(Requirements(runtime="0.10.2", accelerator="gpu"), machine) == ()
