"""What became of each fault that a test tried, and the table of all of them by kind."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

Category = Literal["left-over", "loss", "silent failure", "other"]
ALL, WIDTH = "all", 17
HEADINGS = {
    "tried": "tried",
    "survived": "survived",
    "left-over": "left-overs",
    "loss": "losses",
    "silent failure": "silent failures",
    "other": "other",
    "seconds": "seconds",
}


@dataclass
class Attempt:
    """One fault that was tried. It was survived if nothing was reported of it."""

    name: str
    problems: list[tuple[Category, str]] = field(default_factory=list)

    def left_overs(self, paths: Iterable[str]) -> None:
        """Report files or processes that should be gone."""
        for path in sorted(paths):
            self.problems.append(("left-over", f"left over: {path}"))

    def loss(self, *sentences: str) -> None:
        """Report wrong or missing data."""
        self.problems += [("loss", sentence) for sentence in sentences]

    def silent(self, *sentences: str) -> None:
        """Report a failure that no plain sentence tells of."""
        self.problems += [("silent failure", sentence) for sentence in sentences]

    def other(self, *sentences: str) -> None:
        """Report anything else: a hang, a run that is refused or fails for no good reason."""
        self.problems += [("other", sentence) for sentence in sentences]


@dataclass
class Tally:
    """The attempts of one test."""

    kind: str
    attempts: list[Attempt] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[Attempt]:
        """Try one fault. What is raised is reported, and the next fault is tried all the same."""
        attempt = Attempt(name)
        self.attempts.append(attempt)
        try:
            yield attempt
        except Exception as error:
            attempt.other(f"{type(error).__name__}: {error}")

    @property
    def problems(self) -> list[str]:
        return [
            f"{attempt.name}: {sentence}" for attempt in self.attempts for _, sentence in attempt.problems
        ]

    def as_properties(self) -> list[tuple[str, Any]]:
        """The attempts as a test's report carries them, from one process to another, too."""
        return [
            ("fault", [self.kind, dict(Counter(category for category, _ in attempt.problems))])
            for attempt in self.attempts
        ]


@dataclass
class Table:
    """The sums by kind of fault and column, as they are printed at the end."""

    sums: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, report: pytest.TestReport) -> None:
        """Count what a test reports."""
        for name, value in report.user_properties:
            if name == "kind":
                self._count(str(value), {"seconds": report.duration})
            if name == "fault" and report.when == "teardown":
                kind, problems = value  # type: ignore[misc]
                self._count(kind, {"tried": 1, "survived": not problems, **problems})

    def lines(self) -> Iterator[str]:
        """A heading, a line for each kind, and their sum."""
        yield f"{'kind of fault':<42}" + "".join(f"{HEADINGS[column]:>{WIDTH}}" for column in HEADINGS)
        for kind in sorted(self.sums, key=lambda kind: (kind == ALL, kind)):
            numbers = (round(self.sums[kind][column]) for column in HEADINGS)
            yield f"{kind:<42}" + "".join(f"{number:>{WIDTH},}" for number in numbers)

    def _count(self, kind: str, numbers: dict[str, float]) -> None:
        for name in (kind, ALL):
            self.sums.setdefault(name, Counter()).update(numbers)
