"""A picture of a card shows something and does nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from simulators.model_papers import SVG, png

from engines.checksums import VerifiedFile
from engines.errors import FigureError, PackageError, PackageIntegrityError
from engines.figures import MAX_FIGURE_BYTES, MAX_SIDE_PX, read_figure
from engines.loading import load_package

Write = Callable[[str, bytes], VerifiedFile]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: bytes) -> VerifiedFile:
        (tmp_path / name).write_bytes(content)
        return VerifiedFile(path=tmp_path / name, sha256=hashlib.sha256(content).hexdigest())

    return write_file


def svg(inside: str, *, attributes: str = "", before: str = "") -> bytes:
    return (
        f'{before}<svg xmlns="http://www.w3.org/2000/svg" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink" {attributes}>{inside}</svg>'
    ).encode()


def test_pictures_come_back_with_their_type(write: Write) -> None:
    assert read_figure(write("a.png", png())).media_type == "image/png"
    image = read_figure(write("a.svg", SVG))
    assert (image.media_type, image.content) == ("image/svg+xml", SVG)


@pytest.mark.parametrize(
    "content",
    [
        svg('<defs><path id="a"/></defs><use xlink:href="#a"/>'),
        svg('<image href="data:image/png;base64,AAAA"/>'),
        svg("<rect style=\"fill:url(#a); clip-path: url( '#b')\"/>"),
        svg("<style>* { stroke-linejoin: round }</style><text>url and on and href</text>"),
        svg(
            "<metadata/>",
            before='<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" '
            '"http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd">',
        ),
    ],
    ids=["use", "image", "local url", "style", "document type as plotting programs write it"],
)
def test_what_plotting_programs_write_is_taken(write: Write, content: bytes) -> None:
    assert read_figure(write("a.svg", content)).content == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (svg("<script>alert(1)</script>"), "<script>"),
        (svg("<SCRIPT/>"), "<SCRIPT>"),
        (svg('<h:script xmlns:h="http://www.w3.org/1999/xhtml"/>'), "script"),
        (svg("<foreignObject/>"), "<foreignObject>"),
        (svg('<animate attributeName="href" to="javascript:alert(1)"/>'), "<animate>"),
        (svg('<set attributeName="onload" to="alert(1)"/>'), "<set>"),
        (svg("", attributes='onload="alert(1)"'), "event handler"),
        (svg('<g onClick="alert(1)"/>'), "event handler"),
        (svg('<image href="http://192.0.2.1/a.png"/>'), "reference"),
        (svg('<image xlink:href="//192.0.2.1/a.png"/>'), "reference"),
        (svg('<a href="javascript:alert(1)"/>'), "reference"),
        (svg('<use href="data:image/svg+xml;base64,AAAA"/>'), "reference"),
        (svg('<use href="other.svg#a"/>'), "reference"),
        (svg('<rect fill="url(http://192.0.2.1/a)"/>'), "style"),
        (svg('<rect style="fill:URL( &quot;http://192.0.2.1/a&quot;)"/>'), "style"),
        (svg("<style>@import 'http://192.0.2.1/a.css'</style>"), "style"),
        (svg("<style>@im<![CDATA[port]]> 'http://192.0.2.1/a.css'</style>"), "style"),
        (svg(r"<style>@\69mport 'http://192.0.2.1/a.css'</style>"), "style"),
        (svg("", before='<!DOCTYPE svg [<!ENTITY a "b">]>'), "document type"),
        (
            svg("&a;", before='<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
            "document type",
        ),
        (svg("", before='<?xml-stylesheet href="http://192.0.2.1/a.css"?>'), "instruction"),
        (b"<html xmlns='http://www.w3.org/1999/xhtml'/>", "something else"),
        (b"<svg/>", "something else"),
        (b"", "not well-formed"),
        (svg("&undefined;"), "not well-formed"),
        (svg("<g>"), "not well-formed"),
        (b"\xff\xfe<\x00", "not well-formed"),
        (png(), "not well-formed"),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_an_svg_that_does_more_than_show_is_refused(
    write: Write, content: bytes, words: str
) -> None:
    with pytest.raises(FigureError, match=words):
        read_figure(write("a.svg", content))


@pytest.mark.parametrize(
    "content",
    [b"", SVG, png()[:-1], png() + b"x", b"\x89PNG\r\n\x1a\n", png(MAX_SIDE_PX + 1), png(2, 0)],
    ids=["empty", "svg", "cut", "with a tail", "head only", "too wide", "of no height"],
)
def test_a_png_is_whole_and_bounded(write: Write, content: bytes) -> None:
    with pytest.raises(FigureError):
        read_figure(write("a.png", content))


def test_a_picture_that_is_too_large_or_changed_is_refused(write: Write) -> None:
    with pytest.raises(PackageIntegrityError, match="larger"):
        read_figure(write("a.png", b"x" * (MAX_FIGURE_BYTES + 1)))
    file = write("b.png", png())
    file.path.write_bytes(png(3, 3))
    with pytest.raises(PackageIntegrityError, match="checksum"):
        read_figure(file)


FIGURE = '[[figures]]\nfile = "roc.svg"\ntitle = "ROC"\nalt = "A curve."\n'


def test_a_package_opens_with_its_figures(builder: Any) -> None:
    builder.card += FIGURE
    package = load_package(builder.replace("roc.svg", SVG))
    assert [figure.path.name for figure in package.figures] == ["roc.svg"]


@pytest.mark.parametrize("content", [None, svg("<script/>")], ids=["missing", "with a script"])
def test_a_package_with_a_bad_figure_is_refused(builder: Any, content: bytes | None) -> None:
    builder.card += FIGURE
    folder = builder.write() if content is None else builder.replace("roc.svg", content)
    with pytest.raises(PackageError, match=r"roc\.svg"):
        load_package(folder)
