"""Prophet, with the settings that did best on daily series.

Taylor and Letham, "Forecasting at scale", 2018. docs/forecast.md has what it costs and what it adds.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from modal_forecast.candidates.protocol import CandidateFailed, Fit, Inputs
from modal_forecast.series import Series

# Prophet's own 0.05 lets the trend follow what does not last: 1.73 against 1.32 in mean MASE over 12 series.
CHANGEPOINT_PRIOR_SCALE = 0.01
# Prophet's own period in days, waves, and the days of history from which on it adds the pattern.
YEAR, WEEK = (365.25, 10, 730), (7.0, 3, 14)
# Of less than a year Prophet takes the season for the trend, and extrapolates it.
MIN_DAYS = 365
# A fit takes a fifth of a second. What takes this long will not converge.
TIMEOUT_SECONDS = 30.0


def fit_prophet(inputs: Inputs) -> Mapping[str, Fit]:
    """Return Prophet's forecast, if the history is long enough for it. Raises CandidateFailed."""
    series = replace(inputs.series, values=inputs.clipped)
    if not fits_prophet(series):
        return {}
    return {"prophet": Fit(forecast_prophet(series, inputs.horizon, inputs.holidays))}


def fits_prophet(series: Series) -> bool:
    """Whether there is enough to fit, and noise: Stan takes seconds over a history without any."""
    values = series.values[~np.isnan(series.values)]
    largest = float(np.abs(values).max())
    return (
        len(values) >= series.grain.periods(MIN_DAYS)
        and bool(np.ptp(values) > 1e-6 * largest)
        and 1e-200 < largest < 1e200
    )


def forecast_prophet(series: Series, horizon: int, holidays: Mapping[str, np.ndarray]) -> np.ndarray:
    """`horizon` values from the period after the series on, raised to zero unless the series is signed.

    Patterns multiply the trend unless the series is signed. Raises CandidateFailed.
    """
    pd, prophet = load_prophet()
    observed = ~np.isnan(series.values)
    days, signed = series.days[observed], series.is_signed()
    span = int((days[-1] - days[0]).astype(int))

    def waves(pattern: tuple[float, int, int]) -> int | bool:
        period, most, least = pattern
        return (
            min(most, series.grain.waves) if span >= least and period > series.grain.average_days else False
        )

    in_history = {name: when for name, when in holidays.items() if np.isin(when, days).any()}
    dates = [(name, day) for name, when in in_history.items() for day in when.astype("datetime64[ns]")]
    model = prophet.Prophet(
        changepoint_prior_scale=CHANGEPOINT_PRIOR_SCALE,
        seasonality_mode="additive" if signed else "multiplicative",
        yearly_seasonality=waves(YEAR),
        weekly_seasonality=waves(WEEK),
        daily_seasonality=False,
        holidays=pd.DataFrame(dates, columns=["holiday", "ds"]) if dates else None,
        uncertainty_samples=0,
    )
    history = pd.DataFrame({"ds": days.astype("datetime64[ns]"), "y": series.values[observed]})
    ahead = series.grain.ahead(series.days[-1], horizon).astype("datetime64[ns]")
    try:
        model.fit(history, timeout=TIMEOUT_SECONDS)
        yhat: np.ndarray = model.predict(pd.DataFrame({"ds": ahead}))["yhat"].to_numpy()
    except (RuntimeError, TimeoutError, OSError) as error:
        raise CandidateFailed(str(error)) from error
    finally:
        model.stan_backend.cleanup()
    return yhat if signed else np.maximum(yhat, 0.0)


@cache
def load_prophet() -> tuple[Any, Any]:
    """Import pandas and Prophet, which takes 0.6 s of cpu, and have it and Stan log nothing."""
    log = logging.getLogger("prophet")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    import cmdstanpy
    import pandas
    import prophet

    cmdstanpy.disable_logging()
    return pandas, prophet
