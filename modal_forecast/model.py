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

from modal_forecast.backtest import Origin, inputs_at, mix, naive_share, run_backtest
from modal_forecast.calendars import calendar_columns, holiday_periods
from modal_forecast.candidates import BASELINES, CANDIDATES, METHODS, fit_candidate, fit_candidates
from modal_forecast.candidates.protocol import Candidate, CandidateFailed, Fit, Inputs, prepare_inputs
from modal_forecast.combine import combine, held_out_forecasts, weights
from modal_forecast.components import about_components
from modal_forecast.diagnostics import (
    about_backtest,
    about_history,
    fallbacks,
    last_origin,
)
from modal_forecast.grain import GRAINS
from modal_forecast.intervals import COVERAGES, bounds_from_backtest, calibrate_or_default
from modal_forecast.messages import (
    AUTOMATIC,
    FORECAST_SCHEMA,
    ForecastAnswer,
    ForecastRefused,
    ForecastRequest,
)
from modal_forecast.series import Series, read_series
from modal_forecast.validation import check

Log = Callable[[str], None]
# Begins the lines on how a forecast is made; `serverless run` does not print them.
DETAIL = "  "
Values = dict[str, np.ndarray]

LIBRARIES = ("prophet", "holidays", "numpy", "pyarrow")
BOUNDS = tuple(f"yhat_{side}_{coverage * 100:.0f}" for coverage in COVERAGES for side in ("lower", "upper"))


def ignore(_line: str) -> None:
    pass


def forecast(request: ForecastRequest, log: Log = ignore) -> ForecastAnswer:
    """Forecast the `request.horizon` days, weeks or months after the last of its history.

    log: called with one line of text at each step, indented.

    The forecast of a history that is not signed (series.is_signed) is never negative. The diagnostics are
        method: model, weights, candidates, fallbacks, versions;
        history: n_history, n_missing, n_zero, n_negative, first_ds, last_ds, grain, horizon, country;
        accuracy in the back-test: backtest, skill, skill_margin, beats_naive, best_naive, why;
        components: components;
        periods of which a value was raised to zero: clipped_days, and clipped_yhat_days for yhat itself.

    Raises ForecastRefused if the request cannot be forecast; see validation.py.
    """
    check(request)
    grain = GRAINS[request.grain]
    about = about_history(request.history, grain)

    def detail(line: str) -> None:
        log(DETAIL + line)

    detail(
        f"history: {about['n_history']:,} {grain.plural} with a value, "
        f"{about['first_ds']} to {about['last_ds']}, {about['n_missing']:,} missing, "
        f"{about['n_zero']:,} zero, {about['n_negative']:,} negative"
    )
    # From the period after the last row of the history, whether or not that row has a value.
    days = grain.ahead(request.history["ds"].to_numpy()[-1], request.horizon)
    series = read_series(request.history, grain)
    if np.nanmin(series.values) == np.nanmax(series.values):
        value = float(series.values[-1])
        detail(
            f"every value of the history is {value:g}: the forecast repeats it, with intervals of no width"
        )
        values: Values = {name: np.full(len(days), value) for name in ("yhat", *BOUNDS)}
        method: Mapping[str, Any] = {"model": "constant"}
    else:
        values, method = _combine(series, days, request.country, request.model, detail)
    values, clipping = _clip(values, series, detail)
    return ForecastAnswer(
        pa.table({"ds": days, **values}, schema=FORECAST_SCHEMA),
        {
            **method,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            **about,
            "grain": grain.name,
            "horizon": request.horizon,
            "country": request.country,
            **clipping,
        },
    )


def _combine(
    series: Series, days: np.ndarray, country: str | None, model: str, log: Log
) -> tuple[Values, Mapping[str, Any]]:
    grain = series.grain
    calendar_days = grain.calendar(series.days[0], days[-1])
    # Uncertainty grows from the last period with a value, also if the history ends with missing ones.
    horizon = len(calendar_days) - len(series)
    holidays = holiday_periods(country, calendar_days, grain)
    calendar = calendar_columns(calendar_days, holidays, grain)

    started = time.perf_counter()
    origins: Sequence[Origin] = run_backtest(series, horizon, calendar, holidays)
    inputs = prepare_inputs(series, horizon, calendar, holidays)
    fits: Mapping[str, Fit] = fit_candidates(inputs)
    log(
        f"back-test: {len(fits)} forecasts from {len(origins)} earlier {grain.plural}, "
        f"{f'the holidays of {country}' if country else 'no holidays'}, {time.perf_counter() - started:.2f} s"
    )
    if model == AUTOMATIC:
        for name, candidate in CANDIDATES.items():
            if candidate.slow:
                origins, fits = _try_slow(name, inputs, origins, fits, log)
    else:
        origins, fits = _take_only(model, inputs, origins, fits, log)
    weight = weights(origins, list(fits))
    forecasts = {name: fit.forecast for name, fit in fits.items()}
    held_out = held_out_forecasts(origins, list(forecasts))
    # Better something plain than something clever that is worse.
    naive, share = naive_share(origins, held_out)
    if model != AUTOMATIC:
        share = 0.0
    held_out = [
        mix(forecast, origin.baseline(naive), share)
        for forecast, origin in zip(held_out, origins, strict=True)
    ]
    combined = combine(forecasts, weight)
    if share:
        combined = mix(combined, forecasts[naive], share)
    yhat = np.where(inputs.closed_ahead, 0.0, combined)
    weight = {name: (1 - share) * weight.get(name, 0.0) + share * (name == naive) for name in forecasts}
    log("combined: " + "; ".join(f"{share:.0%} {METHODS[name]}" for name, share in _largest_first(weight)))

    calibration = calibrate_or_default(origins, held_out, horizon, series)
    ahead = np.arange(1.0, horizon + 1)
    values = {"yhat": yhat} | calibration.bounds(yhat, ahead)
    backtest_bounds = bounds_from_backtest(origins, held_out, horizon, series)
    accuracy = about_backtest(origins, held_out, backtest_bounds, list(forecasts), weight)
    log(accuracy["why"])
    return {name: column[-len(days) :] for name, column in values.items()}, {
        "model": "combination",
        "weights": {name: round(share, 4) for name, share in _largest_first(weight)},
        **accuracy,
        "last_origin": last_origin(series, origins, held_out, backtest_bounds),
        "components": about_components(inputs, fits, weight),
        "fallbacks": fallbacks(inputs, fits, origins, naive, share),
    }


def _take_only(
    model: str, inputs: Inputs, origins: Sequence[Origin], fits: Mapping[str, Fit], log: Log
) -> tuple[Sequence[Origin], Mapping[str, Fit]]:
    """Return origins and fits with those of this candidate and the seasonal naives alone.

    Raises ForecastRefused if the candidate fails.
    """
    candidate, naives = CANDIDATES[model], {name: fits[name] for name in BASELINES if name in fits}
    try:
        chosen = fit_candidate(candidate, inputs)
        tested = []
        for origin in origins:
            kept = {name: origin.forecasts[name] for name in BASELINES if name in origin.forecasts}
            tested.append(replace(origin, forecasts={**kept, **_forecasts_from(origin, candidate, inputs)}))
    except CandidateFailed as failure:
        raise ForecastRefused(
            f"{candidate.title}, the model that was asked for, failed: {failure}. Choose {AUTOMATIC}."
        ) from failure
    log(f"{candidate.title} alone, as asked")
    return tested, {**naives, **chosen}


def _try_slow(
    candidate_name: str, inputs: Inputs, origins: Sequence[Origin], fits: Mapping[str, Fit], log: Log
) -> tuple[Sequence[Origin], Mapping[str, Fit]]:
    """Return origins and fits with a slow candidate among them.

    It is tried from the latest and the first origin, and fitted to the whole history only if it did well from
    those: a fit takes as long as all the other candidates from one origin or two.
    """
    candidate = CANDIDATES[candidate_name]
    started = time.perf_counter()
    tested, names = list(origins), set[str]()
    try:
        for number in sorted({0, len(origins) - 1} & set(range(len(origins)))):
            origin = origins[number]
            forecasts = _forecasts_from(origin, candidate, inputs)
            tested[number] = replace(origin, forecasts={**origin.forecasts, **forecasts})
            names |= forecasts.keys()
        if not names:
            return origins, fits
        weight = weights(tested, [*fits, *sorted(names)])
        takes_part = any(weight[name] > 0 for name in names)
        slow_fits = fit_candidate(candidate, inputs) if takes_part else {}
    except CandidateFailed as failure:
        log(f"{candidate.title} is left out: {failure}")
        return origins, fits
    title = f"{candidate.title} {version(candidate.package)}" if candidate.package else candidate.title
    log(
        f"{title} {'takes part' if takes_part else 'was too far off to take part'}, "
        f"{time.perf_counter() - started:.2f} s"
    )
    return tested, {**fits, **slow_fits}


def _forecasts_from(origin: Origin, candidate: Candidate, inputs: Inputs) -> Mapping[str, np.ndarray]:
    """Return what a candidate forecasts from an origin. Raises CandidateFailed."""
    tested = len(origin.actual)
    at_origin = inputs_at(inputs.series, origin.index, tested, inputs.calendar, inputs.holidays)
    return {name: fit.forecast[-tested:] for name, fit in fit_candidate(candidate, at_origin).items()}


def _largest_first(weight: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(((name, share) for name, share in weight.items() if share > 0), key=lambda item: -item[1])


def _clip(values: Values, series: Series, log: Log) -> tuple[Values, Mapping[str, Any]]:
    """Raise what is below zero to zero, unless the history is signed."""
    grain = series.grain
    if series.is_signed():
        log(f"negative {grain.plural} are frequent in the history: nothing is clipped at zero")
        return values, {"clipped_days": 0, "clipped_yhat_days": 0}
    lowest = np.minimum.reduce(list(values.values()))
    clipped, clipped_yhat = int((lowest < 0).sum()), int((values["yhat"] < 0).sum())
    if clipped:
        forecast = f" and the forecast itself {grain.preposition} {clipped_yhat}" if clipped_yhat else ""
        days = grain.counted(len(lowest))
        log(f"negative values raised to zero: bounds {grain.preposition} {clipped} of {days}{forecast}")
    return (
        {name: np.maximum(column, 0.0) for name, column in values.items()},
        {"clipped_days": clipped, "clipped_yhat_days": clipped_yhat},
    )
