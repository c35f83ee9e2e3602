from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tools.doctor.checks_storage import (
    check_disk,
    check_file_system,
    check_state_dir,
    file_system_of,
    judge_file_system,
    judge_inodes,
    judge_room,
)
from tools.doctor.findings import Context, Finding, Status

MakeContext = Callable[..., Context]
Examine = Callable[..., Mapping[str, Finding]]

_NOBODY = 65_534
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_MOUNT = 'mount -t tmpfs -o "$1" tmpfs "$2" && mkdir "$2/state" && %s && shift 2 && exec "$@"'


def test_a_writable_folder_is_fine_and_stays_as_it_was(
    make_context: MakeContext, state_dir: Path
) -> None:
    assert check_state_dir(make_context()).status is Status.OK
    assert list(state_dir.iterdir()) == []


def test_a_folder_that_does_not_exist_yet_is_fine_and_is_not_made(
    make_context: MakeContext, tmp_path: Path
) -> None:
    wanted = tmp_path / "not" / "yet"
    found = check_state_dir(make_context(device={"state_dir": str(wanted)}))
    assert found.status is Status.OK
    assert "first start" in found.found
    assert not wanted.parent.exists()


def test_a_file_in_place_of_the_folder_fails(make_context: MakeContext, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for state_dir in (file, file / "below"):
        found = check_state_dir(make_context(device={"state_dir": str(state_dir)}))
        assert found.status is Status.FAILED
        assert "device.state_dir" in (found.remedy or "")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def _as_nobody() -> str:
    """Root writes everywhere, so the doctor has to become somebody else."""
    return f"import os; os.setgid({_NOBODY}); os.setuid({_NOBODY})" if os.getuid() == 0 else ""


def test_a_folder_that_may_not_be_written_fails(examine_apart: Examine, open_folder: Path) -> None:
    state_dir = open_folder / "state"
    state_dir.mkdir()
    state_dir.chmod(0o555)
    found = examine_apart(state_dir, prelude=_config_for_all(_as_nobody()))["state_dir"]
    assert found.status is Status.FAILED
    assert "Permission denied" in found.found
    assert "device.state_dir" in (found.remedy or "")


def test_a_folder_that_may_not_even_be_seen_fails_one_check_and_breaks_none(
    examine_apart: Examine, open_folder: Path
) -> None:
    (open_folder / "state").mkdir()
    open_folder.chmod(0o000)
    answers = examine_apart(open_folder / "state", prelude=_config_for_all(_as_nobody()))
    assert answers["state_dir"].status is Status.FAILED
    assert str(open_folder) in answers["state_dir"].found
    assert not [name for name, each in answers.items() if "itself broke" in each.found]


def _config_for_all(prelude: str) -> str:
    """The settings lie in a folder of pytest's, so they are read before the change of user."""
    return (
        "from edge_runtime.config.loading import load_settings\n"
        "import tools.doctor.command as command\n"
        "loaded = load_settings(Path(sys.argv[1]))\n"
        "command.load_settings = lambda _: loaded\n"
        f"{prelude}"
    )


def test_a_limit_of_file_sizes_fails_and_is_named(examine_apart: Examine, state_dir: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))"
    found = examine_apart(state_dir, prelude=limit)["state_dir"]
    assert found.status is Status.FAILED
    assert "File too large" in found.found
    assert "ulimit -f" in (found.remedy or "")
    assert list(state_dir.iterdir()) == []


@pytest.fixture
def mounted(tmp_path: Path) -> Callable[[str, str], tuple[Path, tuple[str, ...]]]:
    """A command that mounts a small disk in a namespace of its own, where others do not see it."""
    point = tmp_path / "disk"
    point.mkdir()
    tried = (
        subprocess.run(
            [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(point)],
            capture_output=True,
            text=True,
            check=False,
        )
        if shutil.which("unshare")
        else None
    )
    if tried is None or tried.returncode:
        pytest.skip(
            "this machine lets nobody mount in a user namespace: "
            f"{tried.stderr.strip() if tried else 'unshare is missing'}"
        )

    def mount(options: str, then: str = "true") -> tuple[Path, tuple[str, ...]]:
        script = _MOUNT % then
        command = (*_NAMESPACE, "sh", "-c", script, "sh", options, str(point))
        return point / "state", command

    return mount


Mount = Callable[..., tuple[Path, tuple[str, ...]]]


def test_a_read_only_file_system_fails_and_is_named(examine_apart: Examine, mounted: Mount) -> None:
    state_dir, command = mounted("size=1m", 'mount -o remount,ro "$2"')
    found = examine_apart(state_dir, command=command)["state_dir"]
    assert found.status is Status.FAILED
    assert "Read-only file system" in found.found
    assert "mounted read-only" in (found.remedy or "")


def test_a_full_disk_fails_the_folder_and_the_disk(examine_apart: Examine, mounted: Mount) -> None:
    fill = '{ dd if=/dev/zero of="$2/filler" bs=1k count=64 2>/dev/null || true; }'
    state_dir, command = mounted("size=64k", fill)
    answers = examine_apart(state_dir, command=command)
    assert answers["state_dir"].status is Status.FAILED
    assert "No space left" in answers["state_dir"].found
    assert "free space" in (answers["state_dir"].remedy or "")
    assert answers["disk"].status is Status.FAILED
    assert "A700" in answers["disk"].found
    assert "node.min_free_bytes" in (answers["disk"].remedy or "")


def test_a_disk_without_inodes_fails_although_it_has_room(
    examine_apart: Examine, mounted: Mount
) -> None:
    state_dir, command = mounted("size=8g,nr_inodes=200")
    found = examine_apart(state_dir, command=command)["disk"]
    assert found.status is Status.FAILED
    assert "inodes" in found.found


def test_a_folder_in_memory_is_a_warning(examine_apart: Examine, mounted: Mount) -> None:
    state_dir, command = mounted("size=1m")
    found = examine_apart(state_dir, command=command)["file_system"]
    assert found.status is Status.WARNING
    assert "tmpfs" in found.found
    assert "device.state_dir" in (found.remedy or "")


def test_a_reserve_that_the_disk_cannot_hold_fails(
    make_context: MakeContext, state_dir: Path
) -> None:
    room = shutil.disk_usage(state_dir).free
    enough = min(room * 100, 1 << 40)
    found = check_disk(make_context(node={"min_free_bytes": enough}))
    assert found.status is Status.FAILED
    assert "node.min_free_bytes" in found.found
    assert check_disk(make_context(node={"min_free_bytes": 0})).status is not Status.FAILED


@pytest.mark.parametrize(
    ("free", "status"),
    [(99, Status.FAILED), (100, Status.WARNING), (199, Status.WARNING), (200, Status.OK)],
)
def test_room_is_judged_against_the_reserve(free: int, status: Status) -> None:
    assert judge_room(Path("/spool"), free, 100).status is status


@pytest.mark.parametrize(
    ("free", "status"), [(999, Status.FAILED), (1_000, Status.WARNING), (50_000, Status.OK)]
)
def test_inodes_are_judged(free: int, status: Status) -> None:
    assert judge_inodes(Path("/spool"), free).status is status


MOUNTINFO = """\
24 30 0:22 / /proc rw,nosuid - proc proc rw
30 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
35 30 0:31 / /var/lib rw - tmpfs tmpfs rw
36 35 0:32 / /var/lib/edge\\040triage rw shared:9 master:2 - nfs4 server:/x rw
37 35 254:1 / /var/lib rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/x", "ext4"),
        ("/var/library", "ext4"),
        ("/var/lib/spool", "xfs"),
        ("/var/lib/edge triage/spool", "nfs4"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_and_last_mount(folder: str, kind: str) -> None:
    assert file_system_of(Path(folder), MOUNTINFO) == kind


def test_a_network_file_system_is_a_warning() -> None:
    assert judge_file_system(Path("/x"), "nfs4").status is Status.WARNING
    assert judge_file_system(Path("/x"), "ext4").status is Status.OK


def test_this_machine_s_file_system_is_found(make_context: MakeContext) -> None:
    assert "unknown" not in check_file_system(make_context()).found
