"""Pixels of real files, compared with pydicom's own slow path or with the same image unpacked."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gdcm  # type: ignore[import-untyped] # its wheel carries no types
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.instance import InstanceHeader
from edge_runtime.model.reasons import ReasonCode
from edge_runtime.pipeline import decode
from edge_runtime.pipeline.decode import (
    MAX_PIXEL_BYTES,
    META_GROUP_START,
    PLUGINS,
    pixel_layout,
    read_pixels,
)
from edge_runtime.pipeline.errors import CodecMissingError, DecodeError

HeaderOf = Callable[[Path], InstanceHeader]
WheelFile = Callable[[str], Path]


def reason_of(
    path: Path, header: InstanceHeader, *, max_bytes: int = MAX_PIXEL_BYTES
) -> ReasonCode:
    with pytest.raises(DecodeError) as caught:
        read_pixels(path, header, max_bytes=max_bytes)
    return caught.value.reason


@pytest.mark.filterwarnings("ignore:The pixel data is 8320")  # pydicom, of the padded file
@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm",
        "MR_small.dcm",
        "MR_small_implicit.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_native_pixels_equal_pydicoms(
    wheel_file: WheelFile, header_of: HeaderOf, name: str
) -> None:
    path = wheel_file(name)
    stored = read_pixels(path, header_of(path))
    expected = dcmread(path).pixel_array
    assert stored.dtype == expected.dtype.newbyteorder("=")
    assert stored.flags.writeable
    np.testing.assert_array_equal(stored, expected)


@pytest.mark.parametrize(
    "name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"]
)
def test_lossless_compression_gives_the_native_pixels(
    wheel_file: WheelFile, header_of: HeaderOf, name: str
) -> None:
    path = wheel_file(name)
    native = wheel_file("MR_small.dcm")
    stored = read_pixels(path, header_of(path))
    assert stored.dtype == np.int16
    np.testing.assert_array_equal(stored, read_pixels(native, header_of(native)))


def test_jpeg_lossless_gives_the_native_pixels(
    wheel_file: WheelFile, header_of: HeaderOf, tmp_path: Path
) -> None:
    native, compressed = wheel_file("CT_small.dcm"), tmp_path / "sv1.dcm"
    reader = gdcm.ImageReader()
    reader.SetFileName(str(native))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(compressed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    header = header_of(compressed)
    assert header.transfer_syntax_uid == JPEGLosslessSV1
    np.testing.assert_array_equal(
        read_pixels(compressed, header), read_pixels(native, header_of(native))
    )


def deflated_file(source: Path, target: Path, tail: bytes = b"") -> None:
    dataset = dcmread(source)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(target, enforce_file_format=True)
    if tail:
        written = target.read_bytes()
        start = META_GROUP_START + dcmread(target).file_meta.FileMetaInformationGroupLength
        inflated = zlib.decompress(written[start:], -zlib.MAX_WBITS) + tail
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = deflater.compress(inflated) + deflater.flush()
        target.write_bytes(written[:start] + packed)


def test_deflated_file_gives_the_native_pixels(
    wheel_file: WheelFile, header_of: HeaderOf, tmp_path: Path
) -> None:
    native, deflated = wheel_file("CT_small.dcm"), tmp_path / "deflated.dcm"
    deflated_file(native, deflated)
    header = replace(header_of(deflated), pixel_data_offset=None, pixel_data_length=None)
    np.testing.assert_array_equal(
        read_pixels(deflated, header), read_pixels(native, header_of(native))
    )


def test_deflated_bomb_is_refused_before_it_is_inflated(
    wheel_file: WheelFile, header_of: HeaderOf, tmp_path: Path
) -> None:
    native, bomb = wheel_file("CT_small.dcm"), tmp_path / "bomb.dcm"
    # (FFFC,FFFC) DataSetTrailingPadding of 64 MB of zeros: 64 KB in the file.
    tail = struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 1 << 26) + bytes(1 << 26)
    deflated_file(native, bomb, tail)
    header = replace(header_of(native), transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    assert reason_of(bomb, header) is ReasonCode.PIXELS_TOO_LARGE


def test_damaged_deflated_data_is_refused(
    wheel_file: WheelFile, header_of: HeaderOf, tmp_path: Path
) -> None:
    native, damaged = wheel_file("CT_small.dcm"), tmp_path / "damaged.dcm"
    deflated_file(native, damaged)
    content = bytearray(damaged.read_bytes())
    content[-20_000:-19_000] = b"\xff" * 1000
    damaged.write_bytes(content)
    header = replace(header_of(native), transfer_syntax_uid=DeflatedExplicitVRLittleEndian)
    assert reason_of(damaged, header) is ReasonCode.UNDECODABLE_PIXELS


def test_native_file_without_known_offset_is_parsed(
    wheel_file: WheelFile, header_of: HeaderOf
) -> None:
    path = wheel_file("CT_small.dcm")
    header = header_of(path)
    unknown = replace(header, pixel_data_offset=None, pixel_data_length=None)
    np.testing.assert_array_equal(read_pixels(path, unknown), read_pixels(path, header))


def native_file(folder: Path, pixels: np.ndarray[Any, Any]) -> Path:
    path = folder / "pixels.raw"
    path.write_bytes(b"\0" * 10 + pixels.tobytes())
    return path


@pytest.mark.parametrize(
    ("representation", "stored", "expected"),
    [
        (0, [0x0000, 0x0FFF, 0xF123, 0x1000], [0, 4095, 0x123, 0]),
        (1, [0x07FF, 0x0800, 0xF801, 0x7FFF], [2047, -2048, -2047, -1]),
    ],
)
def test_bits_above_bits_stored_are_cleared_or_sign_extended(
    make_header: Callable[..., InstanceHeader],
    tmp_path: Path,
    representation: int,
    stored: list[int],
    expected: list[int],
) -> None:
    header = make_header(
        rows=2,
        columns=2,
        pixel_representation=representation,
        pixel_data_offset=10,
        pixel_data_length=8,
    )
    path = native_file(tmp_path, np.array(stored, dtype="<u2"))
    assert read_pixels(path, header).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("representation", "padding", "kept"), [(1, -2500, -2500), (0, 63036, 63036)]
)
def test_padding_wider_than_bits_stored_stays_recognisable(
    make_header: Callable[..., InstanceHeader],
    tmp_path: Path,
    representation: int,
    padding: int,
    kept: int,
) -> None:
    header = make_header(
        rows=1,
        columns=2,
        pixel_representation=representation,
        pixel_padding_value=padding,
        pixel_data_offset=10,
        pixel_data_length=4,
    )
    path = native_file(tmp_path, np.array([63036, 100], dtype="<u2"))
    assert read_pixels(path, header).ravel().tolist() == [kept, 100]


def test_eight_bit_pixels_are_read_and_big_endian_ones_refused(
    make_header: Callable[..., InstanceHeader], tmp_path: Path
) -> None:
    header = make_header(
        rows=1,
        columns=3,
        bits_allocated=8,
        bits_stored=8,
        pixel_data_offset=10,
        pixel_data_length=4,
    )
    path = native_file(tmp_path, np.array([1, 2, 255, 0], dtype="u1"))
    assert read_pixels(path, header).tolist() == [[1, 2, 255]]
    big = replace(header, transfer_syntax_uid="1.2.840.10008.1.2.2")
    assert reason_of(path, big) is ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"number_of_frames": 2}, ReasonCode.MULTIFRAME_NOT_SUPPORTED),
        ({"samples_per_pixel": 3}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"photometric_interpretation": "PALETTE COLOR"}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"photometric_interpretation": None}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"bits_allocated": 32}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"bits_stored": 17}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"bits_stored": None}, ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED),
        ({"has_pixel_data": False}, ReasonCode.UNDECODABLE_PIXELS),
        ({"rows": 0}, ReasonCode.UNDECODABLE_PIXELS),
        ({"columns": None}, ReasonCode.UNDECODABLE_PIXELS),
        ({"rows": 65535, "columns": 65535}, ReasonCode.PIXELS_TOO_LARGE),
    ],
)
def test_layouts_that_we_do_not_read_are_refused_without_the_file(
    make_header: Callable[..., InstanceHeader], changes: dict[str, Any], reason: ReasonCode
) -> None:
    with pytest.raises(DecodeError) as caught:
        pixel_layout(make_header(**changes))
    assert caught.value.reason is reason


def test_single_frame_may_say_so(make_header: Callable[..., InstanceHeader]) -> None:
    assert pixel_layout(make_header(number_of_frames=1)).frame_bytes == 512 * 512 * 2


def test_file_cut_short_is_refused(
    wheel_file: WheelFile, header_of: HeaderOf, tmp_path: Path
) -> None:
    whole = wheel_file("CT_small.dcm")
    header = header_of(whole)
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole.read_bytes()[:-1000])
    assert reason_of(cut, header) is ReasonCode.UNDECODABLE_PIXELS
    lying = replace(header, pixel_data_length=100)
    assert reason_of(whole, lying) is ReasonCode.UNDECODABLE_PIXELS


def test_missing_file_is_not_the_senders_fault(
    make_header: Callable[..., InstanceHeader], tmp_path: Path
) -> None:
    header = make_header(pixel_data_offset=10, pixel_data_length=512 * 512 * 2)
    for syntax in (ExplicitVRLittleEndian, RLELossless):
        with pytest.raises(FileNotFoundError):
            read_pixels(tmp_path / "gone", replace(header, transfer_syntax_uid=syntax))


def test_unknown_syntax_and_video_are_refused(
    make_header: Callable[..., InstanceHeader], tmp_path: Path
) -> None:
    for syntax in (MPEG2MPML, "1.2.3.4"):
        header = make_header(transfer_syntax_uid=syntax)
        assert reason_of(tmp_path, header) is ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED


def repacked(source: Path, target: Path, change: Callable[[bytes], bytes]) -> Path:
    dataset = dcmread(source)
    frame = change(get_frame(dataset.PixelData, 0, number_of_frames=1))
    dataset.PixelData = encapsulate([frame])
    dataset.save_as(target)
    return target


COMPRESSED = [
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
]


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("keep", [2, 30, 60])
def test_code_stream_cut_short_is_refused(
    wheel_file: WheelFile, header_of: HeaderOf, tmp_path: Path, name: str, keep: int
) -> None:
    source = wheel_file(name)
    cut = repacked(source, tmp_path / "cut.dcm", lambda frame: frame[:keep])
    assert reason_of(cut, header_of(source)) is ReasonCode.UNDECODABLE_PIXELS


@pytest.mark.parametrize("name", COMPRESSED[1:])
def test_code_stream_of_another_size_than_the_header_never_reaches_a_decoder(
    wheel_file: WheelFile, header_of: HeaderOf, name: str
) -> None:
    path = wheel_file(name)
    header = replace(header_of(path), rows=32)
    with pytest.raises(DecodeError, match="different sizes"):
        read_pixels(path, header)


def test_twelve_bit_jpeg_extended_is_a_format_that_we_do_not_read(
    wheel_file: WheelFile, header_of: HeaderOf
) -> None:
    path = wheel_file("JPGExtended.dcm")
    assert reason_of(path, header_of(path)) is ReasonCode.PIXEL_FORMAT_NOT_SUPPORTED


def test_compressed_file_without_pixel_data_is_refused(
    wheel_file: WheelFile, header_of: HeaderOf, tmp_path: Path
) -> None:
    source = wheel_file("MR_small_RLE.dcm")
    dataset = dcmread(source)
    del dataset.PixelData
    dataset.save_as(tmp_path / "empty.dcm")
    assert reason_of(tmp_path / "empty.dcm", header_of(source)) is ReasonCode.UNDECODABLE_PIXELS
    (tmp_path / "noise.dcm").write_bytes(bytes(range(256)) * 10)
    assert reason_of(tmp_path / "noise.dcm", header_of(source)) is ReasonCode.UNDECODABLE_PIXELS


def test_codec_that_is_not_installed_is_the_devices_fault(
    wheel_file: WheelFile, header_of: HeaderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = wheel_file("MR_small_RLE.dcm")
    monkeypatch.setattr(decode, "PLUGINS", {RLELossless: ("absent",)})
    with pytest.raises(CodecMissingError, match="no codec for RLE"):
        read_pixels(path, header_of(path))


@pytest.mark.parametrize(
    "syntax", [HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless]
)
def test_a_codec_for_every_lossless_syntax_is_installed(syntax: str) -> None:
    decoder = get_decoder(syntax)
    assert set(PLUGINS[decoder.UID]) & set(decoder.available_plugins)


def test_jpeg_syntaxes_never_go_through_the_gpl_plugin() -> None:
    for syntax, plugins in PLUGINS.items():
        name = UID(syntax).name
        if name.startswith("JPEG ") or "JPEG-LS" in name:
            assert ("pylibjpeg" in plugins) == ("2000" in name)


def test_every_real_single_frame_file_is_read_or_refused_with_a_reason(
    real_data: Path, header_of: HeaderOf
) -> None:
    read = 0
    for path in sorted(real_data.rglob("*.dcm")):
        try:
            header = header_of(path)
        except Exception:  # noqa: BLE001 - files that pydicom itself cannot parse
            continue
        try:
            stored = read_pixels(path, header)
        except (DecodeError, CodecMissingError):
            continue
        assert stored.shape == (header.rows, header.columns)
        read += 1
    assert read > 50


@pytest.mark.parametrize(
    ("representation", "ends", "expected"),
    [
        # 12 bits are stored. Raw: -2500, -2400, -2399, 100, 0x1000 + 100 (an overlay's bit).
        (1, (-2500, -2400), [-2500, -2400, 1697, 100, 100]),
        (1, (-2400, -2500), [-2500, -2400, 1697, 100, 100]),
        (0, (63036, 63136), [63036, 63136, 1697, 100, 100]),
        (1, (-10, 10), [1596, 1696, 1697, 100, 100]),
        (1, (-2500, None), [-2500, 1696, 1697, 100, 100]),
    ],
)
def test_a_range_of_padding_wider_than_bits_stored_stays_recognisable(
    make_header: Callable[..., InstanceHeader],
    tmp_path: Path,
    representation: int,
    ends: tuple[int, int | None],
    expected: list[int],
) -> None:
    header = make_header(
        rows=1,
        columns=5,
        bits_stored=12,
        pixel_representation=representation,
        pixel_padding_value=ends[0],
        pixel_padding_range_limit=ends[1],
        pixel_data_offset=10,
        pixel_data_length=10,
    )
    raw = np.array([-2500, -2400, -2399, 100, 0x1064], dtype="<i2")
    assert read_pixels(native_file(tmp_path, raw), header).ravel().tolist() == expected


@pytest.mark.parametrize(
    ("representation", "ends", "raw"),
    [
        (1, (-32768, -2000), [-32768, -2049, -2000, 5]),
        (1, (2000, 32767), [2000, 2048, 32767, 5]),
        (0, (4000, 65535), [4000, 4096, 65535, 5]),
    ],
)
def test_a_range_across_what_bits_stored_can_hold_is_kept_as_a_whole(
    make_header: Callable[..., InstanceHeader],
    tmp_path: Path,
    representation: int,
    ends: tuple[int, int],
    raw: list[int],
) -> None:
    header = make_header(
        rows=1,
        columns=4,
        bits_stored=12,
        pixel_representation=representation,
        pixel_padding_value=ends[0],
        pixel_padding_range_limit=ends[1],
        pixel_data_offset=10,
        pixel_data_length=8,
    )
    path = native_file(tmp_path, np.array(raw, dtype="<i2" if representation else "<u2"))
    assert read_pixels(path, header).ravel().tolist() == raw
