"""Geometry of the static SVG charts: those of the page that need no script, and the preview.

x is in percent of the width, y in pixels from the top of the plot: a chart then fills the width of a phone, a
screen or a sheet of paper, and its labels keep their size. The interactive chart is drawn by chart.js, in the
browser, because its axes and paths depend on the days in view.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from modal_forecast.report.formats import compact

Values = Sequence[float | None]
Scale = Callable[[float], float]
HEIGHT = 130
# As a share of the largest value: a smaller change is not magnified.
SMALLEST_CHANGE = 0.01


@dataclass(frozen=True)
class Label:
    """A text below the plot; anchor: start, middle or end."""

    x: float
    text: str
    anchor: str = "middle"


@dataclass(frozen=True)
class Mark:
    """A line across the plot at a round value, labelled with the value."""

    y: float
    text: str


@dataclass(frozen=True)
class Shape:
    """An SVG path in a box of 100 by `height`; layer: sets the colour; kind: line or area."""

    layer: str
    kind: str
    d: str


@dataclass(frozen=True)
class Bar:
    """A rectangle from the zero line up or down; `label_y` is where its value is written.

    is_faint: drawn without colour, as its value says nothing.
    """

    x: float
    width: float
    y: float
    height: float
    text: str
    label_y: float
    is_faint: bool


@dataclass(frozen=True)
class Plot:
    height: int
    labels: tuple[Label, ...]
    marks: tuple[Mark, ...] = ()
    shapes: tuple[Shape, ...] = ()
    bars: tuple[Bar, ...] = ()
    zero: float | None = None


def line_plot(
    lines: Sequence[tuple[str, Values]],
    labels: Sequence[Label],
    areas: Sequence[tuple[str, Values, Values]] = (),
    height: int = HEIGHT,
) -> Plot:
    """Return a plot of lines, and of areas between two lines, over one row of points; each has its layer."""
    rows = [values for _, values in lines] + [side for _, *sides in areas for side in sides]
    drawn = [value for values in rows for value in values if value is not None] or [0.0]
    ticks = round_values(min(drawn), max(drawn))
    low, high = ticks[0], ticks[-1]
    # Enough to tell one mark from the next, and to write it as it is.
    digits = 3 + max(0, math.floor(math.log10(max(-low, high) / (ticks[1] - ticks[0]))))

    def y(value: float) -> float:
        return (high - value) / (high - low) * height

    shapes = [Shape(layer, "area", area_path(lower, upper, y)) for layer, lower, upper in areas]
    shapes += [Shape(layer, "line", line_path(values, y)) for layer, values in lines]
    return Plot(
        height,
        tuple(labels),
        tuple(Mark(round(y(value), 1), compact(value, digits)) for value in ticks),
        tuple(shapes),
        zero=round(y(0), 1) if low <= 0 <= high else None,
    )


def bar_plot(
    values: Sequence[float],
    names: Sequence[str],
    texts: Sequence[str],
    faint: Collection[str] = (),
    height: int = HEIGHT,
) -> Plot:
    """Return a plot with a bar for each value, from zero, and room for its text above or below it.

    faint: names of bars that are drawn without colour.
    """
    room = 16
    low, high = min(0.0, *values), max(0.0, *values)
    scale = (height - 2 * room) / ((high - low) or 1)
    zero, step = room + high * scale, 100 / len(values)
    bars = []
    for index, (value, name, text) in enumerate(zip(values, names, texts, strict=True)):
        top, size = zero - max(value, 0) * scale, abs(value) * scale
        bars.append(
            Bar(
                x=round((index + 0.15) * step, 2),
                width=round(0.7 * step, 2),
                y=round(top, 1),
                height=round(size, 1),
                text=text,
                label_y=round(top - 5 if value >= 0 else top + size + 12, 1),
                is_faint=name in faint,
            )
        )
    labels = [Label(round((index + 0.5) * step, 2), name[:3]) for index, name in enumerate(names)]
    return Plot(height, tuple(labels), bars=tuple(bars), zero=round(zero, 1))


def round_values(low: float, high: float) -> list[float]:
    """Return two to five round values around low and high; the first is zero if that costs less than half."""
    if 0 < low < high / 2:
        low = 0.0
    size = max(abs(low), abs(high))
    span = high - low
    if span < SMALLEST_CHANGE * size or not span:
        # In a picture of it alone, a flat line would look like a mountain.
        span = size or 1.0
    power = 10 ** math.floor(math.log10(span / 3))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= span / 3 * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def spread_labels(days: Sequence[date], form: str, count: int = 4) -> list[Label]:
    """Return up to `count` labels, evenly spread over the days; form: a format of strftime."""
    last = len(days) - 1
    count = min(count, len(days))
    indexes = [round(index * last / (count - 1)) for index in range(count)] if count > 1 else [0]
    texts = [f"{days[index]:{form}}".lstrip("0") for index in indexes]
    anchors = ["start", *["middle"] * (count - 2), "end"] if count > 1 else ["middle"]
    return [Label(round(x_of(i, last + 1), 2), t, a) for i, t, a in zip(indexes, texts, anchors, strict=True)]


def x_of(index: int, count: int) -> float:
    """Return the x of a point: 0 for the first, 100 for the last, 50 for the only one."""
    return 50.0 if count == 1 else index / (count - 1) * 100


def line_path(values: Values, y: Scale) -> str:
    """Return a line, broken where a value is missing; a value between two missing ones is a short dash."""
    runs = (_points(run, values, y) for run in _runs([values]))
    return "".join(f"M{_joined(points, len(values))}" for points in runs)


def area_path(lower: Values, upper: Values, y: Scale) -> str:
    """Return closed shapes between two rows, where both are known."""
    shapes = ([*_points(run, upper, y), *_points(run, lower, y)[::-1]] for run in _runs([lower, upper]))
    return "".join(f"M{_joined(points, len(lower))}Z" for points in shapes)


def _runs(rows: Sequence[Values]) -> Iterator[list[int]]:
    """Indexes of consecutive points that are known in every row."""
    run: list[int] = []
    for index, values in enumerate(zip(*rows, strict=True)):
        if None not in values:
            run.append(index)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _points(run: Sequence[int], values: Values, y: Scale) -> list[tuple[float, float]]:
    points = [(x_of(i, len(values)), y(value)) for i in run if (value := values[i]) is not None]
    if len(points) > 1:
        return points
    ((x, height),), half = points, min(0.4, 40 / len(values))
    return [(x - half, height), (x + half, height)]


def _joined(points: Sequence[tuple[float, float]], count: int) -> str:
    digits = 1 if count <= 366 else 2
    return "L".join(f"{round(x, digits):g} {round(height, digits):g}" for x, height in points)
