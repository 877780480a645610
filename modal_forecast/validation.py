"""The rules for a request that can be forecast. Each refusal says what is wrong and what to do."""

from datetime import date

import numpy as np
import pyarrow as pa

from modal_forecast.candidates import MODELS
from modal_forecast.grain import DAY, GRAINS, Grain
from modal_forecast.messages import AUTOMATIC, ForecastRefused, ForecastRequest

# Wide of any business, and well inside what pandas' nanosecond timestamps and a double can hold.
FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2200, 1, 1)
LARGEST_VALUE = 1e100


def check(request: ForecastRequest) -> None:
    """Raises ForecastRefused for the first rule that the request breaks."""
    if request.grain not in GRAINS:
        raise ForecastRefused(f"There is no grain {request.grain!r}: choose one of {', '.join(GRAINS)}.")
    grain = GRAINS[request.grain]
    horizon: object = request.horizon
    # A bool is an int.
    if type(horizon) is not int or not 1 <= horizon <= grain.longest_horizon:
        raise ForecastRefused(
            f"The horizon is {horizon!r}: choose a whole number of {grain.plural} from 1 to "
            f"{grain.longest_horizon}."
        )
    check_country(request.country)
    if request.model not in (AUTOMATIC, *MODELS):
        raise ForecastRefused(
            f"There is no model {request.model!r}: choose {AUTOMATIC}, or one of {', '.join(MODELS)}."
        )
    check_history(request.history, grain)


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


def check_history(history: pa.Table, grain: Grain) -> None:
    """history: in HISTORY_SCHEMA, in order of ds, without a day last."""
    days, values = history["ds"].to_numpy(), history["y"].to_numpy()
    if np.isnat(days).any():
        raise ForecastRefused(
            f"{np.isnat(days).sum()} of {len(days)} rows of the history have no ds: give every row its day."
        )
    numbers = grain.numbers(days)
    repeated = grain.first_days(numbers[1:][numbers[1:] == numbers[:-1]]).tolist()
    if repeated:
        period = str(repeated[0]) if grain is DAY else grain.label(repeated[0])
        raise ForecastRefused(
            f"The history has {period} more than once ({len(repeated)} rows too many): give one a "
            f"{grain.name}."
        )
    outside = days[(days < np.datetime64(FIRST_DAY)) | (days > np.datetime64(LAST_DAY))]
    if len(outside):
        raise ForecastRefused(
            f"The history has the day {outside[0]}: days must lie between {FIRST_DAY} and {LAST_DAY}."
        )
    observed = ~np.isnan(values)
    if observed.sum() < grain.fewest:
        raise ForecastRefused(
            f"The history has {observed.sum()} {grain.plural} with a value, "
            f"and a forecast needs {grain.fewest} or more: load more history."
        )
    too_large = observed & ~(np.abs(values) <= LARGEST_VALUE)
    if too_large.any():
        day, value = days[too_large][0], values[too_large][0]
        raise ForecastRefused(
            f"On {day} the history has the value {value:g}: values must be finite and "
            f"within +-{LARGEST_VALUE:g}. Leave a {grain.name} without a known value empty."
        )
