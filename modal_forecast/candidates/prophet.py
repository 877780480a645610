"""Prophet's model, fitted by Prophet's own Stan program, with the settings that did best on daily series.

Taylor and Letham, "Forecasting at scale", 2018.

The Stan program in the wheel is no public API. This file is the only one that uses it, and
tests/modal_forecast/test_prophet.py fails on an upgrade of Prophet and holds the forecasts to the package's.
The public API, `Prophet().fit()` and `predict()`, would replace this file. With it a worker takes 174 MiB
instead of 97, a fit 0.43 s instead of 0.23, and the forecast of three years 4.0 s instead of 1.6,
of which 1.3 s are the import of pandas, cmdstanpy and Prophet.
"""

import importlib.util
import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from modal_forecast.candidates.protocol import CandidateFailed, Fit, Inputs
from modal_forecast.grain import Grain
from modal_forecast.series import Series

# Prophet's own 0.05 lets the trend follow what does not last: 1.73 against 1.32 in mean MASE over 12 series.
CHANGEPOINT_PRIOR_SCALE = 0.01
# Prophet's defaults: 25 changepoints in the first 80% of the history, and wide priors for all patterns.
CHANGEPOINTS, CHANGEPOINT_RANGE, PATTERN_PRIOR_SCALE = 25, 0.8, 10.0
# Period in days, waves, and the days of history from which on Prophet adds the pattern.
SEASONALITIES = ((365.25, 10, 730), (7.0, 3, 14))
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
    observed = ~np.isnan(series.values)
    signed = series.is_signed()
    days = series.days[observed]
    largest = float(np.abs(series.values[observed]).max())
    target = series.values[observed] / largest
    span = float((days[-1] - days[0]).astype(int))
    time = (days - days[0]).astype(int) / span
    candidates = int(np.floor(len(days) * CHANGEPOINT_RANGE))
    bends = min(CHANGEPOINTS, candidates - 1)
    turns = time[np.linspace(0, candidates - 1, bends + 1).round().astype(int)[1:]]
    in_history = [when for when in holidays.values() if np.isin(when, days).any()]
    columns = _columns(days, int(span), series.grain, in_history)
    rate = (target[-1] - target[0]) / (time[-1] - time[0])
    parameters = _optimize(
        {
            "T": len(days), "K": columns.shape[1], "S": bends, "trend_indicator": 0,
            "tau": CHANGEPOINT_PRIOR_SCALE, "t": time, "t_change": turns, "cap": np.zeros(len(days)),
            "y": target, "X": columns, "sigmas": np.full(columns.shape[1], PATTERN_PRIOR_SCALE),
            "s_a": np.full(columns.shape[1], 1 if signed else 0),
            "s_m": np.full(columns.shape[1], 0 if signed else 1),
        },
        {
            "k": rate, "m": target[0], "delta": np.zeros(bends),
            "beta": np.zeros(columns.shape[1]), "sigma_obs": 1.0,
        },
    )  # fmt: skip
    ahead = series.grain.ahead(series.days[-1], horizon)
    later = (ahead - days[0]).astype(int) / span
    bent = np.maximum(later[:, None] - turns, 0.0) @ parameters["delta"]
    trend = parameters["k"][0] * later + parameters["m"][0] + bent
    pattern = _columns(ahead, int(span), series.grain, in_history) @ parameters["beta"]
    yhat = (trend + pattern if signed else trend * (1 + pattern)) * largest
    return yhat if signed else np.maximum(yhat, 0.0)


def _columns(days: np.ndarray, span: int, grain: Grain, holidays: list[np.ndarray]) -> np.ndarray:
    """Yearly and weekly waves if the history allows, then a column for each holiday, as in Prophet.

    days: datetime64[D], the first ones of periods. A pattern shorter than a period has no waves.
    """
    parts = []
    for period, waves, least in SEASONALITIES:
        if span >= least and period > grain.average_days:
            waves = min(waves, grain.waves)
            angles = 2 * np.pi * days.astype(int)[:, None] * np.arange(1, waves + 1) / period
            parts.append(np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(days), -1))
    parts += [np.isin(days, when).astype(float)[:, None] for when in holidays]
    # The program takes no table without a column, nor does Prophet give it one.
    return np.hstack(parts or [np.zeros((len(days), 1))])


def stan_program() -> Path:
    """Return the path of the program in Prophet's wheel, without importing Prophet.

    Raises CandidateFailed if there is none.
    """
    package = importlib.util.find_spec("prophet")
    for folder in package.submodule_search_locations or [] if package else []:
        program = Path(folder) / "stan_model" / "prophet_model.bin"
        if program.exists():
            return program
    raise CandidateFailed("prophet is not installed with its Stan program")


def _optimize(data: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The most likely parameters, by name. L-BFGS first, and Newton's method where that breaks off."""
    program = stan_program()
    with TemporaryDirectory(prefix="prophet-") as folder:
        _write(Path(folder) / "data.json", data)
        _write(Path(folder) / "start.json", start)
        for algorithm in ("lbfgs", "newton"):
            command = [
                str(program), "random", "seed=1", "data", "file=data.json", "init=start.json",
                "output", "file=parameters.csv", "sig_figs=16",
                "method=optimize", f"algorithm={algorithm}", "iter=10000",
            ]  # fmt: skip
            try:
                done = subprocess.run(command, cwd=folder, capture_output=True, timeout=TIMEOUT_SECONDS)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise CandidateFailed(str(error)) from error
            if done.returncode == 0:
                return _read(Path(folder) / "parameters.csv")
    raise CandidateFailed(done.stdout.decode(errors="replace")[-200:])


def _write(path: Path, values: Mapping[str, Any]) -> None:
    """As JSON, matrices row by row: all of a long one's numbers as Python's would take 10 MiB."""
    with path.open("w") as file:
        for number, (name, value) in enumerate(values.items()):
            file.write(("{" if number == 0 else ",") + f'"{name}":')
            if np.ndim(value) == 2:
                for row_number, row in enumerate(value):
                    file.write(("[" if row_number == 0 else ",") + json.dumps(row.tolist()))
                file.write("]")
            else:
                file.write(json.dumps(np.asarray(value).tolist()))
        file.write("}")


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open() as file:
        names, numbers = (line.strip().split(",") for line in file if not line.startswith("#"))
    parameters: dict[str, list[float]] = {}
    for name, number in zip(names, numbers, strict=True):
        parameters.setdefault(name.split(".")[0], []).append(float(number))
    return {name: np.array(values) for name, values in parameters.items()}
