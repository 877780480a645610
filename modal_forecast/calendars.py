"""Holidays as columns: which days of a calendar are which holiday, the day before it and the day after."""

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

# "Christmas Day (observed)" and "Eid al-Fitr (estimated)" are the same event as without the remark.
_REMARK = re.compile(r" \((observed|estimated|substituted[^)]*|in lieu)\)", re.IGNORECASE)


def holidays_of(country: str | None, days: np.ndarray) -> Mapping[str, np.ndarray]:
    """English name of each holiday -> its days within `days`.

    country: two-letter ISO 3166 code, or None for no holidays.
    days: datetime64[D], sorted, without gaps.
    """
    if country is None or not len(days):
        return {}
    years = days.astype("datetime64[Y]").astype(int) + 1970
    found: dict[str, list[np.datetime64]] = {}
    for day, name in _holidays(country, int(years[0]), int(years[-1])):
        if days[0] <= day <= days[-1]:
            found.setdefault(name, []).append(day)
    return {name: np.array(found[name]) for name in sorted(found)}


@lru_cache(maxsize=4)
def _holidays(country: str, first_year: int, last_year: int) -> tuple[tuple[np.datetime64, str], ...]:
    import holidays

    years = range(first_year, last_year + 1)
    try:
        known = holidays.country_holidays(country, years=years, language="en_US")
    except (TypeError, ValueError):
        known = holidays.country_holidays(country, years=years)
    return tuple(
        (np.datetime64(day), name)
        for day, names in sorted(known.items())
        for name in sorted({_REMARK.sub("", one.strip()) for one in names.split(";")})
    )
