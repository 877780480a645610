"""Published forecasts against what came, in the warehouse and in the report."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa
import pytest

from modal_forecast.grain import DAY
from serverless_assets.forecasting.accuracy import all_of
from serverless_assets.forecasting.record import Record, list_records, part_record, write_record
from serverless_assets.forecasting.report_asset import vintage_to_draw
from serverless_assets.forecasting.reuse import SAME_SCORES
from tests.conftest import SHOP, Pipeline
from tests.forecasting.report_page import ReportPage, number

ALL = all_of(DAY)
MADE = datetime(2026, 10, 1, 6, tzinfo=UTC)


def plant(pipeline: Pipeline, made_at: datetime, run_id: str) -> Record:
    """A forecast as it was published then: today's, moved to the days that followed."""
    [name] = [name for name in pipeline.artifacts.names("forecast-record-") if "planted" not in name][:1]
    now = Record.from_bytes(pipeline.artifacts.read(name))
    as_of = made_at.date() - timedelta(days=1)
    days = pa.array([as_of + timedelta(days=n) for n in range(1, now.rows.num_rows + 1)], pa.date32())
    rows = now.rows.set_column(now.rows.schema.get_field_index("ds"), "ds", days)
    facts = {**now.facts, "made_at": f"{made_at:%Y-%m-%dT%H:%M:%SZ}", "data_as_of": as_of.isoformat()}
    then = replace(now, rows=rows, facts={**facts, "run_id": run_id})
    pipeline.artifacts.write(str(then.name), then.to_bytes())
    return then


def plant_stores(pipeline: Pipeline, made_at: datetime, run_id: str) -> pa.Table:
    """The forecasts of stores as they were published then: today's, moved to the days that followed."""
    rows = pipeline.warehouse.read_rows("store_forecast").sort_by("ds")
    facts = pipeline.warehouse.read_state("store_forecast")
    as_of = made_at.date() - timedelta(days=1)
    moved = as_of - date.fromisoformat(facts["data_as_of"])
    days = pa.array([day + moved for day in rows["ds"].to_pylist()], pa.date32())
    rows = rows.set_column(rows.schema.get_field_index("ds"), "ds", days)
    then = {"made_at": f"{made_at:%Y-%m-%dT%H:%M:%SZ}", "data_as_of": as_of.isoformat(), "run_id": run_id}
    write_record(pipeline.artifacts, part_record(SHOP.parts, rows, {**facts, **then}))
    return rows


def scores(pipeline: Pipeline) -> list[dict[str, object]]:
    relation = pipeline.warehouse.quoted_name("forecast_accuracy")
    return pipeline.warehouse.query(f"select * from {relation} where horizon = '{ALL}'").to_pylist()


def test_a_forecast_made_a_month_ago_is_scored_plotted_and_reported_on_the_days_that_came(pipeline):
    then = plant(pipeline, MADE, "planted")
    assert pipeline.run(job="forecast").success
    [row] = scores(pipeline)
    assert (row["vintage"], row["days"]) == ("planted", 31)
    actual = dict(
        pipeline.published_rows(
            "select ds, sum(revenue_usd)::double from dwh.daily_revenue where ds >= '2026-10-01' group by 1"
        )
    )
    made = dict(zip(then.rows["ds"].to_pylist(), then.rows["yhat"].to_pylist(), strict=True))
    errors = [abs(made[day] - came) for day, came in actual.items()]
    assert row["wape"] == pytest.approx(sum(errors) / sum(actual.values()))
    assert pipeline.facts("forecast_accuracy")["wape"] == pytest.approx(row["wape"], abs=1e-4)
    page = ReportPage((pipeline.home / "artifacts" / "forecast.html").read_text())
    [shown] = page.tables["Earlier forecasts"]
    assert shown[:2] == ["Thu 1 Oct 2026", "31"]
    assert number(shown[2]) == pytest.approx(row["wape"], abs=0.006)
    assert number(shown[4]) == pytest.approx(row["coverage_80"], abs=0.006)
    assert number(shown[5]) == pytest.approx(row["coverage_95"], abs=0.006)


def test_the_stores_of_a_forecast_are_scored_one_by_one_and_reported_the_worst_first(pipeline):
    plant(pipeline, MADE, "planted")
    then = plant_stores(pipeline, MADE, "planted")
    assert pipeline.run(job="forecast").success
    rows = pipeline.published_rows(
        "select location_id, location_name, days, wape, mase from dwh.forecast_accuracy_by_store"
        f" where horizon = '{ALL}' order by mase desc"
    )
    assert {days for _, _, days, _, _ in rows} == {31}
    actual = {
        (id, day): came
        for id, day, came in pipeline.published_rows(
            "select location_id, ds, sum(revenue_usd)::double from dwh.daily_revenue"
            " where ds >= '2026-10-01' group by all"
        )
    }
    for id, name, _, wape, _ in rows:
        made = {row["ds"]: row["yhat"] for row in then.to_pylist() if row["location_id"] == id}
        came = {day: actual.get((id, day), 0.0) for day in made if day <= date(2026, 10, 31)}
        errors = [abs(made[day] - value) for day, value in came.items()]
        assert wape == pytest.approx(sum(errors) / sum(came.values())), name
    page = ReportPage((pipeline.home / "artifacts" / "forecast.html").read_text())
    shown = page.tables["Each store: the worst first"]
    assert [row[0] for row in shown] == [name for _, name, _, _, _ in rows]
    assert number(shown[0][1]) == pytest.approx(rows[0][4], abs=0.006)
    assert pipeline.facts("forecast_accuracy_by_store")["stores_scored"] == 6


def test_nothing_new_is_nothing_to_score_again(pipeline):
    assert pipeline.run(job="forecast").success
    assert pipeline.run(job="forecast").success
    assert pipeline.reason("forecast_accuracy") == SAME_SCORES
    assert pipeline.reason("forecast_accuracy_by_store") == f"{SAME_SCORES} of stores"


def test_a_record_that_cannot_be_read_is_left_out_and_told_of_and_one_that_is_not_scored_is_deleted(pipeline):
    for run_id, days in (("first-of-week", 9), ("second-of-week", 8), ("of-a-later-week", 0)):
        plant_stores(pipeline, MADE - timedelta(days=days), run_id)
    broken = plant(pipeline, MADE, "planted-broken")
    pipeline.artifacts.write(str(broken.name), b"no parquet")
    plant(pipeline, MADE - timedelta(days=3), "planted")
    result = pipeline.run(job="forecast")
    assert result.success
    assert [row["vintage"] for row in scores(pipeline)] == ["planted"]
    said = [entry.user_message for entry in pipeline.instance.all_logs(result.run_id)]
    assert any("planted-broken" in line and "cannot be read" in line for line in said)
    runs = {name.run_id for name in list_records(pipeline.artifacts, "forecast", of_parts=True)}
    assert {"first-of-week", "of-a-later-week"} < runs
    assert "second-of-week" not in runs


def test_days_that_a_late_source_brings_are_scored_whenever_the_forecast_was_made(pipeline):
    # Its days came before it was made, as the source was a month behind.
    then = plant(pipeline, MADE, "planted")
    late = replace(then, facts={**then.facts, "made_at": "2026-11-20T06:00:00Z", "run_id": "late"})
    pipeline.artifacts.write(str(late.name), late.to_bytes())
    assert pipeline.run(job="forecast").success
    assert {row["vintage"]: row["days"] for row in scores(pipeline)} == {"planted": 31, "late": 31}


@pytest.mark.parametrize(
    ("days", "drawn"), [([], None), ([3], None), ([7, 2], "7"), ([60, 33, 12], "33"), ([200], "200")]
)
def test_the_forecast_that_is_drawn_is_about_a_month_old(days, drawn):
    assert vintage_to_draw([{"vintage": str(number), "periods": number} for number in days], DAY) == drawn
