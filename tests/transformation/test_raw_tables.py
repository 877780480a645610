"""Raw tables that a team declares: one that it adds, and those that the source does not have."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from serverless_assets.automation.plan import dry_run
from serverless_assets.cli.main import main
from serverless_assets.definitions import build
from serverless_assets.environments import environment
from serverless_assets.ingestion.http_client import SAMPLE_HEADER
from serverless_assets.names import MAIN_JOB
from serverless_assets.publishing.summary import read_summary
from serverless_assets.run_inputs import Reuse, RunInputs
from serverless_assets.settings import Settings
from tests.services.listening import listening
from tests.transformation.team import BASE, Team

pytestmark = pytest.mark.slow

SOURCES = """
sources:
  - name: raw
    schema: "{{ target.schema }}"
    tables:
      - name: shops
        config: {meta: {key: [id]}}
        columns: [{name: id, data_type: string}]
      - name: visits
        config: {meta: {key: [id], optional: OPTIONAL}}
        columns: [{name: id, data_type: string}]
"""
MODELS = {
    "models/all_shops.sql": "select id from {{ source('raw', 'shops') }}",
    "models/all_visits.sql": "select id from {{ source('raw', 'visits') }}",
    "models/both.sql": "{{ config(materialized='table') }} select id from {{ ref('all_shops') }}"
    " union all select id from {{ ref('all_visits') }}",
}


NO_VISITS = {
    **dict.fromkeys(("shops", "all_shops"), "built"),
    **dict.fromkeys(("visits", "all_visits", "both"), "skipped"),
}


class Folder(SimpleHTTPRequestHandler):
    """A folder of parquet files; the sample shop says of itself that it is one."""

    is_sample = False

    def end_headers(self) -> None:
        if self.is_sample:
            self.send_header(SAMPLE_HEADER, "yes")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class World:
    """A team's project, and the folder of files that it loads."""

    team: Team
    files: Path
    url: str
    handler: type[Folder]
    on_sample: bool = False

    def serve(self, *tables: str) -> None:
        for path in self.files.iterdir():
            path.unlink()
        for table in tables:
            pq.write_table(pa.table({"id": [f"{table} 1"]}), self.files / f"{table}.parquet")

    @property
    def variables(self) -> Mapping[str, str]:
        return {
            "SERVERLESS_HOME": str(self.team.home),
            "SERVERLESS_DBT_PROJECT": str(self.team.directory),
            **({} if self.on_sample else {"SERVERLESS_DATASET_URL": self.url}),
            "SERVERLESS_FIRST_MONTH": "2026-01",
        }

    @property
    def settings(self) -> Settings:
        return Settings.from_environ(self.variables)

    def plan(self, inputs: RunInputs | None = None) -> dict[str, str]:
        plan = dry_run(environment(self.settings), inputs or RunInputs())
        return {one.asset: one.verdict for one in plan}

    def run(self, inputs: RunInputs | None = None, job: str = MAIN_JOB) -> Mapping[str, tuple[str, str]]:
        self.result = (
            build(self.settings)
            .resolve_job_def(job)
            .execute_in_process(
                run_config=dg.RunConfig(resources={"run_inputs": inputs or RunInputs()}),
                instance=self.team.instance,
                raise_on_error=False,
            )
        )
        self.summary = read_summary(self.team.home) or {}
        return {name: (one["status"], one["reason"]) for name, one in self.summary["assets"].items()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    files = tmp_path / "files"
    files.mkdir()
    handler = type("Handler", (Folder,), {})
    with (
        dg.DagsterInstance.ephemeral() as instance,
        listening(partial(handler, directory=str(files))) as server,
    ):
        team = Team(tmp_path / "project", tmp_path / "home", instance).write({**BASE, **MODELS})
        team.write({"models/raw.yml": SOURCES.replace("OPTIONAL", "false")})
        yield World(team, files, f"http://127.0.0.1:{server.server_port}", handler)


def verdicts(outcomes: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    return {name: status for name, (status, _) in outcomes.items()}


def test_only_what_depends_on_a_missing_table_is_left_out_and_the_run_says_so(world: World):
    world.serve("shops")
    assert world.plan() == {
        "shops": "load", "visits": "fail", "all_shops": "build", "all_visits": "skip", "both": "skip",
    }  # fmt: skip
    outcomes = world.run()
    assert verdicts(outcomes) == {**NO_VISITS, "visits": "failed"}
    assert "/visits.parquet answered 404" in outcomes["visits"][1]
    assert "check SERVERLESS_DATASET_URL" in outcomes["visits"][1]
    assert outcomes["all_visits"][1] == outcomes["both"][1] == "skipped: upstream visits failed"
    assert not world.result.success and not world.summary["published"]
    (failure,) = world.result.get_step_failure_events()
    assert "1 of the raw tables could not be loaded" in str(failure.step_failure_data.error_display_string)
    assert world.team.instance.get_latest_materialization_event(dg.AssetKey("visits")) is None

    world.serve("shops", "visits")
    assert {status for status, _ in world.run().values()} == {"built", "reused"}
    assert world.summary["published"]

    world.serve("shops")
    assert world.plan() == {
        "shops": "reuse", "visits": "fail", "all_shops": "reuse", "all_visits": "skip", "both": "skip",
    }  # fmt: skip
    assert world.run()["both"] == ("skipped", "skipped: upstream visits failed")
    assert not world.summary["published"]


def test_tables_and_models_are_in_the_groups_that_the_dbt_project_names(world: World):
    grouped = SOURCES.replace("OPTIONAL", "false, dagster: {group: guests}")
    world.team.write({"models/raw.yml": grouped})
    world.team.write({"dbt_project.yml": BASE["dbt_project.yml"] + "models: {team: {+group: people}}\n"})
    world.team.write({"models/groups.yml": "groups: [{name: people, owner: {name: Ann}}]\n"})
    definitions = build(world.settings)
    groups = {spec.key.path[-1]: spec.group_name for spec in definitions.resolve_all_asset_specs()}
    assert (groups["shops"], groups["visits"], groups["both"]) == ("ingestion", "guests", "people")
    loaded = definitions.resolve_job_def("ingest").asset_layer.selected_asset_keys
    assert {key.path[-1] for key in loaded} == {"shops", "visits"}


def test_a_run_succeeds_without_an_optional_table(world: World):
    world.team.write(
        {
            "models/raw.yml": SOURCES.replace("{key: [id]}", "{key: [id], optional: true}").replace(
                "OPTIONAL", "true"
            )
        }
    )
    world.serve("shops")
    reuse = RunInputs(ingestion=Reuse())
    assert world.plan(reuse)["visits"] == "fail"
    assert world.run(reuse)["visits"][0] == "failed"
    assert world.plan()["visits"] == "skip"
    outcomes = world.run()
    assert verdicts(outcomes) == NO_VISITS
    assert outcomes["both"][1] == "skipped: visits is not in the warehouse"
    assert world.result.success and world.summary["published"]
    assert world.plan(reuse)["visits"] == "skip"
    assert world.run(reuse)["visits"][0] == "skipped"
    assert world.summary["success"]

    world.serve("shops", "visits")
    assert {status for status, _ in world.run().values()} == {"built", "reused"}
    world.serve("shops")
    assert set(world.plan().values()) == {"reuse"}
    assert {status for status, _ in world.run().values()} == {"reused"}
    assert world.summary["published"]


def test_a_forecast_of_what_an_optional_table_lacks_says_so(world: World):
    world.team.write({"models/raw.yml": SOURCES.replace("OPTIONAL", "true")})
    world.team.write({"models/daily_revenue.sql": "select id from {{ ref('all_visits') }}"})
    world.serve("shops")
    outcomes = world.run()
    missing = ("skipped", "skipped: visits is not in the warehouse")
    assert outcomes["daily_revenue"] == outcomes["order_forecast"] == outcomes["forecast_report"] == missing
    assert world.result.success and world.summary["published"]


def test_a_forecast_of_models_that_are_built_is_not_reached_after_a_missing_table_and_a_plan_says_so(
    world: World,
):
    world.team.write({"models/daily_revenue.sql": "select id from {{ ref('all_shops') }}"})
    world.serve("shops")
    plan = {one.asset: one for one in dry_run(environment(world.settings), RunInputs())}
    outcomes = world.run()
    assert outcomes["daily_revenue"] == ("built", "new")
    for name in ("order_forecast", "forecast_accuracy", "forecast_report"):
        assert (plan[name].verdict, plan[name].reason) == ("skip", "not reached: visits would fail before it")
        assert outcomes[name] == ("skipped", "not reached: visits failed before it")


def test_the_sample_shop_does_without_tables_that_another_source_has(world: World):
    world.handler.is_sample = True
    world.serve("shops")
    assert world.plan()["visits"] == "skip"
    outcomes = world.run()
    assert world.result.success and world.summary["published"]
    assert outcomes["visits"][0] == "skipped"
    assert "The bundled sample shop has no such table" in outcomes["visits"][1]


@pytest.mark.parametrize("ingestion", ["none", "reuse"])
def test_so_does_a_run_on_the_sample_shop_that_loads_nothing(ingestion: str, world: World):
    sources = SOURCES.replace("OPTIONAL", "false").replace("name: shops", "name: raw_stores")
    model = MODELS["models/all_shops.sql"].replace("shops", "raw_stores")
    world.team.write({"models/raw.yml": sources, "models/all_shops.sql": model})
    world.on_sample = True
    world.run()
    inputs = RunInputs(ingestion=Reuse())
    outcomes = world.run(inputs, **({"job": "transform"} if ingestion == "none" else {}))
    assert world.result.success
    assert (
        outcomes["all_visits"] == outcomes["both"] == ("skipped", "skipped: visits is not in the warehouse")
    )
    assert world.plan(inputs)["both"] == "skip"
    # With a source of one's own, it is missing.
    world.on_sample = False
    world.run(job="transform")
    (failure,) = world.result.get_step_failure_events()
    sentence = "visits is not in the warehouse. Left out for that: all_visits, both. Load it with"
    assert sentence in str(failure.step_failure_data.error_display_string)


def test_ingestion_by_itself_fails_for_a_missing_table(world: World):
    world.serve("shops")
    assert verdicts(world.run(job="ingest")) == {"shops": "built", "visits": "failed"}
    assert not world.result.success


def test_a_source_without_any_of_the_tables_stops_the_run(world: World):
    assert world.plan() == {
        "shops": "fail", "visits": "fail", "all_shops": "skip", "all_visits": "skip", "both": "skip",
    }  # fmt: skip
    world.run()
    (failed,) = world.result.get_failed_step_keys()
    assert failed == "ingestion"


def test_a_table_and_its_model_are_added_by_the_command_and_loaded_by_the_next_run(world: World, monkeypatch):
    world.serve("shops", "visits")
    times = pa.array([datetime(2026, 3, day) for day in (1, 2)])
    sales = pa.table(
        {"shop": ["s1", "s1"], "sale_id": [1, 2], "sold_at": times, "took": [timedelta(1), None]}
    )
    pq.write_table(sales, world.files / "raw_sales.parquet")
    for name, value in world.variables.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(main, ["add-table", f"{world.url}/raw_sales.parquet"])
    assert done.exit_code == 0, done.output
    assert "key: sale_id, a guess" in done.output
    assert "took is left out: duration[us]" in done.output
    assert "no event_time: sold_at is not like that of events (the newest is of 2026-03-02)." in done.output
    outcomes = world.run()
    assert outcomes["raw_sales"] == ("built", "loaded from the source: first load")
    assert outcomes["stg_sales"] == ("built", "new")
    assert set(world.plan().values()) == {"reuse"}
    assert world.team.rows("select * exclude (sold_at) from dwh.stg_sales order by all") == [
        ("s1", 1), ("s1", 2),
    ]  # fmt: skip
    again = CliRunner().invoke(main, ["add-table", f"{world.url}/raw_sales.parquet"])
    assert again.exit_code == 1
    assert "The dbt project has a raw_sales already: choose another name with --name." in again.output
