"""The diagnostics of an answer: the history, the back-test, and the fallbacks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast import metrics
from modal_forecast.backtest import NAIVE_MEANING, Origin, rounded, score, skill_of
from modal_forecast.calendars import WEEKDAYS
from modal_forecast.candidates.harmonic import YEARS_FOR_YEAR
from modal_forecast.candidates.prophet import MIN_DAYS as PROPHET_DAYS
from modal_forecast.candidates.protocol import Fit, Inputs
from modal_forecast.grain import Grain
from modal_forecast.intervals import about_sums
from modal_forecast.series import Series


def about_history(history: pa.Table, grain: Grain) -> dict[str, Any]:
    first, last = history["ds"][0].as_py(), history["ds"][-1].as_py()
    values = history["y"].to_numpy()
    observed = int((~np.isnan(values)).sum())
    return {
        "n_history": observed,
        "n_missing": grain.between(first, last) + 1 - observed,
        "n_zero": int((values == 0).sum()),
        "n_negative": int((values < 0).sum()),
        "first_ds": first.isoformat(),
        "last_ds": last.isoformat(),
    }


def about_backtest(
    origins: Sequence[Origin],
    held_out: Sequence[np.ndarray],
    bounds: Sequence[Mapping[str, np.ndarray]],
    names: Sequence[str],
    weight: Mapping[str, float],
) -> dict[str, Any]:
    """skill, skill_margin, beats_naive, best_naive and why, as backtest.skill_of() gives them, and

    backtest: mase, wape, bias, coverage_80, coverage_95 of the forecast, with the number of origins, and the
        periods tested from each (horizon), and `sums` as from intervals.about_sums().
    candidates: for each, the two seasonal naives among them, mase, wape, bias, origins and weight.
    """
    tried = [*names, *(name for origin in origins[:1] for name in origin.forecasts if name not in names)]
    scores = {
        name: score(origins, [origin.forecasts.get(name) for origin in origins])
        | {"weight": round(weight.get(name, 0.0), 4)}
        for name in tried
    }
    backtest: dict[str, Any] = score(origins, held_out)
    if bounds:
        columns = {name: np.concatenate([bound[name] for bound in bounds]) for name in bounds[0]}
        actual, yhat = np.concatenate([origin.actual for origin in origins]), np.concatenate(held_out)
        of_bounds = metrics.score(actual, {**columns, "yhat": yhat})
        backtest |= {name: rounded(of_bounds[name]) for name in ("coverage_80", "coverage_95")}
    backtest["horizon"] = len(origins[0].actual) if origins else 0
    backtest["sums"] = about_sums(origins, held_out, bounds)
    return {**skill_of(origins, held_out), "backtest": backtest, "candidates": scores}


def last_origin(
    series: Series,
    origins: Sequence[Origin],
    held_out: Sequence[np.ndarray],
    bounds: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, Any] | None:
    """The back-test from the latest origin, to be drawn: first_ds, actual (null where missing), forecast, and
    lower_80 and upper_80 if it has bounds. As in a forecast, nothing is below zero unless the history is."""
    if not origins:
        return None
    origin = origins[0]
    actual = [None if np.isnan(value) else rounded(value, 6) for value in origin.actual]
    lowest = -np.inf if series.is_signed() else 0.0
    return {
        "first_ds": str(series.days[origin.index]),
        "actual": actual,
        "forecast": [rounded(value, 6) for value in np.maximum(held_out[0], lowest)],
        **{
            f"{side}_80": [rounded(value, 6) for value in np.maximum(bounds[0][f"yhat_{side}_80"], lowest)]
            for side in ("lower", "upper")
            if bounds
        },
    }


def fallbacks(
    inputs: Inputs, fits: Mapping[str, Fit], origins: Sequence[Origin], naive: str, share: float
) -> list[str]:
    """Return a sentence on each thing that could not be done as usual, and on what was done instead.

    share: of the forecast that only repeats earlier values, those of the baseline `naive`.
    """
    series, horizon, closed = inputs.series, inputs.horizon, inputs.closed
    grain, notes = series.grain, []
    if len(series) < YEARS_FOR_YEAR * grain.periods_of_a_year:
        notes.append(
            f"{len(series)} {grain.plural} of history tell little of the year: its pattern is held back."
        )
    if (~np.isnan(series.values)).sum() < grain.periods(PROPHET_DAYS):
        notes.append("Less than a year of values: Prophet is left out, as it takes the season for a trend.")
    if len(series) == grain.used:
        years = round(grain.used / grain.periods_of_a_year)
        notes.append(f"Only the last {years} years are used: older {grain.plural} would hardly count.")
    if not any(name.startswith("log_") for name in fits) and not series.is_signed():
        notes.append("Zeros are frequent: patterns are added to the level, not multiplied with it.")
    negative = int((series.values < 0).sum())
    if negative and not series.is_signed():
        notes.append(
            f"{grain.counted(negative)} {'is' if negative == 1 else 'are'} below zero: taken as without "
            "sales, and the forecast is never below zero."
        )
    if closed.weekdays:
        notes.append(f"Closed on {listed([WEEKDAYS[day] for day in closed.weekdays])}: forecast as zero.")
    if closed.holidays or closed.dates:
        dates = [f"{date % 100:02d}/{date // 100:02d}" for date in closed.dates]
        when = " (day/month)" if dates else ""
        notes.append(f"Closed on {listed([*closed.holidays, *dates])}{when}: forecast as zero.")
    if not origins:
        notes.append(
            "No back-test was possible: every candidate weighs the same, and the bounds are a guess."
        )
    elif len(origins[0].actual) < horizon:
        notes.append(
            f"The history is too short to test {horizon} {grain.plural} ahead: "
            f"{len(origins[0].actual)} were, and the bounds of later {grain.plural} are extrapolated."
        )
    if share:
        notes.append(
            f"In the back-test, repeating {NAIVE_MEANING[naive]} erred less than what was tried: "
            f"{'the forecast' if share == 1 else f'{share:.0%} of the forecast'} is that."
        )
    return notes


def listed(names: Sequence[str]) -> str:
    """Return a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
