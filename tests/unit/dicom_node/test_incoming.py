"""One received file: its bytes, its memory, and both ways to the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.incoming import BUFFER_BYTES, BufferPool, IncomingFile, direct_flag
from dicom_node.spool import Spool


@pytest.fixture(params=["past the cache", "through the cache"])
def flags(request: pytest.FixtureRequest, tmp_path: Path) -> int:
    found = direct_flag(tmp_path)
    if request.param == "through the cache":
        return 0
    if not found:
        pytest.skip("this file system has no direct writes")
    return found


@pytest.fixture
def pool() -> BufferPool:
    return BufferPool()


def _begin(folder: Path, pool: BufferPool, flags: int, *, header: bytes = b"head") -> IncomingFile:
    return IncomingFile(
        str(folder / "file"),
        header,
        max_bytes=1 << 40,
        buffers=pool,
        flags=flags,
        check_room=lambda: None,
    )


_SIZES = [0, 1, 4091, 4092, 4093, BUFFER_BYTES - 4, BUFFER_BYTES - 3, 2 * BUFFER_BYTES + 4092]


@pytest.mark.parametrize("size", _SIZES)
def test_file_holds_header_and_data_set_whatever_their_size(
    tmp_path: Path, pool: BufferPool, flags: int, size: int
) -> None:
    content = os.urandom(size)
    incoming = _begin(tmp_path, pool, flags)
    incoming.write(content)
    assert (incoming.file_bytes, incoming.data_set_bytes) == (size + 4, size)
    incoming.sync()
    incoming.release()
    assert (tmp_path / "file").read_bytes() == b"head" + content


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.integers(min_value=0, max_value=400_000), max_size=8),
    reads=st.lists(
        st.tuples(st.integers(0, 3 << 20), st.integers(1, 200_000)), min_size=1, max_size=5
    ),
)
def test_what_has_arrived_can_be_read_wherever_it_is(
    tmp_path: Path, pool: BufferPool, flags: int, pieces: list[int], reads: list[tuple[int, int]]
) -> None:
    content = bytearray(b"head")
    incoming = _begin(tmp_path, pool, flags)
    for number, size in enumerate(pieces):
        piece = bytes([number + 1]) * size
        content += piece
        incoming.write(piece)
    for offset, length in reads:
        assert incoming.read_at(offset, length) == bytes(content[offset : offset + length])
    incoming.discard()
    assert not (tmp_path / "file").exists()


def test_instance_that_fits_the_buffer_touches_no_disk_before_it_is_whole(
    tmp_path: Path, pool: BufferPool, flags: int
) -> None:
    incoming = _begin(tmp_path, pool, flags)
    incoming.write(bytes(BUFFER_BYTES - 4))
    assert not (tmp_path / "file").exists()
    incoming.discard()


def test_buffer_of_another_instance_shows_nowhere_in_a_file(
    tmp_path: Path, pool: BufferPool, flags: int
) -> None:
    first = _begin(tmp_path, pool, flags)
    first.write(b"SECRET" * 1000)
    first.discard()
    second = _begin(tmp_path, pool, flags)
    second.write(b"x")
    second.sync()
    second.release()
    assert (tmp_path / "file").read_bytes() == b"headx"
    assert b"SECRET" not in (tmp_path / "file").read_bytes()


def test_buffers_are_used_again(tmp_path: Path, pool: BufferPool, flags: int) -> None:
    first = pool.borrow()
    pool.give_back(first)
    incoming = _begin(tmp_path, pool, flags)
    incoming.discard()
    incoming.release()
    assert pool.borrow() is first


def test_file_system_without_direct_writes_is_found_out(tmp_path: Path) -> None:
    assert direct_flag(tmp_path) in (0, os.O_DIRECT)
    assert list(tmp_path.iterdir()) == []
    assert Spool(tmp_path / "spool").writes_directly == bool(direct_flag(tmp_path))
