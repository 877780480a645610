"""dbt's data tests run when their code or what they read changed, whether a model is built or not."""

import pytest

from serverless_assets import metadata
from serverless_assets.transformation.data_tests import decide_tests
from serverless_assets.transformation.relation_states import State
from tests.transformation.conftest import ROWS
from tests.transformation.team import BASE, Team

pytestmark = pytest.mark.slow

SOURCE = "from {{ source('raw', 'raw_orders') }}"
TABLE = "{{ config(materialized='table') }}"


def columns_tested(column: str, *tests: str, model: str = "orders") -> dict[str, str]:
    text = f"models: [{{name: {model}, columns: [{{name: {column}, data_tests: [{', '.join(tests)}]}}]}}]"
    return {f"models/{model}.yml": text}


def checks(team: Team) -> dict[str, tuple[bool, str]]:
    """Whether each check passed in the last run, and whether it was reused."""
    run, *_ = team.instance.get_runs(limit=1)
    events = [log.dagster_event for log in team.instance.all_logs(run.run_id) if log.dagster_event]
    evaluations = [
        event.asset_check_evaluation_data
        for event in events
        if event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    return {
        one.check_name: (
            one.passed,
            "reused" if metadata.plain_values(one.metadata).get(metadata.STATUS) == "reused" else "run",
        )
        for one in evaluations
    }


def test_a_new_or_edited_test_runs_without_its_model_and_fails_it(team: Team):
    team.write({"models/orders.sql": f"{TABLE} select * {SOURCE}", **columns_tested("id", "unique")}).run()
    built = team.warehouse.read_state("orders")["built_by"]
    outcomes = team.write(columns_tested("id", "unique", "not_null")).run()
    assert outcomes["orders"]["status"] == "reused"
    assert outcomes["orders"]["reason"] == "unchanged; tests to run: not_null_orders_id"
    assert checks(team) == {"unique_orders_id": (True, "reused"), "not_null_orders_id": (True, "run")}
    assert team.run()["orders"]["reason"] == "unchanged"
    assert checks(team) == {"unique_orders_id": (True, "reused"), "not_null_orders_id": (True, "reused")}

    # One that failed and is gone leaves nothing behind.
    team.write(columns_tested("id", "unique", "{accepted_values: {arguments: {values: [7]}}}")).run()
    assert team.warehouse.read_state("orders")["dirty_reason"]
    assert team.write(columns_tested("id", "unique")).run()["orders"]["reason"] == "unchanged"
    assert "dirty_reason" not in team.warehouse.read_state("orders")

    few = "accepted_values: {name: few, arguments: {values: [1, 2], quote: false}}"
    for _ in range(2):
        outcomes = team.write(columns_tested("id", "unique", f"{{{few}}}")).run()
        assert (outcomes["orders"]["status"], outcomes["orders"]["reason"]) == ("failed", "tests failed: few")
    assert checks(team) == {"unique_orders_id": (True, "reused"), "few": (False, "run")}
    assert team.warehouse.read_state("orders")["dirty_reason"] == "last tests failed: few"
    team.write(columns_tested("id", "unique", f"{{{few.replace('2]', '2, 3]')}}}"))
    assert team.run()["orders"]["status"] == "reused"
    assert team.run()["orders"]["reason"] == "unchanged"
    state = State.from_json(team.warehouse.read_state("orders"))
    assert (state.built_by, state.dirty_reason) == (built, "")


def test_a_test_of_a_model_and_another_runs_when_the_other_is_built(team: Team, tmp_path):
    relationships = "{relationships: {name: known, arguments: {to: ref('ids'), field: id}}}"
    team.write(
        {
            "models/orders.sql": f"{TABLE} select 2 as id",
            "models/ids.sql": f"{TABLE} select id {SOURCE}",
            **columns_tested("id", relationships),
        }
    )
    assert {one["status"] for one in team.run().values()} == {"built"}
    team.load([ROWS[0], ROWS[2]], tmp_path)
    outcomes = team.run()
    assert (outcomes["orders"]["status"], outcomes["orders"]["reason"]) == ("failed", "tests failed: known")


def test_tests_of_a_source_that_no_model_reads_run_when_it_changed(team: Team, tmp_path):
    def has_succeeded() -> bool:
        team.run()
        return team.instance.get_runs(limit=1)[0].is_success

    def due() -> dict[str, bool]:
        tests = decide_tests(team.project, team.project.read_manifest(), team.warehouse.read_states())
        return {test.name: test.is_due for test in tests}

    tested = "        columns: [{name: id, data_tests: [unique]}]\n"
    name = "source_unique_raw_raw_orders_id"
    team.write({"models/raw.yml": BASE["models/raw.yml"] + tested, "models/one.sql": "select 1 as one"})
    assert due() == {name: True}
    assert has_succeeded()
    assert due() == {name: False}
    team.load([ROWS[0], ROWS[0]], tmp_path)
    for _ in range(2):
        assert due() == {name: True}
        assert not has_succeeded()
    team.load(ROWS[:2], tmp_path)
    assert has_succeeded()
    assert due() == {name: False}


def test_tests_of_sources_and_ephemeral_models_run_when_what_they_read_changed(team: Team, tmp_path):
    tested = "        columns: [{name: id, data_tests: [not_null]}, {name: total, data_tests: [unique]}]\n"
    team.write(
        {
            "models/raw.yml": BASE["models/raw.yml"] + tested,
            "models/staging.sql": f"{{{{ config(materialized='ephemeral') }}}} select id + 0 as id {SOURCE}",
            **columns_tested("id", "unique", model="staging"),
            "models/orders.sql": f"{TABLE} select * from {{{{ ref('staging') }}}}",
        }
    )
    assert team.run()["orders"]["status"] == "built"
    assert team.run()["orders"]["reason"] == "unchanged"
    team.load([(1, ROWS[0][1], 20), *ROWS[1:]], tmp_path)
    outcomes = team.run()
    assert outcomes["orders"]["reason"] == "skipped: tests of upstream raw_orders failed"
    team.load([ROWS[0], (1, ROWS[1][1], 20)], tmp_path)
    outcomes = team.run()
    assert outcomes["orders"]["reason"] == "skipped: tests of upstream staging failed"
    team.load(ROWS[:2], tmp_path)
    assert team.run()["orders"]["status"] == "built"
    # A new one fails the models that read it, which are not built for that.
    team.write(
        columns_tested(
            "id", "unique", "{accepted_values: {name: few, arguments: {values: [7]}}}", model="staging"
        )
    )
    outcomes = team.run()
    assert (outcomes["orders"]["status"], outcomes["orders"]["reason"]) == ("failed", "tests failed: few")
    assert team.warehouse.read_state("orders")["version"]
