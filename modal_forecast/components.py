"""The components of a forecast: its trend, and the effects of weekdays, times of year and holidays.

Each effect comes with whether the history supports it, as a model has one for every day, also for noise.
"""

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from modal_forecast.calendars import MONTHS, WEEKDAYS
from modal_forecast.candidates.harmonic import HarmonicFit
from modal_forecast.candidates.protocol import Fit, Inputs
from modal_forecast.series import weekday

OWN_GROUPS = ("week", "year", "week in year", "turn of year")
# Of 100 histories without a pattern, in how many one weekday, one month or one holiday seems to stand out.
# Simulated with 2 to 6 years of noise, of noise that lasts for days and of random walks: 0 to 2 months.
CHANCE = 0.01
# A month that came once cannot be told from the trend.
YEARS_TO_TELL = 2


def about_components(
    inputs: Inputs, fits: Mapping[str, Fit], weight: Mapping[str, float]
) -> dict[str, Any] | None:
    """The parts of the harmonic candidate that weighs most, as JSON values; None if there is none.

    What has an order is a list of [label, value], as a message does not keep the order of a mapping's keys.

    scale: "factor" if the effects multiply the trend (1.1 is a tenth more), "difference" if they are added to
        it, in the unit of the history.
    trend: [[first day of a month, level in it], ...], in the unit, forecast included. The level is what an
        average weekday at an average time of the year brings, without holidays.
    weekly: [[weekday, effect], ...], Monday first; null on a closed weekday, which has no effect to estimate.
        Empty for a series by week or month. On average over the open weekdays there is no effect.
    yearly: [[month, effect], ...], January first; null for a month that the last year has no day of. On
        average over the last year there is no effect.
    holidays: name, effect on the day or week itself, of days also on those before and after; only those that
        the history has had. supported: whether it stands out of what other days miss the forecast by.
    stands_out: the weekdays (weekly) and months (yearly) that differ from the average by more than chance
        explains; null for months of a history that is too short to tell.
    """
    harmonic = {name: fit for name, fit in fits.items() if isinstance(fit, HarmonicFit)}
    if not harmonic:
        return None
    name = max(harmonic, key=lambda name: weight.get(name, 0.0))
    fit, calendar = harmonic[name], inputs.calendar
    factor = name.startswith("log_")
    end = len(fit.level)
    days, table = calendar.days[:end], calendar.table[:end]

    def in_unit(effect: float) -> float:
        return float(f"{effect:.4g}")

    def effects_of(group: str) -> np.ndarray:
        part = calendar.groups[group]
        effect: np.ndarray = table[:, part] @ fit.effects[part]
        return effect

    transform: Callable[[np.ndarray], np.ndarray] = np.exp if factor else np.asarray
    week = transform(fit.effects[calendar.groups["week"]])
    is_open = np.array([day not in inputs.closed.weekdays for day in range(len(week))], bool)
    year = transform(effects_of("year") + effects_of("turn of year"))
    last_year = slice(max(0, end - math.ceil(calendar.grain.periods_of_a_year)), end)
    usual_week = float(week[is_open].mean()) if is_open.any() else float(factor)
    usual_year = float(year[last_year].mean())
    level = transform(fit.level)
    if factor:
        level, week, year = level * usual_week * usual_year, week / usual_week, year / usual_year
    else:
        level, week, year = level + usual_week + usual_year, week - usual_week, year - usual_year

    weekly = [
        [label, in_unit(effect) if opened else None]
        for label, effect, opened in zip(WEEKDAYS[: len(week)], week, is_open, strict=True)
    ]
    months = days.astype("datetime64[M]")
    month_of = months.astype(int) % 12
    yearly: list[list[Any]] = []
    for month, month_name in enumerate(MONTHS):
        in_month = month_of[last_year] == month
        effect = in_unit(float(year[last_year][in_month].mean())) if in_month.any() else None
        yearly.append([month_name, effect])
    starts = np.unique(months)
    trend = [[f"{start}-01", float(f"{level[months == start].mean():.6g}")] for start in starts]
    values = _on_scale(inputs.open_values, factor)
    by_week, by_year = _by_week(inputs, values), _by_year(inputs, values)
    return {
        "model": name,
        "scale": "factor" if factor else "difference",
        "trend": trend,
        "weekly": weekly,
        "yearly": yearly,
        "holidays": _holidays(
            fit, inputs, values, lambda effect: in_unit(float(transform(np.asarray(effect))))
        ),
        "stands_out": {
            "weekly": [WEEKDAYS[day] for day in np.flatnonzero(stand_out(by_week))],
            "yearly": None
            if len(by_year) < YEARS_TO_TELL
            else [MONTHS[month] for month in np.flatnonzero(stand_out(by_year))],
        },
    }


def stand_out(cycles: np.ndarray) -> np.ndarray:
    """Return for each column whether its mean differs from that of all by more than chance explains.

    A t-test of each column in an analysis of variance by rows and columns, with Bonferroni's correction: of
    tables without any pattern, a share of CHANCE has such a column.

    cycles: a row for each week or year, a column for each weekday or month; NaN where missing.
    """
    known = ~np.isnan(cycles)
    rows, counts = known.sum(axis=1), known.sum(axis=0)
    means = np.nansum(cycles, axis=1) / np.maximum(rows, 1)
    within = np.where(known, cycles - means[:, np.newaxis], 0.0)
    effects = within.sum(axis=0) / np.maximum(counts, 1)
    compared = int((counts > 0).sum())
    freedom = int(known.sum()) - compared - int((rows > 0).sum()) + 1
    if compared < 2 or freedom < 1:
        return np.zeros(len(counts), bool)
    variance = float((np.where(known, within - effects, 0.0) ** 2).sum()) / freedom
    error = np.sqrt(variance * (1 - 1 / compared) / np.maximum(counts, 1))
    # Equal values leave differences of the last digits.
    smallest = 1e-9 * float(np.abs(np.nan_to_num(cycles)).max())
    stands: np.ndarray = np.abs(effects) > np.maximum(
        t_quantile(1 - CHANCE / 2 / compared, freedom) * error, smallest
    )
    return stands & (counts > 0)


def t_quantile(share: float, freedom: int) -> float:
    """Return the quantile of Student's t-distribution, within 3% from five degrees of freedom on.

    Abramowitz and Stegun, "Handbook of mathematical functions", 26.7.5; scipy is not installed in a worker.
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, 1))


def _on_scale(values: np.ndarray, factor: bool) -> np.ndarray:
    if not factor:
        return values
    logs = np.full(len(values), np.nan)
    positive = values > 0
    logs[positive] = np.log(values[positive])
    return logs


def _by_week(inputs: Inputs, values: np.ndarray) -> np.ndarray:
    """Return the values of whole weeks, (weeks, 7) from Monday on; no row for a series by week or month."""
    if inputs.series.grain.cycle != 7:
        return np.empty((0, 7))
    first = int(-weekday(inputs.series.days[:1])[0] % 7)
    whole = (len(values) - first) // 7
    return values[first : first + 7 * max(whole, 0)].reshape(-1, 7)


def _by_year(inputs: Inputs, values: np.ndarray) -> np.ndarray:
    """Return the means of whole months without their trend, (years, 12) from January on.

    The years end with the last whole month; the trend is the mean difference to the same month a year before.
    """
    days, grain = inputs.series.days, inputs.series.grain
    months = days.astype("datetime64[M]")
    first, last = months[0], grain.starts(days[-1:], 1).astype("datetime64[M]")[0]
    if grain.starts(first.astype("datetime64[D]")[np.newaxis])[0] < days[0]:
        first += 1
    years = max(int((last - first).astype(int)) // 12, 0)
    every = last - 12 * years + np.arange(12 * years)
    means = np.full(len(every), np.nan)
    for number, month in enumerate(every):
        in_month = values[(months == month) & ~np.isnan(values)]
        if len(in_month):
            means[number] = in_month.mean()
    if years < YEARS_TO_TELL:
        return np.empty((years, 12))
    changes = means[12:] - means[:-12]
    changes = changes[~np.isnan(changes)]
    slope = float(changes.mean()) / 12 if len(changes) else 0.0
    by_year = (means - slope * np.arange(len(means))).reshape(years, 12)
    return np.roll(by_year, int(every[0].astype(int) % 12), axis=1)


def _holidays(
    fit: HarmonicFit, inputs: Inputs, values: np.ndarray, in_unit: Callable[[float], float]
) -> list[dict[str, Any]]:
    calendar, count = inputs.calendar, len(values)
    is_known = ~np.isnan(inputs.series.values)
    names = [
        name
        for name, part in calendar.groups.items()
        if name not in OWN_GROUPS and calendar.table[:count, part.start][is_known].any()
    ]
    residuals = values - fit.fitted
    known = residuals[~np.isnan(residuals)]
    least = t_quantile(1 - CHANCE / 2 / max(len(names), 1), max(len(known) - len(names), 1)) * float(
        known.std()
    )
    effects = []
    for name in names:
        part = calendar.groups[name]
        around = (in_unit(float(effect)) for effect in fit.effects[part])
        # What the day missed a forecast without the holiday by.
        missed = residuals[calendar.table[:count, part.start] > 0] + fit.effects[part.start]
        missed = missed[~np.isnan(missed)]
        effects.append(
            {
                "holiday": name,
                **dict(zip(("day", "day_before", "day_after"), around, strict=False)),
                "supported": bool(len(missed) and abs(float(missed.mean())) > least / math.sqrt(len(missed))),
            }
        )
    return effects
