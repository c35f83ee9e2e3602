from __future__ import annotations

import hashlib
import io
import zlib
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from engines.card import Curve, CurveKind, CurvePoint
from engines.checksums import VerifiedFile
from engines.figures import read_figure
from tools.head_ct.pictures import Axis, curve_svg, grey_png

SVG = "{http://www.w3.org/2000/svg}"


def curve_of(kind: CurveKind, places: list[tuple[float, float]]) -> Curve:
    return Curve(
        key="some_curve",
        kind=kind,
        label="A < B",
        x_label="Volume, ml",
        y_label="Sensitivity",
        points=tuple(
            CurvePoint(x=x, y=y, lower=max(y - 0.1, 0), upper=min(y + 0.1, 1)) for x, y in places
        ),
    )


def as_file(folder: Path, name: str, content: bytes) -> VerifiedFile:
    path = folder / name
    path.write_bytes(content)
    return VerifiedFile(path=path, sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("curve", "log_x"),
    [
        (curve_of(CurveKind.ROC, [(n / 100, (n / 100) ** 0.5) for n in range(101)]), False),
        (curve_of(CurveKind.RELIABILITY, [(0.1, 0.2), (0.5, 0.4), (0.9, 1.0)]), False),
        (curve_of(CurveKind.RESPONSE, [(0.3, 0.2), (4.0, 0.8), (60.0, 1.0)]), True),
        (curve_of(CurveKind.RESPONSE, [(12.0, 0.2), (31.0, 0.8), (47.0, 1.0)]), False),
        (curve_of(CurveKind.RESPONSE, [(5.0, 0.2), (5.0, 0.8)]), False),
    ],
    ids=["roc", "reliability", "logarithmic", "linear", "one place"],
)
def test_a_curve_becomes_a_picture_that_a_package_may_carry(
    curve: Curve, log_x: bool, tmp_path: Path
) -> None:
    text = curve_svg(curve, log_x=log_x)
    picture = read_figure(as_file(tmp_path, "curve.svg", text.encode()))
    words = [element.text for element in ET.fromstring(text).iter(f"{SVG}text")]

    assert picture.media_type == "image/svg+xml"
    assert {"A < B", "Volume, ml", "Sensitivity"} <= set(words)
    assert len(text) < 100_000


def test_the_same_curve_gives_the_same_bytes() -> None:
    curve = curve_of(CurveKind.ROC, [(0.0, 0.5), (1.0, 1.0)])

    assert curve_svg(curve) == curve_svg(curve)


def test_a_curve_of_few_points_has_a_bar_at_each() -> None:
    svg = curve_svg(curve_of(CurveKind.RELIABILITY, [(0.1, 0.2), (0.5, 0.4), (0.9, 1.0)]))

    assert svg.count("<circle") == 3
    assert "<polygon" not in svg


def test_a_logarithmic_axis_gives_each_decade_the_same_length() -> None:
    axis = Axis(low=0.1, high=100, ticks=(), start=0, stop=300, is_log=True)

    assert [axis.at(value) for value in (0.1, 1, 10, 100)] == pytest.approx([0, 100, 200, 300])


def test_a_grey_picture_is_a_png_with_its_values(tmp_path: Path) -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    png = grey_png(image)
    start = png.index(b"IDAT") + 4
    lines = np.frombuffer(zlib.decompress(png[start:-16]), np.uint8).reshape(3, 5)

    assert read_figure(as_file(tmp_path, "grey.png", png)).media_type == "image/png"
    np.testing.assert_array_equal(lines[:, 1:], image)
    assert io.BytesIO(png).read(8) == b"\x89PNG\r\n\x1a\n"
