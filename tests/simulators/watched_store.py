"""The steps of a store, watched rather than listed: each is a place for a fault.

A test watches which system calls a store makes, then puts a fault at each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from dicom_node.status import StoreStatus
from simulators.fault_injector import Step, record
from simulators.lone_node import Way
from simulators.remembering_scanner import Act, Scanner, prepare

# A large instance and a release go past the journal: these steps are those with a journal.
_TAKEN_BEFORE = {(Act.SECOND, Way.SYNCED), (Act.RELEASE, Way.SYNCED)}
ACTS = [(act, way) for act in Act for way in Way if (act, way) not in _TAKEN_BEFORE]


def watch(scanner: Scanner, act: Act) -> list[Step]:
    """The steps of an act, in their order."""
    study, connection = prepare(scanner, act)
    with record(scanner.node.pid, scanner.folder, from_thread=scanner.idle_threads) as steps:
        for path in study.at(act):
            assert scanner.send(connection, path) == StoreStatus.SUCCESS
        if act is Act.RELEASE:
            scanner.part(connection)
    scanner.part(connection)
    scanner.rows = scanner.assert_kept().rows
    assert "sendto" in {step.call for step in steps}
    assert act is Act.RELEASE or _went_by(scanner, act) <= {(step.call, step.on) for step in steps}
    return steps


def _went_by(scanner: Scanner, act: Act) -> set[tuple[str, str]]:
    """Steps that tell that the instance of an act went its way; ``two`` goes by no journal."""
    if scanner.node.journal_bytes and act is not Act.SECOND:
        return {("pwrite64", "journal"), ("write", "shard file")}
    return {("fdatasync", "incoming file"), ("rename", "incoming file")}


def ends_of_runs(steps: Sequence[Step]) -> list[Step]:
    """Of steps in a row that do the same, the first, the middle one and the last."""
    chosen = []
    for _, group in groupby(steps, key=lambda step: (step.thread, step.call, step.on)):
        run = list(group)
        chosen += [run[index] for index in sorted({0, len(run) // 2, len(run) - 1})]
    return chosen
