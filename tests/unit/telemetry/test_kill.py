"""``kill -9`` of a writer at any moment: what it was told is durable is there afterwards."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from telemetry.guard import EgressGuard
from telemetry.ledger import Ledger, read_entries, verify
from telemetry.outbox import Outbox

LEDGER_WRITER = """
import sys
from pathlib import Path
from telemetry.ledger import Ledger, LedgerRecord
number = int(sys.argv[2])
with Ledger(Path(sys.argv[1])) as ledger:
    while True:
        batch = [LedgerRecord(topic="t", payload=b"%d" % n) for n in range(number, number + 3)]
        ledger.append(batch, wall_us=1)
        number += 3
        print(number - 1, flush=True)
"""

OUTBOX_WRITER = """
import sys
from pathlib import Path
from telemetry.events import Outcome, AnalysisEvent
from telemetry.guard import EgressGuard
from telemetry.outbox import Outbox, OutboxItem
from telemetry.policy import EgressPolicy, ModelRef, Version
model = ModelRef(name="head_ct", version=Version(major=1, minor=0, patch=0))
guard = EgressGuard(EgressPolicy(device_id="d41d8cd98f00", models=frozenset({model})))
event = AnalysisEvent(
    hour_wall_us=0, clock_synced=True, outcome=Outcome.SUSPECTED, reason=None, model=model,
    revision=1, instances=1, score=0.5, backend=None, receive_ms=1, wait_ms=1, analyse_ms=1,
    time_to_notification_ms=1,
)
number = int(sys.argv[2])
with Outbox(Path(sys.argv[1]), guard=guard) as outbox:
    while True:
        outbox.put([OutboxItem(event_key=f"k{n}", event=event) for n in range(number, number + 3)])
        number += 3
        print(number - 1, flush=True)
"""


def kill_after(script: str, where: Path, first: int, promises: int) -> int:
    """Start a writer, read some of its promises, kill it; return the last promise it made."""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(where), str(first)],
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        last = first - 1
        for _ in range(promises):
            last = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            last = int(line)
    return last


@pytest.mark.parametrize("seed", range(3))
def test_killed_ledger_writer_loses_no_entry(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    last = -1
    for _ in range(3):
        # What the last writer did not promise may be there all the same: begin after it.
        entries = list(read_entries(tmp_path / "egress.jsonl"))
        first = int(entries[-1].payload) + 1 if entries else 0
        last = kill_after(LEDGER_WRITER, tmp_path, first, draw.randrange(1, 40))
        with Ledger(tmp_path):
            assert verify(tmp_path / "egress.jsonl").findings == ()
        payloads = [int(entry.payload) for entry in read_entries(tmp_path / "egress.jsonl")]
        assert payloads == list(range(len(payloads)))
        assert payloads[-1] >= last


@pytest.mark.parametrize("seed", range(3))
def test_killed_outbox_writer_loses_no_event(tmp_path: Path, guard: EgressGuard, seed: int) -> None:
    draw = random.Random(seed)
    path = tmp_path / "outbox.db"
    last = -1
    for _ in range(3):
        # The next writer begins with the last promised batch again: keys are put once.
        last = kill_after(OUTBOX_WRITER, path, max(0, last - 2), draw.randrange(1, 40))
        with Outbox(path, guard=guard) as outbox:
            keys = [row.event_key for row in outbox.oldest(100_000)]
        assert keys == [f"k{number}" for number in range(len(keys))]
        assert len(keys) > last
        assert len(keys) % 3 == 0
