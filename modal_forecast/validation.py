"""The rules for a request that can be forecast. Each refusal says what is wrong and what to do."""

from datetime import date

import numpy as np

from modal_forecast.messages import AUTOMATIC, MODELS, ForecastRefused, ForecastRequest

# Two weeks: with less, a weekend cannot be told from a trend.
MIN_OBSERVATIONS = 14
# Two years: beyond, the intervals of a daily series are too wide to be of use.
MAX_HORIZON = 730
# Wide of any business, and well inside what pandas' nanosecond timestamps and a double can hold.
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2200, 1, 1)
LARGEST_VALUE = 1e100


def check(request: ForecastRequest) -> None:
    """Raises ForecastRefused for the first rule that the request breaks."""
    check_horizon(request.horizon)
    check_country(request.country)
    if request.model not in (AUTOMATIC, *MODELS):
        raise ForecastRefused(
            f"There is no model {request.model!r}: choose {AUTOMATIC}, or one of {', '.join(MODELS)}."
        )
    check_days(request.history["ds"].to_numpy())
    check_values(request.history["ds"].to_numpy(), request.history["y"].to_numpy())


def check_horizon(horizon: object) -> None:
    whole = isinstance(horizon, int) and not isinstance(horizon, bool)
    if not whole or not 1 <= horizon <= MAX_HORIZON:  # type: ignore[operator]
        raise ForecastRefused(
            f"The horizon is {horizon!r}: choose a whole number of days from 1 to {MAX_HORIZON}."
        )


def check_country(country: object) -> None:
    """country: None, or the two-letter code of a country that the `holidays` package has."""
    if country is None:
        return
    import holidays

    try:
        if isinstance(country, str) and len(country) == 2:
            holidays.country_holidays(country)
            return
    except NotImplementedError:
        pass
    # Loads every country, and is therefore not asked unless the answer is needed.
    codes = sorted(holidays.list_supported_countries(include_aliases=False))
    raise ForecastRefused(
        f'No holidays are known for the country {country!r}: choose a code such as "US" or "DE", or none '
        f"to forecast without holidays. Known are {', '.join(codes)}."
    )


def check_days(days: np.ndarray) -> None:
    """days: sorted datetime64[D], not-a-time last."""
    if np.isnat(days).any():
        raise ForecastRefused(
            f"{np.isnat(days).sum()} of {len(days)} rows of the history have no ds: give every row its day."
        )
    repeated = days[1:][days[1:] == days[:-1]]
    if len(repeated):
        raise ForecastRefused(
            f"The history has {repeated[0]} more than once ({len(repeated)} rows too many): give one a day."
        )
    outside = days[(days < np.datetime64(FIRST_DAY)) | (days > np.datetime64(LAST_DAY))]
    if len(outside):
        raise ForecastRefused(
            f"The history has the day {outside[0]}: days must lie between {FIRST_DAY} and {LAST_DAY}."
        )


def check_values(days: np.ndarray, values: np.ndarray) -> None:
    """days: datetime64[D] of the same length as `values`, where NaN is a missing day."""
    observed = ~np.isnan(values)
    if observed.sum() < MIN_OBSERVATIONS:
        raise ForecastRefused(
            f"The history has {observed.sum()} days with a value, "
            f"and a forecast needs {MIN_OBSERVATIONS} or more: load more history."
        )
    too_large = observed & ~(np.abs(values) <= LARGEST_VALUE)
    if too_large.any():
        day, value = days[too_large][0], values[too_large][0]
        raise ForecastRefused(
            f"On {day} the history has the value {value:g}: values must be finite and "
            f"within +-{LARGEST_VALUE:g}. Leave a day without a known value empty."
        )
