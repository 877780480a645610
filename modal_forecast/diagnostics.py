"""What an answer tells about itself: the history, the back-test, the parts, and what had to be left out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast.backtest import Origin
from modal_forecast.components import WEEKDAYS, components
from modal_forecast.daily import MAX_DAYS, DailySeries
from modal_forecast.models import Candidates
from modal_forecast.models.calendar_columns import CalendarColumns
from modal_forecast.models.harmonic import YEARS_FOR_YEAR
from modal_forecast.models.prophet import MIN_DAYS as PROPHET_DAYS
from modal_forecast.scores import REPEATED, coverage, score, skill_of


def about_history(history: pa.Table) -> dict[str, Any]:
    first, last = history["ds"][0].as_py(), history["ds"][-1].as_py()
    values = history["y"].to_numpy()
    observed = int((~np.isnan(values)).sum())
    return {
        "n_history": observed,
        "n_missing": (last - first).days + 1 - observed,
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
    """skill, skill_margin, beats_naive, best_naive and why, as scores.skill_of() gives them, and

    backtest: mase, wape, bias, coverage_80, coverage_95 of the forecast, with the number of origins, and the
        days tested from each (horizon_days).
    candidates: for each, the two seasonal naives among them, mase, wape, bias, origins and weight.
    """
    tried = [*names, *(name for origin in origins[:1] for name in origin.forecasts if name not in names)]
    scores = {
        name: score(origins, [origin.forecasts.get(name) for origin in origins])
        | {"weight": round(weight.get(name, 0.0), 4)}
        for name in tried
    }
    ours: dict[str, Any] = score(origins, held_out)
    if bounds:
        ours |= coverage(origins, bounds)
    ours["horizon_days"] = len(origins[0].actual) if origins else 0
    return {**skill_of(origins, held_out), "backtest": ours, "candidates": scores}


def last_origin(
    series: DailySeries,
    origins: Sequence[Origin],
    held_out: Sequence[np.ndarray],
    bounds: Sequence[Mapping[str, np.ndarray]],
) -> dict[str, Any] | None:
    """The back-test from the latest origin, to be drawn: first_ds, actual (null where missing), forecast, and
    lower_80 and upper_80 if it has bounds."""
    if not origins:
        return None
    origin = origins[0]
    actual = [None if np.isnan(value) else _short(value) for value in origin.actual]
    return {
        "first_ds": str(series.days[origin.index]),
        "actual": actual,
        "forecast": [_short(value) for value in held_out[0]],
        **{
            f"{side}_80": [_short(value) for value in bounds[0][f"yhat_{side}_80"]]
            for side in ("lower", "upper")
            if bounds
        },
    }


def about_components(
    made: Candidates, weight: Mapping[str, float], calendar: CalendarColumns, series: DailySeries
) -> dict[str, Any] | None:
    """The parts of the harmonic candidate that weighs most; None if there is none."""
    if not made.harmonic:
        return None
    heaviest = max(made.harmonic, key=lambda name: weight.get(name, 0.0))
    return components(heaviest, made.harmonic[heaviest], calendar, series.values, made.closed.weekdays)


def fallbacks(series: DailySeries, made: Candidates, origins: Sequence[Origin], horizon: int) -> list[str]:
    """What could not be done as usual, and what was done instead, in sentences."""
    said = []
    years = len(series) / 365.2425
    if years < YEARS_FOR_YEAR:
        said.append(f"{len(series)} days of history tell little of the year: its pattern is held back.")
    if (~np.isnan(series.values)).sum() < PROPHET_DAYS:
        said.append("Less than a year of values: Prophet is left out, as it takes the season for a trend.")
    if len(series) == MAX_DAYS:
        said.append(f"Only the last {MAX_DAYS // 365} years are used: older days would hardly count.")
    if not any(name.startswith("log_") for name in made.forecasts) and not series.is_signed():
        said.append("Zeros are frequent: patterns are added to the level, not multiplied with it.")
    negative = int((series.values < 0).sum())
    if negative and not series.is_signed():
        said.append(
            f"{negative} {'day is' if negative == 1 else 'days are'} below zero: taken as without sales, and "
            "the forecast is never below zero."
        )
    closed = made.closed
    if closed.weekdays:
        said.append(f"Closed on {_listed([WEEKDAYS[day] for day in closed.weekdays])}: forecast as zero.")
    if closed.holidays or closed.dates:
        dates = [f"{date % 100:02d}/{date // 100:02d}" for date in closed.dates]
        when = " (day/month)" if dates else ""
        said.append(f"Closed on {_listed([*closed.holidays, *dates])}{when}: forecast as zero.")
    if not origins:
        said.append("No back-test was possible: every candidate weighs the same, and the bounds are a guess.")
    elif len(origins[0].actual) < horizon:
        said.append(
            f"The history is too short to test {horizon} days ahead: {len(origins[0].actual)} were, "
            "and the bounds of later days are extrapolated."
        )
    return said


def naive_taken(name: str, share: float) -> list[str]:
    """That the forecast repeats earlier days, all of it or a part; nothing if it does not."""
    if not share:
        return []
    return [
        f"In the back-test, repeating {REPEATED[name]} erred less than what was tried: "
        f"{'the forecast' if share == 1 else f'{share:.0%} of the forecast'} is that."
    ]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _short(value: float) -> float:
    return float(f"{float(value):.6g}")
