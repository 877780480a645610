"""A pull request is checked beside production: what differs is built and tested, and nothing is left."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner

from serverless_assets.artifacts.local import LocalArtifacts
from serverless_assets.cli.main import main
from serverless_assets.transformation import dbt_runner, slim_ci
from serverless_assets.transformation.green_build import keep_manifest
from serverless_assets.transformation.project import Project
from serverless_assets.transformation.slim_ci import Checked, NothingToCompareWith, deferred
from tests.conftest import Pipeline

pytestmark = pytest.mark.slow


@dataclass
class PullRequest:
    """A copy of the dbt project to change, and production as the last green run left it."""

    production: Pipeline
    directory: Path
    # The relations of the scratch schema, as they were when dbt had come to its end.
    seen: list[tuple[str, str]]

    def edit(self, file: str, change: Callable[[str], str]) -> None:
        path = self.directory / file
        path.write_text(change(path.read_text()))

    def check(self) -> Checked:
        parts = self.production.parts
        project = Project(self.directory, self.production.home / "dbt", parts.project.variables)
        return slim_ci.slim_ci(project, parts.publisher)

    @property
    def left_behind(self) -> list[Path]:
        return list(self.production.home.glob(".scratch*"))


@pytest.fixture(scope="module")
def production(green, tmp_path_factory) -> Pipeline:
    """What a green run left; no check changes it, so that all of them share it."""
    home = tmp_path_factory.mktemp("production") / "home"
    shutil.copytree(green.home, home, symlinks=True, ignore=shutil.ignore_patterns("lock"))
    found = Pipeline(home, green.instance, green.variables)
    published = LocalArtifacts(home / "artifacts", home / "artifacts")
    keep_manifest(published, found.parts.project.manifest(), None, "run-1")
    return found


@pytest.fixture
def request_(production, tmp_path, monkeypatch) -> PullRequest:
    project = production.parts.project
    directory = tmp_path / "project"
    shutil.copytree(
        project.directory, directory, ignore=shutil.ignore_patterns("target", "logs", "dbt_packages")
    )
    found = PullRequest(production, directory, [])

    def invoke(arguments, project_dir, target, variables, *rest, invoke=dbt_runner.invoke, **more):
        failed = invoke(arguments, project_dir, target, variables, *rest, **more)
        with duckdb.connect(variables["SERVERLESS_DUCKDB_PATH"]) as connection:
            found.seen += connection.execute(
                "select table_schema, table_name from information_schema.tables"
                " where table_schema like 'dwh_ci%'"
            ).fetchall()
        return failed

    monkeypatch.setattr(dbt_runner, "invoke", invoke)
    return found


def another_total(sql: str) -> str:
    return sql.replace("count(*) as count_lifetime_orders", "0 + count(*) as count_lifetime_orders")


def without_some(sql: str) -> str:
    """Unsound on the shop's rows, where customers order often, and not on those of the unit tests."""
    return sql.replace("group by customer_id", "group by customer_id having count(*) < 5")


def test_an_unchanged_project_builds_and_tests_nothing(request_):
    checked = request_.check()
    assert checked.is_green
    assert str(checked) == "Nothing differs from production."
    assert request_.seen == request_.left_behind == []


def test_an_edited_model_and_what_reads_it_are_built_beside_production_from_its_other_models(request_):
    home = request_.production.home
    files = [path for path in (*home.rglob("*.duckdb"), *home.glob("artifacts/*")) if path.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}
    request_.edit("models/marts/customers.sql", another_total)
    checked = request_.check()
    assert checked.is_green, checked
    assert sorted(checked.built) == ["avg_order_value", "customers"]
    assert sorted(request_.seen) == [(checked.schema, "avg_order_value"), (checked.schema, "customers")]
    assert checked.deferred == ["orders", "stg_customers"]
    # Tests of what was built, unit tests among them.
    assert checked.tests["passed"] > 10
    assert f"in {checked.schema}, which is gone again" in str(checked)
    assert str(checked).endswith("\n\nPassed.")
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files} == before
    assert request_.left_behind == []


def test_a_failed_test_is_named_and_nothing_is_left(request_):
    request_.edit("models/marts/customers.sql", without_some)
    checked = request_.check()
    assert not checked.is_green
    lines = str(checked).splitlines()
    assert "FAILED customers_keep_every_order: 1 row fails this test" in lines
    assert lines[-1] == "Failed: correct what is named above, then check again."
    # What reads an unsound model is not built from it.
    assert (checked.built, checked.not_built) == (["customers"], ["avg_order_value"])
    assert request_.seen == [(checked.schema, "customers")]
    assert request_.left_behind == []


def test_a_model_that_fails_its_unit_test_is_not_built_and_nothing_is_left(request_):
    request_.edit("models/marts/customers.sql", lambda sql: sql.replace("'returning'", "'came back'"))
    checked = request_.check()
    assert not checked.is_green
    assert (checked.built, checked.not_built) == ([], ["customers", "avg_order_value"])
    assert "came back" in checked.failed["a_customer_returns_with_the_second_order"]
    assert request_.seen == request_.left_behind == []


def test_a_model_that_cannot_be_built_is_named_and_nothing_is_left(request_):
    request_.edit(
        "models/staging/stg_customers.sql",
        lambda sql: sql.replace("from raw_customers", "from raw_customers, nowhere"),
    )
    checked = request_.check()
    assert not checked.is_green
    assert checked.built == []
    assert "nowhere" in checked.failed["stg_customers"]
    assert request_.left_behind == []


def test_a_project_that_cannot_be_read_is_told_in_dbts_words(request_):
    request_.edit("models/marts/customers.sql", lambda sql: sql.replace('ref("orders")', 'ref("nowhere")'))
    checked = request_.check()
    assert not checked.is_green
    assert "nowhere" in str(checked)


def test_a_changed_test_alone_is_run_on_production(request_):
    request_.edit(
        "models/marts/customers.yml", lambda text: text.replace("[new, returning]", "[new, returning, lost]")
    )
    checked = request_.check()
    assert (checked.is_green, checked.built, checked.tests) == (True, [], {"passed": 1}), checked


def test_a_changed_source_builds_what_reads_it_from_productions_raw_tables(request_):
    request_.edit(
        "models/staging/stg_locations.sql", lambda sql: sql.replace("tax_rate,", "tax_rate + 0 as tax_rate,")
    )
    checked = request_.check()
    assert checked.is_green, checked
    assert {"stg_locations", "orders", "customers", "daily_revenue"} <= set(checked.built)
    assert "stg_orders" in checked.deferred


def test_a_model_that_is_no_more_is_told(request_):
    (request_.directory / "models/aggregations/avg_order_value.sql").unlink()
    (request_.directory / "models/aggregations/avg_order_value.yml").unlink()
    checked = request_.check()
    assert checked.is_green
    assert checked.removed == ["avg_order_value"]
    assert "In production only    avg_order_value" in str(checked)


def test_without_a_manifest_of_production_it_says_to_run_the_pipeline(tmp_path):
    project = Pipeline(tmp_path / "home", None, {}).parts
    with pytest.raises(NothingToCompareWith, match="First run the pipeline there"):
        slim_ci.slim_ci(project.project, project.publisher)
    assert list((tmp_path / "home").glob(".scratch*")) == []


def test_the_command_ends_with_0_or_1_and_words(request_, monkeypatch):
    def told(**variables: str) -> tuple[int, str]:
        for name, value in {**request_.production.variables, **variables}.items():
            monkeypatch.setenv(name, value)
        result = CliRunner().invoke(main, ["slim-ci"])
        return result.exit_code, result.output

    home, project = str(request_.production.home), str(request_.directory)
    assert told(SERVERLESS_HOME=home, SERVERLESS_DBT_PROJECT=project) == (
        0, "Nothing differs from production.\n",
    )  # fmt: skip
    request_.edit("models/marts/customers.sql", without_some)
    code, said = told()
    assert (code, "FAILED customers_keep_every_order" in said) == (1, True)
    code, said = told(SERVERLESS_HOME=f"{home}-empty")
    assert (code, "serverless run" in said) == (1, True)


def test_deferred_are_the_parents_of_what_was_touched_and_not_themselves():
    def node(kind, name, *parents):
        return {"resource_type": kind, "name": name, "depends_on": {"nodes": list(parents)}}

    manifest = {
        "nodes": {
            "a": node("model", "a", "source.raw"),
            "b": node("model", "b", "a"),
            "c": node("model", "c", "b", "a"),
            "t": node("test", "t", "c"),
        }
    }
    assert deferred(["c"], manifest) == ["a", "b"]
    assert deferred(["b", "c"], manifest) == ["a"]
    assert deferred(["a"], manifest) == []
