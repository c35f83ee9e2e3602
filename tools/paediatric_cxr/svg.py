"""Draws measured curves as SVG text: panels with axes, bands or whiskers, and a diagonal. Pure.

Colours read on white and on dark pages alike, since a repository is shown on both: the picture
brings its own light ground.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from engines.card import CurvePoint

PANEL_WIDTH, PANEL_HEIGHT = 320, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 28, 46
INK, FAINT, COLOUR, BAND = "#1d2733", "#c6ced8", "#0b5cad", "#9cc4ec"
DENSE = 24
"""Points: more are drawn as a line with a band, fewer as marks with whiskers."""
TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart."""

    title: str
    x_label: str
    y_label: str
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    points: tuple[CurvePoint, ...]
    diagonal: bool = False
    marks: tuple[tuple[float, float], ...] = ()
    """Places of note, such as the operating point."""


def draw_panels(panels: Sequence[Panel], *, columns: int, title: str) -> str:
    """The panels in rows of ``columns``, as a whole SVG file.

    Args:
        panels: at least one.
        columns: in a row.
        title: for those who do not see the picture.
    """
    rows = -(-len(panels) // columns)
    width, height = columns * PANEL_WIDTH, rows * PANEL_HEIGHT
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="11" role="img">'
        ),
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, panel in enumerate(panels):
        across, down = (number % columns) * PANEL_WIDTH, (number // columns) * PANEL_HEIGHT
        parts += [f'<g transform="translate({across} {down})">', *_panel(panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    return [
        *_frame(panel),
        *(_diagonal(panel) if panel.diagonal else []),
        *(_band(panel) if len(panel.points) > DENSE else _whiskers(panel)),
        f'<polyline fill="none" stroke="{COLOUR}" stroke-width="1.8" points="'
        + " ".join(_place(panel, point.x, point.y) for point in panel.points)
        + '"/>',
        *(_dot(panel, x, y, radius=4.5, fill="#c2410c") for x, y in panel.marks),
    ]


def _frame(panel: Panel) -> list[str]:
    right, bottom = PANEL_WIDTH - RIGHT, PANEL_HEIGHT - BOTTOM
    lines = [
        f'<text x="{LEFT}" y="17" font-size="13" fill="{INK}">{html.escape(panel.title)}</text>',
        (
            f'<text x="{(LEFT + right) / 2:g}" y="{PANEL_HEIGHT - 10}" text-anchor="middle" '
            f'fill="{INK}">{html.escape(panel.x_label)}</text>'
        ),
        (
            f'<text transform="translate(13 {(TOP + bottom) / 2:g}) rotate(-90)" '
            f'text-anchor="middle" fill="{INK}">{html.escape(panel.y_label)}</text>'
        ),
    ]
    for value in _ticks(panel.y_range):
        y = _y(panel, value)
        lines += [
            f'<path d="M{LEFT} {y}H{right}" stroke="{FAINT}" stroke-width="0.6"/>',
            f'<text x="{LEFT - 5}" y="{y + 4:g}" text-anchor="end" fill="{INK}">{value:g}</text>',
        ]
    for value in _ticks(panel.x_range):
        x = _x(panel, value)
        lines += [
            f'<path d="M{x} {TOP}V{bottom}" stroke="{FAINT}" stroke-width="0.6"/>',
            f'<text x="{x}" y="{bottom + 14}" text-anchor="middle" fill="{INK}">{value:g}</text>',
        ]
    return lines


def _diagonal(panel: Panel) -> list[str]:
    ends = " ".join(_place(panel, at, at) for at in (0.0, 1.0))
    return [f'<polyline fill="none" stroke="{INK}" stroke-dasharray="4 4" points="{ends}"/>']


def _band(panel: Panel) -> list[str]:
    upper = [(point.x, point.y if point.upper is None else point.upper) for point in panel.points]
    lower = [(point.x, point.y if point.lower is None else point.lower) for point in panel.points]
    outline = " ".join(_place(panel, x, y) for x, y in (*upper, *reversed(lower)))
    return [f'<polygon fill="{BAND}" fill-opacity="0.6" points="{outline}"/>']


def _whiskers(panel: Panel) -> list[str]:
    lines = []
    for point in panel.points:
        if point.lower is not None and point.upper is not None:
            x, top, bottom = _x(panel, point.x), _y(panel, point.upper), _y(panel, point.lower)
            lines.append(f'<path d="M{x} {top}V{bottom}" stroke="{COLOUR}" stroke-width="1.2"/>')
        lines.append(_dot(panel, point.x, point.y, radius=2.6, fill=COLOUR))
    return lines


def _dot(panel: Panel, x: float, y: float, *, radius: float, fill: str) -> str:
    return f'<circle cx="{_x(panel, x)}" cy="{_y(panel, y)}" r="{radius}" fill="{fill}"/>'


def _ticks(ends: tuple[float, float]) -> list[float]:
    low, high = ends
    return [round(low + (high - low) * number / TICKS, 6) for number in range(TICKS + 1)]


def _place(panel: Panel, x: float, y: float) -> str:
    return f"{_x(panel, x)},{_y(panel, y)}"


def _x(panel: Panel, value: float) -> float:
    low, high = panel.x_range
    return round(LEFT + (value - low) / (high - low) * (PANEL_WIDTH - LEFT - RIGHT), 1)


def _y(panel: Panel, value: float) -> float:
    low, high = panel.y_range
    inside = min(max(value, low), high)
    bottom = PANEL_HEIGHT - BOTTOM
    return round(bottom - (inside - low) / (high - low) * (bottom - TOP), 1)
