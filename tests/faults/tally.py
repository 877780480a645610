"""What became of each fault that a test tried, and the table of all of them by kind."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

Category = Literal["left-over", "loss", "silent failure", "other"]
COLUMNS: tuple[Category, ...] = ("left-over", "loss", "silent failure", "other")


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
    """The sums by kind, as they are printed at the end."""

    tried: Counter[str] = field(default_factory=Counter)
    survived: Counter[str] = field(default_factory=Counter)
    problems: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, report: pytest.TestReport) -> None:
        """Count what a test reports."""
        kinds = [value for name, value in report.user_properties if name == "kind"]
        self.seconds.update(dict.fromkeys(kinds, report.duration))
        if report.when != "teardown":
            return
        for name, value in report.user_properties:
            if name == "fault":
                kind, problems = value
                self.tried[kind] += 1
                self.survived[kind] += not problems
                for category, times in problems.items():
                    self.problems[kind, category] += times

    def lines(self) -> Iterator[str]:
        heads = ["tried", "survived", "left-overs", "losses", "silent failures", "other", "seconds"]
        yield f"{'kind of fault':<42}" + "".join(f"{head:>{len(head) + 2}}" for head in heads)
        for kind in [*sorted(self.tried), None]:
            of = (lambda counter: counter.total()) if kind is None else (lambda counter: counter[kind])
            counts = [
                of(self.tried),
                of(self.survived),
                *(self._problems(kind, category) for category in COLUMNS),
                round(of(self.seconds)),
            ]
            cells = (f"{count:>{len(head) + 2},}" for count, head in zip(counts, heads, strict=True))
            yield f"{kind or 'all':<42}" + "".join(cells)

    def _problems(self, kind: str | None, category: str) -> int:
        return sum(
            times for (of, what), times in self.problems.items() if what == category and kind in (of, None)
        )
