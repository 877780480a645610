"""How many orders the sample shop can expect on a day, and how many customers it has by then.

Plain functions of the calendar. The holidays are rules of the shop's own: a package of holidays that is
corrected later would rewrite the past.
"""

import math
from datetime import date, timedelta

import numpy as np

from serverless_assets.ingestion.sample_catalogue import FOUNDED, Store

# From Monday to Sunday.
WEEKDAYS = (0.84, 0.86, 0.92, 0.98, 1.12, 1.28, 1.0)

SUMMER = 0.12
MIDSUMMER = 196  # 15 July, as a day of the year

RAMP_DAYS = 90

# Growth that levels off: sane volumes in any year, and still clearly growing in the mid-2020s.
FAME_BEFORE, FAME_GAINED = 0.6, 0.8
TURNING_POINT = date(2025, 1, 1)
TURNING_DAYS = 730

FIRST_CUSTOMERS = 100
SIGN_UPS_A_DAY = 3.0

CLOSED = 0.0
FIXED_HOLIDAYS = {(1, 1): 0.55, (7, 3): 1.2, (7, 4): 0.7, (12, 24): 1.4, (12, 25): CLOSED, (12, 31): 1.15}
# By days from Thanksgiving.
AROUND_THANKSGIVING = {-2: 1.15, -1: 1.45, 0: CLOSED, 1: 1.3}
CHRISTMAS_SHOPPING = 1.2


def expected_orders(store: Store, day: date) -> float:
    """The mean number of orders at `store` on `day`; 0 before it opens and on days it is closed."""
    if day < store.opened:
        return 0.0
    season = WEEKDAYS[day.weekday()] * _summer(day) * _holiday(day)
    return store.orders_a_day * _ramp(store, day) * _fame(day) * season


def customers_by(day: date) -> int:
    """How many people have signed up by the end of `day`: some every day, and more the better known it is."""
    if day < FOUNDED:
        return 0
    days = (day - FOUNDED).days
    # The integral of `_fame` up to `day`.
    since_turning = (day - TURNING_POINT).days / TURNING_DAYS
    fame_so_far = FAME_BEFORE * days + FAME_GAINED * TURNING_DAYS * float(np.logaddexp(0.0, since_turning))
    return FIRST_CUSTOMERS + int(SIGN_UPS_A_DAY * fame_so_far)


def thanksgiving(year: int) -> date:
    """The fourth Thursday of November."""
    first = date(year, 11, 1)
    return first + timedelta(days=(3 - first.weekday()) % 7 + 21)


def _ramp(store: Store, day: date) -> float:
    return 1 - math.exp(-((day - store.opened).days + 1) / RAMP_DAYS)


def _fame(day: date) -> float:
    return FAME_BEFORE + FAME_GAINED / (1 + math.exp(-(day - TURNING_POINT).days / TURNING_DAYS))


def _summer(day: date) -> float:
    return 1 + SUMMER * math.cos(2 * math.pi * (day.timetuple().tm_yday - MIDSUMMER) / 365.25)


def _holiday(day: date) -> float:
    if (day.month, day.day) in FIXED_HOLIDAYS:
        return FIXED_HOLIDAYS[day.month, day.day]
    if day.month == 12 and 18 <= day.day <= 23:
        return CHRISTMAS_SHOPPING
    return AROUND_THANKSGIVING.get((day - thanksgiving(day.year)).days, 1.0)
