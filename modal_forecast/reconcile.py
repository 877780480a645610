"""Make the forecasts of parts and of their total add up.

Each was made by itself, from a series of its own, so that the sum of the parts is not the total. They meet
where the least is changed, and more of what is less certain: generalised least squares with a diagonal error
covariance (Wickramasuriya, Athanasopoulos and Hyndman, 2019: MinT, with variances on the diagonal).
"""

import numpy as np


def reconcile(
    total: np.ndarray, parts: np.ndarray, variance_of_total: float, variances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The total and the parts, changed so that on every day the parts' sum is the total.

    total: (days,), in the series' unit.
    parts: (number of parts, days).
    variance_of_total, variances: (number of parts,), the variance of each forecast's errors, at least 0.

    Returns:
        total (days,) and parts (number of parts, days), none of them below zero if none was.
    """
    gap = total - parts.sum(axis=0)
    uncertainty = np.append(variances, variance_of_total)
    # If nothing is known of the errors, or nothing is uncertain, all share the gap.
    shares = (
        uncertainty / uncertainty.sum()
        if uncertainty.sum() > 0
        else np.full(len(uncertainty), 1 / len(uncertainty))
    )
    reconciled = parts + shares[:-1, np.newaxis] * gap
    if min(total.min(), parts.min()) >= 0:
        reconciled = _not_negative(reconciled)
    return reconciled.sum(axis=0), reconciled


def _not_negative(parts: np.ndarray) -> np.ndarray:
    """The parts with nothing below zero, scaled so that their sum stays as it was where it was above zero."""
    sums, raised = np.maximum(parts.sum(axis=0), 0.0), np.maximum(parts, 0.0)
    above = raised.sum(axis=0)
    return raised * np.divide(sums, above, out=np.zeros_like(sums), where=above > 0)
