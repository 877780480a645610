"""The forecast itself: Prophet with the country's holidays, and intervals that nest.

Deterministic: the same request gives the same bytes on the same machine and library versions.
"""

import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from modal_forecast.lean_imports import CHATTY_LOGGERS, load_prophet, silenced
from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastRequest
from modal_forecast.validation import check

if TYPE_CHECKING:
    from prophet import Prophet

Log = Callable[[str], None]
Values = dict[str, np.ndarray]

SEED = 1

# A bound's error (root mean square, against 100,000 samples) as a share of its interval's width is 3.8% with
# 300 samples, 2.1% with 1,000, 1.5% with 2,000 and 1.1% with 4,000. Drawn 500 at a time, 2,000 samples take
# 5 MiB more than 300 for 180 days, and 21 MiB more for 730; drawn at once 11 and 39.
SAMPLES = 2_000
SAMPLES_AT_A_TIME = 500

# All bounds are quantiles of the same samples, so the narrower interval lies inside the wider one.
QUANTILES = {"yhat_lower_80": 0.10, "yhat_upper_80": 0.90, "yhat_lower_95": 0.025, "yhat_upper_95": 0.975}

LIBRARIES = ("prophet", "cmdstanpy", "holidays", "numpy", "pandas", "pyarrow")


def _ignore(_line: str) -> None:
    pass


def forecast(request: ForecastRequest, log: Log = _ignore) -> ForecastAnswer:
    """Forecast the `request.horizon` days after the last day of its history.

    log: called with one line of text at each step.

    A history that is never negative gets a forecast that is never negative. The diagnostics say
        what was fitted: model, seasonalities, holidays, changepoints, samples, seed, versions;
        on what: n_history, n_missing, first_ds, last_ds, horizon, country;
        on how many days a value was raised to zero: clipped_days, and clipped_yhat_days for yhat itself.

    Raises ForecastRefused if the request cannot be forecast; see validation.py.
    """
    check(request)
    history = _observed(request.history)
    days = _days_to_forecast(request)
    about_history = _describe_history(request.history)
    log(
        f"history: {about_history['n_history']:,} days with a value, {about_history['first_ds']} to "
        f"{about_history['last_ds']}, {about_history['n_missing']:,} missing"
    )
    if np.ptp(history["y"]) == 0:
        values, about_model = _repeat(history["y"].iloc[0], days, log)
    else:
        values, about_model = _fit_and_predict(history, request.country, days, log)
    values, about_clipping = _clip(values, history["y"].min(), log)
    return ForecastAnswer(
        pa.table({"ds": days, **values}, schema=FORECAST_SCHEMA),
        {
            **about_model,
            "seed": SEED,
            "versions": {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
            **about_history,
            "horizon": request.horizon,
            "country": request.country,
            **about_clipping,
        },
    )


def _observed(history: pa.Table) -> pd.DataFrame:
    """The days with a value, as Prophet wants them: ds datetime64[ns], y float64."""
    # numpy rather than drop_null(), which would load pyarrow.compute: 7 MiB.
    days, values = history["ds"].to_numpy(), history["y"].to_numpy()
    observed = ~np.isnan(values)
    return pd.DataFrame({"ds": days[observed].astype("datetime64[ns]"), "y": values[observed]})


def _days_to_forecast(request: ForecastRequest) -> np.ndarray:
    """datetime64[D], starting the day after the last row of the history, whether or not that has a value."""
    first = request.history["ds"].to_numpy()[-1] + 1
    return np.arange(first, first + request.horizon)


def _describe_history(history: pa.Table) -> Mapping[str, Any]:
    first, last = history["ds"][0].as_py(), history["ds"][-1].as_py()
    observed = history.num_rows - history["y"].null_count
    return {
        "n_history": observed,
        "n_missing": (last - first).days + 1 - observed,
        "first_ds": first.isoformat(),
        "last_ds": last.isoformat(),
    }


def _repeat(value: float, days: np.ndarray, log: Log) -> tuple[Values, Mapping[str, Any]]:
    """The forecast of a constant.

    Prophet, too, skips the fit, but then adds noise of 1e-9: a shop without sales would get a forecast whose
    lower bounds all have to be raised to zero.
    """
    log(f"every day of the history is {value:g}: the forecast repeats it, with intervals of no width")
    return {name: np.full(len(days), value) for name in ("yhat", *QUANTILES)}, {"model": "constant"}


def _fit_and_predict(
    history: pd.DataFrame, country: str | None, days: np.ndarray, log: Log
) -> tuple[Values, Mapping[str, Any]]:
    with silenced(*CHATTY_LOGGERS), warnings.catch_warnings(action="ignore"), _numpy_seeded(SEED):
        model = _fit(history, country, log)
        values = _predict(model, history["ds"].iloc[-1], days, log)
    return values, _describe_model(model)


def _fit(history: pd.DataFrame, country: str | None, log: Log) -> "Prophet":
    started = time.perf_counter()
    # Samples are drawn in _predict, not in Prophet.predict().
    model = load_prophet()(uncertainty_samples=0)
    if country:
        model.add_country_holidays(country)
    log(f"Prophet {version('prophet')} loaded in {time.perf_counter() - started:.1f} s")

    holidays = f"the holidays of {country}" if country else "no holidays"
    log(f"fit started: {len(history):,} points, {holidays}")
    started = time.perf_counter()
    try:
        model.fit(history, seed=SEED)
    finally:
        # Stan's files would otherwise stay until this process ends, and that may be a server.
        if model.stan_backend:
            model.stan_backend.cleanup()
    patterns = " and ".join(model.seasonalities) or "no"
    log(f"fit took {time.perf_counter() - started:.2f} s: trend, {patterns} seasonality, {holidays}")
    if "yearly" not in model.seasonalities:
        log("less than two years of history: no yearly seasonality")
    return model


def _predict(model: "Prophet", last_observed: pd.Timestamp, days: np.ndarray, log: Log) -> Values:
    """yhat and its bounds, each of the length of `days`."""
    started = time.perf_counter()
    # Prophet lets the trend's uncertainty grow from the first day that it is asked for: ask from the last
    # observed day on, also if the history ends with missing ones.
    future = pd.DataFrame({"ds": pd.date_range(last_observed, days[-1], inclusive="right")})
    yhat = model.predict(future)["yhat"].to_numpy()[-len(days) :]
    bounds = np.quantile(
        _sample(model, future, len(days)), list(QUANTILES.values()), axis=0, overwrite_input=True
    )
    values = {"yhat": yhat}
    for (name, quantile), bound in zip(QUANTILES.items(), bounds, strict=True):
        # Sampling error must not push a very narrow interval past the forecast that it belongs to.
        values[name] = np.minimum(bound, yhat) if quantile < 0.5 else np.maximum(bound, yhat)
    log(
        f"predicted {len(days)} days, {days[0]} to {days[-1]}, in {time.perf_counter() - started:.2f} s "
        f"({SAMPLES:,} posterior samples)"
    )
    return values


def _sample(model: "Prophet", future: pd.DataFrame, horizon: int) -> np.ndarray:
    """Posterior predictive samples of the last `horizon` days of `future`: (SAMPLES, horizon)."""
    samples = np.empty((SAMPLES, horizon))
    model.uncertainty_samples = SAMPLES_AT_A_TIME
    for start in range(0, SAMPLES, SAMPLES_AT_A_TIME):
        drawn = model.predictive_samples(future)["yhat"]
        samples[start : start + SAMPLES_AT_A_TIME] = drawn[-horizon:].T
    return samples


def _clip(values: Values, lowest_observed: float, log: Log) -> tuple[Values, Mapping[str, Any]]:
    """Raise what is below zero to zero, unless the history itself was ever negative."""
    if lowest_observed < 0:
        log("the history has negative values: nothing is clipped at zero")
        return values, {"clipped_days": 0, "clipped_yhat_days": 0}
    lowest = np.minimum.reduce(list(values.values()))
    clipped, clipped_yhat = int((lowest < 0).sum()), int((values["yhat"] < 0).sum())
    log(f"clipped at zero: {clipped} of {len(lowest)} days, the forecast itself on {clipped_yhat}")
    return (
        {name: np.maximum(column, 0.0) for name, column in values.items()},
        {"clipped_days": clipped, "clipped_yhat_days": clipped_yhat},
    )


def _describe_model(model: "Prophet") -> Mapping[str, Any]:
    holidays = model.train_holiday_names
    return {
        "model": "prophet",
        "seasonalities": list(model.seasonalities),
        "holidays": 0 if holidays is None else len(holidays),
        "changepoints": model.n_changepoints,
        "samples": SAMPLES,
    }


@contextmanager
def _numpy_seeded(seed: int) -> Iterator[None]:
    """Prophet draws from numpy's global generator: seed it, and give it back as it was."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)
