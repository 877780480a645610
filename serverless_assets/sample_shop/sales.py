"""The sales of the sample shop: the orders that it expects on a day, and those that are drawn around it.

Expected orders are plain functions of the calendar, with holidays of the shop's own: a package of holidays
that is corrected later would rewrite the past. Everything random follows from the seed and the day alone.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serverless_assets.sample_shop.catalogue import (
    FIRST_NAMES,
    FOUNDED,
    HOURS_OPEN,
    LAST_NAMES,
    PRODUCTS,
    STORES,
    SampleStore,
)

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

Ints = npt.NDArray[np.int64]

# The shape of a gamma: luck moves a store's day by 1 / sqrt(60) = 13% on top of the Poisson.
STEADINESS = 60
BREAKFAST_SHARE = 0.45
# One customer in ten is a regular, and the regulars place four orders in ten.
REGULARS_EVERY, REGULARS_SHARE = 10, 0.4
BASKET_SIZES, BASKET_SHARES = (1, 2, 3, 4), (0.54, 0.34, 0.10, 0.02)
# In their first hours the stores sell twice the drinks for each jaffle.
EARLY_SECONDS, EARLY_THIRST = 3 * 3600, 2.0

# Two histories of some 750 days.
DAYS_REMEMBERED = 1536

_STORE_IDS = np.array([store.id for store in STORES], dtype=object)
_OPENING_SECONDS = np.array([store.opens_at_utc * 3600 for store in STORES])
_TAX_RATES = np.array([store.tax_rate for store in STORES])
_SKUS = np.array([product.sku for product in PRODUCTS], dtype=object)
_PRICES = np.array([product.price for product in PRODUCTS])
_POPULARITY = np.array([product.popularity for product in PRODUCTS])
_EARLY_POPULARITY = _POPULARITY * [EARLY_THIRST if p.type == "beverage" else 1.0 for p in PRODUCTS]


@lru_cache(DAYS_REMEMBERED)
def sales(seed: int, day: date) -> Mapping[str, pa.RecordBatch]:
    """Return the `raw_orders` and `raw_items` of one day in order of time, by seed and day alone."""
    random = _random(seed, day)
    store, second = _visits(random, day)
    customer = _guests(random, customers_by(day), len(store))
    order, product = _baskets(random, second - _OPENING_SECONDS[store] < EARLY_SECONDS)

    subtotal = np.bincount(order, weights=_PRICES[product], minlength=len(store)).astype(np.int64)
    tax = np.rint(subtotal * _TAX_RATES[store]).astype(np.int64)
    order_ids = [f"{day:%Y%m%d}-{number:04d}" for number in range(1, len(store) + 1)]
    orders = {
        "id": texts(order_ids),
        "customer": texts(customer_ids(customer)),
        "ordered_at": np.datetime64(day, "us") + second * np.timedelta64(1, "s"),
        "store_id": texts(_STORE_IDS[store]),
        "subtotal": subtotal,
        "tax_paid": tax,
        "order_total": subtotal + tax,
    }
    ordered = [order_ids[position] for position in order]
    # The place of each item within its order, from 1: the items lie together by order.
    places = np.arange(len(order)) - np.searchsorted(order, order) + 1
    items = {
        "id": texts([f"{order_id}-{place}" for order_id, place in zip(ordered, places, strict=True)]),
        "order_id": texts(ordered),
        "sku": texts(_SKUS[product]),
    }
    return {
        "raw_orders": pa.RecordBatch.from_pydict(orders),
        "raw_items": pa.RecordBatch.from_pydict(items),
    }


def texts(values: Sequence[str] | npt.NDArray[np.object_]) -> pa.Array:
    """Return a column of text, which is one without rows, too."""
    return pa.array(values, pa.string())


def customer_ids(customers: Iterable[int]) -> list[str]:
    """Return the ids of customers, who are counted from 0 in the order in which they signed up."""
    return [f"CUS-{customer + 1:06d}" for customer in customers]


def customer_names(seed: int, count: int) -> list[str]:
    """Return the names of the first `count` customers; a larger count only adds names."""
    choices = _random(seed).random_sample((count, 2)) * (len(FIRST_NAMES), len(LAST_NAMES))
    return [f"{FIRST_NAMES[first]} {LAST_NAMES[last]}" for first, last in choices.astype(np.int64)]


def _random(seed: int, day: date | None = None) -> np.random.RandomState:
    # Only the old RandomState promises the same numbers in every version of numpy (NEP 19).
    spawn_key = (day.toordinal(),) if day else ()
    return np.random.RandomState(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=spawn_key)))


def _visits(random: np.random.RandomState, day: date) -> tuple[Ints, Ints]:
    """Draw the store (its place in STORES) and the second of the day (UTC) of each order, by time."""
    expected = [expected_orders(store, day) for store in STORES]
    luck = random.gamma(STEADINESS, 1 / STEADINESS, len(STORES))
    store = np.repeat(np.arange(len(STORES)), random.poisson(expected * luck))

    at_breakfast = random.random_sample(len(store)) < BREAKFAST_SHARE
    breakfast, lunch = random.beta(2, 6, len(store)), random.beta(6, 5, len(store))
    share_of_day = np.where(at_breakfast, breakfast, lunch)
    second = _OPENING_SECONDS[store] + (share_of_day * HOURS_OPEN * 3600).astype(np.int64)

    by_time = np.argsort(second, kind="stable")
    return store[by_time], second[by_time]


def _guests(random: np.random.RandomState, customers: int, orders: int) -> Ints:
    """Draw who places each order: a regular, or anybody, and then the likelier the later they signed up."""
    one_of_all = random.random_sample(orders)
    regular = (customers * one_of_all).astype(np.int64) // REGULARS_EVERY * REGULARS_EVERY
    recent = customers - 1 - (customers * one_of_all**3).astype(np.int64)
    return np.where(random.random_sample(orders) < REGULARS_SHARE, regular, recent)


def _baskets(random: np.random.RandomState, early: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Draw the order (its place in the day) and the product (its place in PRODUCTS) of each item."""
    sizes = random.choice(BASKET_SIZES, len(early), p=BASKET_SHARES)
    order = np.repeat(np.arange(len(early)), sizes)
    early_choice, late_choice = (
        random.choice(len(PRODUCTS), len(order), p=popularity / popularity.sum())
        for popularity in (_EARLY_POPULARITY, _POPULARITY)
    )
    return order, np.where(early[order], early_choice, late_choice)


def expected_orders(store: SampleStore, day: date) -> float:
    """Return the mean number of orders at `store` on `day`; 0 before it opens and on days it is closed."""
    if day < store.opened:
        return 0.0
    ramp = 1 - math.exp(-((day - store.opened).days + 1) / RAMP_DAYS)
    fame = FAME_BEFORE + FAME_GAINED / (1 + math.exp(-(day - TURNING_POINT).days / TURNING_DAYS))
    summer = 1 + SUMMER * math.cos(2 * math.pi * (day.timetuple().tm_yday - MIDSUMMER) / 365.25)
    season = WEEKDAYS[day.weekday()] * summer * _holiday_factor(day)
    return store.orders_a_day * ramp * fame * season


def _holiday_factor(day: date) -> float:
    if (day.month, day.day) in FIXED_HOLIDAYS:
        return FIXED_HOLIDAYS[day.month, day.day]
    if day.month == 12 and 18 <= day.day <= 23:
        return CHRISTMAS_SHOPPING
    return AROUND_THANKSGIVING.get((day - thanksgiving(day.year)).days, 1.0)


def customers_by(day: date) -> int:
    """Return how many people have signed up by the end of `day`: more every day as the shop becomes known."""
    if day < FOUNDED:
        return 0
    days = (day - FOUNDED).days
    # The integral of the fame in `expected_orders` up to `day`.
    since_turning = (day - TURNING_POINT).days / TURNING_DAYS
    fame_so_far = FAME_BEFORE * days + FAME_GAINED * TURNING_DAYS * float(np.logaddexp(0.0, since_turning))
    return FIRST_CUSTOMERS + int(SIGN_UPS_A_DAY * fame_so_far)


def thanksgiving(year: int) -> date:
    """Return the fourth Thursday of November."""
    first = date(year, 11, 1)
    return first + timedelta(days=(3 - first.weekday()) % 7 + 21)
