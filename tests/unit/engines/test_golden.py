from __future__ import annotations

import contextlib
import io
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.errors import GoldenFileError
from engines.golden import MAX_GOLDEN_BYTES, load_golden, read_arrays
from engines.loading import load_package

MakeNpz = Callable[[dict[str, NDArray[Any]]], bytes]


def npy(header: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    text = header.encode("latin1").ljust(64 * (len(header) // 64 + 1) + 53) + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + data


def archive(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def spoilt(builder: Any, content: bytes) -> Path:
    folder: Path = builder.replace("golden/outputs.npz", content)
    return folder


def test_golden_tensors_are_read_by_name(builder: Any) -> None:
    golden = load_golden(load_package(builder.write()))
    np.testing.assert_array_equal(golden.inputs["slabs"], builder.golden_inputs)
    np.testing.assert_array_equal(golden.outputs["logits"], builder.golden_outputs)


@pytest.mark.parametrize("order", ["C", "F"])
def test_either_memory_order_is_read_as_numpy_reads_it(builder: Any, order: Any) -> None:
    builder.golden_inputs = np.asarray(
        np.random.default_rng(1).random((3, 2, 8, 8), dtype=np.float32), order=order
    )
    golden = load_golden(load_package(builder.write()))
    np.testing.assert_array_equal(golden.inputs["slabs"], builder.golden_inputs)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_golden_values_that_are_not_finite_are_refused(builder: Any, bad: float) -> None:
    builder.golden_outputs = np.array([1.0, bad], dtype=np.float32)
    with pytest.raises(GoldenFileError, match=r"golden/outputs\.npz holds NaN or infinity"):
        load_golden(load_package(builder.write()))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2), dtype=np.float32),
        np.zeros(0, dtype=np.float32),
        np.zeros(2, dtype=np.float64),
        np.zeros(2, dtype=">f4"),
        np.array(["a"]),
        np.array([object()], dtype=object),
        np.zeros(2, dtype=[("a", "<f4")]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_golden_arrays_of_another_kind_are_refused(
    builder: Any, make_npz: MakeNpz, array: NDArray[Any]
) -> None:
    if array.dtype == object:
        array = np.array([{"a": 1}], dtype=object)
    with pytest.raises(GoldenFileError):
        load_golden(load_package(spoilt(builder, make_npz({"logits": array}))))


@pytest.mark.parametrize("names", [[], ["other"], ["logits", "more"]], ids=str)
def test_golden_files_hold_exactly_the_models_tensor(
    builder: Any, make_npz: MakeNpz, names: list[str]
) -> None:
    content = make_npz({name: np.zeros(2, dtype=np.float32) for name in names})
    with pytest.raises(GoldenFileError, match="exactly the arrays logits"):
        load_golden(load_package(spoilt(builder, content)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x05\x06" + b"\x00" * 18,
        b"not a zip at all",
        archive({"../logits.npy": b""}),
        archive({"logits.npy": b""}),
        archive({"logits.npy": b"\x93NUMPY"}),
        archive({"logits.npy": npy("{'descr': '<f4', 'fortran_order': False}")}),
        archive({"logits.npy": npy("__import__('os').abort()")}),
        archive({"logits.npy": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }")}),
        archive({"logits.npy": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }")}),
        archive(
            {
                "logits.npy": npy(
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", b"\x00" * 7
                )
            }
        ),
        archive(
            {
                "logits.npy": npy(
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", b"\0" * 4, (3, 0)
                )
            }
        ),
        archive({"logits.npy": npy("(" * 5000)}),
    ],
    ids=range(13),
)
def test_a_malformed_golden_file_is_refused(builder: Any, content: bytes) -> None:
    with pytest.raises(GoldenFileError, match=r"golden/outputs\.npz"):
        load_golden(load_package(spoilt(builder, content)))


def test_a_cut_or_flipped_archive_is_refused(builder: Any, make_npz: MakeNpz) -> None:
    good = make_npz({"logits": np.arange(2000, dtype=np.float32)})
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :]
    for content in (good[:-10], good[:middle], flipped):
        with pytest.raises(GoldenFileError):
            load_golden(load_package(spoilt(builder, content)))


def test_a_header_that_declares_an_enormous_array_takes_no_memory(builder: Any) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    content = archive({"logits.npy": npy(header, b"\x00" * 16)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(GoldenFileError, match="declares another size"):
        load_golden(load_package(spoilt(builder, content)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # kB


def test_an_archive_that_unpacks_without_end_is_refused(builder: Any) -> None:
    content = archive({"logits.npy": bytes(MAX_GOLDEN_BYTES + 1)})
    assert len(content) < 1024 * 1024
    with pytest.raises(GoldenFileError, match="unpacks to more than"):
        load_golden(load_package(spoilt(builder, content)))


def test_an_archive_that_lies_about_its_size_is_refused(builder: Any) -> None:
    content = archive({"logits.npy": bytes(MAX_GOLDEN_BYTES + 1)})
    lie = content.replace(struct.pack("<I", MAX_GOLDEN_BYTES + 1), struct.pack("<I", 1000))
    with pytest.raises(GoldenFileError):
        load_golden(load_package(spoilt(builder, lie)))


@given(st.binary(max_size=300))
def test_any_bytes_are_an_array_or_a_golden_file_error(content: bytes) -> None:
    for candidate in (content, archive({"x.npy": content}), archive({"x.npy": npy("") + content})):
        with contextlib.suppress(GoldenFileError):
            read_arrays(candidate, ["x"])


@given(st.data())
def test_any_change_of_a_good_file_is_an_array_or_a_golden_file_error(data: st.DataObject) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, x=np.arange(8, dtype=np.float32))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(GoldenFileError):
        read_arrays(bytes(content), ["x"])


def test_a_single_number_is_an_array_without_dimensions() -> None:
    stream = io.BytesIO()
    np.savez(stream, x=np.float32(1.5))
    assert read_arrays(stream.getvalue(), ["x"])["x"].shape == ()


def test_several_arrays_are_read_in_any_order(make_npz: MakeNpz) -> None:
    content = make_npz({"b": np.ones((2, 1), dtype=np.float32), "a": np.zeros(3, dtype=np.float32)})
    found = read_arrays(content, ["a", "b"])
    assert {name: array.shape for name, array in found.items()} == {"a": (3,), "b": (2, 1)}


def test_an_array_that_comes_twice_is_refused() -> None:
    stream = io.BytesIO()
    np.save(stream, np.zeros(2, dtype=np.float32))
    double = io.BytesIO()
    with zipfile.ZipFile(double, "w") as file:
        file.writestr("a.npy", stream.getvalue())
        file.writestr("b.npy", stream.getvalue())
    content = double.getvalue().replace(b"b.npy", b"a.npy")
    with pytest.raises(GoldenFileError):
        read_arrays(content, ["a", "b"])


def test_a_model_of_one_item_at_a_time_may_have_many_golden_items(builder: Any) -> None:
    builder.manifest = builder.manifest.replace("shape = [-1, 2, 8, 8]", "shape = [1, 2, 8, 8]")
    builder.manifest = builder.manifest.replace("shape = [-1]", "shape = [1]")
    assert len(load_golden(load_package(builder.write())).inputs["slabs"]) == 6
