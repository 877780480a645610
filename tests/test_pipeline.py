import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from html import unescape

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

from serverless_assets.names import NAMES_OF_FAILED, REFUSED_TAG, name_some
from serverless_assets.publishing.lease import LeaseLost
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.run_inputs import CustomisedStyle, Reload, Reuse, RunForecast, RunInputs, SkipForecast
from serverless_assets.transformation import dbt_runner
from tests.ingestion.scripted import SLOW_BODY, shop

ALL_TABLES = """
    select table_name from information_schema.tables where table_schema = 'dwh' order by table_name
"""
REBUILD = RunInputs(rebuild="all")
KEYS = {"raw_orders": "id", "raw_items": "id", "orders": "order_id", "customers": "customer_id"}


def change_work(pipeline, statement):
    """Spoil the working copy by hand."""
    with duckdb.connect(str(pipeline.home / "work" / "warehouse.duckdb")) as connection:
        connection.execute(statement)


def forget_old_revenue(pipeline):
    """Leave half a year to forecast from, which takes a fraction of the time."""
    change_work(pipeline, "delete from dwh.daily_revenue where ds < '2026-05-01'")


def test_one_run_fills_every_table_and_publishes(green):
    assert green.summary["published"]
    assert {name for (name,) in green.published_rows(ALL_TABLES)} >= {
        "raw_customers", "raw_orders", "raw_items", "raw_products", "raw_stores", "raw_supplies",
        "stg_orders", "orders", "customers", "avg_order_value", "sum_revenue_per_city", "daily_revenue",
        "store_products", "order_forecast", "supply_plan",
    }  # fmt: skip
    assert green.summary["totals"]["built"] == len(green.outcomes) >= 24


def test_money_is_exact_from_cents_to_the_aggregations(green):
    (cents,) = green.published_rows("select cast(sum(order_total) as bigint) from dwh.raw_orders")[0]
    for table, column in (("daily_revenue", "revenue_usd"), ("sum_revenue_per_city", "revenue_usd")):
        (dollars,) = green.published_rows(f"select sum({column}) from dwh.{table}")[0]
        assert isinstance(dollars, Decimal)
        assert dollars == Decimal(cents) / 100


def test_the_forecast_covers_every_day_after_the_history_with_nested_bounds(green):
    rows = green.published("select * from dwh.order_forecast order by ds").to_pylist()
    assert [row["ds"] for row in rows] == [date(2026, 11, 1) + timedelta(days=n) for n in range(180)]
    for row in rows:
        bounds = ["yhat_lower_95", "yhat_lower_80", "yhat", "yhat_upper_80", "yhat_upper_95"]
        assert [row[name] for name in bounds] == sorted(row[name] for name in bounds)
        assert row["yhat_lower_95"] >= 0
    assert {row["forecast_run"] for row in rows} == {green.summary["run_id"]}


def test_the_forecast_file_holds_what_the_table_holds(green):
    file = pq.read_table(green.home / "artifacts" / "forecast.parquet")
    assert file.to_pylist() == green.published("select * from dwh.order_forecast order by ds").to_pylist()
    assert json.loads(file.schema.metadata[b"forecast"])["horizon_days"] == 180


def test_the_models_pass_their_unit_tests(pipeline, tmp_path):
    project = pipeline.parts.project
    select = ["test", "--select", "test_type:unit"]
    failure = dbt_runner.invoke(
        select, project.directory, tmp_path / "target", project.variables, project.partial_parse
    )
    assert failure is None


def test_every_month_of_the_history_shows_as_materialized(green):
    for table in ("raw_orders", "raw_items"):
        months = green.instance.get_materialized_partitions(dg.AssetKey(table))
        assert len(months) == 25
        assert {"2024-10-01", "2026-10-01"} <= months


def test_the_metadata_of_a_raw_table_tells_rows_bytes_and_hash(green):
    event = green.instance.get_latest_materialization_event(dg.AssetKey("raw_stores"))
    found = event.asset_materialization.metadata
    assert {"dagster/row_count", "bytes", "seconds", "content_hash", "url"} <= set(found)
    assert event.asset_materialization.tags["dagster/data_version"] == found["content_hash"].value


def test_no_asset_has_more_metadata_than_fits_on_its_page(green):
    for key in map(dg.AssetKey, green.outcomes):
        event = green.instance.get_latest_materialization_event(key)
        assert event and event.asset_materialization
        assert len(event.asset_materialization.metadata) <= 15, sorted(event.asset_materialization.metadata)


def test_what_is_said_of_a_model_is_said_once(green):
    event = green.instance.get_latest_materialization_event(dg.AssetKey("orders"))
    said = event.asset_materialization.metadata
    assert "seconds" in said
    # dbt's own time of it and ids, and the plan, which is in the log of the run.
    assert not {"Execution Duration", "unique_id", "invocation_id", "plan"} & {*said}


def test_the_log_of_a_first_run_is_a_story_of_few_lines(green):
    entries = green.instance.all_logs(green.summary["run_id"])
    lines = [
        line
        for entry in entries
        if entry.dagster_event is None and int(entry.level) >= logging.INFO
        for line in entry.user_message.splitlines()
    ]
    assert len(lines) <= 30, lines
    told = "\n".join(lines)
    for sentence in (
        r"^Loaded raw_\w+ \([\d,]+ rows?\), ",
        r"^12 models to build, 0 to reuse$",
        r"^build .*stg_customers, .* and \d more: ",
        r"^12 models built; of their tests \d+ passed\.$",
        r"^Starting a worker on ",
        r"^Published ",
    ):
        assert re.search(sentence, told, re.MULTILINE), (sentence, told)


def test_the_report_shows_its_picture_and_its_place(green):
    event = green.instance.get_latest_materialization_event(dg.AssetKey("forecast_report"))
    found = event.asset_materialization.metadata
    assert found["preview"].value.startswith("![history and forecast](data:image/svg+xml;base64,")
    page = green.home / "artifacts" / "forecast.html"
    assert found["report"].value == green.summary["report"] == str(page)
    answer = re.search(r'<p class="answer">(.+?)</p>', unescape(page.read_text()))
    assert answer
    assert found["headline"].value.startswith(answer[1])


def test_a_second_run_reuses_everything_and_publishes_nothing(green, pipeline):
    released = (pipeline.home / "warehouse.duckdb").resolve()
    assert pipeline.run().success
    assets = pipeline.summary["assets"]
    assert {found["status"] for found in pipeline.outcomes.values()} == {"reused"}
    assert sum(found["bytes"] or 0 for name, found in assets.items() if name.startswith("raw_")) == 0
    assert (pipeline.home / "warehouse.duckdb").resolve() == released
    messages = [entry.user_message for entry in pipeline.instance.all_logs(pipeline.summary["run_id"])]
    # The checks of a table that the sample shop lacks give no result.
    expected = [
        one for one in messages if not any(name in one for name in assets.keys() - pipeline.outcomes.keys())
    ]
    assert not [message for message in expected if "did not yield or return" in message]
    # What is reused keeps its data version and says which run built it.
    for asset in ("raw_orders", "orders", "order_forecast"):
        before, now = (
            found.instance.get_latest_materialization_event(dg.AssetKey(asset)).asset_materialization
            for found in (green, pipeline)
        )
        assert now.tags["dagster/data_version"] == before.tags["dagster/data_version"]
        assert now.metadata["built_by"].value == green.summary["run_id"]


def test_a_build_ends_once_the_run_has_lost_its_turn(pipeline, monkeypatch):
    def check_turn(publisher):
        raise LeaseLost("Another run has taken its turn.")

    change_work(pipeline, "drop table dwh.customers")
    monkeypatch.setattr(LocalPublisher, "check_turn", check_turn)
    assert not pipeline.run(job="transform").success
    assert pipeline.reason("customers") == "Another run has taken its turn."
    assert not pipeline.warehouse.read_states().get("customers")


@pytest.mark.slow
def test_everything_is_done_again_when_a_person_asks_for_it_and_the_rows_are_the_same(pipeline):
    def content():
        return [
            pipeline.published(f"select * from dwh.{table} order by {key}") for table, key in KEYS.items()
        ]

    before = content()
    assert pipeline.run(REBUILD).success
    assert {found["status"] for found in pipeline.outcomes.values()} == {"built"}
    assert content() == before


def test_asking_for_other_days_runs_the_forecast_only(pipeline):
    style = CustomisedStyle(nr_days_fcst=30)
    assert pipeline.run(RunInputs(forecast=RunForecast(style=style))).success
    done = {name for name, found in pipeline.summary["assets"].items() if found["status"] == "built"}
    assert done == {"order_forecast", "store_forecast", "supply_plan", "forecast_report"}
    assert pipeline.reason("order_forecast") == "horizon changed (180 to 30 days)"
    # The supplies of the next 30 days follow from the forecast.
    assert pipeline.reason("forecast_report") == "new data; new forecast"


def test_chosen_size_colours_and_days_reach_the_forecast_and_its_report(pipeline):
    style = CustomisedStyle(
        forecast_table="mine", forecast_file="mine.parquet", html_report="mine.html",
        color_history="teal", color_prediction="#ff8800", nr_days_fcst=30,
    )  # fmt: skip
    forget_old_revenue(pipeline)
    assert pipeline.run(
        RunInputs(forecast=RunForecast(cpu="2.0", memory="512", style=style)), job="forecast"
    ).success
    assert pipeline.published_rows("select count(*) from dwh.mine") == [(30,)]
    assert pipeline.published_rows("select count(*) from dwh.order_forecast") == [(180,)]
    html = (pipeline.home / "artifacts" / "mine.html").read_text()
    assert "teal" in html
    assert "#ff8800" in html
    assert (pipeline.home / "artifacts" / "mine.parquet").exists()


def test_reuse_and_skip_transform_without_loading_or_forecasting(pipeline):
    before = pipeline.published_rows("select distinct forecast_run from dwh.order_forecast")
    made = [*pipeline.outcomes]
    assert pipeline.run(RunInputs(ingestion=Reuse(), forecast=SkipForecast()), assets=made).success
    statuses = {name: found["status"] for name, found in pipeline.summary["assets"].items()}
    assert statuses["raw_orders"] == "reused"
    assert statuses["orders"] == "reused"
    assert statuses["order_forecast"] == statuses["forecast_report"] == "skipped"
    assert pipeline.summary["success"]
    assert pipeline.summary["published"]
    assert pipeline.published_rows("select distinct forecast_run from dwh.order_forecast") == before


def test_reuse_with_nothing_loaded_yet_says_to_reload(pipeline):
    change_work(pipeline, "drop table dwh.raw_stores")
    assert not pipeline.run(RunInputs(ingestion=Reuse()), job="ingest").success
    assert "raw_stores" in pipeline.reason("raw_stores")
    assert "choose `reload`" in pipeline.reason("raw_stores")


@pytest.mark.parametrize(
    "style",
    [
        CustomisedStyle(color_history="bleu"),
        CustomisedStyle(html_report="../x.html"),
        CustomisedStyle(nr_days_fcst=731),
    ],
)
def test_a_senseless_choice_fails_once_before_the_first_step_with_nothing_written(pipeline, style):
    before = (pipeline.home / "work" / "warehouse.duckdb").stat().st_mtime_ns
    refused = pipeline.run(RunInputs(forecast=RunForecast(style=style)))
    kinds = {event.event_type_value for event in refused.all_events}
    assert "PIPELINE_FAILURE" in kinds and not {"STEP_START", "STEP_UP_FOR_RETRY"} & kinds
    # By this the sensor knows that nobody needs an alert.
    run = pipeline.instance.get_run_by_id(refused.run_id)
    assert (run.status, run.tags[REFUSED_TAG]) == (dg.DagsterRunStatus.FAILURE, "run config")
    assert pipeline.summary["assets"]["raw_orders"]["status"] == "failed"
    assert (pipeline.home / "work" / "warehouse.duckdb").stat().st_mtime_ns == before


def test_too_little_memory_names_the_size_the_peak_and_the_next_size(pipeline, monkeypatch):
    monkeypatch.setattr("serverless_assets.forecasting.local_compute.resident_mib", lambda pid: 3000.0)
    released = (pipeline.home / "warehouse.duckdb").resolve()
    # No other test asks for so many days: the worker has to be started.
    style = CustomisedStyle(nr_days_fcst=29)
    assert not pipeline.run(RunInputs(forecast=RunForecast(style=style)), job="forecast").success
    assert "3000 MiB of the 1024 MiB" in pipeline.reason("order_forecast")
    assert "Choose memory 2048" in pipeline.reason("order_forecast")
    assert (pipeline.home / "warehouse.duckdb").resolve() == released


def test_a_mart_that_fails_its_tests_stops_the_line_and_is_not_published(pipeline):
    change_work(
        pipeline,
        "create or replace table dwh.raw_products as select * from dwh.raw_products where sku <> 'JAF-001'",
    )
    assert not pipeline.run(RunInputs(ingestion=Reuse())).success
    assert not pipeline.summary["published"]
    assert pipeline.summary["assets"]["order_forecast"]["status"] == "skipped"
    failed = [name for name, one in pipeline.summary["assets"].items() if one["status"] == "failed"]
    reason = pipeline.summary["assets"]["order_forecast"]["reason"]
    assert reason == f"not reached: {name_some(failed, NAMES_OF_FAILED)} failed before it"
    assert pipeline.published_rows("select count(*) from dwh.raw_products where sku = 'JAF-001'") == [(1,)]
    # A run of something else does not let the unsound mart through, and says so by failing ...
    assert not pipeline.run(job="ingest", assets=["raw_stores"]).success
    assert (pipeline.summary["success"], pipeline.summary["published"]) == (True, False)
    # ... and mending the cause does.
    assert pipeline.run().success
    assert pipeline.summary["published"]


@pytest.mark.slow
def test_suspicious_values_warn_with_their_count_and_stop_nothing(pipeline):
    changes = {
        "raw_customers": "if(id = min(id) over (), null, name) as name",
        "raw_orders": "if(row_number() over (order by id) <= 3, subtotal + 1, subtotal) as subtotal",
        "raw_products": "if(sku = 'JAF-001', 'soup', type) as type",
        "raw_stores": "if(name = 'Brooklyn', null, name) as name",
        "raw_supplies": "if(sku = 'BEV-001', 'of no product', sku) as sku",
    }
    for table, change in changes.items():
        change_work(
            pipeline, f"create or replace table dwh.{table} as select * replace ({change}) from dwh.{table}"
        )
    made = [*pipeline.outcomes]
    result = pipeline.run(RunInputs(ingestion=Reuse(), forecast=SkipForecast()), assets=made)
    assert result.success
    assert pipeline.summary["published"]
    count = "dagster_dbt/failed_row_count"
    warnings = {
        (check.asset_key.to_user_string(), check.check_name): check.metadata[count].value
        for check in result.get_asset_check_evaluations()
        if not check.passed and count in check.metadata
    }
    (without_cost,) = pipeline.published_rows("select count(*) from dwh.orders where order_cost is null")[0]
    assert without_cost > 0
    assert warnings[("stg_customers", "not_null_stg_customers_customer_name")] == 1
    assert warnings[("stg_orders", "orders_are_paid_as_itemised")] == 3
    assert warnings[("stg_products", "products_are_jaffles_or_beverages")] == 1
    assert warnings[("stg_products", "products_have_a_known_cost")] == 1
    assert warnings[("stg_locations", "not_null_stg_locations_location_name")] == 1
    assert warnings[("orders", "orders_have_a_known_cost")] == without_cost


def test_a_reader_of_the_published_warehouse_neither_blocks_a_run_nor_is_blocked(pipeline):
    hold = (
        f"import duckdb; c = duckdb.connect({str(pipeline.home / 'warehouse.duckdb')!r}, read_only=True); "
        "print(c.execute('select count(*) from dwh.raw_stores').fetchone(), flush=True); input(); "
        "print(c.execute('select count(*) from dwh.orders').fetchone())"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    reader.stdout.readline()
    released = (pipeline.home / "warehouse.duckdb").resolve()
    assert pipeline.run(REBUILD, job="ingest", assets=["raw_stores"]).success
    assert pipeline.summary["totals"]["built"] == 1
    assert (pipeline.home / "warehouse.duckdb").resolve() != released
    said, _ = reader.communicate("\n")
    assert reader.returncode == 0
    assert said.startswith("(")


def test_a_month_loaded_on_its_own_replaces_just_itself(pipeline):
    by_month = """
        select date_trunc('month', ordered_at), count(*), sum(order_total)
        from dwh.raw_orders group by 1 order by 1
    """
    before = pipeline.published_rows(by_month)
    change_work(
        pipeline,
        "delete from dwh.raw_orders where ordered_at >= '2025-03-01' and ordered_at < '2025-05-01'",
    )
    march = {"dagster/partition": "2025-03-01"}
    for _ in range(2):
        assert pipeline.run(REBUILD, job="ingest", assets=["raw_orders", "raw_items"], tags=march).success
    after = pipeline.published_rows(by_month)
    assert [row for row in before if row[0].isoformat()[:7] != "2025-04"] == after


def test_a_range_of_months_is_one_run(pipeline):
    months = {
        "dagster/asset_partition_range_start": "2025-01-01",
        "dagster/asset_partition_range_end": "2025-03-01",
    }
    before = pipeline.published_rows("select count(*), sum(order_total) from dwh.raw_orders")
    assert pipeline.run(RunInputs(forecast=SkipForecast()), tags=months).success
    assert pipeline.published_rows("select count(*), sum(order_total) from dwh.raw_orders") == before
    assert pipeline.instance.get_materialized_partitions(dg.AssetKey("raw_orders")) == {
        "2025-01-01", "2025-02-01", "2025-03-01",
    }  # fmt: skip


def test_a_source_that_is_away_leaves_the_tables_as_they_were(pipeline, monkeypatch):
    # It is asked again without the pauses, of 8 s together.
    monkeypatch.setattr(
        "serverless_assets.ingestion.http_faults.sleep_using_event", lambda cancelled: lambda seconds: None
    )
    inputs = RunInputs(ingestion=Reload(dataset_url="http://127.0.0.1:9/nothing-here"))
    before = pipeline.published_rows("select count(*) from dwh.raw_stores")
    assert not pipeline.run(inputs, job="ingest", assets=["raw_stores"]).success
    assert "no connection" in pipeline.reason("raw_stores")
    assert pipeline.published_rows("select count(*) from dwh.raw_stores") == before


def test_a_source_that_is_too_slow_is_left_at_the_deadline_of_the_settings(pipeline):
    hasty = replace(pipeline, variables={**pipeline.variables, "SERVERLESS_DOWNLOAD_DEADLINE": "1"})
    with shop(SLOW_BODY) as server:
        inputs = RunInputs(ingestion=Reload(dataset_url=server.url))
        assert not hasty.run(inputs, job="ingest", assets=["raw_stores"]).success
    assert "not complete after 1 s" in hasty.reason("raw_stores")
