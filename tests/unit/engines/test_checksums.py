from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engines.checksums
from engines.checksums import VerifiedFile, parse_checksums, render_checksums, verify_checksums
from engines.errors import PackageIntegrityError
from engines.writing import write_checksums

ZEROS = "0" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    (folder / "golden").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"first")
    (folder / "golden" / "b.txt").write_bytes(b"second")
    write_checksums(folder)
    return folder


def test_a_sealed_folder_verifies_and_names_itself_by_its_listing(folder: Path) -> None:
    files = verify_checksums(folder)
    assert sorted(files.digests) == ["a.txt", "golden/b.txt"]
    assert files.digest == hashlib.sha256((folder / "CHECKSUMS").read_bytes()).hexdigest()
    assert files.file("golden/b.txt").read(100) == b"second"


def test_the_listing_is_sorted_lines_of_digest_and_path(folder: Path) -> None:
    first, second = (hashlib.sha256(word).hexdigest() for word in (b"first", b"second"))
    assert (folder / "CHECKSUMS").read_text() == f"{first}  a.txt\n{second}  golden/b.txt\n"


def test_sealing_again_changes_nothing_and_leaves_nothing(folder: Path) -> None:
    before = (folder / "CHECKSUMS").read_bytes()
    write_checksums(folder)
    assert (folder / "CHECKSUMS").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["CHECKSUMS", "a.txt", "golden"]


def test_a_changed_file_is_refused(folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"First")
    with pytest.raises(PackageIntegrityError, match=r"a\.txt does not match its checksum"):
        verify_checksums(folder)


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "a.txt").unlink()
    with pytest.raises(PackageIntegrityError, match=r"a\.txt is listed in CHECKSUMS but missing"):
        verify_checksums(folder)


@pytest.mark.parametrize("name", ["extra.py", "golden/extra.bin", ".hidden", "sp ace", "ünïcode"])
def test_an_extra_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(PackageIntegrityError, match="is not listed"):
        verify_checksums(folder)


def test_a_line_break_in_a_file_name_stays_out_of_the_error_text(folder: Path) -> None:
    (folder / "x\ny").write_bytes(b"")
    with pytest.raises(PackageIntegrityError) as caught:
        verify_checksums(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_listing_is_refused(folder: Path) -> None:
    (folder / "CHECKSUMS").unlink()
    with pytest.raises(PackageIntegrityError, match="CHECKSUMS cannot be read"):
        verify_checksums(folder)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageIntegrityError, match="CHECKSUMS cannot be read"):
        verify_checksums(tmp_path / "nowhere")


def test_a_link_in_place_of_a_listed_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"first")
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(tmp_path / "outside")
    with pytest.raises(PackageIntegrityError, match="is a link or a device"):
        verify_checksums(folder)


def test_a_link_in_place_of_a_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "golden").rename(tmp_path / "golden")
    (folder / "golden").symlink_to(tmp_path / "golden")
    with pytest.raises(PackageIntegrityError, match="is a link or a device"):
        verify_checksums(folder)


def test_a_link_in_place_of_the_listing_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "CHECKSUMS").rename(tmp_path / "CHECKSUMS")
    (folder / "CHECKSUMS").symlink_to(tmp_path / "CHECKSUMS")
    with pytest.raises(PackageIntegrityError, match="CHECKSUMS cannot be read"):
        verify_checksums(folder)


def test_a_pipe_or_a_socket_neither_hangs_nor_passes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(PackageIntegrityError, match="is a link or a device"):
        verify_checksums(folder)
    (folder / "pipe").unlink()
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(PackageIntegrityError, match="is a link or a device"):
            verify_checksums(folder)


def test_a_pipe_in_place_of_the_listing_does_not_hang(folder: Path) -> None:
    (folder / "CHECKSUMS").unlink()
    os.mkfifo(folder / "CHECKSUMS")
    with pytest.raises(PackageIntegrityError, match="no regular file"):
        verify_checksums(folder)


def test_folders_without_end_are_refused(folder: Path) -> None:
    deep = folder.joinpath(*["d"] * 12)
    deep.mkdir(parents=True)
    with pytest.raises(PackageIntegrityError, match="deeper than"):
        verify_checksums(folder)


@pytest.mark.parametrize(
    ("bound", "value"), [("MAX_FILE_BYTES", 5), ("MAX_PACKAGE_BYTES", 10), ("MAX_FILES", 1)]
)
def test_a_folder_beyond_a_bound_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    monkeypatch.setattr(engines.checksums, bound, value)
    with pytest.raises(PackageIntegrityError, match=r"too large|line 2"):
        verify_checksums(folder)


def test_a_huge_sparse_file_is_refused_without_being_read(folder: Path) -> None:
    with (folder / "a.txt").open("r+b") as file:
        file.truncate(engines.checksums.MAX_FILE_BYTES + 1)
    with pytest.raises(PackageIntegrityError, match="too large"):
        verify_checksums(folder)


@pytest.mark.parametrize(
    "listing",
    [
        b"",
        b"\n",
        f"{ZEROS}  a".encode(),
        f"{ZEROS} a\n".encode(),
        f"{ZEROS} *a\n".encode(),
        f"{ZEROS.replace('0', 'A')}  a\n".encode(),
        f"{ZEROS[1:]}  a\n".encode(),
        f"{ZEROS}  ../a\n".encode(),
        f"{ZEROS}  a/../../b\n".encode(),
        f"{ZEROS}  /etc/passwd\n".encode(),
        f"{ZEROS}  a//b\n".encode(),
        f"{ZEROS}  ./a\n".encode(),
        f"{ZEROS}  a/\n".encode(),
        f"{ZEROS}  a\\b\n".encode(),
        f"{ZEROS}  a\r\n".encode(),
        f"{ZEROS}  CHECKSUMS\n".encode(),
        f"{ZEROS}  {'a' * 241}\n".encode(),
        f"{ZEROS}  {'a/' * 20}b\n".encode(),
        f"{ZEROS}  b\n{ZEROS}  a\n".encode(),
        f"{ZEROS}  a\n{ZEROS}  a\n".encode(),
        f"{ZEROS}  a\n\n".encode(),
        f"{ZEROS}  \u00e4\n".encode(),
        f"{ZEROS}  a\x00b\n".encode(),
    ],
)
def test_a_malformed_listing_is_refused(listing: bytes) -> None:
    with pytest.raises(PackageIntegrityError):
        parse_checksums(listing)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_listing_or_an_integrity_error(listing: bytes) -> None:
    try:
        digests = parse_checksums(listing)
    except PackageIntegrityError:
        return
    assert render_checksums(digests) == listing


def test_a_listing_that_is_too_long_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines.checksums, "MAX_CHECKSUMS_BYTES", 50)
    with pytest.raises(PackageIntegrityError, match="larger than 50"):
        verify_checksums(folder)


def test_a_file_changed_after_the_check_is_not_read(folder: Path) -> None:
    files = verify_checksums(folder)
    (folder / "a.txt").write_bytes(b"later")
    with pytest.raises(PackageIntegrityError, match="does not match"):
        files.file("a.txt").read(100)


def test_a_file_larger_than_its_reader_allows_is_not_read(folder: Path) -> None:
    with pytest.raises(PackageIntegrityError, match="larger than 4"):
        verify_checksums(folder).file("a.txt").read(4)


def test_a_file_that_the_package_lacks_is_named(folder: Path) -> None:
    with pytest.raises(PackageIntegrityError, match=r"no model\.onnx"):
        verify_checksums(folder).file("model.onnx")


def test_a_link_is_not_read_even_when_its_content_fits(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder / "a.txt")
    with pytest.raises(PackageIntegrityError):
        VerifiedFile(path=link, sha256=hashlib.sha256(b"first").hexdigest()).read(100)


def test_sealing_refuses_what_no_device_would_accept(folder: Path) -> None:
    (folder / "a name with spaces").write_bytes(b"")
    with pytest.raises(PackageIntegrityError):
        write_checksums(folder)
    (folder / "a name with spaces").unlink()
    (folder / "link").symlink_to("a.txt")
    with pytest.raises(PackageIntegrityError):
        write_checksums(folder)


def test_sealing_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageIntegrityError, match="empty"):
        write_checksums(tmp_path)


@pytest.mark.parametrize(
    ("first", "second"), [("A.txt", "a.txt"), ("Golden/a.npz", "golden/b.npz")], ids=str
)
def test_names_that_differ_in_case_only_are_refused(first: str, second: str) -> None:
    listing = f"{'0' * 64}  {first}\n{'0' * 64}  {second}\n".encode()
    with pytest.raises(PackageIntegrityError, match="line 2: a name in two spellings"):
        parse_checksums(listing)
