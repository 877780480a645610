"""The whole pipeline on the cloud's services: the same answers as on a laptop, and nothing paid for twice."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
import requests
from google.cloud import bigquery

from serverless_assets import metadata
from serverless_assets.automation.plan import dry_run
from serverless_assets.cli.doctor import examine
from serverless_assets.environments import environment
from serverless_assets.forecasting.checks import PART_DESCRIPTIONS
from serverless_assets.publishing.bigquery import BigQueryPublisher
from serverless_assets.run_inputs import Reuse, RunInputs
from serverless_assets.settings import Settings
from serverless_assets.transformation import dbt_runner
from tests.backends.conftest import PARITY, Google
from tests.backends.parity import compare
from tests.backends.released_shop import LOG
from tests.backends.small_shop import SmallShop, serve_shop
from tests.conftest import NO_FORECAST, SAMPLE_END, Pipeline
from tests.forecasting.test_accuracy_asset import plant_stores
from tests.services.__main__ import BUCKET
from tests.services.modal.harness import Server
from tests.services.proxy import Answer, Asked, proxy

pytestmark = pytest.mark.gcp

SERVERLESS = str(Path(sys.executable).with_name("serverless"))


@pytest.fixture(scope="module")
def source() -> Iterator[dict[str, str]]:
    """A shop of a size that an emulator can be asked for every row of."""
    shop = SmallShop(end=date.fromisoformat(SAMPLE_END))
    with serve_shop(lambda: shop) as url:
        yield {"SERVERLESS_DATASET_URL": url, "SERVERLESS_FIRST_MONTH": "2024-01"}


@pytest.fixture(scope="module")
def cloud(google: Google, modal: Server, source: dict[str, str]) -> dict[str, str]:
    """The variables of the environment `gcp`, as a user would set them."""
    return {
        **os.environ,
        **source,
        "SERVERLESS_ENV": "gcp",
        "SERVERLESS_BUCKET": BUCKET,
        "SERVERLESS_EXECUTION_PROJECT": "jobs-project",
    }


@pytest.fixture(scope="module")
def on_gcp(cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The pipeline after one green run of everything on the cloud's services."""
    yield from run_once(tmp_path_factory.mktemp("gcp"), cloud)


@pytest.fixture(scope="module")
def on_laptop(source, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The same on this machine."""
    yield from run_once(tmp_path_factory.mktemp("laptop"), source)


def run_once(folder: Path, variables: dict[str, str], inputs: RunInputs | None = None) -> Iterator[Pipeline]:
    with dg.DagsterInstance.ephemeral() as instance:
        pipeline = Pipeline(folder / "home", instance, variables)
        assert pipeline.run(inputs).success, pipeline.summary
        yield pipeline


def test_one_run_ends_with_the_summary_that_a_laptop_gives(on_gcp, on_laptop):
    def told(pipeline):
        assets = pipeline.summary["assets"]
        return {name: (found["status"], found["rows"]) for name, found in assets.items()}

    assert told(on_gcp) == told(on_laptop)
    assert on_gcp.summary["report"] == f"gs://{BUCKET}/forecast.html"


def test_every_relation_holds_the_same_on_both(on_gcp, on_laptop):
    compared = list(compare(on_laptop.warehouse, on_gcp.warehouse))
    PARITY.extend(map(str, compared))
    assert len(compared) >= 23
    assert [one.relation for one in compared if one.differences] == []


def test_the_report_is_the_same_page(on_gcp, on_laptop):
    page = on_gcp.artifacts.read("forecast.html")
    assert page is not None
    assert len(page) == pytest.approx(
        (on_laptop.home / "artifacts" / "forecast.html").stat().st_size, rel=0.01
    )


def test_links_lead_to_the_report_and_to_the_call(on_gcp):
    report, forecast = on_gcp.facts("forecast_report"), on_gcp.facts("order_forecast")
    assert report["report"] == f"gs://{BUCKET}/forecast.html"
    assert report["report_link"].startswith("https://console.cloud.google.com/storage/")
    assert forecast["modal_dashboard"].endswith(forecast["modal_call"])
    assert forecast["compute"] == "Modal"


@pytest.mark.parametrize("asset", ["raw_orders", "orders", "order_forecast"])
def test_the_warehouses_jobs_are_on_record(on_gcp, asset):
    found = on_gcp.facts(asset)
    assert found["warehouse_jobs"]
    assert {"bytes_processed", "bytes_billed", "slot_seconds", "cost_usd"} <= set(found)


def test_what_the_warehouse_and_modal_charge_adds_up_to_what_the_run_cost(on_gcp):
    """The emulator bills nothing: what is seen here is Modal's price, and that BigQuery's are asked for."""
    totals, assets = on_gcp.summary["totals"], on_gcp.summary["assets"]
    assert totals["bytes_billed"] == 0
    # The total and the stores are one call, which is charged to the total.
    assert 0 < assets["order_forecast"]["cost_usd"] < 0.01
    assert assets["store_forecast"]["cost_usd"] == 0
    assert totals["cost_usd"] == pytest.approx(assets["order_forecast"]["cost_usd"])
    free = [name for name, found in assets.items() if found["cost_usd"] is None]
    assert free == ["forecast_report"]
    (record,) = on_gcp.instance.fetch_materializations(dg.AssetKey("pipeline_runs"), limit=2).records
    assert metadata.plain_values(record.asset_materialization.metadata)["cost_usd"] == totals["cost_usd"]


def test_a_second_run_reuses_everything_and_runs_few_queries(on_gcp, modal):
    before = modal.forecast_calls()
    with bigquery.Client("jobs-project") as client:
        jobs_before = {job.job_id: getattr(job, "query", "") for job in client.list_jobs()}
        assert on_gcp.run().success
        queries = [
            job.query for job in client.list_jobs() if job.job_id not in jobs_before and not job.dry_run
        ]
    assert {found["status"] for found in on_gcp.summary["assets"].values()} == {"reused"}
    assert modal.forecast_calls() == before
    # The history, that of the stores, and a section of the report. BigQuery answers them from its cache, and
    # bills nothing, as they are those of the run before to the letter.
    assert 1 <= len(queries) <= 3, "\n".join(queries)
    assert set(queries) <= set(jobs_before.values())


def test_a_prefix_of_the_asset_keys_builds_nothing_again(on_gcp):
    variables = {**on_gcp.variables, "SERVERLESS_KEY_PREFIX": "acme", "SERVERLESS_HOME": str(on_gcp.home)}
    done = subprocess.run([SERVERLESS, "run"], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r" 0 built, \d+ reused, 0 failed, 0 skipped", done.stdout), done.stdout
    assert "acme" not in done.stdout


def test_a_mart_whose_test_failed_is_seen_by_nobody(on_gcp, tmp_path):
    """A copy of the project, in which a mart doubles what customers spent, and a test finds out."""
    project = tmp_path / "dbt_project"
    shutil.copytree(on_gcp.parts.project.directory, project, ignore=shutil.ignore_patterns("target", "logs"))
    mart = project / "models" / "marts" / "customers.sql"
    mart.write_text(re.sub(r"sum\((\w+\.)?order_total\)", r"2 * sum(\1order_total)", mart.read_text()))
    (project / "tests" / "nothing_is_right.sql").write_text("select * from {{ ref('customers') }}")
    published = on_gcp.parts.publisher.published
    customers, page = published.warehouse.quoted_name("customers"), published.artifacts.read("forecast.html")
    spent = f"select sum(lifetime_spend) as spent from {customers}"
    before = published.warehouse.query(spent)
    broken = Pipeline(
        on_gcp.home, on_gcp.instance, {**on_gcp.variables, "SERVERLESS_DBT_PROJECT": str(project)}
    )
    result = broken.run(NO_FORECAST, job="transform")
    assert not result.success
    log = "\n".join(entry.user_message for entry in on_gcp.instance.all_logs(result.run_id))
    assert "Not published: customers did not succeed" in log
    assert "What was published before stays as it is." in log
    assert published.warehouse.query(spent) == before
    assert published.artifacts.read("forecast.html") == page
    doubled = spent.replace(customers, on_gcp.warehouse.quoted_name("customers"))
    assert on_gcp.warehouse.query(doubled)["spent"][0].as_py() == 2 * before["spent"][0].as_py()
    # With the mart as it was, the next run mends it, and publishes nothing new.
    assert on_gcp.run(NO_FORECAST, job="transform").success
    assert published.warehouse.query(spent) == before


def test_a_plan_says_what_each_model_would_read(on_gcp):
    """The emulator says 0 bytes of anything: that BigQuery is asked, and answers, is what is seen here."""
    choices = RunInputs(rebuild="all", ingestion=Reuse()).checked()
    found = {one.asset: one.reason for one in dry_run(on_gcp.parts, choices)}
    for model in ("orders", "avg_order_value", "daily_revenue"):
        assert re.fullmatch(r"forced: rebuild all; bills [\d,]+ bytes, about \$0\.\d{6}", found[model])
    assert found["stg_orders"] == "forced: rebuild all"


def test_a_budget_counts_what_the_models_would_read_and_the_forecast(on_gcp):
    everything = [node["alias"] for node in on_gcp.parts.project.read_manifest()["nodes"].values()]
    most = replace(on_gcp.parts.budget_guard, budget_usd=0.0).estimate(
        ["order_forecast", *everything], RunInputs().checked()
    )
    assert [charge.purpose.partition(" (")[0] for charge in most.charges] == [
        "for the forecast",
        "for the warehouse",
    ]
    assert most.uncounted == []


def test_a_first_run_over_the_budget_makes_no_dataset_and_says_what_nobody_can_tell(cloud, tmp_path):
    variables = {**cloud, "DBT_SCHEMA": "over_budget", "SERVERLESS_BUDGET_USD": "0.01"}
    with dg.DagsterInstance.ephemeral() as instance:
        pipeline = Pipeline(tmp_path / "home", instance, variables)
        assert not pipeline.run().success
        assert "$0.02 over the budget" in pipeline.reason("orders")
        assert re.search(r"what is not there yet: .*\borders\b", pipeline.reason("orders"))
        assert pipeline.warehouse.check().endswith("; no dataset yet: the first run creates it")


def test_a_month_loaded_again_leaves_the_same_rows(on_gcp):
    totals = "select count(*) as n, sum(order_total) as cents from {}".format(
        on_gcp.warehouse.quoted_name("raw_orders")
    )
    before = on_gcp.warehouse.query(totals).to_pylist()
    march = {"dagster/partition": "2025-03-01"}
    rebuild = RunInputs(rebuild="all")
    assert on_gcp.run(rebuild, job="ingest", assets=["raw_orders", "raw_items"], tags=march).success
    assert on_gcp.warehouse.query(totals).to_pylist() == before


def test_the_models_pass_their_unit_tests(on_gcp, tmp_path):
    # The averages have up to 20 digits. BigQuery's numeric has 38 of them, the emulator's 18: their unit
    # tests run on DuckDB alone, and the rows of the sample are compared on both.
    failed = dbt_runner.invoke(
        ["test", "--select", "test_type:unit", "--exclude", "avg_order_value,test_type:unit"],
        on_gcp.parts.project.directory, tmp_path / "target", on_gcp.parts.project.variables,
    )  # fmt: skip
    assert failed is None


@pytest.mark.parametrize("table_type", ["TABLE", "CLONE"])
def test_a_month_of_an_incremental_model_is_replaced_and_no_other(on_gcp, google, tmp_path, table_type):
    """CLONE stands for any type that dbt does not know: it takes such a table for no incremental one."""
    warehouse = on_gcp.warehouse
    revenue = warehouse.quoted_name("daily_revenue")
    everything = f"select * from {revenue} order by ds, location_id"
    before = warehouse.query(everything)
    # Both months are spoiled; only the one that is asked for is made good.
    for month in ("2025-03", "2025-04"):
        warehouse.query(f"update {revenue} set nr_orders = 0 where ds between '{month}-01' and '{month}-30'")
    project = on_gcp.parts.project
    variables = {**project.variables, "SERVERLESS_MONTHS": "model.serverless_assets.daily_revenue=2025-03-01"}
    select = ["run", "--select", "daily_revenue"]

    def with_type(request: Asked) -> Answer | None:
        if request.method != "GET" or "/tables" not in request.path:
            return None
        answer = requests.get(google.bigquery.url + request.path, timeout=60)
        return Answer(answer.status_code, json.loads(answer.text.replace('"TABLE"', f'"{table_type}"')))

    with proxy(google.bigquery.url) as running:
        running.instead = with_type
        variables["BIGQUERY_EMULATOR_HOST"] = running.url
        assert dbt_runner.invoke(select, project.directory, tmp_path / "target", variables) is None
        assert running.asked
    after = warehouse.query(everything)
    spoiled = {str(row["ds"])[:7] for row in after.to_pylist() if row["nr_orders"] == 0}
    assert spoiled == {"2025-04"}
    assert after.num_rows == before.num_rows


def test_a_run_after_a_rollback_builds_the_rows_of_a_first_run(cloud, tmp_path):
    assets = [f"raw_{name}" for name in ("orders", "items", "products", "stores", "supplies")]
    assets += [f"stg_{name}" for name in ("orders", "order_items", "products", "locations", "supplies")]
    assets += ["orders", "daily_revenue"]
    days = iter(map(date.fromisoformat, ("2026-08-31", "2026-10-10")))
    shop = SmallShop(end=next(days))
    with serve_shop(lambda: shop) as url, dg.DagsterInstance.ephemeral() as instance:
        source = {"SERVERLESS_DATASET_URL": url, "SERVERLESS_FIRST_MONTH": "2026-07"}
        pipeline = Pipeline(tmp_path / "home", instance, {**cloud, **source, "DBT_SCHEMA": "returned"})
        assert pipeline.run(assets=assets).success
        shop = SmallShop(end=next(days))
        assert pipeline.run(assets=assets).success
        pipeline.parts.publisher.rollback(None, instance, LOG)
        assert pipeline.run(assets=assets).success
        # Months are replaced in the clones that the rollback left.
        assert pipeline.facts("orders")["months"].endswith("2026-09, 2026-10")
        laptop = Pipeline(tmp_path / "laptop", instance, source)
        assert laptop.run(assets=assets).success
        compared = list(compare(laptop.warehouse, pipeline.warehouse))
    assert [one.relation for one in compared if one.differences] == []


def test_runs_of_two_homes_at_the_same_time_take_turns(cloud, tmp_path):
    shop = SmallShop(end=date(2026, 8, 31))
    with serve_shop(lambda: shop) as url:
        variables = {**cloud, "SERVERLESS_DATASET_URL": url, "DBT_SCHEMA": "turns"}
        runs = [
            subprocess.Popen(
                [SERVERLESS, "run", "ingest"],
                env={**variables, "SERVERLESS_HOME": str(tmp_path / home)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for home in ("one", "another")
        ]  # fmt: skip
        outputs = [run.communicate()[0] for run in runs]
        # What a run left unfinished is resumed from any of them.
        one = Settings.from_environ({**variables, "SERVERLESS_HOME": str(tmp_path / "one")})
        environment(one).publisher.pending_assets.replace(["raw_orders"])
        third = {**variables, "SERVERLESS_HOME": str(tmp_path / "third")}
        resumed = subprocess.run(
            [SERVERLESS, "run", "ingest", "--resume"], env=third, capture_output=True, text=True
        )
    assert [run.returncode for run in runs] == [0, 0], outputs
    first, second = sorted(outputs, key=lambda output: "0 built" in output)
    [loaded] = re.findall(r"(\d+) built, 0 reused", first)
    assert f"0 built, {loaded} reused" in second, second
    assert "0 built, 1 reused" in resumed.stdout, resumed.stdout + resumed.stderr


def test_a_dataset_elsewhere_stops_the_run_before_anything_is_written(cloud, tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        pipeline = Pipeline(tmp_path / "home", instance, {**cloud, "SERVERLESS_LOCATION": "europe-west3"})
        assert not pipeline.run(job="ingest").success
        assert "set SERVERLESS_LOCATION to US" in pipeline.reason("raw_orders")
        assert {found["status"] for found in pipeline.summary["assets"].values()} == {"failed"}


def test_the_doctor_finds_everything_well(cloud, tmp_path):
    told = subprocess.run(
        [SERVERLESS, "doctor"],
        env={**cloud, "SERVERLESS_HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    assert "NOT OK" not in told.stdout
    for part in ("emulated-project.dwh", f"gs://{BUCKET}", "is deployed and answers"):
        assert part in told.stdout


def test_the_doctor_and_the_plan_name_what_a_run_replaces_that_no_run_has_made(cloud, tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        pipeline = Pipeline(tmp_path / "home", instance, {**cloud, "DBT_SCHEMA": "moved_in"})
        published = pipeline.parts.publisher.published.warehouse
        published.prepare()
        published.query(f"create table {published.quoted_name('stg_orders')} as select 1 as order_id")
        published.query(f"create table {published.quoted_name('a_table_of_yours')} as select 1 as order_id")
        (models,) = (finding for finding in examine(pipeline.parts) if finding.part == "models")
        assert models.result.endswith("replaces relations that no run has made: stg_orders (a table)")
        planned = {one.asset: one.reason for one in dry_run(pipeline.parts, RunInputs())}
        assert planned["stg_orders"].endswith("; replaces a table that no run has made")
        assert "no run has made" not in planned["stg_customers"]
        # As a run leaves them of a project that says otherwise.
        for name in ("orders", "avg_order_value", "daily_revenue", "raw_orders", "raw_items", "raw_stores"):
            quoted = published.quoted_name(name)
            kind = "view" if name in ("orders", "raw_items") else "table"
            published.query(f"create {kind} {quoted} as select date '2026-01-01' as ds")
            published.write_states({name: {"version": "1"}})
        (models,) = (finding for finding in examine(pipeline.parts) if finding.part == "models")
        assert models.result.endswith(
            "The next successful run replaces relations whose layout changed: daily_revenue is partitioned "
            "or clustered otherwise, orders is a view, becomes a table, raw_items is a view, becomes a "
            "table, raw_orders is partitioned or clustered otherwise"
        )
        planned = {one.asset: one.reason for one in dry_run(pipeline.parts, RunInputs())}
        assert planned["orders"].endswith("; is a view, becomes a table: replaced")
        assert planned["raw_items"].endswith("; is a view, becomes a table: replaced")
        for name in ("daily_revenue", "raw_orders"):
            assert planned[name].endswith("; is partitioned or clustered otherwise: replaced")
        for name in ("avg_order_value", "raw_stores"):
            assert not planned[name].endswith("replaced")
        names = map(published.quoted_name, ("stg_supplies", "a_table_of_yours"))
        published.query("create snapshot table {} clone {}".format(*names))
        (models,) = (finding for finding in examine(pipeline.parts) if finding.part == "models")
        assert "moved_in.stg_supplies is a snapshot table, in whose place no run publishes" in models.result
        assert not models.is_well
        (supplies,) = (one for one in dry_run(pipeline.parts, RunInputs()) if one.asset == "stg_supplies")
        assert (supplies.verdict, supplies.reason) == ("fail", models.result)


def test_the_doctor_names_what_is_wrong_and_goes_on(cloud, tmp_path):
    away = {
        "SERVERLESS_DATASET_URL": "http://127.0.0.1:9",
        "SERVERLESS_MODAL_APP": "nowhere",
        "STORAGE_EMULATOR_HOST": "http://127.0.0.1:9",
    }
    told = subprocess.run(
        [SERVERLESS, "doctor"],
        env={**cloud, **away, "SERVERLESS_HOME": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 1
    assert told.stdout.count("NOT OK") == 3
    assert "make deploy-modal" in told.stdout
    assert "127.0.0.1:9 cannot be reached" in told.stdout
    assert "Traceback" not in told.stdout + told.stderr


def test_stores_are_checked_and_scored_alike_on_both(on_gcp, on_laptop):
    for pipeline in (on_gcp, on_laptop):
        plant_stores(pipeline, datetime(2026, 10, 1, 6, tzinfo=UTC), "planted")
        result = pipeline.run(assets=["forecast_accuracy_by_store", "store_forecast"])
        assert result.success
        assert pipeline.reason("store_forecast") == "unchanged: same total, stores and code"
        checks = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
        assert checks.items() >= dict.fromkeys(PART_DESCRIPTIONS, True).items()
        assert pipeline.facts("forecast_accuracy_by_store")["stores_scored"] == 6
    # A test before it has left the rows of daily_revenue different.
    names = {"forecast_accuracy_by_store", "store_forecast"}
    scores = [one for one in compare(on_laptop.warehouse, on_gcp.warehouse) if one.relation in names]
    assert {one.relation for one in scores} == names
    assert [one.relation for one in scores if one.differences] == []


def test_every_step_of_a_run_that_has_lost_its_turn_fails_before_it_writes(on_gcp, monkeypatch):
    def open_and_lose(publisher, run_id, log):
        begin(publisher, run_id, log)
        monkeypatch.setattr(publisher._lease, "_taken_by", "another run")

    begin = BigQueryPublisher.open
    monkeypatch.setattr(BigQueryPublisher, "open", open_and_lose)
    steps = [step for step in on_gcp.definitions.assets if isinstance(step, dg.AssetsDefinition)]
    for asset in (min(step.keys).to_user_string() for step in steps):
        assert not on_gcp.run(assets=[asset]).success
        assert "another run took over" in on_gcp.reason(asset)
