"""Every number on the page that a run publishes, against the warehouse and the record that it publishes."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest

from serverless_assets.forecasting.record import read_details
from tests.conftest import Pipeline
from tests.forecasting.report_page import ReportPage

WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
BOUNDED = ("yhat", "yhat_lower_80", "yhat_upper_80")
YEAR = timedelta(weeks=52)


@dataclass(frozen=True)
class Published:
    """The page, the revenue and the forecast of each day in the warehouse, and the stored details."""

    page: ReportPage
    came: Mapping[date, float]
    made: Mapping[date, Mapping[str, float]]
    details: Mapping[str, Any]
    store_widths: Mapping[str, Mapping[str, float]]

    @property
    def first(self) -> date:
        return min(self.made)

    def sums(self, days: Sequence[date]) -> list[float]:
        """What is expected of these days in all, with what came of them so far, and its 80% bounds."""
        ahead = [day for day in days if day in self.made]
        yhat, lower, upper = (sum(self.made[day][column] for day in ahead) for column in BOUNDED)
        width = width_of(
            len(ahead), {n: sums["width"] for n, sums in self.details["backtest"]["sums"].items()}
        )
        so_far = sum(self.came.get(day, 0) for day in days if day < self.first)
        return [so_far + yhat, so_far + yhat - width * (yhat - lower), so_far + yhat + width * (upper - yhat)]

    def sentence(self, beginning: str) -> str:
        [sentence] = [sentence for sentence in self.page.sentences if sentence.startswith(beginning)]
        return sentence


def width_of(count: int, widths: Mapping[str, float]) -> float:
    """Of the bounds of a sum of so many days, as a share of their sum."""
    measured = [(1, 1.0), *sorted((int(days), width) for days, width in widths.items())]
    return float(np.interp(count, *zip(*measured, strict=True)))


@pytest.fixture(scope="module")
def published(green: Pipeline) -> Published:
    # No row: all stores were closed.
    revenue = "select ds, sum(revenue_usd)::double as y from dwh.daily_revenue group by 1 order by 1"
    rows = green.published("select * from dwh.order_forecast order by ds").to_pylist()
    with green.warehouse.connected():
        details = read_details(green.artifacts, green.warehouse.read_state("order_forecast"))
        store_widths = green.warehouse.read_state("store_forecast")["sum_widths"]
    return Published(
        ReportPage((green.home / "artifacts" / "forecast.html").read_text()),
        {row["ds"]: row["y"] for row in green.published(revenue).to_pylist()},
        {row["ds"]: row for row in rows},
        details,
        store_widths,
    )


def shows(text: str, *expected: float) -> bool:
    """Whether a text has exactly these numbers, each rounded to the digits that it has there."""
    found = re.findall(r"([+-]?)\$?(\d[\d,]*(?:\.(\d+))?)(%?)", text)
    assert len(found) == len(expected), (text, expected)
    for (sign, digits, decimals, percent), number in zip(found, expected, strict=True):
        scale = 100 if percent else 1
        shown = float(digits.replace(",", "")) * (-1 if sign == "-" else 1) / scale
        assert shown == pytest.approx(number, abs=0.5001 * 10 ** -len(decimals) / scale), (text, expected)
    return True


def named(day: date) -> str:
    return f"{day:%a} {day.day} {day:%b %Y}"


def days_from(first: date, count: int) -> list[date]:
    return [first + timedelta(days=n) for n in range(count)]


def test_every_table_and_card_is_checked_by_a_test_of_this_file(published):
    assert [*published.page.tables] == [
        "By week",
        "By month",
        "The last back-test, day by day",
        "A usual day, by month",
        "Effect of the weekday",
        "Effect of the time of year",
        "Holidays ahead",
        "Stores",
        "What does each store need for the next 30 days?",
        "Methods that were tried",
        "Forecast day by day, in USD",
    ]
    made_by = [*published.page.cards].index("Data as of")
    assert [
        re.sub(r" (to )?\w{3} \d+ \w{3} \d{4}$", "", label) for label in [*published.page.cards][:made_by]
    ] == [
        # The tests' data is old by now, and the report says so.
        *(f"{days} days from Sun 1 Nov 2026" for days in (7, 30, 90)),
        "Last actual day",
        *(f"Days inside the {level}% bounds" for level in (80, 95)),
        "Typical error of a day",
        "Error of a naive forecast",
    ]


def test_headline_and_cards_are_sums_of_the_forecast_beside_those_of_last_year(published):
    for days in (7, 30, 90):
        window = days_from(published.first, days)
        total, lower, upper = published.sums(window)
        before = sum(published.came.get(day - YEAR, 0) for day in window)
        value, between, last_year = published.page.card(
            f"{days} days from Sun 1 Nov 2026 to {named(window[-1])}"
        )
        assert shows(value, total) and shows(between, lower, upper)
        assert shows(last_year, total / before - 1, before)
        if days == 30:
            answer = published.sentence("The forecast is about").replace("Sun 1 Nov 2026", "")
            bias = abs(published.details["backtest"]["bias"])
            tests = published.details["backtest"]["origins"]
            assert shows(answer, total, 30, lower, upper, abs(total / before - 1), tests, bias)
    last = max(published.came)
    assert shows(published.page.card(f"Last actual day {named(last)}")[0], published.came[last])


def test_weeks_and_months_are_sums_of_their_days_beside_those_of_last_year(published):
    first, last = published.first, max(published.made)
    monday = first - timedelta(days=first.weekday())
    weeks = [days_from(monday + timedelta(weeks=n), 7) for n in range(8)]
    months = [
        days
        for start in (date(first.year + n // 12, n % 12 + 1, 1) for n in range(first.month - 1, 24))
        if (days := [day for day in days_from(start, 31) if day.month == start.month])[-1] <= last
    ]
    day, *views = json.loads(published.page.data)["views"]
    assert [view["grain"] for view in (day, *views)] == ["day", "week", "month"]
    for caption, periods, view in zip(("By week", "By month"), (weeks, months), views, strict=True):
        drawn = {layer["key"]: layer for layer in view["layers"]}
        ahead = [*drawn["forecast"]["bounds"], *drawn["interval80"]["bounds"]]
        for values, sums in zip(ahead, zip(*map(published.sums, periods), strict=True), strict=True):
            assert values[: len(periods)] == pytest.approx(list(sums), abs=0.51)
        a_day_before = periods[0][0] - timedelta(days=1)
        past = days_from(a_day_before - timedelta(days=6), 7)
        if caption == "By month":
            past = days_from(a_day_before.replace(day=1), a_day_before.day)
        assert drawn["actual"]["bounds"][0][-1] == pytest.approx(
            sum(published.came.get(day, 0) for day in past), abs=0.51
        )
        # What has begun is not drawn twice.
        assert view["forecastStart"] == len(drawn["actual"]["bounds"][0]) == drawn["forecast"]["from"]
        rows = published.page.tables[caption]
        assert len(rows) == len(periods)
        for (label, *cells), days in zip(rows, periods, strict=True):
            month = f" {days[0]:%b}" if days[0].month != days[-1].month else ""
            ends = f"{days[0].day}{month} to {days[-1].day} {days[-1]:%b %Y}"
            so_far = sum(day < first for day in days)
            past = f", {so_far} of {len(days)} days past" if so_far else ""
            assert label == (ends if caption == "By week" else f"{days[0]:%B %Y}") + past
            total, *bounds = published.sums(days)
            a_year_ago = [
                day - YEAR if caption == "By week" else day.replace(year=day.year - 1) for day in days
            ]
            before = sum(published.came.get(day, 0) for day in a_year_ago)
            assert shows(cells[0], total, *bounds) and shows(cells[1], total / before - 1)


def test_effects_are_those_stored_with_the_forecast_and_of_the_days_in_the_warehouse(published):
    tables, components = published.page.tables, published.details["components"]
    assert [row[0] for row in tables["Effect of the weekday"]] == WEEKDAYS
    trend = {date.fromisoformat(month): level for month, level in components["trend"]}
    level = trend[published.first.replace(day=1)]
    assert components["scale"] == "factor"
    for caption, part, group in (
        ("Effect of the weekday", "weekly", lambda day: f"{day:%A}"),
        ("Effect of the time of year", "yearly", lambda day: f"{day:%B}"),
    ):
        rows, stored = tables[caption], dict(components[part])
        assert [row[0] for row in rows] == [*stored]
        # What a day brought, as a share of a usual day of its month.
        shares: dict[str, list[float]] = {label: [] for label in stored}
        for day, value in published.came.items():
            shares[group(day)].append(value / trend[day.replace(day=1)])
        means = {label: np.mean(values) for label, values in shares.items()}
        for label, effect in rows:
            assert shows(effect, (stored[label] - 1) * level)
            assert stored[label] == pytest.approx(means[label], abs=0.06), label
        best, weakest = max(stored, key=stored.__getitem__), min(stored, key=stored.__getitem__)
        sentence = published.sentence(f"{best} is the best")
        assert f"{weakest} the weakest" in sentence
        assert shows(sentence, (stored[best] - 1) * level, (stored[weakest] - 1) * level)

    rows = tables["A usual day, by month"]
    assert [row[0] for row in rows] == [f"{month:%b %Y}" for month in trend]
    assert all(shows(row[1], value) for row, value in zip(rows, trend.values(), strict=True))
    before = trend[published.first.replace(day=1, year=published.first.year - 1)]
    assert shows(published.sentence("Rising by about"), (level - before) / 12, level, level / before - 1)


def test_holidays_are_days_of_the_forecast_with_their_stored_effect(published):
    components = published.details["components"]
    stored = {holiday["holiday"]: holiday["day"] for holiday in components["holidays"]}
    trend = {month: level for month, level in components["trend"]}
    days = {named(day): day for day in published.made}
    rows = published.page.tables["Holidays ahead"]
    assert {"Thanksgiving Day", "Christmas Day"} <= {row[0] for row in rows}
    supported = {holiday["holiday"] for holiday in components["holidays"] if holiday["supported"]}
    is_closed = {name for name, day, *_ in rows if published.made[days[day]]["yhat"] == 0}
    assert {row[0] for row in rows} <= supported | is_closed
    for name, day, effect, _ in rows:
        is_closed = published.made[days[day]]["yhat"] == 0
        level = trend[days[day].replace(day=1).isoformat()]
        assert shows(effect, -level if is_closed else (stored[name] - 1) * level)


def test_days_and_chart_are_the_rows_of_the_warehouse(published):
    columns = [f"yhat{bound}" for bound in ("", "_lower_80", "_upper_80", "_lower_95", "_upper_95")]
    rows = published.page.tables["Forecast day by day, in USD"]
    for (day, *cells), (ds, made) in zip(rows, published.made.items(), strict=True):
        assert day == ds.isoformat()
        assert all(shows(cell, made[column]) for cell, column in zip(cells, columns, strict=True))
    chart = json.loads(published.page.data)["views"][0]
    layers = {layer["key"]: layer["bounds"] for layer in chart["layers"]}
    past = days_from(min(published.came), chart["forecastStart"])
    assert date.fromisoformat(chart["start"]) == past[0] and past[-1] == max(published.came)
    assert layers["actual"][0] == pytest.approx([published.came.get(day, 0.0) for day in past], abs=0.006)
    drawn = [*layers["forecast"], *layers["interval80"], *layers["interval95"]]
    for column, values in zip(columns, drawn, strict=True):
        assert values == pytest.approx([made[column] for made in published.made.values()], abs=0.006)


def test_accuracy_is_that_of_the_back_test_on_days_of_the_warehouse(published):
    page, details, tested = published.page, published.details, published.details["backtest"]
    origin = details["last_origin"]
    rows = page.tables["The last back-test, day by day"]
    days = days_from(date.fromisoformat(origin["first_ds"]), len(rows))
    assert [row[0] for row in rows] == [named(day) for day in days]
    came = [published.came.get(day, 0.0) for day in days]
    forecast, lower, upper = (origin[name] for name in ("forecast", "lower_80", "upper_80"))
    for row, *expected in zip(rows, came, forecast, lower, upper, strict=True):
        assert all(shows(cell, number) for cell, number in zip(row[1:], expected, strict=True))
    inside = sum(low <= value <= high for value, low, high in zip(came, lower, upper, strict=True))
    summary = published.sentence(f"Over {len(days)} days, ")
    assert shows(summary, len(days), sum(came), sum(forecast), inside, len(days), 0.80)

    naive = details["candidates"]["seasonal_naive_7"]
    for level in (80, 95):
        assert shows(page.card(f"Days inside the {level}% bounds")[0], tested[f"coverage_{level}"])
    assert shows(page.card("Typical error of a day")[0], tested["wape"])
    assert shows(page.card("Typical error of a day")[1], abs(tested["bias"]))
    assert shows(page.card("Error of a naive forecast")[0], naive["wape"])
    month, skill = tested["sums"]["30"]["error"], 1 - tested["mase"] / naive["mase"]
    assert shows(
        published.sentence("Over all 6 back-tests, the forecast was"),
        tested["origins"], abs(tested["bias"]), tested["wape"], month, 30, skill,
        tested["origins"], tested["horizon"],
    )  # fmt: skip
    together, *methods = page.tables["Methods that were tried"]
    assert shows(together[1], 1) and shows(together[2], tested["mase"] / naive["mase"])
    scores = sorted(details["candidates"].values(), key=lambda one: (-one["weight"], one["mase"]))
    for (_, share, error), one in zip(sorted(methods, key=by_share), scores, strict=True):
        assert shows(share, one["weight"]) and shows(error, one["mase"] / naive["mase"])


def by_share(row: Sequence[str]) -> tuple[float, float]:
    return -float(row[1].rstrip("%")), float(row[2])


def test_stores_are_those_of_the_warehouse_and_add_up_to_the_total(published, green):
    ahead = days_from(published.first, 30)
    before = [day - YEAR for day in ahead]
    past = [day - timedelta(30) for day in ahead]
    made = green.published("select * from dwh.store_forecast").to_pylist()
    came: dict[str, dict[date, float]] = {}
    for row in green.published("select * from dwh.daily_revenue").to_pylist():
        came.setdefault(row["location_name"], {})[row["ds"]] = float(row["revenue_usd"])
    *stores, total = published.page.tables["Stores"]
    assert {store[0] for store in stores} == set(came)
    assert any("30" in widths for widths in published.store_widths.values())
    for name, last, expected, change, _ in stores:
        window = [row for row in made if row["location_name"] == name and row["ds"] in ahead]
        yhat, *bounds = (sum(row[column] for row in window) for column in BOUNDED)
        width = width_of(30, published.store_widths[window[0]["location_id"]])
        sums = [yhat, *(yhat + width * (bound - yhat) for bound in bounds)]
        assert shows(last, sum(came[name].get(day, 0) for day in past)) and shows(expected, *sums)
        is_new = min(came[name]) > before[0]
        a_year_ago = sum(came[name].get(day, 0) for day in before)
        assert change == "opened since" if is_new else shows(change, sums[0] / a_year_ago - 1)
    name, last, expected, change, _ = total
    sums = published.sums(ahead)
    assert name == "All stores" and shows(last, sum(published.came.get(day, 0) for day in past))
    assert shows(expected, *sums) and shows(
        change, sums[0] / sum(published.came.get(day, 0) for day in before) - 1
    )
    assert shows(published.sentence("The 6 stores add up"), 6, sums[0], 30)


def test_what_each_store_needs_is_the_table_of_the_plan(published, green):
    rows = published.page.tables["What does each store need for the next 30 days?"]
    needed = green.published(
        "select supply_name, list(quantity::double order by location_name) from"
        " (select supply_name, location_name, sum(quantity) as quantity from dwh.supply_plan group by all)"
        " group by 1 order by 1"
    )
    expected = [[name, *quantities] for name, quantities in zip(*needed.to_pydict().values(), strict=True)]
    assert [[name, *(float(cell.replace(",", "")) for cell in cells)] for name, *cells in rows] == expected


def test_what_the_forecast_rests_on_are_the_days_of_the_warehouse(published, green):
    first, last, count = min(published.came), max(published.came), len(published.made)
    days = (last - first).days + 1
    closed = [day for day in days_from(first, days) if not published.came.get(day)]
    span = f"from {named(first)} to {named(last)}."
    assert f"{days} days of history, {span}" in published.page.sentences
    ahead = (
        f"Forecast of {count} days from {named(published.first)} to {named(max(published.made))}, made on "
    )
    assert published.sentence(ahead).endswith(f" from daily history {span}")
    listed = ", ".join(f"{day.day} {day:%b %Y}" for day in closed)
    assert f"{len(closed)} days are zero (closed, it seems): {listed}." in published.page.sentences
    facts, cards = green.facts("order_forecast"), published.page.cards
    assert [cards[label] for label in ("Data as of", "Run")] == [[last.isoformat()], [facts["run_id"]]]
    assert shows(cards["Days of history"][0], days) and shows(cards["Horizon in days"][0], count)
    assert shows(cards["Cpu in cores"][0], facts["cpu"]) and shows(cards["Seconds"][0], facts["seconds"])
    assert shows(cards["Peak memory in MiB"][0], facts["peak_memory_mib"])
    assert shows(cards["Days clipped at zero"][0], sum(row["yhat"] == 0 for row in published.made.values()))
