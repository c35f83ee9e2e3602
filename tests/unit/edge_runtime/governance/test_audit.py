from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from simulators.store_bench import StoreBench

from edge_runtime.governance.audit import AuditChain
from edge_runtime.governance.chain import (
    CHAIN_NAME,
    GENESIS,
    AuditFault,
    ReadChain,
    encode_entry,
    read_chain,
    seal,
)
from edge_runtime.governance.errors import AuditDamagedError, AuditWriteError
from edge_runtime.governance.records import Denied, Installed
from edge_runtime.store.model_packages import read_audit_head
from edge_runtime.store.worklist import data_version

DENIED = Denied(asked="activate", subject="bright", reason="nobody has approved it")
ENTRIES = 4


@pytest.fixture
def written(bench: StoreBench) -> Path:
    """A chain of some entries."""
    with bench.opened_chain() as chain:
        for _ in range(ENTRIES):
            chain.record(DENIED, actor="user tests")
    return bench.audit / CHAIN_NAME


def faults(chain: ReadChain) -> list[tuple[AuditFault, int]]:
    return [(finding.fault, finding.line) for finding in chain.findings]


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def test_each_entry_says_who_did_what_and_follows_the_one_before(
    bench: StoreBench, written: Path
) -> None:
    chain = read_chain(written)
    assert chain.is_intact
    assert [entry.seq for entry in chain.entries] == [1, 2, 3, 4]
    assert chain.entries[0].previous == GENESIS
    assert {entry.actor for entry in chain.entries} == {"user tests"}
    head = read_audit_head(bench.connection)
    assert head is not None
    assert (head.seq, head.hash) == (4, chain.entries[-1].hash)


def test_a_script_of_a_few_lines_can_check_the_chain(written: Path) -> None:
    """As docs/models/lifecycle.md says."""
    from hashlib import sha256  # noqa: PLC0415 - part of the script

    previous = "0" * 64
    for line in written.read_text("ascii").splitlines():
        entry = json.loads(line)
        claimed = entry.pop("hash")
        text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        assert sha256(text.encode()).hexdigest() == claimed
        assert entry["previous"] == previous
        previous = claimed


def test_a_flipped_bit_anywhere_is_noticed_and_its_line_is_named(
    bench: StoreBench, written: Path
) -> None:
    content = written.read_bytes()
    head = read_audit_head(bench.connection)
    line = 1
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1
        written.write_bytes(changed)
        chain = read_chain(written, at_least=head)
        assert not chain.is_intact, place
        assert line in {finding.line for finding in chain.findings}, place
        line += content[place] == ord("\n")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: lines[1:], [(AuditFault.BROKEN_CHAIN, 1)]),
        (lambda lines: [lines[0], *lines[2:]], [(AuditFault.BROKEN_CHAIN, 2)]),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], [(AuditFault.BROKEN_CHAIN, 3)]),
        (
            lambda lines: [lines[1], lines[0], *lines[2:]],
            [(AuditFault.BROKEN_CHAIN, 1), (AuditFault.BROKEN_CHAIN, 2)],
        ),
        (lambda lines: lines[:-1], [(AuditFault.CUT_SHORT, 3)]),
        (lambda _lines: [], [(AuditFault.CUT_SHORT, 0)]),
        (lambda lines: [*lines, b"\n"], [(AuditFault.UNREADABLE, 5)]),
        (lambda lines: [lines[0].replace(b":", b": ", 1), *lines[1:]], [(AuditFault.ALTERED, 1)]),
    ],
    ids=["first", "middle", "twice", "swapped", "tail", "all", "empty line", "space"],
)
def test_a_line_that_is_removed_added_or_moved_is_noticed(
    bench: StoreBench,
    written: Path,
    change: Callable[[list[bytes]], list[bytes]],
    expected: list[tuple[AuditFault, int]],
) -> None:
    rewrite(written, change)
    found = faults(bench.chain())
    assert set(expected) <= set(found)
    assert not bench.chain().is_intact


def test_a_forged_entry_with_a_right_hash_breaks_the_chain(
    bench: StoreBench, written: Path
) -> None:
    forged = seal(
        DENIED,
        seq=2,
        wall_us=1,
        clock_synced=True,
        actor="user nobody",
        previous=read_chain(written).entries[0].hash,
    )
    rewrite(written, lambda lines: [lines[0], encode_entry(forged), *lines[2:]])
    assert (AuditFault.BROKEN_CHAIN, 3) in faults(bench.chain())


def test_a_whole_chain_that_was_forged_misses_what_the_database_remembers(
    bench: StoreBench, written: Path
) -> None:
    previous, lines = GENESIS, []
    for seq in range(1, ENTRIES + 1):
        entry = seal(
            DENIED, seq=seq, wall_us=seq, clock_synced=True, actor="user x", previous=previous
        )
        previous = entry.hash
        lines.append(encode_entry(entry))
    written.write_bytes(b"".join(lines))
    assert read_chain(written).is_intact
    assert faults(bench.chain()) == [(AuditFault.CUT_SHORT, ENTRIES)]


@pytest.mark.parametrize("change", [lambda lines: lines[:-1], lambda lines: [b"{}\n", *lines]])
def test_a_damaged_chain_is_not_written_on(
    bench: StoreBench, written: Path, change: Callable[[list[bytes]], list[bytes]]
) -> None:
    rewrite(written, change)
    before = written.read_bytes()
    with pytest.raises(AuditDamagedError, match="audit verify"), bench.opened_chain():
        pass
    assert written.read_bytes() == before


def test_after_the_file_is_moved_away_the_chain_goes_on_and_says_so(
    bench: StoreBench, written: Path
) -> None:
    head = read_audit_head(bench.connection)
    assert head is not None
    written.rename(bench.folder / "evidence")
    assert not bench.chain().is_intact
    with bench.opened_chain() as chain:
        chain.record(DENIED, actor="user tests")
    found = bench.chain()
    assert found.is_intact
    assert found.continues_after == ENTRIES
    assert found.entries[0].record.action == "continue"
    assert found.entries[0].previous == head.hash


def test_a_torn_last_line_is_set_aside_and_nothing_of_it_happened(
    bench: StoreBench, written: Path
) -> None:
    whole = written.read_bytes()
    record = Installed(digest="ab" * 32, name="bright", version="1.0.0", demonstration=True)
    last = read_chain(written).entries[-1]
    entry = seal(record, seq=5, wall_us=1, clock_synced=True, actor="user x", previous=last.hash)
    line = encode_entry(entry)
    cuts = [*range(1, len(line) - 1, 16), len(line) - 1]
    for cut in cuts:
        written.write_bytes(whole + line[:cut])
        assert bench.chain().is_intact
        assert faults(bench.chain()) == [(AuditFault.TORN_TAIL, ENTRIES + 1)]
        with bench.opened_chain():
            assert bench.store.packages() == ()
        assert written.read_bytes() == whole
    kept = {item.read_bytes() for item in bench.audit.glob("audit.torn-*")}
    assert kept == {line[:cut] for cut in cuts}


def test_what_a_crash_left_undone_between_entry_and_effect_is_done_at_the_next_opening(
    bench: StoreBench, written: Path
) -> None:
    last = read_chain(written).entries[-1]
    record = Installed(digest="ab" * 32, name="bright", version="1.0.0", demonstration=True)
    entry = seal(
        record,
        seq=last.seq + 1,
        wall_us=7,
        clock_synced=False,
        actor="user crashed",
        previous=last.hash,
    )
    with written.open("ab") as file:
        file.write(encode_entry(entry))
    assert bench.store.packages() == ()
    with bench.opened_chain():
        (package,) = bench.store.packages()
    assert (package.name, package.moved_by, package.moved_wall_us) == ("bright", "user crashed", 7)
    assert bench.chain().is_intact


def test_a_chain_of_another_device_is_not_applied(bench: StoreBench, tmp_path: Path) -> None:
    other = StoreBench(tmp_path / "other")
    other.run("1.0.0")
    (other.audit / CHAIN_NAME).rename(tmp_path / "chain")
    with other.opened_chain() as chain:
        chain.record(DENIED, actor="user tests")
    other.store.retire("bright")  # of a package that only the lost part knows
    bench.audit.mkdir()
    (bench.audit / CHAIN_NAME).write_bytes((other.audit / CHAIN_NAME).read_bytes())
    other.close()
    with pytest.raises(AuditDamagedError, match="not about this database"), bench.opened_chain():
        pass


def test_a_full_disk_stops_the_action_and_leaves_the_chain_whole(
    bench: StoreBench, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    before = data_version(bench.connection)
    with bench.opened_chain() as chain:

        def fail(_handle: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(AuditWriteError, match="so nothing was done"):
            chain.record(DENIED, actor="user tests")
        monkeypatch.setattr(os, "fsync", real)
        chain.record(DENIED, actor="user tests")
    assert len(bench.chain().entries) == ENTRIES + 1
    assert bench.chain().is_intact
    assert data_version(bench.connection) == before
    assert written.exists()


def test_two_writers_never_write_at_once(bench: StoreBench) -> None:
    other = AuditChain(bench.audit, bench.connection, bench.clock, patience_s=0.0)
    with bench.opened_chain() as chain:
        with pytest.raises(Exception, match="try again"):
            other.__enter__()
        chain.record(DENIED, actor="user tests")
    with other:
        other.record(DENIED, actor="user tests")
    assert bench.chain().is_intact
    assert len(bench.chain().entries) == 2
