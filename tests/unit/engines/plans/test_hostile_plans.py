"""Only what this device built, for this very key, is ever handed to a library; all else is absent.

A plan is code. Whoever can put a file here must not be able to have it run, nor to stop the device
for longer than a build takes.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.plan_bench import (
    KEY,
    NEW_PLAN,
    OLD_PLAN,
    OTHER_KEY,
    change_byte,
    keep_proven,
    leftovers,
    open_files,
    plan_path,
    proof_of,
    proof_path,
    quarantined,
    reasons,
    run_script,
)
from simulators.small_disk import MIB, memory_disk, why_not
from simulators.waiting import wait_until

from engines.errors import PlanRejectedError, PlanStoreError
from engines.plans.locks import held
from engines.plans.sealed import MAGIC, SealedKind, header_of, read_sealed
from engines.plans.sealed_folder import QUARANTINE
from engines.plans.sealing import SECRET_NAME, Seal
from engines.plans.store import PlanStore, StoredPlan

SEAL = Seal(b"s" * 32)
NOBODY = 65_534
_WHY_NOT = why_not()

Put = Callable[[Path, bytes], None]


def sealed_bytes(seal: Seal = SEAL, plan: bytes = NEW_PLAN) -> bytes:
    key = KEY.canonical()
    return header_of(SealedKind.PLAN, key, plan, 1).encode(seal) + plan


def read(path: Path) -> bytes:
    return read_sealed(path, SEAL, kind=SealedKind.PLAN, key=KEY.canonical()).content


def assert_refused_and_replaced(store: PlanStore, reason: str) -> None:
    """It is absent, moved away with a reason, and the next build takes its place."""
    assert store.find(KEY) is None
    assert not os.path.lexists(plan_path(store, KEY))
    assert len(quarantined(store)) == 1
    (found,) = reasons(store)
    assert reason in found
    with store.building(KEY, on_wait=lambda: False) as built:
        assert built is None
        store.keep(KEY, NEW_PLAN)
    again = store.find(KEY)
    assert again is not None
    assert again.plan == NEW_PLAN
    assert leftovers(store) == []


# ------------------------------------------------------------------ content


def test_a_change_of_any_byte_is_seen(tmp_path: Path) -> None:
    """In magic, MAC, length, header, key, plan: everywhere."""
    path = tmp_path / "file"
    sound = sealed_bytes()
    path.write_bytes(sound)
    assert read(path) == NEW_PLAN
    for offset in range(len(sound)):
        changed = bytearray(sound)
        changed[offset] ^= 1 << offset % 8
        path.write_bytes(changed)
        with pytest.raises(PlanRejectedError):
            read(path)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    sound = sealed_bytes()
    for length in range(len(sound)):
        path.write_bytes(sound[:length])
        with pytest.raises(PlanRejectedError):
            read(path)


@given(more=st.binary(min_size=1, max_size=200))
def test_a_file_that_was_added_to_is_refused(
    tmp_path_factory: pytest.TempPathFactory, more: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "longer"
    path.write_bytes(sealed_bytes() + more)
    with pytest.raises(PlanRejectedError, match="longer or shorter"):
        read(path)


@given(junk=st.binary(max_size=400))
def test_whatever_is_written_there_is_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "junk"
    for content in (junk, MAGIC + junk, MAGIC + bytes(32) + struct.pack(">I", len(junk)) + junk):
        path.write_bytes(content)
        with pytest.raises(PlanRejectedError):
            read(path)


def test_a_header_that_says_it_is_huge_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(MAGIC + bytes(32) + struct.pack(">I", 0xFFFF_FFFF) + bytes(100))
    with pytest.raises(PlanRejectedError, match="not in the form"):
        read(path)


def test_a_plan_that_another_device_sealed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(sealed_bytes(Seal(b"t" * 32)))
    with pytest.raises(PlanRejectedError, match="not sealed by this device"):
        read(path)


def test_the_seal_is_looked_at_before_what_is_sealed(tmp_path: Path) -> None:
    """A header that would break whoever reads it is refused for its seal alone."""
    path = tmp_path / "file"
    for header in (b"[" * 60_000, b"{}", b"\xff\xfe", b'{"size_bytes": -1}'):
        path.write_bytes(MAGIC + bytes(32) + struct.pack(">I", len(header)) + header)
        with pytest.raises(PlanRejectedError, match="not sealed by this device"):
            read(path)


@pytest.mark.parametrize("part", ["start", "mac", "header", "plan"])
def test_a_changed_file_is_moved_away_with_a_reason(store: PlanStore, part: str) -> None:
    keep_proven(store, KEY, NEW_PLAN)
    offset = {"start": 0, "mac": len(MAGIC), "header": 70, "plan": -1}[part]
    change_byte(plan_path(store, KEY), offset)
    assert_refused_and_replaced(store, "it")


def test_a_plan_of_another_key_that_was_renamed_is_refused(store: PlanStore) -> None:
    store.keep(OTHER_KEY, OLD_PLAN)
    plan_path(store, OTHER_KEY).rename(plan_path(store, KEY))
    assert_refused_and_replaced(store, "sealed for something else")


def test_a_proof_that_was_renamed_to_a_plan_is_refused(store: PlanStore) -> None:
    keep_proven(store, KEY, NEW_PLAN)
    proof_path(store, KEY).rename(plan_path(store, KEY))
    assert_refused_and_replaced(store, "sealed as a proof")


def test_a_plan_that_was_renamed_to_a_proof_proves_nothing(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    shutil.copy(plan_path(store, KEY), proof_path(store, KEY))
    found = store.find(KEY)
    assert found is not None
    assert found.proof is None
    assert reasons(store) == ["it was sealed as a plan and renamed"]


def test_a_changed_proof_proves_nothing_and_leaves_the_plan(store: PlanStore) -> None:
    keep_proven(store, KEY, NEW_PLAN)
    change_byte(proof_path(store, KEY), -2)
    found = store.find(KEY)
    assert found is not None
    assert (found.plan, found.proof) == (NEW_PLAN, None)
    assert reasons(store) == ["its content was changed after it was sealed"]


def test_the_proof_of_another_key_proves_nothing(store: PlanStore) -> None:
    keep_proven(store, OTHER_KEY, NEW_PLAN)
    store.keep(KEY, NEW_PLAN)
    shutil.copy(proof_path(store, OTHER_KEY), proof_path(store, KEY))
    found = store.find(KEY)
    assert found is not None
    assert found.proof is None


def test_an_older_plan_with_its_own_seal_does_not_take_over_a_newer_proof(
    store: PlanStore, tmp_path: Path
) -> None:
    """Putting back what this device built itself is no attack; using a proof of another is."""
    store.keep(KEY, OLD_PLAN)
    shutil.copy(plan_path(store, KEY), tmp_path / "older")
    keep_proven(store, KEY, NEW_PLAN)
    shutil.copy(tmp_path / "older", plan_path(store, KEY))
    found = store.find(KEY)
    assert found is not None
    assert (found.plan, found.proof) == (OLD_PLAN, None)


# ------------------------------------------------------------------ what is no file


def test_a_huge_file_is_refused_without_being_read(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    os.truncate(plan_path(store, KEY), 1 << 40)
    assert store.find(KEY) is None
    assert quarantined(store) == []  # too large to be kept for anybody to look at
    assert reasons(store) == [f"it is larger than {1 << 30} bytes"]
    store.keep(KEY, NEW_PLAN)
    assert store.find(KEY) is not None


def test_huge_files_under_other_names_give_way_first(store: PlanStore) -> None:
    store.keep(OTHER_KEY, OLD_PLAN)
    for number in range(3):
        huge = store.folder / f"{number:064x}.plan"
        huge.touch()
        os.truncate(huge, 1 << 40)
    store.keep(KEY, NEW_PLAN)
    assert store.find(OTHER_KEY) is not None
    assert len(list(store.folder.glob("*.plan"))) == 2


def put_link(path: Path, _plan: bytes) -> None:
    elsewhere = path.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def put_link_to_nothing(path: Path, _plan: bytes) -> None:
    path.unlink()
    path.symlink_to("/nothing/is/here")


def put_link_to_itself(path: Path, _plan: bytes) -> None:
    path.unlink()
    path.symlink_to(path)


def put_folder(path: Path, plan: bytes) -> None:
    path.unlink()
    path.mkdir()
    (path / "plan").write_bytes(plan)


def put_pipe(path: Path, _plan: bytes) -> None:
    path.unlink()
    os.mkfifo(path)


def put_socket(path: Path, _plan: bytes) -> None:
    path.unlink()
    before = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(before)


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        (put_link, "cannot be opened"),
        (put_link_to_nothing, "cannot be opened"),
        (put_link_to_itself, "cannot be opened"),
        (put_folder, "no regular file"),
        (put_pipe, "no regular file"),
        (put_socket, "cannot be opened"),
    ],
)
def test_what_is_no_file_is_moved_away_and_not_followed(
    store: PlanStore, put: Put, reason: str
) -> None:
    store.keep(KEY, NEW_PLAN)
    put(plan_path(store, KEY), NEW_PLAN)
    assert_refused_and_replaced(store, reason)


@pytest.mark.parametrize("put", [put_link, put_link_to_nothing, put_folder, put_pipe, put_socket])
def test_what_is_no_file_does_not_stop_a_plan_from_being_kept(store: PlanStore, put: Put) -> None:
    store.keep(KEY, OLD_PLAN)
    put(plan_path(store, KEY), OLD_PLAN)
    store.keep(KEY, NEW_PLAN)
    found = store.find(KEY)
    assert found is not None
    assert found.plan == NEW_PLAN


@pytest.mark.parametrize("put", [put_link, put_folder, put_pipe])
def test_what_is_no_file_can_be_removed(store: PlanStore, put: Put) -> None:
    store.keep(KEY, OLD_PLAN)
    put(plan_path(store, KEY), OLD_PLAN)
    assert store.entries()[0].key is None
    assert store.remove(KEY.digest()) is True
    assert store.entries() == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_moved_away(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    plan_path(store, KEY).chmod(0o000)
    assert_refused_and_replaced(store, "cannot be opened")


def test_refusals_leave_no_file_open(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    before = open_files()
    for put in (put_link, put_folder, put_pipe, put_socket):
        put(plan_path(store, KEY), NEW_PLAN)
        assert store.find(KEY) is None
        store.keep(KEY, NEW_PLAN)
        change_byte(plan_path(store, KEY), -1)
        assert store.find(KEY) is None
        store.keep(KEY, NEW_PLAN)
    assert open_files() == before


def test_a_disk_that_fails_to_read_is_a_refusal() -> None:
    """The kernel answers a read of the first page of a process with an I/O error."""
    with pytest.raises(PlanRejectedError, match="cannot be read"):
        read(Path("/proc/self/mem"))


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "removed"])
def test_what_was_mended_while_it_was_refused_is_not_moved_away(
    store: PlanStore, *, is_replaced: bool
) -> None:
    store.keep(KEY, NEW_PLAN)
    sound = plan_path(store, KEY).read_bytes()
    change_byte(plan_path(store, KEY), -1)
    found: list[StoredPlan | None] = []
    lock = store.folder / ".writing"
    finder = threading.Thread(target=lambda: found.append(store.find(KEY)))
    with held(lock):
        inode = f":{lock.stat().st_ino} "
        finder.start()
        # An arrow in /proc/locks is one who waits.
        wait_until(
            lambda: any(
                "->" in line and inode in line
                for line in Path("/proc/locks").read_text("ascii").splitlines()
            )
        )
        plan_path(store, KEY).unlink()
        if is_replaced:
            plan_path(store, KEY).write_bytes(sound)
    finder.join(30)
    assert [each and each.plan for each in found] == [NEW_PLAN if is_replaced else None]
    assert quarantined(store) == []


def test_a_crowd_of_refusals_is_bounded(store: PlanStore) -> None:
    for number in range(20):
        store.keep(KEY, NEW_PLAN)
        change_byte(plan_path(store, KEY), -1 - number)
        assert store.find(KEY) is None
    names = [path.name[:6] for path in quarantined(store)]
    assert names == [f"{number:06d}" for number in range(13, 21)]
    assert len(reasons(store)) == 8


@pytest.mark.parametrize("put", [put_link, put_link_to_nothing, put_folder, put_pipe, put_socket])
def test_odd_things_in_the_place_of_drafts_and_locks_stop_nobody(
    store: PlanStore, put: Put
) -> None:
    keep_proven(store, KEY, OLD_PLAN)
    for name in (
        f".{KEY.digest()}.plan.draft",
        f".{KEY.digest()}.building",
        ".odd.building",
        ".writing",
    ):
        odd = store.folder / name
        odd.touch()
        put(odd, NEW_PLAN)
    with store.building(KEY) as found:
        assert found is not None
        keep_proven(store, KEY, NEW_PLAN)
    again = store.find(KEY)
    assert again is not None
    assert again.plan == NEW_PLAN
    assert leftovers(store) == []


def test_a_quarantine_that_leads_elsewhere_is_not_followed(
    store: PlanStore, tmp_path: Path
) -> None:
    store.keep(KEY, NEW_PLAN)
    (tmp_path / "elsewhere").mkdir()
    (store.folder / QUARANTINE).symlink_to(tmp_path / "elsewhere")
    change_byte(plan_path(store, KEY), -1)
    assert store.find(KEY) is None
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(quarantined(store)) == 1


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"no JSON",
        b"\xff",
        b"[]",
        b"[" * 10_000,
        b"{}",
        b'{"reason": 5}',
        b'{"reason": "' + b"x" * 20_000 + b'"}',
    ],
)
def test_a_reason_that_somebody_else_wrote_is_none(store: PlanStore, note: bytes) -> None:
    store.keep(KEY, NEW_PLAN)
    store.quarantine(KEY, "bad magic")
    (path,) = (store.folder / QUARANTINE).glob("*.reason.json")
    path.write_bytes(note)
    assert [each.reason for each in store.quarantined()] == [""]


def test_reasons_are_not_read_of_pipes_and_links(store: PlanStore, tmp_path: Path) -> None:
    store.keep(KEY, NEW_PLAN)
    store.quarantine(KEY, "bad magic")
    (path,) = (store.folder / QUARANTINE).glob("*.reason.json")
    kept = path.rename(tmp_path / "kept")
    path.symlink_to(kept)
    assert [each.reason for each in store.quarantined()] == [""]
    path.unlink()
    os.mkfifo(path)
    assert [each.reason for each in store.quarantined()] == [""]


def test_what_lies_in_somebody_elses_folder_was_not_put_aside(
    store: PlanStore, tmp_path: Path
) -> None:
    store.keep(KEY, NEW_PLAN)
    store.quarantine(KEY, "bad magic")
    (store.folder / QUARANTINE).rename(tmp_path / "elsewhere")
    (store.folder / QUARANTINE).symlink_to(tmp_path / "elsewhere")
    assert store.quarantined() == ()


def test_odd_names_in_the_folder_are_left_alone(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    (store.folder / QUARANTINE).mkdir()
    odd = [
        store.folder / "notes.txt",
        store.folder / f"{KEY.digest()}.plan.bak",
        store.folder / QUARANTINE / "999999999999999-notes.plan",
        store.folder / os.fsdecode(b"\xff\xfe.plan"),
    ]
    for path in odd:
        path.write_bytes(b"x")
    change_byte(plan_path(store, KEY), -1)
    assert store.find(KEY) is None
    store.keep(KEY, NEW_PLAN)
    assert [entry.digest for entry in store.entries()] == [KEY.digest()]
    assert all(path.exists() for path in odd)


def test_a_quarantine_that_is_no_folder_does_not_keep_a_bad_plan_alive(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    (store.folder / QUARANTINE).write_bytes(b"in the way")
    change_byte(plan_path(store, KEY), -1)
    assert store.find(KEY) is None
    assert not plan_path(store, KEY).exists()


# ------------------------------------------------------------------ the secret and the folder


def test_a_secret_that_is_gone_makes_all_that_it_sealed_absent(store: PlanStore) -> None:
    keep_proven(store, KEY, NEW_PLAN)
    before = (store.folder / SECRET_NAME).read_bytes()
    (store.folder / SECRET_NAME).unlink()
    assert store.entries()[0].key is None
    assert not (store.folder / SECRET_NAME).exists()  # listing makes nothing
    assert_refused_and_replaced(store, "not sealed by this device")
    assert (store.folder / SECRET_NAME).read_bytes() != before


def test_a_secret_that_was_replaced_makes_all_that_the_old_one_sealed_absent(
    store: PlanStore,
) -> None:
    keep_proven(store, KEY, NEW_PLAN)
    secret = store.folder / SECRET_NAME
    secret.write_bytes(b"a secret that somebody else knows"[:32])
    assert_refused_and_replaced(store, "not sealed by this device")


def test_a_secret_of_another_device_brings_its_plans_and_no_proof_of_ours(
    store: PlanStore, tmp_path: Path
) -> None:
    """A copy of a whole folder is that device: why the folder is for one account alone."""
    other = PlanStore(tmp_path / "other")
    other.keep(KEY, OLD_PLAN)
    keep_proven(store, KEY, NEW_PLAN)
    shutil.copy(plan_path(other, KEY), plan_path(store, KEY))
    assert_refused_and_replaced(store, "not sealed by this device")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o666])
def test_a_secret_that_others_may_read_stops_everything(store: PlanStore, mode: int) -> None:
    stored = keep_proven(store, KEY, NEW_PLAN)
    (store.folder / SECRET_NAME).chmod(mode)
    uses: list[Callable[[], object]] = [
        lambda: store.find(KEY),
        lambda: store.keep(KEY, NEW_PLAN),
        lambda: store.attach_proof(KEY, proof_of(stored)),
        lambda: store.timing_cache(KEY),
        lambda: store.keep_timing_cache(KEY, b"times"),
        lambda: store.runtime_cache(KEY),
        lambda: store.keep_runtime_cache(KEY, b"kernels"),
        store.entries,
    ]
    for use in uses:
        with pytest.raises(PlanStoreError, match="remove the file, and the engines are built anew"):
            use()
    (store.folder / SECRET_NAME).chmod(0o600)
    assert store.find(KEY) is not None
    assert quarantined(store) == []


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_folder_that_others_may_write_in_is_not_used(store: PlanStore, mode: int) -> None:
    store.keep(KEY, NEW_PLAN)
    store.folder.chmod(mode)
    for use in (lambda: store.find(KEY), lambda: store.keep(KEY, NEW_PLAN), store.entries):
        with pytest.raises(PlanStoreError, match="chmod go-w"):
            use()
    store.folder.chmod(0o700)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder to another account needs root")
def test_a_folder_of_another_account_is_not_used(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    os.chown(store.folder, NOBODY, NOBODY)
    with pytest.raises(PlanStoreError, match="run this as the account that runs the device"):
        store.find(KEY)


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "engines").write_bytes(b"x")
    with pytest.raises(PlanStoreError, match="no folder: move it away"):
        PlanStore(tmp_path / "engines").keep(KEY, NEW_PLAN)


def test_a_folder_below_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for use in (PlanStore.entries, lambda store: store.keep(KEY, NEW_PLAN)):
        with pytest.raises(PlanStoreError, match="cannot be"):
            use(PlanStore(tmp_path / "file" / "engines"))


def test_a_folder_may_lie_behind_a_link(tmp_path: Path) -> None:
    """As /var/lib/... is one to the disk for data."""
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    store = PlanStore(tmp_path / "state")
    store.keep(KEY, NEW_PLAN)
    assert store.find(KEY) is not None


@pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))
def test_a_disk_that_cannot_be_written_still_gives_its_plans(tmp_path: Path) -> None:
    with memory_disk(tmp_path / "disk", 4 * MIB) as disk:
        store = PlanStore(disk.folder / "engines")
        keep_proven(store, KEY, NEW_PLAN)
        disk.remount("ro")
        found = store.find(KEY)
        assert found is not None
        assert found.proof is not None
        assert len(store.entries()) == 1
        with pytest.raises(PlanStoreError, match="not read-only"):
            store.keep(KEY, OLD_PLAN)
        disk.remount("rw")


def test_a_store_without_memory_says_so(store: PlanStore) -> None:
    """Refused by the kernel: the plan is larger than what this process may take."""
    store.keep(KEY, bytes(64 << 20))
    script = """
import resource, sys
from pathlib import Path
from engines.errors import EngineMemoryError
from engines.plans.store import PlanStore
from simulators.plan_bench import KEY
store = PlanStore(Path(sys.argv[1]))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), resource.RLIM_INFINITY))
try:
    store.find(KEY)
except EngineMemoryError as error:
    sys.exit("64 MiB" not in str(error))
sys.exit("no error")
"""
    done = run_script(script, store.folder)
    assert done.returncode == 0, done.stderr
    assert store.find(KEY) is not None
    assert quarantined(store) == []


def test_a_process_without_free_files_does_not_blame_the_plan(store: PlanStore) -> None:
    store.keep(KEY, NEW_PLAN)
    script = """
import os, resource, sys
from pathlib import Path
from engines.errors import PlanStoreError
from engines.plans.store import PlanStore
from simulators.plan_bench import KEY
store = PlanStore(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for free in range(3):
    try:
        found = store.find(KEY)
    except PlanStoreError as error:
        if "Too many open files" not in str(error):
            sys.exit(str(error))
    else:
        sys.exit(found is None)
    os.close(taken.pop())
sys.exit("never found")
"""
    done = run_script(script, store.folder)
    assert done.returncode == 0, done.stderr
    assert quarantined(store) == []


def test_keys_that_differ_in_one_part_never_share_a_file(store: PlanStore) -> None:
    keys = [replace(KEY, dla_core=core) for core in (None, 0, 1)]
    for number, key in enumerate(keys):
        store.keep(key, bytes([number]) * 10)
    for number, key in enumerate(keys):
        found = store.find(key)
        assert found is not None
        assert found.plan == bytes([number]) * 10
