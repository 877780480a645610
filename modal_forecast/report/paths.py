"""Rows of values as the paths of an SVG box that is 100 wide."""

from collections.abc import Callable, Iterator, Sequence

Values = Sequence[float | None]
Scale = Callable[[float], float]
Point = tuple[float, float]


def place(index: int, count: int) -> float:
    """Where a point lies: the first one at the left edge, the last one at the right one, 0..100."""
    return 50.0 if count == 1 else index / (count - 1) * 100


def line(values: Values, y: Scale) -> str:
    """Broken where a value is missing. A value between two missing ones is a short dash."""
    return "".join("M" + _joined(_points(run, values, y)) for run in _runs([values]))


def area(lower: Values, upper: Values, y: Scale) -> str:
    """Closed shapes between two rows, as far as both are known."""
    return "".join(
        f"M{_joined([*_points(run, upper, y), *_points(run, lower, y)[::-1]])}Z"
        for run in _runs([lower, upper])
    )


def _runs(rows: Sequence[Values]) -> Iterator[list[int]]:
    run: list[int] = []
    for index, values in enumerate(zip(*rows, strict=True)):
        if None not in values:
            run.append(index)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _points(run: Sequence[int], values: Values, y: Scale) -> list[Point]:
    points = [(place(i, len(values)), y(value)) for i in run if (value := values[i]) is not None]
    if len(points) > 1:
        return points
    ((x, height),), half = points, min(0.4, 40 / len(values))
    return [(x - half, height), (x + half, height)]


def _joined(points: Sequence[Point]) -> str:
    return "L".join(f"{x:.1f} {height:.1f}".replace(".0", "") for x, height in points)
