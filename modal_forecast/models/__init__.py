"""The candidates: forecasts of one series made in different beliefs, all of them from the past alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modal_forecast.closed_days import RARE_ZERO, ClosedDays, closed_days
from modal_forecast.daily import DailySeries
from modal_forecast.models.calendar_columns import CalendarColumns
from modal_forecast.models.harmonic import HarmonicFit, fit_harmonic
from modal_forecast.models.naive import last_years, recent_weeks, seasonal_naive
from modal_forecast.outliers import tame

BASELINES = ("seasonal_naive_7", "seasonal_naive_364")


@dataclass(frozen=True)
class Candidates:
    """forecasts: candidate -> values of the days after the series; the baselines are among them.

    harmonic: the fits behind the harmonic candidates, those on the log scale in logs. closed_ahead: whether
    each of the days after the series is a closed one.
    """

    forecasts: Mapping[str, np.ndarray]
    harmonic: Mapping[str, HarmonicFit]
    closed: ClosedDays
    closed_ahead: np.ndarray


def forecast_candidates(
    series: DailySeries, horizon: int, calendar: CalendarColumns, holidays: Mapping[str, np.ndarray]
) -> Candidates:
    """Every candidate but Prophet, which is too slow to run at each origin.

    calendar: starts with the series, and reaches `horizon` days further. holidays: over the same days.
    """
    closed = closed_days(series, holidays)
    tamed = tame(series, holidays).values
    end = len(series) + horizon
    shut = closed.among(calendar.days[:end], holidays)
    ahead = shut[len(series) :]
    signed = series.is_signed()
    # Of an unsigned series `tamed` has nothing below zero.
    values = np.where(shut[: len(series)] & (tamed == 0), np.nan, tamed)
    harmonic = _harmonic(calendar, values, horizon, signed)
    forecasts = {
        name: np.exp(fit.forecast) if name.startswith("log_") else fit.forecast
        for name, fit in harmonic.items()
    }
    forecasts |= {
        "recent_8_weeks": recent_weeks(tamed, horizon, 8),
        "recent_26_weeks": recent_weeks(tamed, horizon, 26),
        "last_years": last_years(tamed, horizon, 1.0),
        "last_years_half_way": last_years(tamed, horizon, 0.5),
    }
    lowest = -np.inf if signed else 0.0
    forecasts = {name: np.maximum(np.where(ahead, 0.0, ours), lowest) for name, ours in forecasts.items()}
    forecasts["seasonal_naive_7"] = seasonal_naive(series.values, horizon, 7)
    if len(series) >= 364:
        forecasts["seasonal_naive_364"] = seasonal_naive(series.values, horizon, 364)
    return Candidates(forecasts, harmonic, closed, ahead)


def _harmonic(
    calendar: CalendarColumns, values: np.ndarray, horizon: int, signed: bool
) -> dict[str, HarmonicFit]:
    """Fits named linear_... and log_...; the latter only where zeros are rare, and then they are missing."""
    observed = ~np.isnan(values)
    if not observed.any() or np.ptp(values[observed]) == 0:
        return {}
    fits = {f"linear_{name}": fit for name, fit in fit_harmonic(calendar, values, horizon).items()}
    positive = observed & (values > 0)
    if signed or positive.sum() < (1 - RARE_ZERO) * observed.sum():
        return fits
    logs = np.full(len(values), np.nan)
    logs[positive] = np.log(values[positive])
    if np.ptp(logs[positive]) > 0:
        fits |= {f"log_{name}": fit for name, fit in fit_harmonic(calendar, logs, horizon).items()}
    return fits
