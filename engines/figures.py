"""Pictures of a model card: PNG and SVG files of the package, refused unless they are plain.

A browser runs no script and loads nothing from an SVG that stands in ``<img>``. A picture is
still refused when it holds a script, an event handler, foreign content, a reference that leaves
the file, or entities: whoever opens the file itself is safe as well.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from xml.parsers import expat

from engines.checksums import VerifiedFile
from engines.errors import FigureError

MAX_FIGURE_BYTES = 512 * 1024
"""With the twelve figures that a card may have, a page stays below 9 MB."""
MAX_SIDE_PX = 4096

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_SVG = "http://www.w3.org/2000/svg"
_FORBIDDEN_ELEMENTS = frozenset(
    {
        *("script", "handler", "listener"),
        *("foreignobject", "iframe", "object", "embed"),
        *("animate", "animatemotion", "animatetransform", "set"),  # may write other attributes
    }
)
_LOCAL_REFERENCE = re.compile(r"#[^\s]*|data:image/png;base64,[A-Za-z0-9+/=\s]*")
_LEAVING_STYLE = re.compile(r"url\((?!\s*['\"]?#)|@import|expression\(", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureImage:
    """A picture that may be shown."""

    media_type: str
    content: bytes


def read_figure(file: VerifiedFile) -> FigureImage:
    """Reads a picture of the package.

    Raises:
        FigureError: It is neither PNG nor SVG, or holds what a picture does not need.
        PackageIntegrityError: It is too large, or changed.
    """
    content = file.read(MAX_FIGURE_BYTES)
    if file.path.suffix == ".png":
        _check_png(file.path.name, content)
        return FigureImage(media_type="image/png", content=content)
    _SvgCheck(file.path.name).check(content)
    return FigureImage(media_type="image/svg+xml", content=content)


def _check_png(name: str, content: bytes) -> None:
    size_end = len(_PNG_START) + 8
    if not (content.startswith(_PNG_START) and content.endswith(_PNG_END)):
        raise FigureError(f"{name} is not a whole PNG file")
    width, height = struct.unpack(">II", content[len(_PNG_START) : size_end])
    if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
        raise FigureError(f"{name}: make the picture at most {MAX_SIDE_PX} pixels wide and high")


class _SvgCheck:
    """Reads an SVG once with expat, which loads nothing, and refuses at the first fault."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._depth = 0
        self._styles: list[str] = []
        self._in_style = False

    def check(self, content: bytes) -> None:
        parser = expat.ParserCreate("UTF-8", namespace_separator="}")
        parser.StartDoctypeDeclHandler = self._doctype
        parser.ProcessingInstructionHandler = self._instruction
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        try:
            parser.Parse(content, True)  # noqa: FBT003 - expat's signature
        except expat.ExpatError as error:
            raise FigureError(f"{self._name} is not well-formed SVG: {error}") from error

    def _doctype(self, _name: str, _system: str | None, _public: str | None, subset: int) -> None:
        if subset:
            raise self._refusal("a document type of its own")

    def _instruction(self, _target: str, _data: str) -> None:
        raise self._refusal("a processing instruction")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        namespace, _, local = tag.rpartition("}")
        if self._depth == 0 and (namespace, local) != (_SVG, "svg"):
            raise self._refusal("something else than <svg> on top")
        self._depth += 1
        if local.lower() in _FORBIDDEN_ELEMENTS:
            raise self._refusal(f"<{local}>")
        self._in_style = local.lower() == "style"
        for key, value in attributes.items():
            self._check_attribute(key.rpartition("}")[2].lower(), value)

    def _check_attribute(self, key: str, value: str) -> None:
        if key.startswith("on"):
            raise self._refusal("an event handler")
        if key in {"href", "src"} and not _LOCAL_REFERENCE.fullmatch(value):
            raise self._refusal("a reference that leaves the file")
        self._check_style(value)

    def _check_style(self, text: str) -> None:
        if _LEAVING_STYLE.search(text) or "\\" in text:  # CSS writes any letter with a backslash
            raise self._refusal("a style that leaves the file")

    def _text(self, text: str) -> None:
        if self._in_style:
            self._styles.append(text)

    def _end(self, _tag: str) -> None:
        self._depth -= 1
        if self._in_style:
            self._check_style("".join(self._styles))
        self._in_style = False
        self._styles.clear()

    def _refusal(self, what: str) -> FigureError:
        return FigureError(f"{self._name} holds {what}; export it as a plain picture")
