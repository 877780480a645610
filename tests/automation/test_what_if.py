"""A what-if is a forecast to look at: it publishes nothing, waits for no run, and keeps none waiting."""

import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from modal_forecast.grain import DAY
from serverless_assets.automation.what_if import REPORTS_KEPT, compare, keep_report, what_if_job
from serverless_assets.publishing.outcome import failure_sentence_of
from serverless_assets.run_inputs import CustomisedStyle, RunForecast, RunInputs
from tests.conftest import NO_FORECAST, SHOP, Pipeline
from tests.publishing.test_run_metrics import records

# What a run at work holds: the lock of all runs, and the working file.
AT_WORK = """
import sys, duckdb, filelock
filelock.FileLock(sys.argv[1] + "/lock").acquire()
connection = duckdb.connect(sys.argv[1] + "/warehouse.duckdb")
connection.execute("begin; create table dwh.half_done as select 1 as n")
print("at work", flush=True)
sys.stdin.read()
"""


def what_if(pipeline: Pipeline, inputs: RunInputs) -> dg.ExecuteInProcessResult:
    definitions = dg.Definitions(
        jobs=[what_if_job(pipeline.parts, SHOP)],
        resources={"run_inputs": RunInputs.configure_at_launch()},
    )
    return definitions.resolve_job_def("what_if_forecast").execute_in_process(
        run_config=dg.RunConfig(resources={"run_inputs": inputs}),
        instance=pipeline.instance,
        raise_on_error=False,
    )


def found_in(result: dg.ExecuteInProcessResult) -> dict[str, dg.MetadataValue]:
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_OUTPUT]
    return dict(event.step_output_data.metadata)


def content(home: Path) -> dict[str, bytes | str]:
    """All files and links below the home, but the reports of what-ifs."""
    found = [path for path in home.rglob("*") if home / "what-if" not in (path, *path.parents)]
    return {
        str(path): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in found
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def run_at_work(pipeline):
    command = [sys.executable, "-c", AT_WORK, str(pipeline.home / "work")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "at work\n"
        yield process
        process.kill()


# ---- the job


def test_a_what_if_changes_nothing_but_its_own_report_while_another_run_is_at_work(pipeline, run_at_work):
    before = content(pipeline.home)
    style = CustomisedStyle(nr_days_fcst=200, color_prediction="teal", html_report="mine.html")
    result = what_if(pipeline, RunInputs(forecast=RunForecast(cpu="1.0", memory="512", style=style)))
    assert result.success
    assert content(pipeline.home) == before
    report = pipeline.home / "what-if" / f"{result.run_id}.html"
    assert "teal" in report.read_text()
    assert list(report.parent.iterdir()) == [report]
    found = found_in(result)
    assert found["report"].value == str(report)
    assert found["preview"].value.startswith("![history and forecast](data:image/svg+xml;base64,")
    assert (found["horizon_days"].value, found["cpu"].value, found["memory_mib"].value) == (200, 1.0, 512)
    assert found["seconds"].value > 0 and found["peak_memory_mib"].value > 0
    rows = [record.data for record in found["comparison"].records]
    assert [row["rows"] for row in rows] == [7, 30, 90, 180, 200]
    # The same history and code: what more days change of those before is how the candidates weigh.
    assert [row["change, %"] for row in rows[:4]] == pytest.approx([0, 0, 0, 0], abs=1)
    (published,) = pipeline.published_rows("select sum(yhat) from dwh.order_forecast")[0]
    assert rows[3]["published, USD"] == pytest.approx(published, abs=0.01)
    assert (rows[4]["published, USD"], rows[4]["change, %"]) == (None, None)
    assert not pipeline.instance.get_latest_materialization_event(dg.AssetKey("order_forecast"))
    assert records(pipeline) == []


def refused(result: dg.ExecuteInProcessResult) -> str:
    assert not result.success
    (event,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    return failure_sentence_of(event)


def test_a_what_if_without_a_forecast_is_refused_in_words(green):
    assert refused(what_if(green, NO_FORECAST)) == "A what-if makes a forecast: choose `run` under forecast."


def test_before_anything_is_published_there_is_nothing_to_forecast_from(tmp_path, sample_variables):
    with dg.DagsterInstance.ephemeral() as instance:
        empty = Pipeline(tmp_path / "home", instance, sample_variables)
        assert "There is no daily_revenue yet" in refused(what_if(empty, RunInputs()))
    # Only what dbt parsed is there: no table, no file.
    assert {path.name for path in tmp_path.glob("home/*")} <= {"dbt"}


def test_the_last_ten_reports_are_kept(tmp_path):
    for number in range(REPORTS_KEPT + 3):
        path = keep_report(tmp_path, f"run-{number:02}", b"")
        os.utime(path, (number, number))
    names = sorted(path.stem for path in tmp_path.iterdir())
    assert names == [f"run-{number:02}" for number in range(3, REPORTS_KEPT + 3)]


# ---- the comparison


def forecast(first: date, values: list[float]) -> pa.Table:
    days = [first + timedelta(days=n) for n in range(len(values))]
    return pa.table({"ds": pa.array(days, pa.date32()), "yhat": values})


FIRST = date(2026, 11, 1)


def test_the_next_days_and_the_whole_horizon_are_compared_with_the_same_days_of_what_is_published():
    found = compare(forecast(FIRST, [110.0] * 40), forecast(FIRST, [100.0] * 40), DAY)
    assert [(one.window, one.rows, one.what_if, one.published) for one in found] == [
        ("next 7 days", 7, 770.0, 700.0),
        ("next 30 days", 30, 3300.0, 3000.0),
        ("the whole horizon, 40 days", 40, 4400.0, 4000.0),
    ]
    assert {one.change_percent for one in found} == {10.0}


def test_days_that_the_published_forecast_does_not_have_are_not_compared():
    # Made a day ago, and for fewer days.
    found = compare(forecast(FIRST, [1.0] * 10), forecast(FIRST - timedelta(days=1), [2.0] * 9), DAY)
    assert [(one.window, one.what_if, one.published) for one in found] == [
        ("next 7 days", 7.0, 14.0),
        ("the 8 days of both", 8.0, 16.0),
        ("the whole horizon, 10 days", 10.0, None),
    ]


def test_without_a_published_forecast_there_is_nothing_beside_it():
    (found,) = compare(forecast(FIRST, [1.0, 2.0]), None, DAY)
    assert (found.what_if, found.published, found.change_percent) == (3.0, None, None)
    assert "none" in str(found)


def test_a_change_from_nothing_has_no_percentage():
    (found,) = compare(forecast(FIRST, [1.0]), forecast(FIRST, [0.0]), DAY)
    assert found.change_percent is None
