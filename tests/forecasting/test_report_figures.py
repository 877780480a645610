"""The effects that the report names against those that the history was made with, after both went the way
that they go in production: through the worker process, its messages, and the record in the store."""

import random
import subprocess
import sys
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from modal_forecast.messages import ForecastAnswer, ForecastRequest
from modal_forecast.report.page import render
from serverless_assets.forecasting.forecast_run import details_in
from serverless_assets.forecasting.record import Record, record_facts
from serverless_assets.forecasting.report import report_input
from serverless_assets.forecasting.reuse import fingerprint
from serverless_assets.forecasting.tables import forecast_rows
from serverless_assets.run_inputs import CustomisedStyle
from tests.conftest import SHOP
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
    rows = forecast_rows([answer.forecast], "run", made_at.date())
    plain = {name: value for name, value in answer.diagnostics.items() if not isinstance(value, dict | list)}
    size = {"cpu": 0.25, "memory_mib": 256, "compute": "a process", "run_id": "run"}
    facts = {
        **plain,
        **size,
        "data_as_of": LAST_DAY.isoformat(),
        **fingerprint(asked, "code"),
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
