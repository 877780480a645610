"""Models in several Google Cloud projects: built, reused, published, taken back and dropped together."""

import logging
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import pytest
from google.cloud import bigquery

from serverless_assets.run_inputs import RunForecast, RunInputs, SkipForecast
from serverless_assets.sample_shop.api import serve
from serverless_assets.transformation.slim_ci import slim_ci
from serverless_assets.warehouse import WarehouseError
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from tests.backends.conftest import Google
from tests.backends.released_shop import ASSETS, Shop
from tests.backends.watched import statements, watching
from tests.conftest import Pipeline, code_location
from tests.faults.crash_points import RequestCrashPoint, every_crash_point
from tests.services.proxy import Proxy
from tests.transformation.test_team_edits_on_bigquery import FILES, order
from tests.transformation.world import Source

# Who may do what in which project, and whether the projects lie in one location, only the service can tell.
pytestmark = pytest.mark.gcp

LOG = logging.getLogger("run")
OTHER = "other-project"
TABLE = "{{ config(materialized='table') }} "
THERE = f"database='{OTHER}'"
PROJECT = {
    **{name: FILES[name] for name in ("dbt_project.yml", "models/raw.yml")},
    "models/orders.sql": "select id, order_total from {{ source('raw', 'raw_orders') }}",
    "models/totals.sql": f"{{{{ config({THERE}, materialized='table', schema='mart', alias='sums') }}}} "
    "select count(*) as orders, 1 as factor from {{ ref('orders') }}",
    "models/shown.sql": f"{{{{ config({THERE}) }}}} "
    "select t.orders * t.factor as orders from {{ ref('totals') }} as t cross join {{ ref('one') }}",
    "models/one.sql": TABLE + "select 1 as one",
    "models/top.sql": TABLE + "select max(orders) as orders from {{ ref('shown') }}",
    "models/top.yml": "models: [{name: top, columns: [{name: orders, data_tests: [not_null]}]}]\n",
}
REVENUE = {
    "models/daily_revenue.sql": f"{{{{ config({THERE}, materialized='table', schema='mart') }}}} "
    "select day as ds, 'b' as location_id, 'Berlin' as location_name, 3 as nr_orders, "
    "10.0 * extract(dayofweek from day) as revenue_usd "
    "from unnest(generate_date_array(date '2025-01-01', date '2026-01-01')) as day",
    "models/daily_revenue.yml": "models: [{name: daily_revenue, columns: "
    "[{name: ds, data_tests: [not_null]}]}]\n",
}


class Team:
    """A pipeline on BigQuery, and the folder of its dbt project."""

    def __init__(self, pipeline: Pipeline, source: Source, folder: Path) -> None:
        self.pipeline = pipeline
        self.source = source
        self.folder = folder

    def write(self, files: Mapping[str, str]) -> "Team":
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)
        return self

    def run(
        self, deleted: str = "keep", forecast: RunForecast | SkipForecast | None = None
    ) -> dict[str, str]:
        """Run all, and return the reasons of what was not reused."""
        for cached in ("definitions", "parts"):
            self.pipeline.__dict__.pop(cached, None)
        code_location.cache_clear()
        self.pipeline.run(
            RunInputs(forecast=forecast or SkipForecast(), deleted_models=deleted)  # type: ignore[arg-type]
        )
        outcomes = self.pipeline.summary["assets"]
        return {name: one["reason"] for name, one in outcomes.items() if one["status"] != "reused"}

    @property
    def warehouse(self) -> BigQueryWarehouse:
        published = self.pipeline.parts.publisher.published.warehouse
        assert isinstance(published, BigQueryWarehouse)
        return published

    def read(self) -> tuple[int, ...]:
        """What people read in both projects."""
        main = self.warehouse
        relations = (
            main.in_schema(OTHER, f"{main.dataset}_mart").quoted_name("sums"),
            main.in_schema(OTHER, "").quoted_name("shown"),
            main.quoted_name("top"),
        )
        return tuple(main.query(f"select orders from {name}")["orders"][0].as_py() for name in relations)


@pytest.fixture
def team(google: Google, tmp_path: Path) -> Iterator[Team]:
    chance = random.Random(1)
    source = Source({"raw_orders": [order(f"o{n}", chance) for n in range(20)]})
    with serve(source.app()) as url, dg.DagsterInstance.ephemeral() as instance:
        variables = {
            "SERVERLESS_DATASET_URL": url,
            "SERVERLESS_FIRST_MONTH": "2026-01",
            "SERVERLESS_DBT_PROJECT": str(tmp_path / "project"),
            "DBT_SCHEMA": f"projects_{tmp_path.name[-1]}",
            "SERVERLESS_ENV": "gcp",
            "SERVERLESS_BUCKET": "projects",
            "SERVERLESS_COMPUTE": "subprocess",
            "GOOGLE_CLOUD_PROJECT": "emulated-project",
        }
        yield Team(Pipeline(tmp_path / "home", instance, variables), source, tmp_path / "project").write(
            PROJECT
        )


def test_models_in_two_projects_are_built_reused_published_and_taken_back_together(team: Team) -> None:
    assert team.run().keys() == {"raw_orders", "orders", "mart/totals", "shown", "one", "top"}
    assert team.read() == (20, 20, 20)
    publisher = team.pipeline.parts.publisher
    assert team.run() == {}
    (first,) = publisher.releases()
    del team.source.rows["raw_orders"][0]
    assert team.run().keys() == {"raw_orders", "orders", "mart/totals", "shown", "top"}
    assert team.read() == (19, 19, 19)
    assert set(publisher.releases()[0].changed) >= {"sums", "top"}
    # A test that fails in one project keeps the other as it was, too.
    twice = PROJECT["models/totals.sql"].replace("1 as", "2 as")
    broken = PROJECT["models/top.sql"].replace("max(orders)", "cast(null as int64)")
    assert "tests failed" in team.write({"models/totals.sql": twice, "models/top.sql": broken}).run()["top"]
    assert team.read() == (19, 19, 19)
    publisher.rollback(first.run_id, team.pipeline.instance, LOG)
    assert team.read() == (20, 20, 20)
    # The next run goes on from there.
    team.write({"models/top.sql": PROJECT["models/top.sql"]})
    assert team.run()["mart/totals"]
    assert team.read() == (19, 38, 38)


def test_a_model_that_is_deleted_or_moves_leaves_neither_project_with_its_table(team: Team) -> None:
    team.run()
    main = team.warehouse
    there, work = main.in_schema(OTHER, ""), main.working().in_schema(OTHER, "")
    (team.folder / "models" / "shown.sql").unlink()
    moved = PROJECT["models/totals.sql"].replace(f"{THERE}, ", "").replace("schema='mart', ", "")
    top = PROJECT["models/top.sql"].replace("shown", "totals")
    one = f"{{{{ config({THERE}, materialized='table') }}}} select 1 as one"
    team.write({"models/totals.sql": moved, "models/top.sql": top, "models/one.sql": one}).run()
    assert (there.tables(), work.tables()) == ({"one", "shown"}, {"one", "shown"})
    team.run(deleted="drop")
    assert (there.tables(), work.tables()) == ({"one"}, {"one"})
    mart = main.in_schema(OTHER, f"{main.dataset}_mart")
    assert mart.tables() == set()
    assert main.tables() >= {"sums", "top"}
    assert "one" not in main.tables()
    assert team.run() == {}


def test_a_pull_request_is_built_beside_both_projects_and_in_a_new_one_and_leaves_nothing(
    team: Team,
) -> None:
    def datasets() -> dict[str, set[str]]:
        projects = (team.warehouse.project, OTHER, "new-project")
        with bigquery.Client(team.warehouse.project) as client:
            return {name: {one.dataset_id for one in client.list_datasets(name)} for name in projects}

    team.run()
    before = datasets()
    twice = PROJECT["models/totals.sql"].replace("1 as", "2 as")
    new = "{{ config(database='new-project') }} select orders from {{ ref('shown') }}"
    parts = team.write({"models/totals.sql": twice, "models/new.sql": new}).pipeline.parts
    checked = slim_ci(parts.project, parts.publisher)
    assert (checked.failure, checked.deferred) == (None, ["one", "orders"])
    assert sorted(checked.built) == ["new", "shown", "top", "totals"]
    assert datasets() == before
    assert team.read() == (20, 20, 20)
    # It reads what people read, which a run that failed leaves as it is.
    broken = PROJECT["models/top.sql"].replace("max(orders)", "cast(null as int64)")
    assert "tests failed" in team.write({"models/totals.sql": twice, "models/top.sql": broken}).run()["top"]
    same = "select orders from {{ ref('shown') }} where if(orders = 20, true, error('not published'))"
    top = {"models/totals.sql": PROJECT["models/totals.sql"], "models/top.sql": TABLE + same}
    (team.folder / "models" / "new.sql").unlink()
    parts = team.write(top).pipeline.parts
    checked = slim_ci(parts.project, parts.publisher)
    assert (checked.failure, checked.built, checked.deferred) == (None, ["top"], ["shown"])
    assert datasets()[OTHER] == before[OTHER]


def test_a_project_in_which_another_environment_builds_is_refused_and_nothing_is_written(shop: Shop) -> None:
    work = shop.publisher.warehouse
    there = work.in_schema(OTHER, "")
    there.prepare()
    there.write_record("lock", {"run": "theirs"})
    with pytest.raises(WarehouseError, match="which another environment has for its own runs"):
        work.prepare_schemas([(OTHER, work.dataset)])
    assert work.in_all_schemas() == [work]


def test_a_publish_in_two_projects_that_is_killed_at_any_request_is_completed_by_the_next_run(
    shop: Shop,
) -> None:
    def amounts() -> set[int]:
        published = shop.publisher.published.warehouse
        names = (published.quoted_name("raw_orders"), published.in_schema(OTHER, "").quoted_name("raw_items"))
        return {
            amount
            for name in names
            for amount in published.query(f"select distinct amount from {name}")["amount"].to_pylist()
        }

    def write(number: int) -> None:
        shop.publisher.begin(f"run-{number}", (), ASSETS, LOG)
        work = shop.publisher.warehouse
        work.prepare_schemas([(OTHER, work.dataset)])
        shop.write(number, elsewhere=work.in_schema(OTHER, ""))
        shop.publisher.close()

    def publish() -> None:
        shop.publish(f"run-{number}")

    write(number := 1)
    publish()
    write(number := 2)
    for _ in every_crash_point(publish, RequestCrashPoint, stride=2):
        assert amounts() <= {number - 1, number}
        shop.publish(f"run-{number}-again")
        assert amounts() == {number}
        assert shop.publisher.releases()[0].run_id in (f"run-{number}", f"run-{number}-again")
        number += 1
        write(number)
    assert amounts() == {number}
    assert number >= 10


def test_a_forecast_asks_for_a_history_in_another_project_once_and_a_what_if_for_the_published_one(
    team: Team, google: Google
) -> None:
    def histories(asked: Proxy) -> list[str]:
        """The statements that sum the history, by day alone."""
        return [one for one in statements(asked) if "as history" in one and one.endswith("group by 1")]

    with watching(google.bigquery) as watched:
        assert {"order_forecast", "store_forecast", "forecast_report"} <= team.write(REVENUE).run(
            forecast=RunForecast()
        ).keys()
        # Accuracy, total and report each read it.
        (history,) = histories(watched)
        mart = f"{team.warehouse.working().dataset}_mart"
        assert f"`{OTHER}`.`{mart}`.`daily_revenue`" in history
    # What a run has built and not published, as a test failed.
    broken = REVENUE["models/daily_revenue.sql"].replace("day as ds", "nullif(day, '2025-06-01') as ds")
    team.write({"models/daily_revenue.sql": broken})
    assert "tests failed" in team.run()["mart/daily_revenue"]
    with watching(google.bigquery) as watched:
        assert team.pipeline.run(RunInputs(forecast=RunForecast()), "what_if_forecast").success
        assert histories(watched) == [history.replace(mart, f"{team.warehouse.dataset}_mart")]
