"""What a run is asked for on the command line: its months and its run config."""

from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.cli.request import Request, RunRefused, config_mistakes, read_months
from serverless_assets.partitions import month_tags, months_of
from serverless_assets.run_inputs import RunInputs, run_inputs

MONTHS = dg.MonthlyPartitionsDefinition(start_date="2023-09-01", end_date="2025-01-01")


def test_the_command_of_a_request_repeats_all_that_was_asked_for():
    assert Request("serverless_pipeline", RunInputs(), None).command == "serverless run"
    chosen = run_inputs(reuse=True, skip_forecast=True, rebuild=True, drop_deleted=True)
    assert Request("transform", chosen, "2026-01..2026-02").command == (
        "serverless run transform --rebuild --drop-deleted --reuse --skip-forecast --months 2026-01..2026-02"
    )
    with_config = Request("transform", RunInputs(), None, Path("my config.yaml"))
    assert with_config.command == "serverless run transform --config 'my config.yaml'"


def test_months_that_there_are_become_the_tags_of_a_range():
    start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    months = read_months("2024-01..2024-03", "ingest", MONTHS)
    assert month_tags(*months) == {start: "2024-01-01", end: "2024-03-01"}
    months = read_months("2024-12", "ingest", MONTHS)
    assert month_tags(*months) == {start: "2024-12-01", end: "2024-12-01"}


@pytest.mark.parametrize("months", ["2031-01", "2023-08", "2024-11..2031-01", "2020-01..2024-11", "2025-01"])
def test_months_outside_of_the_partitions_are_refused(months):
    with pytest.raises(RunRefused) as refused:
        read_months(months, "ingest", MONTHS)
    assert str(refused.value) == (
        f"--months is {months!r}: expected months from 2023-09 (SERVERLESS_FIRST_MONTH) to 2024-12."
    )


@pytest.mark.parametrize("months", ["soon", "2026-13", "2026", "2026-01...2026-03", "2026-03..2026-01"])
def test_what_is_no_month_is_refused(months):
    with pytest.raises(RunRefused, match="--months is"):
        read_months(months, "ingest", MONTHS)


@pytest.mark.parametrize("job", ["forecast", "plan", "what_if_forecast"])
def test_months_for_a_job_without_months_are_refused(green, job):
    with pytest.raises(RunRefused, match=f"--months does not apply to the job '{job}', which has no"):
        read_months("2026-01", job, months_of(green.definitions.resolve_job_def(job)))


def test_each_mistake_in_a_run_config_is_a_line_with_its_place_and_the_names_allowed(green):
    config = {
        "forecast": {"run": {"memory": 256, "style": {"customised": {"page": "x.html", "html_reprt": "y"}}}},
        "ingestion": {"relod": {}},
        "rebuild": "al",
    }
    with pytest.raises(dg.DagsterInvalidConfigError) as refused:
        green.definitions.resolve_job_def("serverless_pipeline").execute_in_process(
            run_config={"resources": {"run_inputs": {"config": config}}}, instance=green.instance
        )
    lines = [line for problem in refused.value.errors for line in config_mistakes(problem.message)]
    form = "resources.run_inputs.config"
    style = (
        "It has color_history, color_prediction, forecast_file, forecast_table, html_report, nr_days_fcst."
    )
    memory = ["256", "512", "1024", "2048", "4096", "8192", "16384", "32768"]
    assert sorted(lines) == [
        f"{form}.forecast.run.memory needs quotes: choose from "
        + ", ".join(f'"{mib}"' for mib in memory)
        + ".",
        f"{form}.forecast.run.style.customised has no 'html_reprt'. Did you mean html_report? {style}",
        f"{form}.forecast.run.style.customised has no 'page'. {style}",
        f"{form}.ingestion has no 'relod'. Did you mean reload? It has reload, reuse.",
        f"{form}.rebuild is 'al': choose from changed, all.",
    ]


@pytest.mark.parametrize("job", ["serverless_pipeline", "ingest", "transform", "full_rebuild"])
def test_a_job_that_loads_months_takes_them(green, job):
    assert read_months("2026-01", job, months_of(green.definitions.resolve_job_def(job)))
