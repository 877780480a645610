import dagster as dg
import pytest

from serverless_assets.forecasting.compute import Size
from serverless_assets.ingestion.http_client import DownloadLimits
from serverless_assets.ingestion.source import HttpSource, source_of_run
from serverless_assets.run_inputs import (
    ChoiceError,
    CustomisedStyle,
    Reload,
    Reuse,
    RunForecast,
    RunInputs,
    SkipForecast,
)
from tests.conftest import SHOP


def customised(**choices: object) -> RunInputs:
    return RunInputs(forecast=RunForecast(style=CustomisedStyle(**choices)))


def refused(inputs: RunInputs) -> str:
    with pytest.raises(ChoiceError) as raised:
        inputs.checked()
    assert raised.value.transient is False
    return str(raised.value)


# ---- taken


def test_the_defaults_load_everything_and_forecast_180_days():
    inputs = RunInputs().checked()
    assert inputs.ingestion.address is None
    style = SHOP.style_of(inputs.forecast)
    assert Size.of(inputs.forecast) == Size(0.25, 256)
    assert SHOP.horizon_of(inputs.forecast) == 180
    assert (style.forecast_file, style.html_report) == ("forecast.parquet", "forecast.html")
    assert (style.color_history, style.color_prediction) == ("blue", "red")
    assert not inputs.rebuild_all


def test_what_a_person_chose_is_what_is_done():
    style = CustomisedStyle(
        forecast_table="october_forecast",
        forecast_file="October 2026.parquet",
        html_report="october_v2.1.html",
        color_history="#a1b2c3",
        color_prediction="rebeccapurple",
        nr_days_fcst=30,
    )
    inputs = RunInputs(
        rebuild="all",
        ingestion=Reload(dataset_url=" https://shop.test/data "),
        forecast=RunForecast(cpu="1.5", memory="1024", style=style),
    ).checked()
    assert inputs.ingestion.address == "https://shop.test/data"
    assert Size.of(inputs.forecast) == Size(1.5, 1024)
    assert SHOP.style_of(inputs.forecast) == style
    assert inputs.rebuild_all


def test_reusing_and_skipping_are_choices_too():
    inputs = RunInputs(ingestion=Reuse(), forecast=SkipForecast()).checked()
    assert (inputs.ingestion, inputs.forecast) == (Reuse(), SkipForecast())


@pytest.mark.parametrize("days", [1, 730])
def test_the_first_and_the_last_horizon_can_be_chosen(days):
    assert customised(nr_days_fcst=days).checked().forecast.style.nr_days_fcst == days


@pytest.mark.parametrize("color", ["Red", "#ABC", "#a1B2c3", "DarkSlateGrey"])
def test_a_colour_is_known_in_any_case(color):
    assert customised(color_history=color).checked()


@pytest.mark.parametrize(
    "url", ["http://localhost:8000", "https://shop.test/a/b", "http://[::1]:80/data", ""]
)
def test_an_address_without_secrets_is_taken(url):
    assert RunInputs(ingestion=Reload(dataset_url=url)).checked().ingestion.address == (url or None)


# ---- refused


def test_the_source_that_a_run_names_has_the_limits_of_the_environment():
    own = HttpSource("https://shop.test", limits=DownloadLimits(memory_mib=128))
    assert source_of_run(Reload().address, own) is own
    named = source_of_run(Reload(dataset_url="https://other.test").address, own)
    assert named == HttpSource("https://other.test", limits=own.limits)


@pytest.mark.parametrize("field", ["color_history", "color_prediction"])
@pytest.mark.parametrize("color", ["blau", "", "#12", "#12345g", "#1234", "red; top: url(//evil)", " red"])
def test_a_colour_that_is_none_is_refused_by_its_field(field, color):
    message = refused(customised(**{field: color}))
    assert f"{field}: {color!r} is not a colour" in message


@pytest.mark.parametrize("field", ["forecast_file", "html_report"])
@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a/b",
        "a\\b",
        "..",
        "",
        ".hidden",
        " x",
        "~x",
        "x\n",
        "x\0y",
        "é",
        "C:x",
        "-x",
        "x" * 200,
    ],
)
def test_a_path_or_an_odd_name_is_refused_by_its_field(field, name):
    ending = {"forecast_file": ".parquet", "html_report": ".html"}[field]
    value = name + ending
    message = refused(customised(**{field: value}))
    assert f"{field} is {value!r:.100}" in message
    assert ending in message


def test_the_name_of_a_record_is_refused():
    message = refused(customised(forecast_file="Forecast-Record-20260105T093000Z-x.parquet"))
    assert "choose a name without -record-, which marks the records of earlier forecasts" in message


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("forecast_file", "forecast.csv"),
        ("forecast_file", "forecast.html"),
        ("html_report", "report.parquet"),
        ("html_report", "report.html.exe"),
        ("html_report", "report.html\n"),
    ],
)
def test_a_name_with_another_ending_is_refused(field, name):
    assert f"{field} is {name!r}" in refused(customised(**{field: name}))


@pytest.mark.parametrize("days", [0, 731, -1, 10**9])
def test_a_horizon_out_of_range_is_refused(days):
    assert f"nr_days_fcst is {days}; choose 1 to 730 days" in refused(customised(nr_days_fcst=days))


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:hunter2@shop.test/data",
        "https://hunter2@shop.test/data",
        "https://:hunter2@shop.test/data",
        "https://shop.test/data?token=hunter2",
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(url):
    message = refused(RunInputs(ingestion=Reload(dataset_url=url)))
    assert "dataset_url contains credentials" in message
    assert "SERVERLESS_DATASET_URL" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "url", ["shop.test/data", "file:///etc/passwd", "https://", "http://[::1", "s3://bucket"]
)
def test_what_is_no_http_address_is_refused(url):
    message = refused(RunInputs(ingestion=Reload(dataset_url=url)))
    assert "dataset_url is not an http(s) address" in message


def test_everything_wrong_is_told_at_once():
    inputs = RunInputs(
        ingestion=Reload(dataset_url="https://ann:hunter2@shop.test"),
        forecast=RunForecast(
            style=CustomisedStyle(
                forecast_table="dwh.orders; --",
                forecast_file="../x.parquet",
                html_report="/etc/x.html",
                color_history="blau",
                color_prediction="rot",
                nr_days_fcst=0,
            )
        ),
    )
    message = refused(inputs)
    assert message.startswith("The run config cannot be used: ")
    for field in (
        "dataset_url",
        "forecast_table",
        "forecast_file",
        "html_report",
        "color_history",
        "color_prediction",
        "nr_days_fcst",
    ):
        assert message.count(field) == 1


@pytest.mark.parametrize(
    "config",
    [
        {"forecast": {"run": {"cpu": "3"}}},
        {"forecast": {"run": {"memory": "100"}}},
        {"forecast": {"run": {"style": {"customised": {"nr_days_fcst": "many"}}}}},
        {"forecast": {"run": {"colour": "red"}}},
        {"forecast": {"later": {}}},
        {"ingestion": {"reuse": {"dataset_url": "https://shop.test"}}},
    ],
)
def test_the_launchpad_refuses_what_is_not_on_offer(config):
    @dg.asset
    def asks(run_inputs: RunInputs) -> None:
        run_inputs.checked()

    job = dg.Definitions([asks], resources={"run_inputs": RunInputs.configure_at_launch()})
    with pytest.raises(dg.DagsterInvalidConfigError):
        job.resolve_implicit_global_asset_job_def().execute_in_process(
            run_config={"resources": {"run_inputs": {"config": config}}}
        )


def test_a_launchpads_config_becomes_the_run_inputs():
    checked: list[RunInputs] = []

    @dg.asset
    def asks(run_inputs: RunInputs) -> None:
        checked.append(run_inputs.checked())

    job = dg.Definitions([asks], resources={"run_inputs": RunInputs.configure_at_launch()})
    style = {"customised": {"nr_days_fcst": 7}}
    config = {"ingestion": {"reuse": {}}, "forecast": {"run": {"memory": "512", "style": style}}}
    job.resolve_implicit_global_asset_job_def().execute_in_process(
        run_config={"resources": {"run_inputs": {"config": config}}}
    )
    (inputs,) = checked
    assert isinstance(inputs.ingestion, Reuse)
    assert isinstance(inputs.forecast, RunForecast)
    assert (inputs.forecast.memory, inputs.forecast.style.nr_days_fcst) == ("512", 7)
