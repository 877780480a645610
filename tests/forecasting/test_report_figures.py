"""Every figure of the report against one computed from the history and the forecast, after both went the way
that they go in production: through the worker process, its messages, and the record in the store."""

import json
import random
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.messages import ForecastAnswer, ForecastRequest
from modal_forecast.report.page import render
from serverless_assets.forecasting.forecast_file import forecast_rows
from serverless_assets.forecasting.record import Record, record_facts
from serverless_assets.forecasting.report import report_input
from serverless_assets.forecasting.reuse import ForecastFingerprint
from serverless_assets.forecasting.run_forecast import details_in
from serverless_assets.run_inputs import CustomisedStyle
from tests.conftest import SHOP, Pipeline
from tests.forecasting.report_page import ReportPage, number

WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [f"{date(2024, month, 1):%B}" for month in range(1, 13)]
# Neither in alphabetical order nor in that of the calendar, and no two alike.
WEEK = np.array([0.70, 0.95, 0.85, 1.00, 1.15, 1.45, 0.90])
YEAR = np.array([0.80, 0.85, 0.95, 1.00, 1.10, 1.20, 1.25, 1.15, 1.05, 0.92, 0.88, 0.99])
LEVEL, CHRISTMAS = 400.0, 0.4
LAST_DAY = date(2026, 10, 31)


def history() -> pa.Table:
    """Three years around one level, times a factor of the weekday, of the month, and of Christmas."""
    days = np.arange(np.datetime64(LAST_DAY) - 3 * 365, np.datetime64(LAST_DAY) + 1)
    weekday = (days.astype(int) + 3) % 7
    month = days.astype("datetime64[M]").astype(int) % 12
    christmas = np.isin(days, np.array(["2023-12-25", "2024-12-25", "2025-12-25"], "datetime64[D]"))
    noise = np.exp(np.random.default_rng(5).normal(0, 0.05, len(days)))
    values = LEVEL * WEEK[weekday] * YEAR[month] * np.where(christmas, CHRISTMAS, 1.0) * noise
    return pa.table({"ds": days, "y": values})


def forecast_by_a_worker(asked: ForecastRequest) -> Record:
    """The record of a forecast, made by the worker process and read back from its bytes."""
    worker = subprocess.run(
        [sys.executable, "-m", "modal_forecast.worker"], input=asked.to_bytes(), capture_output=True
    )
    assert worker.returncode == 0, worker.stderr
    answer, made_at = ForecastAnswer.from_bytes(worker.stdout), datetime(2026, 11, 1, 6, tzinfo=UTC)
    rows = forecast_rows(answer, "run", made_at)
    plain = {name: value for name, value in answer.diagnostics.items() if not isinstance(value, dict | list)}
    size = {"cpu": 0.25, "memory_mib": 256, "compute": "a process", "run_id": "run"}
    facts = {
        **plain,
        **size,
        "data_as_of": LAST_DAY.isoformat(),
        **ForecastFingerprint.of(asked, "code").as_facts(),
    }
    record = Record(
        rows, {**facts, **record_facts(rows, made_at)}, asked.to_bytes(), details_in(answer.diagnostics)
    )
    return Record.from_bytes(record.to_bytes())


@pytest.fixture(scope="module")
def record() -> Record:
    return forecast_by_a_worker(ForecastRequest(history(), 180, "US"))


def page_of(record: Record, facts: Any = None, details: Any = None) -> ReportPage:
    style = CustomisedStyle()
    return ReportPage(
        render(
            report_input(
                SHOP, history(), record.rows, facts or record.facts, style, details or record.details
            )
        )
    )


@pytest.fixture(scope="module")
def page(record: Record) -> ReportPage:
    return page_of(record)


def by_group(group: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The means of the groups 0, 1, 2, ... less the mean of these means."""
    means = np.array([values[group == number].mean() for number in np.unique(group)])
    return means - means.mean()


def test_weekdays_of_the_report_are_those_of_the_history(page):
    days, values = (history()[name].to_numpy() for name in ("ds", "y"))
    expected = by_group((days.astype(int) + 3) % 7, values)
    rows = page.tables["Effect of the weekday"]
    assert [row[0] for row in rows] == WEEKDAYS
    effects = np.array([number(row[1]) for row in rows])
    assert list(np.argsort(effects)) == list(np.argsort(expected))
    assert effects == pytest.approx(expected, abs=0.06 * LEVEL)
    assert any(sentence.startswith("Saturday is the best day") for sentence in page.sentences)
    assert any("Monday the weakest" in sentence for sentence in page.sentences)


def test_months_of_the_report_are_those_of_the_history(page):
    days, values = (history()[name].to_numpy() for name in ("ds", "y"))
    expected = by_group(days.astype("datetime64[M]").astype(int) % 12, values)
    rows = page.tables["Effect of the time of year"]
    assert [row[0] for row in rows] == MONTHS
    effects = np.array([number(row[1]) for row in rows])
    assert effects == pytest.approx(expected, abs=0.06 * LEVEL)
    assert any(sentence.startswith("July is the best time") for sentence in page.sentences)
    assert any("January the weakest" in sentence for sentence in page.sentences)


def test_holidays_of_the_report_are_those_of_the_history(page):
    rows = {row[0]: row for row in page.tables["Holidays ahead"]}
    day, effect = rows["Christmas Day"][1:3]
    assert day == "Fri 25 Dec 2026"
    # Three of them are shrunk towards no effect at all.
    assert number(effect) == pytest.approx((CHRISTMAS - 1) * LEVEL, abs=0.15 * LEVEL)


def test_a_page_does_not_depend_on_the_order_of_keys(record, page):
    shuffle = random.Random(3)

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            keys = sorted(value)
            shuffle.shuffle(keys)
            return {key: shuffled(value[key]) for key in keys}
        return [shuffled(one) for one in value] if isinstance(value, list) else value

    for _ in range(5):
        again = page_of(record, shuffled(record.facts), shuffled(record.details))
        assert (again.tables, again.cards, again.sentences, again.data) == (
            page.tables, page.cards, page.sentences, page.data,
        )  # fmt: skip


def test_a_record_of_an_earlier_version_is_read_by_its_labels(record, page):
    parts = record.details["components"]
    earlier = {
        **parts,
        "weekly": dict(sorted(dict(parts["weekly"]).items())),
        "yearly": {str(n): parts["yearly"][n - 1][1] for n in sorted(range(1, 13), key=str)},
    }
    assert page_of(record, details={**record.details, "components": earlier}).tables == page.tables


def test_totals_of_the_report_are_sums_of_the_forecast_and_of_last_year(record, page):
    made = dict(zip(record.rows["ds"].to_pylist(), record.rows["yhat"].to_pylist(), strict=True))
    came = dict(zip(history()["ds"].to_pylist(), history()["y"].to_pylist(), strict=True))
    for days in (7, 30, 90):
        window = [LAST_DAY + timedelta(days=n) for n in range(1, days + 1)]
        expected, before = sum(made[day] for day in window), sum(came[day - timedelta(364)] for day in window)
        value, *lines = page.card(f"Next {days} days")
        assert number(value) == pytest.approx(expected, abs=0.51)
        assert number(lines[-1].split("last year's ")[1]) == pytest.approx(before, abs=0.51)
        assert number(lines[-1]) == pytest.approx(expected / before - 1, abs=0.0006)
    assert number(page.card("Last actual day")[0]) == pytest.approx(came[LAST_DAY], abs=0.51)


def test_days_of_the_report_are_those_of_the_forecast_and_of_the_history(record, page):
    rows = page.tables["Forecast day by day, in USD"]
    columns = ("yhat", "yhat_lower_80", "yhat_upper_80", "yhat_lower_95", "yhat_upper_95")
    assert [row[0] for row in rows] == [str(day) for day in record.rows["ds"].to_pylist()]
    for row, expected in zip(rows, record.rows.to_pylist(), strict=True):
        assert [number(cell) for cell in row[1:]] == pytest.approx([expected[c] for c in columns], abs=0.006)
    drawn = json.loads(page.data)
    layers = {layer["key"]: layer for layer in drawn["layers"]}
    assert date.fromisoformat(drawn["start"]) == history()["ds"][0].as_py()
    assert layers["actual"]["bounds"][0] == pytest.approx(history()["y"].to_pylist(), abs=0.006)
    assert layers["forecast"]["bounds"][0] == pytest.approx(record.rows["yhat"].to_pylist(), abs=0.006)
    assert drawn["forecastStart"] == layers["forecast"]["from"] == history().num_rows


def test_figures_of_the_back_test_are_those_of_its_days(record, page):
    rows = page.tables["The last back-test, day by day"]
    came = dict(zip(history()["ds"].to_pylist(), history()["y"].to_pylist(), strict=True))
    days = [LAST_DAY - timedelta(days=n) for n in reversed(range(180))]
    assert [row[0] for row in rows] == [f"{day:%a} {day.day} {day:%b %Y}" for day in days]
    assert [number(row[1]) for row in rows] == pytest.approx([came[day] for day in days], abs=0.006)
    inside = sum(number(row[3]) <= number(row[1]) <= number(row[4]) for row in rows)
    totals = [sum(number(row[column]) for row in rows) for column in (1, 2)]
    [summary] = [
        text for text in page.sentences if text.endswith("fell inside the 80% bounds.") and "came" in text
    ]
    assert f"{inside} of 180 fell inside" in summary
    assert [number(text) for text in summary.split(" days, ")[1].split(" came and ")] == pytest.approx(
        totals, abs=1
    )


def test_scores_of_the_methods_are_those_of_the_back_test(record, page):
    tested, candidates = record.details["backtest"], record.details["candidates"]
    assert number(page.card("Typical error of a day")[0]) == pytest.approx(tested["wape"], abs=0.0006)
    for level in (80, 95):
        share = number(page.card(f"Days inside the {level}% bounds")[0])
        assert share == pytest.approx(tested[f"coverage_{level}"], abs=0.006)
    naive = candidates[record.facts["best_naive"]]
    assert number(page.card("Error without a forecast")[0]) == pytest.approx(naive["wape"], abs=0.006)
    together, *methods = page.tables["Methods that were tried"]
    assert number(together[2]) == pytest.approx(tested["mase"] / naive["mase"], abs=0.006)
    expected = sorted(
        (round(scores["weight"], 2), round(scores["mase"] / naive["mase"], 2))
        for scores in candidates.values()
    )
    shown = sorted((round(number(row[1]), 2), number(row[2])) for row in methods)
    assert np.array(shown) == pytest.approx(np.array(expected), abs=0.011)
    assert f"errs {1 - tested['mase'] / naive['mase']:.0%} less" in " ".join(page.sentences)


def test_what_the_forecast_rests_on_is_counted_in_the_history(page):
    days = history()["ds"].to_pylist()
    assert f"{len(days):,} days of history, from {days[0]:%a} {days[0].day} {days[0]:%b %Y}" in " ".join(
        page.sentences
    )
    assert "No day is missing." in page.sentences


# ---- in the pipeline


def published_page(pipeline: Pipeline) -> ReportPage:
    return ReportPage((pipeline.home / "artifacts" / "forecast.html").read_text())


def test_the_best_and_the_weakest_weekday_are_those_of_the_warehouse(green):
    by_revenue = [
        name
        for (name,) in green.published_rows(
            "select dayname(ds) from (select ds, sum(revenue_usd) as y from dwh.daily_revenue group by 1)"
            " group by 1 order by avg(y)"
        )
    ]
    rows = published_page(green).tables["Effect of the weekday"]
    by_effect = [row[0] for row in sorted(rows, key=lambda row: number(row[1]))]
    assert (by_effect[0], by_effect[-1]) == (by_revenue[0], by_revenue[-1])


def test_figures_of_the_stores_are_those_of_the_warehouse(green):
    expected = {
        name: (float(ahead), float(last))
        for name, ahead, last in green.published_rows(
            "with ahead as (select location_name, sum(yhat) as ahead from dwh.store_forecast"
            " where ds < (select min(ds) + 30 from dwh.store_forecast) group by 1),"
            " last as (select location_name, sum(revenue_usd) as last from dwh.daily_revenue"
            " where ds > (select max(ds) - 30 from dwh.daily_revenue) group by 1)"
            " select * from ahead join last using (location_name)"
        )
    }
    *stores, total = published_page(green).tables["Stores"]
    assert {row[0] for row in stores} == set(expected)
    for name, last, ahead, *_ in stores:
        assert number(last) == pytest.approx(expected[name][1], abs=0.51)
        assert number(ahead) == pytest.approx(expected[name][0], abs=0.51)
    for column, index in ((2, 0), (1, 1)):
        assert number(total[column]) == pytest.approx(
            sum(found[index] for found in expected.values()), abs=0.51
        )
