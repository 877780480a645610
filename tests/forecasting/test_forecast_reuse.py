"""A forecast and its report are made again only if something changed that they depend on."""

from datetime import date, timedelta

import pyarrow as pa
import pytest

from modal_forecast.messages import FORECAST_SCHEMA, ForecastAnswer, ForecastRequest
from serverless_assets.forecasting.record import as_file, facts_in
from serverless_assets.forecasting.report import CHANGES, reason_to_report
from serverless_assets.forecasting.reuse import fingerprint, reason_to_forecast
from serverless_assets.forecasting.tables import TOTAL_SCHEMA, forecast_rows
from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs
from tests.conftest import Pipeline

NO_COMPUTE = "serverless_assets.forecasting.local_compute.LocalCompute.run"


def history(last: float = 3.0) -> pa.Table:
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(3)]
    return pa.table({"ds": pa.array(days, pa.date32()), "y": [1.0, 2.0, last]})


ASKED = ForecastRequest(history(), 180, "US")
BASIS = fingerprint(ASKED, "code1")
HELD = {**BASIS, "run_id": "r1"}


# ---- what is decided


@pytest.mark.parametrize(
    "held, basis, force, reason",
    [
        (HELD, BASIS, False, None),
        (None, BASIS, False, "first forecast"),
        ({}, BASIS, False, "forecast replaced: it is not known what it was made from"),
        ({"rows": 3}, BASIS, False, "forecast replaced: it is not known what it was made from"),
        (HELD, BASIS, True, "forced: rebuild all"),
        (HELD, fingerprint(ForecastRequest(history(4.0), 180, "US"), "code1"), False, "new data"),
        (HELD, fingerprint(ForecastRequest(history(), 90, "US"), "code1"), False,
         "horizon changed (180 to 90 days)"),
        (HELD, fingerprint(ForecastRequest(history(), 180, "DE"), "code1"), False,
         "holidays changed (US to DE)"),
        (HELD, fingerprint(ForecastRequest(history(), 6, None, grain="month"), "code1"), False,
         "grain changed (day to month)"),
        (HELD, fingerprint(ASKED, "code2"), False, "code changed"),
        (HELD, fingerprint(ForecastRequest(history(4.0), 90, "US"), "code2"), False,
         "new data; horizon changed (180 to 90 days); code changed"),
        (HELD, {**BASIS, "forecast_key": "another"}, False, "columns changed"),
    ],
)  # fmt: skip
def test_a_forecast_is_made_again_for_a_reason_in_words(held, basis, force, reason):
    assert reason_to_forecast(held, basis, force) == reason


def test_the_same_history_in_another_layout_is_the_same_basis():
    shuffled = pa.concat_tables([history().slice(1), history().slice(0, 1)])
    assert fingerprint(ForecastRequest(shuffled, 180, "US"), "code1") == BASIS


PAGE = {"data": "a", "forecast": "b", "style": "c", "code": "d"}


@pytest.mark.parametrize(
    "held, force, reason",
    [
        (PAGE, False, None),
        ({}, False, "first report of this name"),
        (PAGE, True, "forced: rebuild all"),
        *(({**PAGE, part: "other"}, False, said) for part, said in CHANGES.items()),
        ({"data": "a", "forecast": "x", "style": "c"}, False, "new forecast; code changed"),
    ],
)  # fmt: skip
def test_a_report_is_rendered_again_for_a_reason_in_words(held, force, reason):
    assert reason_to_report(held, PAGE, force) == reason


def test_a_file_tells_the_facts_of_its_forecast_and_any_other_file_none():
    days = [date(2026, 1, 4)]
    answer = ForecastAnswer(pa.table([pa.array(days, pa.date32()), *[[1.0]] * 5], schema=FORECAST_SCHEMA))
    rows = forecast_rows([answer.forecast], "r1", date(2026, 1, 5))
    assert rows.schema == TOTAL_SCHEMA
    file = as_file(rows, HELD)
    assert facts_in(file) == HELD
    # As a warehouse may give them back.
    assert (
        as_file(rows.cast(pa.schema([("forecast_run", pa.large_string()), *list(TOTAL_SCHEMA)[1:]])), HELD)
        == file
    )
    for other in (None, b"", b"not parquet", file[:-5], file[: len(file) // 2]):
        assert facts_in(other) == {}


# ---- what is done


def outcome(pipeline: Pipeline, asset: str) -> tuple[str, str]:
    found = pipeline.summary["assets"][asset]
    return found["status"], found["reason"]


@pytest.fixture
def no_compute(monkeypatch):
    def refuse(*_):
        raise AssertionError("a forecast was computed")

    monkeypatch.setattr(NO_COMPUTE, refuse)


def test_a_second_forecast_of_the_same_computes_and_writes_and_publishes_nothing(pipeline, green, no_compute):
    files = {path: path.stat().st_mtime_ns for path in (pipeline.home / "work" / "artifacts").iterdir()}
    released = (pipeline.home / "warehouse.duckdb").resolve()
    # Cores and memory do not change the answer.
    assert pipeline.run(RunInputs(forecast=RunForecast(cpu="2.0", memory="512")), job="forecast").success
    assert outcome(pipeline, "order_forecast") == (
        "reused", "unchanged: same history, parameters and code",
    )  # fmt: skip
    assert outcome(pipeline, "store_forecast") == ("reused", "unchanged: same total, stores and code")
    assert outcome(pipeline, "forecast_report")[0] == "reused"
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (pipeline.home / "warehouse.duckdb").resolve() == released
    before, after = green.facts("order_forecast"), pipeline.facts("order_forecast")
    assert after["version"] == before["version"]
    assert after["built_by"] == after["run_id"] == before["run_id"] == green.summary["run_id"]
    assert (after["cpu"], after["dagster/row_count"]) == (0.25, 180)
    assert pipeline.summary["report"] == str(pipeline.home / "artifacts" / "forecast.html")
    assert pipeline.facts("forecast_report")["version"] == green.facts("forecast_report")["version"]


def test_the_picture_of_the_same_report_is_kept_and_not_drawn_again(short, monkeypatch):
    pipeline = short
    first = RunInputs(rebuild="all")
    assert pipeline.run(first, job="forecast").success
    assert outcome(pipeline, "forecast_report") == ("built", "forced: rebuild all")
    drawn = pipeline.facts("forecast_report")["preview"]
    monkeypatch.setattr("serverless_assets.forecasting.report.preview_svg", lambda report: 1 / 0)
    assert pipeline.run(job="forecast").success
    assert outcome(pipeline, "forecast_report")[0] == "reused"
    assert pipeline.facts("forecast_report")["preview"] == drawn


@pytest.mark.parametrize("loss", ["lost", "of another forecast"])
def test_a_file_that_is_not_of_the_forecast_is_written_from_its_table(pipeline, no_compute, loss):
    path = pipeline.home / "work" / "artifacts" / "forecast.parquet"
    before = path.read_bytes()
    if loss == "lost":
        pipeline.artifacts.delete("forecast.parquet")
    else:
        pipeline.artifacts.write(
            "forecast.parquet", as_file(TOTAL_SCHEMA.empty_table(), {"forecast_key": "another"})
        )
    assert pipeline.run(job="forecast").success
    assert outcome(pipeline, "order_forecast") == (
        "reused", "unchanged: same history, parameters and code; forecast.parquet was written",
    )  # fmt: skip
    assert path.read_bytes() == before == pipeline.artifacts.read("forecast.parquet")


def test_other_colours_are_another_page_of_the_same_forecast(pipeline, no_compute):
    style = CustomisedStyle(color_history="teal")
    assert pipeline.run(RunInputs(forecast=RunForecast(style=style)), job="forecast").success
    assert outcome(pipeline, "order_forecast")[0] == "reused"
    assert outcome(pipeline, "forecast_report") == ("built", "title, unit or colours changed")
