"""A report on the sample shop, with every section filled: for pictures, and for tests on realistic input.

Its model is a plain one that needs no fit: the level of the last eight weeks by weekday, a growth that dies
away, and a thinner Thanksgiving and Christmas.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from modal_forecast.calendars import MONTHS, WEEKDAYS
from modal_forecast.report.report_input import ReportInput
from serverless_assets.sample_shop.shop import SampleShop

END = date(2026, 11, 24)
HORIZON = 180
CLOSED = {(11, 26): "Thanksgiving Day", (12, 25): "Christmas Day"}
SLOW = {(1, 1): ("New Year's Day", 0.6), (7, 4): ("Independence Day", 0.8)}
WEEKS = 8
Z = {"80": 1.2816, "95": 1.96}


@cache
def revenue(end: date = END) -> tuple[date, Mapping[str, np.ndarray]]:
    """The first day, and the revenue of each store on each day up to `end`, NaN before it opened."""
    shop = SampleShop(end=end)
    orders = shop.table("raw_orders")
    count = (end - shop.start).days + 1
    index = (orders["ordered_at"].to_numpy().astype("datetime64[D]") - np.datetime64(shop.start)).astype(int)
    stores, amounts = (
        orders["store_id"].to_numpy(zero_copy_only=False),
        orders["order_total"].to_numpy() / 100,
    )
    names = {store["id"]: store["name"] for store in shop.table("raw_stores").to_pylist()}
    by_store = {}
    for store, name in names.items():
        mine = stores == store
        values = np.bincount(index[mine], amounts[mine], count)
        values[: np.flatnonzero(values)[0]] = np.nan
        by_store[name] = values
    return shop.start, by_store


def predict(values: np.ndarray, first: date, horizon: int) -> dict[str, np.ndarray]:
    """yhat and bounds of the days from `first` on, which follow `values`; all known values count."""
    recent = values[-7 * WEEKS :]
    weekly = np.array([np.nanmedian(recent[weekday::7]) for weekday in range(7)])
    ahead = np.arange(horizon)
    yhat = weekly[ahead % 7] * (1 + 0.12 * (1 - np.exp(-ahead / 120)))
    yhat *= [_holiday(first + timedelta(days=int(day))) for day in ahead]
    spread = np.nanstd(recent - np.tile(weekly, WEEKS)[: len(recent)]) * (1 + ahead / 200)
    bounds = {
        f"yhat_{side}_{level}": np.maximum(yhat + sign * z * spread, 0)
        for level, z in Z.items()
        for side, sign in (("lower", -1), ("upper", 1))
    }
    return {"yhat": yhat, **bounds}


def _holiday(day: date) -> float:
    return 0.0 if (day.month, day.day) in CLOSED else SLOW.get((day.month, day.day), ("", 1.0))[1]


def days(first: date, count: int) -> list[date]:
    return [first + timedelta(days=index) for index in range(count)]


def table(first: date, columns: Mapping[str, np.ndarray]) -> pa.Table:
    count = len(next(iter(columns.values())))
    arrays = {name: pa.array(values, pa.float64(), from_pandas=True) for name, values in columns.items()}
    return pa.table({"ds": pa.array(days(first, count), pa.date32()), **arrays})


def demo(**changes: Any) -> ReportInput:
    """The report on the sample shop's revenue as of END."""
    start, by_store = revenue()
    tomorrow = END + timedelta(days=1)
    values = np.nansum([*by_store.values()], axis=0)
    values[start.toordinal() % 7 + 40] = np.nan
    forecasts = {name: predict(store, tomorrow, HORIZON) for name, store in by_store.items()}
    total = predict(values, tomorrow, HORIZON)
    shift = sum(store["yhat"] for store in forecasts.values()) - total["yhat"]
    total = {name: np.maximum(column + shift, 0) for name, column in total.items()}
    options: dict[str, Any] = {
        "history": table(start, {"y": values}),
        "forecast": table(tomorrow, total),
        "title": "Daily order revenue",
        "made_on": END,
        "unit": "USD",
        "facts": FACTS,
        "diagnostics": {**backtest(values, start), "components": components(values, start), "country": "US"},
        "part_noun": "store",
        "parts": [
            {
                "name": name,
                "history": _trimmed(start, by_store[name]),
                "forecast": table(tomorrow, forecasts[name]),
                "widths": {"7": 0.5, "30": 0.3, "90": 0.25},
            }
            for name in by_store
        ],
        "track_record": track_record(values, start),
        "notes": [
            "Stores opened less than two years ago lack a yearly pattern of their own: the total's was used.",
            "The lower bounds of 2 of 180 days were raised to zero: revenue is never below it.",
        ],
    }
    return ReportInput(**(options | changes))


FACTS = {
    "Data as of": "2026-11-24",
    "Model": "Blend of harmonic and Prophet",
    "Holidays": "US",
    "Compute": "laptop",
    "Cpu in cores": "0.25",
    "Memory in MiB": "256",
    "Seconds": "4.2",
    "Run": "6d2c0f3a",
}


def score(actual: np.ndarray, predicted: Mapping[str, np.ndarray]) -> dict[str, float]:
    yhat = predicted["yhat"]
    inside = {
        f"coverage_{level}": float(
            np.mean(
                (actual >= predicted[f"yhat_lower_{level}"]) & (actual <= predicted[f"yhat_upper_{level}"])
            )
        )
        for level in Z
    }
    errors, came = np.abs(actual - yhat), np.nansum(actual)
    bias = float(np.nansum(yhat - actual) / came)
    return {
        "wape": float(np.nansum(errors) / came),
        "bias": bias,
        "mase": float(np.nanmean(errors) / 420),
        **inside,
    }


def backtest(values: np.ndarray, start: date, horizon: int = 28, origins: int = 6) -> dict[str, Any]:
    actual, predicted, naive = [], [], []
    for origin in range(len(values) - origins * horizon, len(values), horizon):
        actual.append(values[origin : origin + horizon])
        predicted.append(predict(values[:origin], start + timedelta(days=origin), horizon))
        naive.append({name: np.resize(values[origin - 7 : origin], horizon) for name in predicted[-1]})
    joined = [{name: np.concatenate([p[name] for p in ps]) for name in ps[0]} for ps in (predicted, naive)]
    ours, theirs = (score(np.concatenate(actual), one) for one in joined)
    last = _compared(start + timedelta(days=len(values) - horizon), actual[-1], predicted[-1])
    return {
        "backtest": {"origins": origins, "horizon": horizon, **ours},
        "best_naive": "seasonal_naive_7",
        "skill": 1 - ours["wape"] / theirs["wape"],
        "beats_naive": ours["wape"] < theirs["wape"],
        "candidates": {
            "prophet": {"mase": 0.81, "weight": 0.35},
            "linear_bending": {"mase": 0.74, "weight": 0.65},
            "seasonal_naive_7": {"mase": theirs["mase"], "wape": theirs["wape"], "weight": 0.0},
        },
        "last_origin": {
            "first_ds": last["ds"][0],
            "actual": last["actual"],
            "forecast": last["yhat"],
            "lower_80": last["lower_80"],
            "upper_80": last["upper_80"],
        },
    }


def _compared(first: date, actual: np.ndarray, predicted: Mapping[str, np.ndarray]) -> dict[str, Any]:
    names = {"yhat": "yhat", "lower_80": "yhat_lower_80", "upper_80": "yhat_upper_80"}
    return {
        "ds": [day.isoformat() for day in days(first, len(actual))],
        "actual": [None if np.isnan(value) else float(value) for value in actual],
        **{name: predicted[column].tolist() for name, column in names.items()},
    }


def track_record(values: np.ndarray, start: date) -> dict[str, Any]:
    vintages: list[dict[str, Any]] = []
    for weeks in (26, 22, 18, 14, 10, 5, 1):
        origin = len(values) - 7 * weeks
        predicted = predict(values[:origin], start + timedelta(days=origin), 7 * weeks)
        made_on = (start + timedelta(days=origin)).isoformat()
        vintages.append({"made_on": made_on, "periods": 7 * weeks, **score(values[origin:], predicted)})
        if weeks == 5:
            one = _compared(start + timedelta(days=origin), values[origin:], predicted)
            compared = {"made_on": made_on, **one}
    return {"vintages": vintages, "compared": compared}


def components(values: np.ndarray, start: date) -> dict[str, Any]:
    all_days = days(start, len(values))
    by_month: dict[date, list[float]] = {}
    for day, value in zip(all_days, values, strict=True):
        by_month.setdefault(day.replace(day=1), []).append(float(value))
    recent = values[-7 * 26 :]
    weekday = np.array([day.weekday() for day in all_days[-7 * 26 :]])
    weekly = [float(np.nanmean(recent[weekday == day]) - np.nanmean(recent)) for day in range(7)]
    angle = np.arange(12) / 12 * 2 * np.pi
    yearly = (-180 * np.cos(angle) + 120 * np.sin(2 * angle)).tolist()
    level = float(np.nanmean(recent))
    slow = {name: share for name, share in SLOW.values()}
    effects = {**{name: -level for name in CLOSED.values()}, **{n: level * (s - 1) for n, s in slow.items()}}
    return {
        "scale": "difference",
        "weekly": [*map(list, zip(WEEKDAYS, weekly, strict=True))],
        "yearly": [*map(list, zip(MONTHS, yearly, strict=True))],
        "trend": [[month.isoformat(), float(np.nanmedian(by_month[month]))] for month in by_month],
        "holidays": [{"holiday": name, "day": effect} for name, effect in effects.items()],
    }


def _trimmed(start: date, values: np.ndarray) -> pa.Table:
    """From the day that the store opened."""
    opened = int(np.flatnonzero(~np.isnan(values))[0])
    return table(start + timedelta(days=opened), {"y": values[opened:]})
