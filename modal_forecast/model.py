"""The forecast itself: candidates, a back-test that weighs them, and bounds calibrated on what it missed by.

Deterministic: the same request gives the same bytes on the same machine and library versions.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast.backtest import Origin, run_backtest
from modal_forecast.calendars import holidays_of
from modal_forecast.combine import combine, held_out_forecasts, weights
from modal_forecast.daily import DailySeries, daily_series
from modal_forecast.diagnostics import (
    about_backtest,
    about_components,
    about_history,
    fallbacks,
    last_origin,
    naive_taken,
)
from modal_forecast.intervals import COVERAGES, bounds_from_backtest, calibrate_or_default
from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastRequest
from modal_forecast.models import Candidates, forecast_candidates
from modal_forecast.models.calendar_columns import calendar_columns
from modal_forecast.models.prophet import ProphetFailed, fits_prophet, forecast_prophet
from modal_forecast.outliers import tame
from modal_forecast.scores import mix, naive_share
from modal_forecast.validation import check

Log = Callable[[str], None]
Values = dict[str, np.ndarray]

LIBRARIES = ("prophet", "holidays", "numpy", "pyarrow")
BOUNDS = tuple(f"yhat_{side}_{coverage * 100:.0f}" for coverage in COVERAGES for side in ("lower", "upper"))


def ignore(_line: str) -> None:
    pass


def forecast(request: ForecastRequest, log: Log = ignore) -> ForecastAnswer:
    """Forecast the `request.horizon` days after the last day of its history.

    log: called with one line of text at each step.

    The forecast of a history that is not signed (daily.is_signed) is never negative. The diagnostics say
        how: model, weights, candidates, fallbacks, versions;
        on what: n_history, n_missing, n_zero, n_negative, first_ds, last_ds, horizon, country;
        how good it was in the back-test: backtest, skill, skill_margin, beats_naive, best_naive, why;
        what it is made of: components;
        on how many days a value was raised to zero: clipped_days, and clipped_yhat_days for yhat itself.

    Raises ForecastRefused if the request cannot be forecast; see validation.py.
    """
    check(request)
    about = about_history(request.history)
    log(
        f"history: {about['n_history']:,} days with a value, {about['first_ds']} to {about['last_ds']}, "
        f"{about['n_missing']:,} missing, {about['n_zero']:,} zero, {about['n_negative']:,} negative"
    )
    days = _days_to_forecast(request)
    series = daily_series(request.history)
    if np.nanmin(series.values) == np.nanmax(series.values):
        values, how = _repeat(float(series.values[-1]), days, log)
    else:
        values, how = _combine(series, days, request.country, log)
    values, clipping = _clip(values, series.is_signed(), log)
    return ForecastAnswer(
        pa.table({"ds": days, **values}, schema=FORECAST_SCHEMA),
        {
            **how,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            **about,
            "horizon": request.horizon,
            "country": request.country,
            **clipping,
        },
    )


def _days_to_forecast(request: ForecastRequest) -> np.ndarray:
    """datetime64[D], starting the day after the last row of the history, whether or not that has a value."""
    first = request.history["ds"].to_numpy()[-1] + 1
    return np.arange(first, first + request.horizon)


def _repeat(value: float, days: np.ndarray, log: Log) -> tuple[Values, Mapping[str, Any]]:
    log(f"every day of the history is {value:g}: the forecast repeats it, with intervals of no width")
    return {name: np.full(len(days), value) for name in ("yhat", *BOUNDS)}, {"model": "constant"}


def _combine(
    series: DailySeries, days: np.ndarray, country: str | None, log: Log
) -> tuple[Values, Mapping[str, Any]]:
    # Uncertainty grows from the last day with a value, also if the history ends with missing ones.
    horizon = int((days[-1] - series.days[-1]).astype(int))
    calendar_days = np.arange(series.days[0], days[-1] + 1)
    holidays = holidays_of(country, calendar_days)
    calendar = calendar_columns(calendar_days, holidays)

    started = time.perf_counter()
    origins: Sequence[Origin] = run_backtest(series, horizon, calendar, holidays)
    made = forecast_candidates(series, horizon, calendar, holidays)
    log(
        f"back-test: {len(made.forecasts)} forecasts from {len(origins)} earlier days, "
        f"{f'the holidays of {country}' if country else 'no holidays'}, {time.perf_counter() - started:.2f} s"
    )
    origins, forecasts, weight = _with_prophet(series, horizon, holidays, origins, made, log)
    held_out = held_out_forecasts(origins, list(forecasts))
    # Better something plain than something clever that is worse.
    naive, share = naive_share(origins, held_out)
    held_out = [
        mix(ours, origin.baseline(naive), share) for ours, origin in zip(held_out, origins, strict=True)
    ]
    yhat = np.where(made.closed_ahead, 0.0, mix(combine(forecasts, weight), forecasts[naive], share))
    weight = {name: (1 - share) * weight.get(name, 0.0) + share * (name == naive) for name in forecasts}
    log("combined: " + ", ".join(f"{name} {share:.0%}" for name, share in _largest_first(weight)))

    calibration = calibrate_or_default(origins, held_out, horizon, series)
    ahead = np.arange(1.0, horizon + 1)
    values = {"yhat": yhat} | calibration.bounds(yhat, ahead)
    backtest_bounds = bounds_from_backtest(origins, held_out, horizon, series)
    how = about_backtest(origins, held_out, backtest_bounds, list(forecasts), weight)
    log(how["why"])
    return {name: column[-len(days) :] for name, column in values.items()}, {
        "model": "combination",
        "weights": {name: round(share, 4) for name, share in _largest_first(weight)},
        **how,
        "last_origin": last_origin(series, origins, held_out, backtest_bounds),
        "components": about_components(made, weight, calendar, series),
        "fallbacks": [*fallbacks(series, made, origins, horizon), *naive_taken(naive, share)],
    }


def _with_prophet(
    series: DailySeries,
    horizon: int,
    holidays: Mapping[str, np.ndarray],
    origins: Sequence[Origin],
    made: Candidates,
    log: Log,
) -> tuple[Sequence[Origin], Mapping[str, np.ndarray], Mapping[str, float]]:
    """Origins, forecasts and weights, with Prophet among them if it did well from the latest and the first.

    A fit takes as long as all the other candidates from one origin or two.
    """
    names = list(made.forecasts)
    without = weights(origins, names)
    tried = [
        number
        for number in sorted({0, len(origins) - 1} & set(range(len(origins))))
        if fits_prophet(tame(series.until(origins[number].index), holidays))
    ]
    if not tried:
        return origins, made.forecasts, without
    started = time.perf_counter()
    with_it = list(origins)
    try:
        for number in tried:
            origin = origins[number]
            known = series.until(origin.index)
            tested = len(origin.actual)
            ahead = origin.index - len(known) + tested
            theirs = {"prophet": forecast_prophet(tame(known, holidays), ahead, holidays)[-tested:]}
            with_it[number] = replace(origin, forecasts={**origin.forecasts, **theirs})
        weight = weights(with_it, [*names, "prophet"])
        takes_part = weight["prophet"] > 0
        ours = forecast_prophet(tame(series, holidays), horizon, holidays) if takes_part else None
    except ProphetFailed as failure:
        log(f"Prophet is left out: {failure}")
        return origins, made.forecasts, without
    log(
        f"Prophet {version('prophet')} {'takes part' if takes_part else 'was too far off to take part'}, "
        f"{time.perf_counter() - started:.2f} s"
    )
    forecasts = dict(made.forecasts) if ours is None else {**made.forecasts, "prophet": ours}
    return with_it, forecasts, weight


def _largest_first(weight: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(((name, share) for name, share in weight.items() if share > 0), key=lambda item: -item[1])


def _clip(values: Values, signed: bool, log: Log) -> tuple[Values, Mapping[str, Any]]:
    """Raise what is below zero to zero, unless the history is signed."""
    if signed:
        log("negative days are frequent in the history: nothing is clipped at zero")
        return values, {"clipped_days": 0, "clipped_yhat_days": 0}
    lowest = np.minimum.reduce(list(values.values()))
    clipped, clipped_yhat = int((lowest < 0).sum()), int((values["yhat"] < 0).sum())
    log(f"clipped at zero: {clipped} of {len(lowest)} days, the forecast itself on {clipped_yhat}")
    return (
        {name: np.maximum(column, 0.0) for name, column in values.items()},
        {"clipped_days": clipped, "clipped_yhat_days": clipped_yhat},
    )
