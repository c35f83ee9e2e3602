"""The geometry of a card's charts: measured points in, positions in a drawing out.

The template draws them as SVG; nothing here knows of markup. Positions are in units of the
drawing's view box, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge_runtime.governance.card_source import level_words, number_words
from engines.card import Curve, CurveKind, CurvePoint, Statistic

WIDTH, HEIGHT = 400.0, 290.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 388.0, 10.0, 236.0
STRIP_WIDTH = 150.0

_DENSE = 24  # points: more are drawn as a line with a band, fewer as marks with whiskers
_LABELLED_STEPS = 5
_PLACES = 1  # decimals of a position: a tenth of a pixel
_QUARTILES = (0.25, 0.75)
_MEDIAN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A measured point; ``top`` and ``bottom`` are those of its interval."""

    x: float
    y: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """A measured point in words, for the table below the chart."""

    x: str
    y: str
    interval: str
    cases: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One curve, ready to be drawn."""

    key: str
    label: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    line: str
    """Points of a polyline."""
    band: str
    """Points of a polygon around a dense curve; empty where there is none."""
    marks: tuple[Mark, ...]
    diagonal: str
    """What the diagonal stands for; empty where there is none."""
    level: str
    has_intervals: bool
    rows: tuple[PointRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A distribution on a line of STRIP_WIDTH: whiskers, box and middle."""

    low: float
    high: float
    box_low: float
    box_high: float
    middle: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        span = self.high - self.low
        return round(self.start + (value - self.low) / span * (self.end - self.start), _PLACES)


_DIAGONALS = {
    CurveKind.ROC: "chance",
    CurveKind.RELIABILITY: "perfect calibration",
    CurveKind.RESPONSE: "",
}


def chart_of(curve: Curve) -> Chart:
    """Places a curve's points in a drawing of WIDTH by HEIGHT."""
    x_ticks, x_axis = _axis([p.x for p in curve.points], LEFT, RIGHT, unit=_is_unit(curve))
    heights = [h for p in curve.points for h in (p.y, p.lower, p.upper) if h is not None]
    unit = all(0 <= height <= 1 for height in heights)
    y_ticks, y_axis = _axis(heights, BOTTOM, TOP, unit=unit)
    marks = tuple(_mark(point, x_axis, y_axis) for point in curve.points)
    dense = len(marks) > _DENSE
    return Chart(
        key=curve.key,
        label=curve.label,
        x_label=curve.x_label,
        y_label=curve.y_label,
        x_ticks=x_ticks,
        y_ticks=y_ticks,
        line=_points((mark.x, mark.y) for mark in marks),
        band=_band(marks) if dense else "",
        marks=() if dense else marks,
        diagonal=_DIAGONALS[curve.kind],
        level=level_words(curve.level),
        has_intervals=any(point.lower is not None for point in curve.points),
        rows=tuple(_row(point) for point in curve.points),
    )


def strips_of(statistics: Sequence[Statistic]) -> tuple[Strip, ...]:
    """Places distributions of one unit on lines of a common scale."""
    ends = [_ends(statistic) for statistic in statistics]
    low, high = min(end[0] for end in ends), max(end[1] for end in ends)
    axis = _Axis(low=low, high=high if high > low else low + 1, start=4, end=STRIP_WIDTH - 4)
    return tuple(
        _strip(statistic, end, axis) for statistic, end in zip(statistics, ends, strict=True)
    )


def unit_position(fraction: float) -> float:
    """Places a fraction on a line of STRIP_WIDTH that runs from 0 to 1."""
    return _Axis(low=0, high=1, start=4, end=STRIP_WIDTH - 4).at(fraction)


def _is_unit(curve: Curve) -> bool:
    return curve.kind is not CurveKind.RESPONSE


def _axis(
    values: Sequence[float], start: float, end: float, *, unit: bool
) -> tuple[tuple[Tick, ...], _Axis]:
    low, high = (0.0, 1.0) if unit else (min(values), max(values))
    if low == high:
        low, high = low - 0.5, high + 0.5
    step = _nice_step(high - low)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    axis = _Axis(low=first * step, high=last * step, start=start, end=end)
    ticks = (number * step for number in range(first, last + 1))
    return tuple(Tick(at=axis.at(tick), label=f"{tick:.6g}") for tick in ticks), axis


def _nice_step(span: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that needs few labels."""
    rough = span / _LABELLED_STEPS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)


def _mark(point: CurvePoint, x_axis: _Axis, y_axis: _Axis) -> Mark:
    y = y_axis.at(point.y)
    return Mark(
        x=x_axis.at(point.x),
        y=y,
        top=y if point.upper is None else y_axis.at(point.upper),
        bottom=y if point.lower is None else y_axis.at(point.lower),
    )


def _band(marks: Sequence[Mark]) -> str:
    if all(mark.top == mark.bottom for mark in marks):
        return ""
    there = [(mark.x, mark.top) for mark in marks]
    back = [(mark.x, mark.bottom) for mark in reversed(marks)]
    return _points((*there, *back))


def _points(pairs: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in pairs)


def _row(point: CurvePoint) -> PointRow:
    interval = ""
    if point.lower is not None and point.upper is not None:
        interval = f"{number_words(point.lower)}–{number_words(point.upper)}"
    return PointRow(
        x=number_words(point.x),
        y=number_words(point.y),
        interval=interval,
        cases="" if point.cases is None else str(point.cases),
    )


def _ends(statistic: Statistic) -> tuple[float, float]:
    values = [quantile.value for quantile in statistic.quantiles]
    if not values:
        values = [statistic.mean - statistic.sd, statistic.mean + statistic.sd]
    return min(*values, statistic.mean), max(*values, statistic.mean)


def _strip(statistic: Statistic, ends: tuple[float, float], axis: _Axis) -> Strip:
    quantiles = {quantile.fraction: quantile.value for quantile in statistic.quantiles}
    box = [quantiles.get(quartile) for quartile in _QUARTILES]
    low, high = (
        value if value is not None else statistic.mean + sign * statistic.sd
        for value, sign in zip(box, (-1, 1), strict=True)
    )
    return Strip(
        low=axis.at(ends[0]),
        high=axis.at(ends[1]),
        box_low=axis.at(max(low, ends[0])),
        box_high=axis.at(min(high, ends[1])),
        middle=axis.at(quantiles.get(_MEDIAN, statistic.mean)),
    )
