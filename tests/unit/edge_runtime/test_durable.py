from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge_runtime.durable import sync_directory, write_durably

OLD = b"old " * 1_000

_WRITE_FOR_EVER = """
import sys
from pathlib import Path
from edge_runtime.durable import write_durably
path = Path(sys.argv[1])
print("ready", flush=True)
number = 0
while True:
    number += 1
    write_durably(path, (b"%08d" % number) * 20_000)
"""

_WRITE_TOO_MUCH = """
import resource, signal, sys
from pathlib import Path
from edge_runtime.durable import write_durably
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    write_durably(Path(sys.argv[1]), b"new " * 1_000_000)
except OSError as error:
    sys.exit(error.errno)
"""


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, OLD)
    write_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_has_the_mode_that_was_asked_for_whatever_the_umask(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "file"
    before = os.umask(0o077)
    try:
        write_durably(path, OLD, mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    done = subprocess.run([sys.executable, "-c", _WRITE_TOO_MUCH, str(path)], check=False)
    assert done.returncode == 27  # EFBIG
    assert path.read_bytes() == OLD
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_missing_folder_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_durably(tmp_path / "none" / "file", OLD)
    with pytest.raises(FileNotFoundError):
        sync_directory(tmp_path / "none")


@pytest.mark.parametrize("after_versions", [1, 5, 25])
def test_a_kill_leaves_the_old_or_the_new_file_whole(tmp_path: Path, after_versions: int) -> None:
    path = tmp_path / "file"
    with subprocess.Popen(
        [sys.executable, "-c", _WRITE_FOR_EVER, str(path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        seen: set[bytes] = set()
        while len(seen) < after_versions:
            if path.exists():
                seen.add(_whole(path.read_bytes()))
        writer.send_signal(signal.SIGKILL)
    _whole(path.read_bytes())


def _whole(content: bytes) -> bytes:
    number = content[:8]
    assert content == number * 20_000
    return number
