"""The geometry of the small charts, which are drawn without a script.

A place along the width is a percentage of it, and one along the height is in pixels from the top of the plot:
a chart then fills the width of a phone, of a screen or of a sheet of paper, and its labels keep their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from modal_forecast.report.formats import compact
from modal_forecast.report.paths import Values, area, line, place

HEIGHT = 130


@dataclass(frozen=True)
class Label:
    """A text below the plot; anchor: start, middle or end."""

    x: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Mark:
    """A line across the plot at a round value, with the value on it."""

    y: float
    text: str


@dataclass(frozen=True)
class Shape:
    """An SVG path in a box of 100 by `height`; layer: whose colour it has, kind: line or area."""

    layer: str
    kind: str
    d: str


@dataclass(frozen=True)
class Bar:
    """From the zero line up or down; `label_y` is where its value is written."""

    x: float
    width: float
    y: float
    height: float
    text: str
    label_y: float


@dataclass(frozen=True)
class Plot:
    height: int
    labels: tuple[Label, ...]
    marks: tuple[Mark, ...] = ()
    shapes: tuple[Shape, ...] = ()
    bars: tuple[Bar, ...] = ()
    zero: float | None = field(default=None)


def line_plot(
    lines: Sequence[tuple[str, Values]],
    labels: Sequence[Label],
    areas: Sequence[tuple[str, Values, Values]] = (),
    height: int = HEIGHT,
) -> Plot:
    """Lines, and areas between two lines, over one row of points, each named by the layer it belongs to."""
    shown = [values for _, values in lines] + [side for _, *sides in areas for side in sides]
    known = [value for values in shown for value in values if value is not None] or [0.0]
    ticks = round_values(min(known), max(known))
    low, high = ticks[0], ticks[-1]

    def y(value: float) -> float:
        return (high - value) / (high - low) * height

    areas_drawn = [Shape(layer, "area", area(lower, upper, y)) for layer, lower, upper in areas]
    lines_drawn = [Shape(layer, "line", line(values, y)) for layer, values in lines]
    return Plot(
        height,
        tuple(labels),
        tuple(Mark(round(y(value), 1), compact(value)) for value in ticks),
        tuple(areas_drawn + lines_drawn),
        zero=round(y(0), 1) if low <= 0 <= high else None,
    )


def bar_plot(values: Sequence[float], names: Sequence[str], height: int = HEIGHT) -> Plot:
    """One bar for each value, from zero; room is left for the value above or below its bar."""
    room = 16
    low, high = min(0.0, *values), max(0.0, *values)
    scale = (height - 2 * room) / ((high - low) or 1)
    zero, step = room + high * scale, 100 / len(values)
    bars = []
    digits = 2 - math.floor(math.log10(max(high, -low) or 1))
    for index, value in enumerate(round(value, digits) for value in values):
        top, size = zero - max(value, 0) * scale, abs(value) * scale
        bars.append(
            Bar(
                x=round((index + 0.15) * step, 2),
                width=round(0.7 * step, 2),
                y=round(top, 1),
                height=round(size, 1),
                text=("+" if value > 0 else "") + compact(value),
                label_y=round(top - 5 if value >= 0 else top + size + 12, 1),
            )
        )
    labels = [Label(round((index + 0.5) * step, 2), name) for index, name in enumerate(names)]
    return Plot(height, tuple(labels), bars=tuple(bars), zero=round(zero, 1))


def round_values(low: float, high: float) -> list[float]:
    """Two to five round values that hold low and high. The first is zero if that costs less than half."""
    if 0 < low < high / 2:
        low = 0.0
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 3))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= span / 3 * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def spread_labels(days: Sequence[date], form: str, count: int = 4) -> list[Label]:
    """Up to `count` labels, evenly spread from the first day to the last one; form: as of strftime."""
    last = len(days) - 1
    count = min(count, len(days))
    indexes = [round(index * last / (count - 1)) for index in range(count)] if count > 1 else [0]
    texts = [f"{days[index]:{form}}".lstrip("0") for index in indexes]
    anchors = ["start", *["middle"] * (count - 2), "end"] if count > 1 else ["middle"]
    return [
        Label(round(place(i, last + 1), 2), t, a) for i, t, a in zip(indexes, texts, anchors, strict=True)
    ]
