"""The interface of a candidate: what it is given, and what it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from modal_forecast.calendars import CalendarColumns, ClosedDays, closed_days
from modal_forecast.series import Series, clip_outliers


@dataclass(frozen=True)
class Inputs:
    """The history that a candidate may use, and the periods to forecast.

    series: the values as they were observed.
    clipped: the values without outliers; nothing below zero unless the series is signed.
    open_values: `clipped`, with NaN on closed days.
    horizon: periods to forecast after the series.
    calendar: starts with the series, and reaches `horizon` periods further or more.
    holidays: name -> first days of the periods that have it, over the same periods.
    closed: which days are closed, and closed_ahead: whether each of the periods to forecast is.
    """

    series: Series
    clipped: np.ndarray
    open_values: np.ndarray
    horizon: int
    calendar: CalendarColumns
    holidays: Mapping[str, np.ndarray]
    closed: ClosedDays
    closed_ahead: np.ndarray


@dataclass(frozen=True)
class Fit:
    """forecast: a value for each of the periods after the series, in its unit."""

    forecast: np.ndarray


class CandidateFailed(RuntimeError):
    """A candidate could not be fitted; the forecast is made without it."""


@dataclass(frozen=True)
class Candidate:
    """A forecasting method.

    fit: returns its fits by name, none where the method does not apply. Raises CandidateFailed.
    title: its name for people; package: the package that it is from, if it is not part of this one.
    is_baseline: its fits are what a forecast has to beat, so that none is made by it alone.
    slow: it is tried from the latest and the first origin of the back-test only, and left out if it was far
        off there.
    """

    fit: Callable[[Inputs], Mapping[str, Fit]]
    title: str
    package: str | None = None
    slow: bool = False
    is_baseline: bool = False


def prepare_inputs(
    series: Series, horizon: int, calendar: CalendarColumns, holidays: Mapping[str, np.ndarray]
) -> Inputs:
    """Find closed days and outliers in a history. calendar, holidays: as in Inputs."""
    closed = closed_days(series, holidays)
    clipped = clip_outliers(series, holidays).values
    is_closed = closed.among(calendar.days[: len(series) + horizon], holidays)
    open_values = np.where(is_closed[: len(series)] & (clipped == 0), np.nan, clipped)
    closed_ahead = is_closed[len(series) :]
    return Inputs(series, clipped, open_values, horizon, calendar, holidays, closed, closed_ahead)
