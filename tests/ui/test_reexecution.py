"""A run that failed goes on from where it stopped once its cause is mended."""

import json

from tests.ui.client import FORECASTING, published, steps, tags

REEXECUTE = """
mutation ($params: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""
MODEL = "models/aggregations/avg_order_value.sql"


def test_a_run_goes_on_from_the_model_that_failed_once_it_is_mended(ui, dbt_project):
    before = published(ui.home)
    model = dbt_project / MODEL
    sound = model.read_text()
    try:
        model.write_text(sound.replace("from customers", "from custommers"))
        failed = ui.launch()
        assert ui.status_at_the_end(failed) == "FAILURE"
    finally:
        model.write_text(sound)
    assert steps(ui.run(failed)) == {"ingestion": "SUCCESS", "transformation": "FAILURE"}
    assert "custommers" in ui.said(failed)
    assert published(ui.home) == before

    # Another query than before the mistake, so that there is something to build.
    model.write_text(sound.replace("from customers\n", "from customers where customer_name <> ''\n"))
    params = {"parentRunId": failed, "strategy": "FROM_FAILURE"}
    launched = ui.ask(REEXECUTE, params=params)["launchRunReexecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    again = launched["run"]["runId"]
    assert ui.status_at_the_end(again) == "SUCCESS"
    run = ui.run(again)
    assert set(steps(run)) == {"transformation", *FORECASTING}
    assert tags(run)["dagster/parent_run_id"] == failed
    summary = json.loads((ui.home / "runs" / "latest.json").read_text())
    assert summary["run_id"] == again
    assert summary["published"]
    assert summary["assets"]["avg_order_value"]["status"] == "built"
    assert published(ui.home) != before
