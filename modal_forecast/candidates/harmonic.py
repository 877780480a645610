"""A harmonic regression: level, drift, week, year and holidays, each shrunk towards nothing.

Ridge regression is the mean of a Bayesian posterior (Hoerl and Kennard, 1970), so each group of columns has a
prior spread in standard deviations of the series. The level is a random walk on knots, as in Harvey's
structural time series; a t-distribution for its steps lets it jump once rather than bend for months. Days
that fit badly count less (Huber, 1964), and old ones too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from modal_forecast.calendars import DAYS_OF_A_YEAR, RARE_ZERO, CalendarColumns
from modal_forecast.candidates.protocol import Fit, Inputs

KNOT_DAYS = 28
HALF_LIFE_DAYS = 730.0
# The drift goes on as if for this many days at most: Gardner's damped trend (1985) in continuous time.
DAMPING_DAYS = 180.0
JUMP_FREEDOM = 4.0
HUBER_WIDTH = 2.0
PASSES = 3
GRAM_PASSES = 2
# Of less than this many years, the year's shape is half guesswork: half the spread. Of less than the second
# it is nothing else.
YEARS_FOR_YEAR, YEARS_FOR_HALF_A_YEAR, YEARS_FOR_TURN = 1.6, 0.4, 0.7
FREE = 100.0


@dataclass(frozen=True)
class Trend:
    """Prior standard deviations per year, in those of the series: of the level's steps, and of the drift."""

    level: float
    drift: float


# Three beliefs about where a series goes in half a year; the back-test says which of them holds. The first is
# also what finds the days that fit badly.
TRENDS: Mapping[str, Trend] = {
    "bending": Trend(level=0.3, drift=0.3),
    "straight": Trend(level=0.1, drift=0.5),
    "flat": Trend(level=0.1, drift=0.0),
}


@dataclass(frozen=True)
class HarmonicFit(Fit):
    """forecast: for the days after the series, in its unit.

    fitted: for the days of the series. level: for both, like `fitted`, without the calendar. effects: of each
    calendar column. These three are in logs if the regression is.
    """

    fitted: np.ndarray
    level: np.ndarray
    effects: np.ndarray


def fit_harmonic_regressions(inputs: Inputs) -> Mapping[str, HarmonicFit]:
    """Return fits named linear_... and log_..., one for each trend.

    The latter only where zeros are rare, and then zeros are missing days.
    """
    values = inputs.open_values
    observed = ~np.isnan(values)
    if not observed.any() or np.ptp(values[observed]) == 0:
        return {}
    linear = fit_harmonic(inputs.calendar, values, inputs.horizon)
    fits = {f"linear_{name}": fit for name, fit in linear.items()}
    positive = observed & (values > 0)
    if inputs.series.is_signed() or positive.sum() < (1 - RARE_ZERO) * observed.sum():
        return fits
    logs = np.full(len(values), np.nan)
    logs[positive] = np.log(values[positive])
    if np.ptp(logs[positive]) > 0:
        for name, fit in fit_harmonic(inputs.calendar, logs, inputs.horizon).items():
            fits[f"log_{name}"] = replace(fit, forecast=np.exp(fit.forecast))
    return fits


def fit_harmonic(
    calendar: CalendarColumns, values: np.ndarray, horizon: int, trends: Mapping[str, Trend] = TRENDS
) -> dict[str, HarmonicFit]:
    """One fit for each trend.

    calendar: of the periods of `values` and at least `horizon` more.
    values: NaN where missing; at least two different ones.
    """
    origin = len(values)
    observed = ~np.isnan(values)
    centre, spread = _centre_and_spread(values[observed])
    target = (values[observed] - centre) / spread
    age = origin - 1 - np.flatnonzero(observed)
    recency = 0.5 ** (age / calendar.grain.periods(HALF_LIFE_DAYS))
    columns, knots = _design(calendar, origin, horizon)
    spreads = _spreads(calendar, origin)
    used = np.concatenate([np.ones(knots + 1, bool), spreads > 0])
    spreads = np.concatenate([np.full(knots, FREE), [1.0], spreads])[used]
    columns = columns[:, used]
    history = columns[:origin][observed]

    weights, gram, moments = recency, np.empty(0), np.empty(0)
    noise = 0.3**2
    fits: dict[str, HarmonicFit] = {}
    for name, trend in trends.items():
        steps = np.ones(knots - 1)
        for number in range(PASSES):
            if not fits and number < GRAM_PASSES:
                # Both factors alike, so that BLAS computes half of the symmetric product.
                weighted = history * np.sqrt(weights)[:, None]
                gram, moments = weighted.T @ weighted, weighted.T @ (np.sqrt(weights) * target)
            coefficients = _solve(gram / noise, moments / noise, spreads, trend, knots, steps)
            if not fits:
                residuals = np.abs(target - history @ coefficients)
                weights, noise = _reweigh(residuals, recency)
            moves = np.diff(coefficients[:knots])
            steps = (JUMP_FREEDOM + 1) / (JUMP_FREEDOM + moves**2 / _step_variance(trend))
        everything = columns @ coefficients * spread + centre
        level = columns[:, : knots + 1] @ coefficients[: knots + 1] * spread + centre
        effects = np.zeros(len(used) - knots - 1)
        effects[used[knots + 1 :]] = coefficients[knots + 1 :] * spread
        fits[name] = HarmonicFit(everything[origin:], everything[:origin], level, effects)
    return fits


def _centre_and_spread(values: np.ndarray) -> tuple[float, float]:
    centre = float(np.median(values))
    usual = np.clip(values, *np.quantile(values, [0.02, 0.98])) - centre
    # Scaled first: squares of 1e100 and 1e-300 fit into no double.
    largest = float(np.abs(values - centre).max())
    spread = float(np.std(usual / largest)) * largest
    return centre, spread or largest


def _design(calendar: CalendarColumns, origin: int, horizon: int) -> tuple[np.ndarray, int]:
    """Columns of the level's knots, of the drift, and of the calendar; and the number of knots.

    Between two knots the level is a straight line; the last is the last value, and after it the level stays.
    """
    grain = calendar.grain
    since = np.arange(origin + horizon) - (origin - 1.0)
    between, damping = grain.periods(KNOT_DAYS), grain.periods(DAMPING_DAYS)
    knots = int(np.ceil((origin - 1) / between)) + 2
    position = np.clip(since / between + knots - 1, 0, knots - 1)
    left = np.minimum(position.astype(int), knots - 2)
    rows = np.arange(len(since))
    level = np.zeros((len(since), knots))
    level[rows, left] = 1 - (position - left)
    level[rows, left + 1] = position - left
    ahead = damping * -np.expm1(-np.maximum(since, 0) / damping)
    drift = np.where(since <= 0, since, ahead) / grain.periods_of_a_year
    columns = np.hstack([level, drift[:, None], calendar.table[: origin + horizon]])
    return columns, knots


def _spreads(calendar: CalendarColumns, origin: int) -> np.ndarray:
    """Of each calendar column; zero for what so short a history cannot tell."""
    years = origin / calendar.grain.periods_of_a_year
    spreads = calendar.spreads.copy()
    year = 1.0 if years >= YEARS_FOR_YEAR else 0.5 if years >= YEARS_FOR_HALF_A_YEAR else 0.0
    spreads[calendar.groups["year"]] *= year
    spreads[calendar.groups["week in year"]] *= float(years >= YEARS_FOR_YEAR)
    spreads[calendar.groups["turn of year"]] *= float(years >= YEARS_FOR_TURN)
    return spreads


def _step_variance(trend: Trend) -> float:
    return trend.level**2 * KNOT_DAYS / DAYS_OF_A_YEAR


def _solve(
    gram: np.ndarray, moments: np.ndarray, spreads: np.ndarray, trend: Trend, knots: int, steps: np.ndarray
) -> np.ndarray:
    precision = gram.copy()
    diagonal = np.arange(len(precision))
    own = spreads.copy()
    own[knots] = max(trend.drift, 1e-6)
    precision[diagonal, diagonal] += 1 / own**2
    tie = steps / _step_variance(trend)
    left, right = np.arange(knots - 1), np.arange(1, knots)
    precision[left, left] += tie
    precision[right, right] += tie
    precision[left, right] -= tie
    precision[right, left] -= tie
    return np.linalg.solve(precision, moments)


def _reweigh(residuals: np.ndarray, recency: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights that let a day count less the worse it fits, and the variance of the noise."""
    usual = 1.4826 * float(np.median(residuals)) + 1e-6
    variance = min(usual**2, float(np.average(np.minimum(residuals, 4 * usual) ** 2, weights=recency)))
    return recency * np.minimum(1.0, HUBER_WIDTH * usual / np.maximum(residuals, 1e-12)), max(variance, 1e-6)
