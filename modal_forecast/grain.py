"""The periods of a series: days, weeks or months; their arithmetic, seasons and names.

A week begins on a Monday. A period is named by its first day. This file loads without numpy, as the forms of
Dagster's launchpad need it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Of 1970-01-01, from which numpy counts days.
EPOCH = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class Grain:
    """What one value of a series is of.

    name, plural, adjective: day, days, daily. preposition: "on" a day, "in" a week.
    days: of a period; 0 if periods are months. average_days, longest_days: of a period.
    cycle: the periods after which the shortest pattern repeats, 1 if there is none within a year.
    year: the periods after which the same period of a year comes again; for days the same weekday.
    season: the lag of the errors that MASE counts in (metrics.seasonal_error).
    naives: the baselines that a forecast has to beat, the shorter lag first: name -> lag.
    windows: the sums that people plan by, in periods. The first is also the fewest periods that a back-test
        learns from or tests, the second the one to show where there is room for one only.
    horizon, longest_horizon: periods ahead by default and at most.
    used: the most periods that a forecast is made from.
    waves: of a year; twice as many must fit into it.
    holiday_spreads: prior standard deviations of a holiday's effect, in those of the series, on its period,
        the one before and the one after. Empty where a holiday cannot be told from the rest of its period.
    ranges: of the report's chart, by their label: periods of history beside the forecast.
    stale_days: a history that ends so many days before the last complete day is old.
    too_far: rows that are all so many days apart, or more, are of longer periods.
    """

    name: str
    adjective: str
    preposition: str
    days: int
    average_days: float
    longest_days: int
    cycle: int
    year: int
    season: int
    naives: Mapping[str, int]
    windows: tuple[int, int, int]
    horizon: int
    longest_horizon: int
    used: int
    waves: int
    holiday_spreads: tuple[float, ...]
    ranges: Mapping[str, int]
    stale_days: int
    too_far: int
    label_format: str
    axis_format: str
    date_format: str

    @property
    def plural(self) -> str:
        return f"{self.name}s"

    @property
    def has_holidays(self) -> bool:
        return bool(self.holiday_spreads)

    def counted(self, count: int) -> str:
        """Return 1 day, 1,180 weeks."""
        return f"1 {self.name}" if count == 1 else f"{count:,} {self.plural}"

    @property
    def fewest(self) -> int:
        """The fewest values that a forecast is made from."""
        return 2 * self.windows[0]

    @property
    def periods_of_a_year(self) -> float:
        return 365.2425 / self.average_days

    def periods(self, days: float) -> int:
        """Return the number of periods that comes nearest to so many days, at least one."""
        return max(1, round(days / self.average_days))

    def covering(self, days: int) -> int:
        """Return how many periods it takes for so many days: 26 weeks or 6 months for 180."""
        return math.ceil(days / self.average_days)

    def number(self, day: date) -> int:
        """Return the number of the period of a day. Consecutive periods have consecutive numbers."""
        return (day.toordinal() - 1) // self.days if self.days else day.year * 12 + day.month - 1

    def first_day(self, number: int) -> date:
        """Return the first day of the period of this number."""
        if self.days:
            return date.fromordinal(number * self.days + 1)
        return date(number // 12, number % 12 + 1, 1)

    def start(self, day: date, later: int = 0) -> date:
        """Return the first day of the period of a day, or of the one `later` periods after it."""
        return self.first_day(self.number(day) + later)

    def last_day(self, day: date) -> date:
        """Return the last day of the period of a day."""
        return self.start(day, 1) - timedelta(days=1)

    def between(self, day: date, later: date) -> int:
        """Return how many periods `later` is after `day`: 0 in the same period."""
        return self.number(later) - self.number(day)

    def numbers(self, days: np.ndarray) -> np.ndarray:
        """Return number() of each day, datetime64[D]."""
        if self.days:
            numbers: np.ndarray = (days.astype("int64") + EPOCH - 1) // self.days
            return numbers
        return days.astype("datetime64[M]").astype("int64") + 1970 * 12

    def first_days(self, numbers: np.ndarray) -> np.ndarray:
        """Return first_day() of each number, as datetime64[D]."""
        if self.days:
            return (numbers * self.days + 1 - EPOCH).astype("datetime64[D]")
        return (numbers - 1970 * 12).astype("datetime64[M]").astype("datetime64[D]")

    def starts(self, days: np.ndarray, later: int = 0) -> np.ndarray:
        """Return start() of each day, datetime64[D]."""
        return self.first_days(self.numbers(days) + later)

    def calendar(self, first: np.datetime64, last: np.datetime64) -> np.ndarray:
        """Return the first day of every period from that of `first` to that of `last`."""
        import numpy as np

        low, high = self.numbers(np.array([first, last], "datetime64[D]"))
        return self.first_days(np.arange(low, high + 1))

    def ahead(self, last: np.datetime64, count: int) -> np.ndarray:
        """Return the first days of the `count` periods after that of `last`."""
        import numpy as np

        number = self.numbers(np.array([last], "datetime64[D]"))
        return self.first_days(number + np.arange(1, count + 1))

    def label(self, day: date) -> str:
        """Return how a period is written in a sentence: Tue 3 Feb 2026, week of 2 Feb 2026, February 2026."""
        return f"{day:{self.label_format}}".replace("#", str(day.day))


DAY = Grain(
    name="day",
    adjective="daily",
    preposition="on",
    days=1,
    average_days=1,
    longest_days=1,
    cycle=7,
    # 52 weeks: the same weekday of a year ago.
    year=364,
    season=7,
    naives=MappingProxyType({"seasonal_naive_7": 7, "seasonal_naive_364": 364}),
    windows=(7, 30, 90),
    horizon=180,
    # Two years: beyond, the intervals of a daily series are too wide to be of use.
    longest_horizon=730,
    # A day of six years ago has an eighth of yesterday's weight (candidates/harmonic.py) and costs as much.
    used=6 * 365,
    # Ten waves resolve five weeks. Shrinkage (spread falling with the root of the frequency) leaves of them
    # what the history supports; 6 and 16 did as well on most series.
    waves=10,
    holiday_spreads=(1.0, 0.3, 0.3),
    ranges=MappingProxyType({"Last year + forecast": 365, "Last 90 days + forecast": 90}),
    stale_days=7,
    too_far=7,
    label_format="%a # %b %Y",
    axis_format="%d %b",
    date_format="%d %b %Y",
)
WEEK = Grain(
    name="week",
    adjective="weekly",
    preposition="in",
    days=7,
    average_days=7,
    longest_days=7,
    cycle=1,
    year=52,
    season=52,
    naives=MappingProxyType({"naive_1_week": 1, "seasonal_naive_52_weeks": 52}),
    windows=(4, 13, 26),
    horizon=26,
    longest_horizon=156,
    used=8 * 52,
    waves=10,
    # A few years have a holiday in a few weeks: those of days made forecasts of weeks worse than none at all.
    holiday_spreads=(0.3,),
    ranges=MappingProxyType({"Last 2 years + forecast": 104, "Last year + forecast": 52}),
    stale_days=14,
    too_far=28,
    label_format="week of # %b %Y",
    axis_format="%d %b",
    date_format="%d %b %Y",
)
MONTH = Grain(
    name="month",
    adjective="monthly",
    preposition="in",
    days=0,
    average_days=365.2425 / 12,
    longest_days=31,
    cycle=1,
    year=12,
    season=12,
    naives=MappingProxyType({"naive_1_month": 1, "seasonal_naive_12_months": 12}),
    windows=(3, 6, 12),
    horizon=12,
    longest_horizon=60,
    used=15 * 12,
    waves=5,
    holiday_spreads=(),
    ranges=MappingProxyType({"Last 5 years + forecast": 60, "Last 2 years + forecast": 24}),
    stale_days=45,
    too_far=59,
    label_format="%B %Y",
    axis_format="%b %Y",
    date_format="%b %Y",
)
GRAINS: Mapping[str, Grain] = MappingProxyType({grain.name: grain for grain in (DAY, WEEK, MONTH)})
