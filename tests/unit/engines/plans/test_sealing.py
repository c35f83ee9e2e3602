"""The secret: made once, read only when it is ours alone, and never shown."""

from __future__ import annotations

import copy
import hashlib
import hmac
import os
import pickle
import socket
import stat
from pathlib import Path

import pytest
from simulators.plan_bench import open_files

from engines.errors import PlanStoreError
from engines.plans.sealing import SECRET_BYTES, SECRET_NAME, Seal, make_seal, read_seal

SECRET = bytes(range(100, 100 + SECRET_BYTES))
NOBODY = 65_534


def write_secret(folder: Path, content: bytes = SECRET, mode: int = 0o600) -> Path:
    path = folder / SECRET_NAME
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_there_is_none_before_one_is_made(tmp_path: Path) -> None:
    assert read_seal(tmp_path) is None


def test_a_secret_is_made_once_and_is_of_this_account_alone(tmp_path: Path) -> None:
    made = make_seal(tmp_path)
    found = (tmp_path / SECRET_NAME).stat()
    assert (found.st_size, stat.S_IMODE(found.st_mode)) == (SECRET_BYTES, 0o600)
    read = read_seal(tmp_path)
    assert read is not None
    assert read.admits(b"message", made.mac(b"message"))
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_NAME]


def test_a_strange_umask_changes_nothing(tmp_path: Path) -> None:
    before = os.umask(0o377)
    try:
        make_seal(tmp_path)
    finally:
        os.umask(before)
    assert read_seal(tmp_path) is not None


def test_two_secrets_are_never_the_same(tmp_path: Path) -> None:
    secrets = set()
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        make_seal(folder)
        secrets.add((folder / SECRET_NAME).read_bytes())
    assert len(secrets) == 20


def test_a_seal_is_hmac_with_sha_256() -> None:
    seal = Seal(SECRET)
    assert seal.mac(b"message") == hmac.new(SECRET, b"message", hashlib.sha256).digest()
    assert seal.admits(b"message", seal.mac(b"message"))


@pytest.mark.parametrize("offset", range(32))
def test_a_seal_admits_nothing_but_its_own(offset: int) -> None:
    seal = Seal(SECRET)
    mac = bytearray(seal.mac(b"message"))
    assert not seal.admits(b"messagf", bytes(mac))
    mac[offset] ^= 0x80
    assert not seal.admits(b"message", bytes(mac))
    assert not seal.admits(b"message", bytes(mac[:offset]))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o700, 0o400, 0o4600, 0o000])
def test_a_secret_that_others_may_read_is_an_error(tmp_path: Path, mode: int) -> None:
    write_secret(tmp_path, mode=mode)
    with pytest.raises(PlanStoreError, match=r"mode|cannot be read.*remove the file"):
        read_seal(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 31, 33, 4096])
def test_a_secret_of_another_size_is_an_error(tmp_path: Path, size: int) -> None:
    write_secret(tmp_path, bytes(size))
    with pytest.raises(PlanStoreError, match="has not 32 bytes"):
        read_seal(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file to another account needs root")
def test_a_secret_of_another_account_is_an_error(tmp_path: Path) -> None:
    os.chown(write_secret(tmp_path), NOBODY, NOBODY)
    with pytest.raises(PlanStoreError, match="belongs to another account"):
        read_seal(tmp_path)


def test_a_link_to_a_secret_is_an_error(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / SECRET_NAME).symlink_to(write_secret(elsewhere))
    with pytest.raises(PlanStoreError, match="cannot be read"):
        read_seal(tmp_path)


def test_a_link_to_nothing_is_an_error_and_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / SECRET_NAME).symlink_to(tmp_path / "nothing")
    with pytest.raises(PlanStoreError, match="cannot be read"):
        read_seal(tmp_path)
    assert not (tmp_path / "nothing").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SECRET_NAME, 0o600)
    with pytest.raises(PlanStoreError, match="no regular file"):
        read_seal(tmp_path)


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / SECRET_NAME).mkdir(mode=0o600)
    with pytest.raises(PlanStoreError, match="no regular file"):
        read_seal(tmp_path)


def test_a_socket_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(SECRET_NAME)
        with pytest.raises(PlanStoreError, match="cannot be read"):
            read_seal(tmp_path)


def test_refusals_leave_no_file_open(tmp_path: Path) -> None:
    write_secret(tmp_path, mode=0o644)
    before = open_files()
    for _ in range(10):
        with pytest.raises(PlanStoreError):
            read_seal(tmp_path)
    assert open_files() == before


def test_the_secret_is_never_shown(tmp_path: Path) -> None:
    write_secret(tmp_path)
    seal = read_seal(tmp_path)
    for shown in (repr(seal), str(seal), f"{seal}"):
        assert shown == "Seal(...)"
    path = write_secret(tmp_path, mode=0o644)
    with pytest.raises(PlanStoreError) as caught:
        read_seal(path.parent)
    shown = f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"
    assert SECRET.hex() not in shown
    assert repr(SECRET)[2:-1] not in shown


def test_a_seal_goes_to_no_other_process() -> None:
    seal = Seal(SECRET)
    for send in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="stays in the process"):
            send(seal)
