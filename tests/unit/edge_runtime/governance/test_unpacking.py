"""Whatever an archive holds: nothing outside the target, nothing beyond the bounds."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulators.released_package import pack, write_release

from edge_runtime.governance import unpacking
from edge_runtime.governance.errors import ArchiveError
from edge_runtime.governance.unpacking import unpack
from engines.checksums import scan_folder
from engines.errors import PackageIntegrityError

MIB = 1024 * 1024
Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "device" / "target"
    folder.mkdir(parents=True)
    return folder


def entry(name: str, content: bytes = b"x", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def tar(path: Path, *members: Member) -> Path:
    with tarfile.open(path, "w") as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *names: str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, content)
    return path


BAD_NAMES = {
    "traversal": "../outside",
    "traversal inside": "golden/../../outside",
    "absolute": "/tmp/outside",
    "backslash": "golden\\outside",
    "drive": "C:outside",
    "control": "gol\nden",
    "space": "gol den",
    "letter beyond ascii": "g\u00f6lden",
    "dots only": "golden/./x",
    "empty part": "golden//x",
    "too long": "a" * 241,
    "too deep": "/".join("a" * 12),
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_leads_out_or_is_odd_is_refused(
    tmp_path: Path, target: Path, kind: str, name: str
) -> None:
    path = tmp_path / f"a.{kind}"
    tar(path, entry(name)) if kind == "tar" else zipped(path, name)
    with pytest.raises(ArchiveError):
        unpack(path, target)
    assert not list((tmp_path).rglob("outside"))
    assert not Path("/tmp/outside").exists()


SPECIAL = {
    "symbolic link": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": "model.onnx", "size": 0},
    "character device": {"type": tarfile.CHRTYPE, "size": 0},
    "block device": {"type": tarfile.BLKTYPE, "size": 0},
    "fifo": {"type": tarfile.FIFOTYPE, "size": 0},
    "unknown type": {"type": b"Z", "size": 0},
    "contiguous file": {"type": tarfile.CONTTYPE},
}


@pytest.mark.parametrize("fields", SPECIAL.values(), ids=SPECIAL)
def test_links_and_devices_in_a_tar_are_refused(
    tmp_path: Path, target: Path, fields: dict[str, object]
) -> None:
    path = tar(tmp_path / "a.tar", entry("model.onnx"), entry("link", b"x", **fields))
    with pytest.raises(ArchiveError, match="link, a device or a sparse file"):
        unpack(path, target)
    assert not (target / "link").exists()


@pytest.mark.parametrize("kind", [0o120000, 0o010000, 0o020000, 0o060000, 0o140000])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, target: Path, kind: int) -> None:
    path = tmp_path / "a.zip"
    info = zipfile.ZipInfo("link")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="link or a device"):
        unpack(path, target)


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_comes_twice_is_refused(tmp_path: Path, target: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        tar(path, entry("model.onnx"), entry("model.onnx", b"y"))
    else:
        zipped(path, "model.onnx", "model.onnx")
    with pytest.raises(ArchiveError, match="comes twice"):
        unpack(path, target)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a")])
def test_a_file_that_is_a_folder_too_is_refused(
    tmp_path: Path, target: Path, names: tuple[str, str]
) -> None:
    with pytest.raises(ArchiveError, match=r"a file and a folder|comes twice"):
        unpack(tar(tmp_path / "a.tar", *(entry(name) for name in names)), target)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_more_files_than_a_package_may_have_are_refused(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(unpacking, "MAX_FILES", 5)
    names = [f"f{number}" for number in range(8)]
    path = tmp_path / f"a.{kind}"
    tar(path, *(entry(name) for name in names)) if kind == "tar" else zipped(path, *names)
    with pytest.raises(ArchiveError, match="more than 5 files"):
        unpack(path, target)


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_folders_count_too(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(unpacking, "_MAX_MEMBERS", 10)
    names = [f"d{number}" for number in range(11)]
    path = tmp_path / f"a.{kind}"
    if kind == "tar":
        tar(path, *(entry(name, b"", type=tarfile.DIRTYPE) for name in names))
    else:
        zipped(path, *(f"{name}/" for name in names), content=b"")
    with pytest.raises(ArchiveError, match="more than 10 files and folders"):
        unpack(path, target)


def test_a_zip_bomb_is_refused_by_what_it_says_before_anything_is_written(
    tmp_path: Path, target: Path
) -> None:
    path = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(zipfile.ZipInfo("bomb"), "w", force_zip64=True) as member,
    ):
        member.write(bytes(MIB))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, place + 24, 0xFFFF_FFF0)
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="too large at bomb"):
        unpack(path, target)
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("says", [0, 10, MIB - 1])
def test_a_zip_member_that_is_longer_than_it_says_is_refused(
    tmp_path: Path, target: Path, says: int
) -> None:
    path = zipped(tmp_path / "a.zip", "model.onnx", content=bytes(MIB))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, place + 24, says)
    path.write_bytes(content)
    with pytest.raises(ArchiveError):
        unpack(path, target)


def test_a_gzip_bomb_costs_no_memory_and_no_disk(tmp_path: Path, target: Path) -> None:
    """Zeros, said to be one member of 8 GiB."""
    info = tarfile.TarInfo("bomb")
    info.size = 8 * 1024**3
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(8):
            packed.write(bytes(4 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="too large at bomb"):
            unpack(path, target)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_tar_whose_own_structures_are_gigantic_costs_no_memory(
    tmp_path: Path, target: Path, kind: bytes
) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = kind, 64 * MIB
    path = tmp_path / "a.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(info.tobuf(tarfile.GNU_FORMAT))
        packed.write(bytes(info.size))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError):
            unpack(path, target)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_a_zip_whose_directory_is_gigantic_costs_no_memory(tmp_path: Path, target: Path) -> None:
    directory = 64 * MIB
    path = tmp_path / "a.zip"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04" + bytes(directory))
        file.write(struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1, 1, directory, 4, 0))
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="too large"):
            unpack(path, target)
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_a_long_row_of_headers_about_headers_is_refused(tmp_path: Path, target: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    path = tmp_path / "a.tar"
    path.write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"n" * 512) * 5000)
    with pytest.raises(ArchiveError):
        unpack(path, target)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_take_much_memory_are_refused(
    tmp_path: Path, target: Path, method: int
) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("model.onnx", b"x" * 1000)
    with pytest.raises(ArchiveError, match="another method"):
        unpack(path, target)


def test_an_encrypted_zip_is_refused(tmp_path: Path, target: Path) -> None:
    path = zipped(tmp_path / "a.zip", "model.onnx")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="encrypted"):
        unpack(path, target)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_an_archive_that_is_cut_short_anywhere_is_refused(
    tmp_path: Path, target: Path, name: str
) -> None:
    write_release(tmp_path / "source")
    content = pack(tmp_path / "source", tmp_path / name).read_bytes()
    wanted = scan_folder(tmp_path / "source").keys()
    for number, size in enumerate(range(0, len(content), max(1, len(content) // 40))):
        path = tmp_path / f"cut-{name}"
        path.write_bytes(content[:size])
        folder = target / str(number)
        folder.mkdir()
        try:
            unpack(path, folder)
        except ArchiveError:
            continue
        # A tar may end early between two members: the package's checksums notice that.
        assert name != "a.zip"
        assert scan_folder(folder).keys() <= wanted


@given(st.binary(max_size=2048))
def test_no_bytes_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    for number, magic in enumerate((b"", b"PK\x03\x04", b"\x1f\x8b\x08\x00")):
        (folder / f"target{number}").mkdir()
        (folder / "a").write_bytes(magic + content)
        with contextlib.suppress(ArchiveError):
            unpack(folder / "a", folder / f"target{number}")


@given(
    place=st.integers(min_value=0), value=st.integers(0, 255), kind=st.sampled_from(["zip", "tar"])
)
def test_a_changed_byte_raises_nothing_else_and_writes_nothing_outside(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("changed")
    (folder / "target").mkdir()
    path = folder / f"a.{kind}"
    names = ("CHECKSUMS", "golden/inputs.npz", "model.onnx")
    tar(path, *(entry(name) for name in names)) if kind == "tar" else zipped(path, *names)
    content = bytearray(path.read_bytes())
    content[place % len(content)] = value
    path.write_bytes(content)
    with contextlib.suppress(ArchiveError):
        unpack(path, folder / "target")
    assert {item.name for item in folder.iterdir()} == {"target", path.name}


def test_a_folder_with_a_link_is_refused(tmp_path: Path, target: Path) -> None:
    write_release(tmp_path / "source")
    (tmp_path / "source" / "link").symlink_to("/etc/passwd")
    with pytest.raises(PackageIntegrityError, match="link or a device"):
        unpack(tmp_path / "source", target)


def test_a_folder_without_checksums_is_refused(tmp_path: Path, target: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(ArchiveError, match="CHECKSUMS is missing"):
        unpack(tmp_path / "source", target)


def test_what_is_neither_a_folder_nor_a_file_is_not_waited_for(
    tmp_path: Path, target: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "nowhere"):
        with pytest.raises(ArchiveError, match="neither a folder nor a file"):
            unpack(path, target)


def test_files_are_new_and_nobody_can_run_them(tmp_path: Path, target: Path) -> None:
    path = tar(tmp_path / "a.tar", entry("a/CHECKSUMS", mode=0o4777), entry("a/model.onnx"))
    root = unpack(path, target)
    assert root == target / "a"
    assert (root / "CHECKSUMS").stat().st_mode & 0o7111 == 0
