"""A file that is written durably is whole, or as it was before."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from simulators.plan_bench import names_in

from engines.durable import write_durably


def test_the_parts_are_written_one_after_the_other(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_durably(target, [b"one", b"", b"two"], mode=0o600)
    assert target.read_bytes() == b"onetwo"
    assert names_in(tmp_path) == ["file"]


def test_large_parts_are_written_whole(tmp_path: Path) -> None:
    large = os.urandom(20 << 20)
    write_durably(tmp_path / "file", [large[:1], large[1:]], mode=0o600)
    assert (tmp_path / "file").read_bytes() == large


def test_the_mode_is_the_one_asked_for_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_durably(tmp_path / "file", [b"x"], mode=0o640)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_an_older_file_is_replaced_and_its_readers_keep_it(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_durably(target, [b"old"], mode=0o600)
    with target.open("rb") as reader:
        write_durably(target, [b"new"], mode=0o600)
        assert reader.read() == b"old"
    assert target.read_bytes() == b"new"


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "file").symlink_to(victim)
    (tmp_path / ".file.draft").symlink_to(victim)
    write_durably(tmp_path / "file", [b"new"], mode=0o600)
    assert (victim.read_bytes(), (tmp_path / "file").read_bytes()) == (b"mine", b"new")
    assert not (tmp_path / "file").is_symlink()


def test_what_a_crash_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".file.draft").write_bytes(b"half of something that is longer")
    write_durably(tmp_path / "file", [b"new"], mode=0o600)
    assert (tmp_path / "file").read_bytes() == b"new"
    assert names_in(tmp_path) == ["file"]


def test_a_refusal_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_durably(tmp_path / "file", [b"new"], mode=0o600)
    assert names_in(tmp_path) == ["file"]
