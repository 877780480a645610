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
