"""Daily series to measure forecasts on: made up, of the sample shop, and real ones from a folder."""

import csv
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

# How a made-up series of so many days is made: its seed, days, and what is odd about it.
MADE_UP = {
    "plain": (1, 1400, ""),
    "steep trend": (2, 1100, "trend"),
    "level shift": (3, 1300, "shift"),
    "closed Sundays": (4, 1000, "closed"),
    "few sales a day": (5, 900, "counts"),
    "gaps and outliers": (6, 1100, "dirty"),
    "additive, also negative": (7, 1300, "additive"),
    "random walk": (8, 1000, "walk"),
    "a year and a half": (9, 550, ""),
    "ten months": (10, 300, ""),
}


@dataclass(frozen=True)
class Series:
    """days: datetime64[D], sorted; values: NaN where missing; country: of its holidays, or None."""

    name: str
    days: np.ndarray
    values: np.ndarray
    country: str | None


def made_up() -> list[Series]:
    return [_made_up(name, *how) for name, how in MADE_UP.items()]


def _made_up(name: str, seed: int, length: int, odd: str) -> Series:
    """1,000 a day times trend, level, week, year, US holidays and noise.

    The level is a random walk, the noise t-distributed with autocorrelation 0.5. `odd` changes one thing.
    """
    import holidays

    random = np.random.default_rng(seed)
    days = np.datetime64("2021-03-01") + np.arange(length)
    step, weekday = np.arange(length), (days.astype(int) + 3) % 7
    week = np.exp(random.normal(0, 0.25, 7))
    phase = 2 * np.pi * (step / 365.25 + random.random())
    year = random.uniform(0.1, 0.4) * np.sin(phase) + random.uniform(0, 0.15) * np.sin(2 * phase)
    slope = 0.5 if odd == "trend" else random.normal(0.05, 0.1)
    level = np.cumsum(random.normal(0, 0.003, length)) + slope * step / 365.25
    noise = np.zeros(length)
    for today in range(1, length):
        noise[today] = 0.5 * noise[today - 1] + 0.08 * random.standard_t(5)
    known = holidays.country_holidays("US", years=range(2021, 2027))
    effect = random.uniform(-0.6, 0.6)
    holiday = np.array([effect if day.item() in known else 0.0 for day in days])
    if odd == "shift":
        level[length * 3 // 5 :] -= 0.5
    values = 1000 * np.exp(level + year + holiday + noise) * week[weekday]
    if odd == "closed":
        values[weekday == 6] = 0.0
    if odd == "counts":
        values = random.poisson(values / 1000).astype(float)
    if odd == "dirty":
        values[random.random(length) < 0.01] *= 6
        values[random.random(length) < 0.1] = np.nan
        values[200:230] = np.nan
    if odd == "additive":
        values = 500 * (level + year + holiday + noise) + 300 * week[weekday] - 200
    if odd == "walk":
        values = 1000 + np.cumsum(random.normal(0, 10, length))
    return Series(name, days, values, "US")


def sample_shop() -> Series | None:
    """The revenue a day of the shop that the project comes with; None without its package."""
    try:
        from serverless_assets.sample_shop.shop import SampleShop
    except ImportError:
        return None
    orders = SampleShop(end=date(2026, 10, 31)).table("raw_orders")
    ordered = orders["ordered_at"].to_numpy().astype("datetime64[D]")
    days = np.arange(ordered.min(), ordered.max() + 1)
    cents = orders["order_total"].to_numpy().astype(float)
    return Series(
        "sample shop", days, np.bincount((ordered - days[0]).astype(int), weights=cents) / 100, "US"
    )


def real(folder: Path) -> list[Series]:
    """Every CSV file with the columns ds and y. "name__DE.csv" is forecast with Germany's holidays."""
    found = []
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        days = np.array([row["ds"][:10] for row in rows], dtype="datetime64[D]")
        values = np.array([float(row["y"]) if row["y"] else np.nan for row in rows])
        name, _, country = path.stem.partition("__")
        found.append(Series(name, days, values, country.upper() if len(country) == 2 else None))
    return found
