"""Pictures of the evaluation's curves as SVG, and of phantoms as PNG, made of nothing else.

Plain shapes and text: a package may carry them (``engines.figures``), and the same numbers give
the same bytes.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from engines.card import Curve, CurveKind
from tools.phantoms.head_ct import HeadPhantom
from tools.phantoms.spec import AcquisitionChoice, BleedKind, Filling, PhantomSpec, draw_spec

WIDTH, HEIGHT = 400, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 48
"""Margins in pixels."""
INK, FAINT, LINE, BAND = "#222", "#ddd", "#1f5fa8", "#bcd3ee"
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TICKS = 5
MANY_POINTS = 40
"""A curve of more points is drawn with a band, one of fewer with bars."""

EXAMPLE_MATRIX = 224
EXAMPLE_SEED = 7
BRAIN_WINDOW_HU = (0.0, 80.0)
COLUMNS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From values to pixels along one side of the plot."""

    low: float
    high: float
    ticks: tuple[float, ...]
    start: float
    """Pixel of ``low``."""
    stop: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Pixel of a value."""
        change = _log if self.is_log else float
        share = (change(value) - change(self.low)) / (change(self.high) - change(self.low))
        return self.start + share * (self.stop - self.start)


def curve_svg(curve: Curve, *, log_x: bool = False) -> str:
    """A curve with its interval band or bars.

    Args:
        curve: of the evaluation.
        log_x: the quantity spans decades, and is above 0.
    """
    x, y = _x_axis(curve, log_x=log_x), _share_axis(HEIGHT - BOTTOM, TOP)
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg"',
        f' viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"',
        f' font-family="sans-serif" font-size="12" fill="{INK}">',
        f"<title>{escape(curve.label)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="{TOP - 12}" font-weight="bold">{escape(curve.label)}</text>',
        *_grid(x, y),
    ]
    if curve.kind is not CurveKind.RESPONSE:
        parts.append(_polyline([(x.at(0), y.at(0)), (x.at(1), y.at(1))], "#999", dashed=True))
    parts += _shapes(curve, x, y)
    parts += [
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, curve.x_label),
        f'<g transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">',
        _text(0, 0, curve.y_label),
        "</g>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _log(value: float) -> float:
    return math.log10(value)


def _share_axis(start: float, stop: float) -> Axis:
    return Axis(low=0.0, high=1.0, ticks=SHARES, start=start, stop=stop)


def _x_axis(curve: Curve, *, log_x: bool) -> Axis:
    start, stop = float(LEFT), float(WIDTH - RIGHT)
    if curve.kind is not CurveKind.RESPONSE:
        return _share_axis(start, stop)
    low, high = curve.points[0].x, curve.points[-1].x
    if log_x:
        first = math.floor(_log(low))
        last = max(math.ceil(_log(high)), first + 1)
        ticks = tuple(10.0**power for power in range(first, last + 1))
        return Axis(low=ticks[0], high=ticks[-1], ticks=ticks, start=start, stop=stop, is_log=True)
    step = _round_step((high - low) / TICKS)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    ticks = tuple(number * step for number in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks, start=start, stop=stop)


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, not below ``step``."""
    if step <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _grid(x: Axis, y: Axis) -> list[str]:
    lines = []
    for tick in x.ticks:
        lines.append(_polyline([(x.at(tick), y.start), (x.at(tick), y.stop)], FAINT))
        lines.append(_text(x.at(tick), y.start + 16, f"{tick:g}"))
    for tick in y.ticks:
        lines.append(_polyline([(x.start, y.at(tick)), (x.stop, y.at(tick))], FAINT))
        lines.append(_text(x.start - 6, y.at(tick) + 4, f"{tick:g}", anchor="end"))
    return lines


def _shapes(curve: Curve, x: Axis, y: Axis) -> list[str]:
    places = [(x.at(point.x), y.at(point.y)) for point in curve.points]
    ends = [
        (x.at(point.x), y.at(point.lower), y.at(point.upper))
        for point in curve.points
        if point.lower is not None and point.upper is not None
    ]
    if len(curve.points) > MANY_POINTS:
        outline = [(px, top) for px, _, top in ends] + [(px, low) for px, low, _ in ends[::-1]]
        band = " ".join(f"{px:.1f},{py:.1f}" for px, py in outline)
        return [f'<polygon points="{band}" fill="{BAND}"/>', _polyline(places, LINE, width=2)]
    bars = [_polyline([(px, low), (px, top)], LINE) for px, low, top in ends]
    dots = [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{LINE}"/>' for px, py in places]
    return [_polyline(places, BAND, width=2), *bars, *dots]


def _polyline(
    points: Sequence[tuple[float, float]], colour: str, *, width: int = 1, dashed: bool = False
) -> str:
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="4 4"' if dashed else ""
    line = f'stroke="{colour}" stroke-width="{width}"{dashes}'
    return f'<polyline points="{places}" fill="none" {line}/>'


def _text(x: float, y: float, text: str, *, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def examples_png() -> bytes:
    """One slice each of the five bleeds, a healthy head, one with contrast and a plastic one."""
    choice = AcquisitionChoice(slices=30, matrix=EXAMPLE_MATRIX, spacing_mm=5.0)
    drawn: list[Callable[[int], PhantomSpec]] = [
        *(lambda seed, kind=kind: draw_spec(seed, bleed=kind, choice=choice) for kind in BleedKind),
        lambda seed: draw_spec(seed, choice=choice),
        lambda seed: draw_spec(seed, choice=choice, contrast=True),
        lambda seed: draw_spec(seed, choice=choice, filling=Filling.QA_INSERTS),
    ]
    tiles = [_example(draw(EXAMPLE_SEED + number)) for number, draw in enumerate(drawn)]
    rows = [
        np.concatenate(tiles[start : start + COLUMNS], axis=1)
        for start in range(0, len(tiles), COLUMNS)
    ]
    return grey_png(np.concatenate(rows))


def _example(spec: PhantomSpec) -> NDArray[np.uint8]:
    """The slice with most blood, or one through the ventricles, in the brain window."""
    phantom = HeadPhantom(spec)
    places = range(spec.acquisition.slices)
    chosen = 15
    if spec.bleeds:
        areas = [
            phantom.draw(phantom.geometry(place), noise_stream=place).bleed_mm2 for place in places
        ]
        chosen = int(np.argmax(areas))
    low, high = BRAIN_WINDOW_HU
    grey = (phantom.slice_hu(chosen).astype(np.float32) - low) / (high - low)
    # 64 levels: they pack well, and nobody sees the difference.
    levels: NDArray[np.uint8] = np.rint(np.clip(grey, 0, 1) * 63).astype(np.uint8) * np.uint8(4)
    return levels


def grey_png(image: NDArray[np.uint8]) -> bytes:
    """An 8-bit greyscale PNG (ISO/IEC 15948) of (rows, columns)."""
    rows, columns = image.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), image], axis=1)  # filter 0 each
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, content)
        for kind, content in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(lines.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
