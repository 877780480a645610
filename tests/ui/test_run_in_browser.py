"""A run, from the click that launches it to its end, and what it made."""

import duckdb

from tests.ui.client import FORECASTING, NO_FORECAST, steps


def test_a_run_launched_by_a_click_is_watched_until_it_succeeds(ui, page):
    page.goto(f"{ui.url}/locations/serverless_assets.definitions/jobs/serverless_pipeline/playground")
    page.get_by_text("No errors").wait_for()
    page.get_by_role("button", name="Launch Run").click()
    page.wait_for_url("**/runs/*")
    page.get_by_text("Success", exact=True).first.wait_for(timeout=120_000)
    run = ui.run(page.url.split("/runs/")[1].split("?")[0])
    assert set(steps(run)) == {"ingestion", "transformation", *FORECASTING}
    assert set(steps(run).values()) == {"SUCCESS"}
    # Which steps and events are in view depends on how long each took.
    page.get_by_text("No steps are executing").wait_for()


def test_a_run_makes_what_was_chosen(ui):
    style = {
        "color_history": "teal",
        "color_prediction": "#ff8800",
        "nr_days_fcst": 30,
        "html_report": "b.html",
    }
    run_inputs = {"forecast": {"run": {"cpu": "2.0", "memory": "512", "style": {"customised": style}}}}
    assert ui.status_at_the_end(ui.launch("forecast", run_inputs)) == "SUCCESS"
    with duckdb.connect(str(ui.home / "warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("select count(*) from dwh.order_forecast").fetchone() == (30,)
    html = (ui.home / "artifacts" / "b.html").read_text()
    assert "teal" in html
    assert "#ff8800" in html


def test_a_run_that_cannot_work_fails_in_the_words_of_what_was_wrong(ui, page):
    run_inputs = {"ingestion": {"reload": {"dataset_url": "http://127.0.0.1:9/nothing-here"}}, **NO_FORECAST}
    run_id = ui.launch("ingest", run_inputs)
    assert ui.status_at_the_end(run_id) == "FAILURE"
    page.goto(f"{ui.url}/runs/{run_id}")
    page.get_by_text("no connection").first.wait_for()
    page.get_by_text("stay as they were").first.wait_for()
