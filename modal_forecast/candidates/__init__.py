"""The candidates: forecasting methods, of which the back-test finds out how much to trust each.

Another method is a file in this folder with a function from Inputs to fits, and one entry in CANDIDATES.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from modal_forecast.candidates.harmonic import fit_harmonic_regressions
from modal_forecast.candidates.naive import fit_recent_levels, fit_seasonal_naives
from modal_forecast.candidates.prophet import fit_prophet
from modal_forecast.candidates.protocol import Candidate, Fit, Inputs
from modal_forecast.grain import GRAINS

CANDIDATES = {
    "harmonic": Candidate(fit_harmonic_regressions, "Harmonic regression"),
    "recent_levels": Candidate(fit_recent_levels, "Recent values and last years"),
    "seasonal_naive": Candidate(fit_seasonal_naives, "Seasonal naive", is_baseline=True),
    "prophet": Candidate(fit_prophet, "Prophet", package="prophet", slow=True),
}
# The candidates that a request may ask for alone.
MODELS = tuple(name for name, candidate in CANDIDATES.items() if not candidate.is_baseline)
# The fits that a forecast has to beat, the shorter lag of each grain first.
BASELINES = tuple(name for grain in GRAINS.values() for name in grain.naives)


def fit_candidates(inputs: Inputs) -> dict[str, Fit]:
    """Return the fits of every candidate that is not slow, by name."""
    fits: dict[str, Fit] = {}
    for candidate in CANDIDATES.values():
        if not candidate.slow:
            fits |= fit_candidate(candidate, inputs)
    return fits


def fit_candidate(candidate: Candidate, inputs: Inputs) -> Mapping[str, Fit]:
    """Return the fits of one candidate, zero on closed days and not below zero unless the series is signed.

    The baselines stay as they are. Raises CandidateFailed.
    """
    lowest = -np.inf if inputs.series.is_signed() else 0.0
    return {
        name: fit
        if name in BASELINES
        else replace(fit, forecast=np.maximum(np.where(inputs.closed_ahead, 0.0, fit.forecast), lowest))
        for name, fit in candidate.fit(inputs).items()
    }


# What people read instead of the name of a fit: in the report, in the log and in a replay.
METHODS = {
    "prophet": "Prophet",
    "linear_straight": "Week, year and holidays, straight trend",
    "linear_bending": "Week, year and holidays, bending trend",
    "linear_flat": "Week, year and holidays, no trend",
    "log_straight": "Week, year and holidays in percent, straight trend",
    "log_bending": "Week, year and holidays in percent, bending trend",
    "log_flat": "Week, year and holidays in percent, no trend",
    "recent_8_weeks": "The last 8 weeks on average",
    "recent_26_weeks": "The last 26 weeks on average",
    "last_years": "Earlier years at today's level",
    "last_years_half_way": "Earlier years half way to today's level",
    "seasonal_naive_7": "Repeating last week",
    "seasonal_naive_364": "Repeating last year",
    "naive_1_week": "Repeating the last week",
    "seasonal_naive_52_weeks": "Repeating last year",
    "naive_1_month": "Repeating the last month",
    "seasonal_naive_12_months": "Repeating last year",
}
