"""Everything about the sample shop that is left to chance: a day's orders, and what customers are called."""

from collections.abc import Iterable, Mapping
from datetime import date
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from serverless_assets.ingestion.sample_catalogue import (
    FIRST_NAMES,
    HOURS_OPEN,
    LAST_NAMES,
    PRODUCTS,
    SCHEMAS,
    STORES,
)
from serverless_assets.ingestion.sample_demand import customers_by, expected_orders

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
    """The `raw_orders` and `raw_items` of one day in order of time, drawn from the seed and the day alone."""
    random = _random(seed, day)
    store, second = _visits(random, day)
    customer = _guests(random, customers_by(day), len(store))
    order, product = _baskets(random, second - _OPENING_SECONDS[store] < EARLY_SECONDS)

    subtotal = np.bincount(order, weights=_PRICES[product], minlength=len(store)).astype(np.int64)
    tax = np.rint(subtotal * _TAX_RATES[store]).astype(np.int64)
    order_ids = [f"{day:%Y%m%d}-{number:04d}" for number in range(1, len(store) + 1)]
    orders = {
        "id": order_ids,
        "customer": customer_ids(customer),
        "ordered_at": np.datetime64(day, "us") + second * np.timedelta64(1, "s"),
        "store_id": _STORE_IDS[store],
        "subtotal": subtotal,
        "tax_paid": tax,
        "order_total": subtotal + tax,
    }
    ordered = [order_ids[place] for place in order]
    items = {
        "id": [f"{order_id}-{place}" for order_id, place in zip(ordered, _places(order), strict=True)],
        "order_id": ordered,
        "sku": _SKUS[product],
    }
    return {
        "raw_orders": pa.RecordBatch.from_pydict(orders, SCHEMAS["raw_orders"]),
        "raw_items": pa.RecordBatch.from_pydict(items, SCHEMAS["raw_items"]),
    }


def customer_ids(customers: Iterable[int]) -> list[str]:
    """The ids of customers, who are counted from 0 in the order in which they signed up."""
    return [f"CUS-{customer + 1:06d}" for customer in customers]


def customer_names(seed: int, count: int) -> list[str]:
    """What the first `count` customers are called; drawn one after the other, so that more add to fewer."""
    choices = _random(seed).random_sample((count, 2)) * (len(FIRST_NAMES), len(LAST_NAMES))
    return [f"{FIRST_NAMES[first]} {LAST_NAMES[last]}" for first, last in choices.astype(np.int64)]


def _random(seed: int, day: date | None = None) -> np.random.RandomState:
    # Only the old RandomState promises the same numbers in every version of numpy (NEP 19).
    spawn_key = (day.toordinal(),) if day else ()
    return np.random.RandomState(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=spawn_key)))


def _visits(random: np.random.RandomState, day: date) -> tuple[Ints, Ints]:
    """The store (its place in STORES) and the second of the day (UTC) of each order, in order of time."""
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
    """Who places each order: a regular, or anybody, and then the likelier the later they signed up."""
    one_of_all = random.random_sample(orders)
    regular = (customers * one_of_all).astype(np.int64) // REGULARS_EVERY * REGULARS_EVERY
    recent = customers - 1 - (customers * one_of_all**3).astype(np.int64)
    return np.where(random.random_sample(orders) < REGULARS_SHARE, regular, recent)


def _baskets(random: np.random.RandomState, early: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """The order (its place in the day) and the product (its place in PRODUCTS) of each item."""
    sizes = random.choice(BASKET_SIZES, len(early), p=BASKET_SHARES)
    order = np.repeat(np.arange(len(early)), sizes)
    early_choice, late_choice = (
        random.choice(len(PRODUCTS), len(order), p=popularity / popularity.sum())
        for popularity in (_EARLY_POPULARITY, _POPULARITY)
    )
    return order, np.where(early[order], early_choice, late_choice)


def _places(order: Ints) -> Ints:
    """The place of each item within its order, from 1, for items that lie together by order."""
    return np.arange(len(order)) - np.searchsorted(order, order) + 1
