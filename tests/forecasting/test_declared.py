"""A forecast is declared: another one on another table, in another country and unit, is one file."""

import os
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import duckdb
import pytest
import yaml
from pydantic import ValidationError

from modal_forecast.grain import GRAINS
from serverless_assets.automation.forecasts import forecast_definitions
from serverless_assets.forecasting import component
from serverless_assets.forecasting.assets import forecasting_assets
from serverless_assets.forecasting.declaration import ForecastDeclaration
from serverless_assets.forecasting.history import HistoryError, Today, history_of
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.run_inputs import CustomisedStyle, RunForecast
from serverless_assets.settings import Settings, SettingsError
from serverless_assets.transformation.manifest import TargetSchema
from tests.conftest import SHOP
from tests.forecasting.test_history import LAST, TODAY, revenue

TARGET = TargetSchema("warehouse", "dwh")
GUESTS = {
    "name": "guests",
    "title": "Daily guests",
    "relation": "daily_guests",
    "date": "day",
    "value": "guests",
}
# A year of two regions; on DuckDB, so that no source is needed.
MODEL = """
select
    cast(day as date) as day,
    region,
    'Region ' || region as region_name,
    100 * region + 10 * isodow(day) as guests
from
    range(timestamp '2025-01-01', timestamp '2026-01-01', interval 1 day) as days(day),
    range(1, 3) as regions(region)
"""

# Five years of one row a month, dated with its last day.
MONTHLY_MODEL = """
select
    cast(last_day(cast(month as date)) as date) as day,
    region,
    'Region ' || region as region_name,
    1000 * region + 100 * month(month) as guests
from
    range(timestamp '2021-01-01', timestamp '2026-01-01', interval 1 month) as months(month),
    range(1, 3) as regions(region)
"""


def test_names_follow_from_the_one_that_is_declared():
    guests = ForecastDeclaration(**GUESTS, parts={"id": "r", "name": "n", "noun": "sales region"})
    scores = ["guests_accuracy", "guests_accuracy_by_sales_region"]
    assert guests.assets == [*scores, "guests", "guests_by_sales_region", "guests_report"]
    assert (guests.table, guests.file, guests.page) == ("guests", "guests.parquet", "guests.html")


def test_what_a_customised_run_leaves_out_is_as_each_forecast_declares_it():
    run = RunForecast(style=CustomisedStyle(color_history="teal"))
    for forecast in (ForecastDeclaration(**GUESTS, horizon=60), SHOP):
        style = forecast.style_of(run)
        assert (style.forecast_table, style.forecast_file, style.html_report, style.color_history) == (
            forecast.table,
            forecast.file,
            forecast.page,
            "teal",
        )
        assert forecast.horizon_of(run) == forecast.horizon


def test_the_assets_of_a_forecast_are_in_its_group():
    forecasts = [ForecastDeclaration(**GUESTS, group="guests"), SHOP]
    assets = [asset for one in forecasts for asset in forecasting_assets(one, 24, "pool", "UTC")]
    groups = {key.path[-1]: group for asset in assets for key, group in asset.group_names_by_key.items()}
    assert groups["guests"] == groups["guests_accuracy"] == groups["guests_report"] == "guests"
    assert groups["store_forecast"] == "forecasting"


def test_a_forecast_of_a_relation_that_there_is_not_is_refused_unless_it_is_the_bundled_one(monkeypatch):
    monkeypatch.setattr(
        component, "defs_folder", lambda: SimpleNamespace(get_all_components=lambda of_type: declared)
    )
    empty = {"nodes": {}, "sources": {}}
    declared = [SHOP]
    assert component.read_forecasts(empty, TARGET, "order_forecast") == ()
    declared = [SHOP, ForecastDeclaration(**GUESTS)]
    with pytest.raises(
        SettingsError, match="'guests' reads 'daily_guests', but the dbt project has no model"
    ):
        component.read_forecasts(empty, TARGET, "order_forecast")
    model = {"resource_type": "model", "name": "daily_guest", "config": {}}
    with pytest.raises(SettingsError, match=r"of that name\. Did you mean 'daily_guest'\?"):
        component.read_forecasts(
            {"nodes": {"model.team.daily_guest": model}, "sources": {}}, TARGET, "order_forecast"
        )


def test_a_forecast_comes_after_the_model_with_its_relation_whatever_that_is_called():
    model = {"resource_type": "model", "name": "guests_by_day", "alias": "daily_guests"}
    chosen = {"config": {"meta": {"dagster": {"asset_key": ["marts", "guests"]}}}}
    forecast = ForecastDeclaration(**GUESTS)
    for node, upstream in ((model, "guests_by_day"), ({**model, **chosen}, "marts/guests")):
        manifest = {"nodes": {"model.team.guests_by_day": node}, "sources": {}}
        settings = Settings.from_environ({})
        environment = SimpleNamespace(forecasts=[forecast], manifest=manifest, settings=settings)
        declared = forecast_definitions(forecast, environment)
        for asset in declared.assets:
            parents = {key.to_user_string() for key in asset.dependency_keys}
            assert upstream in parents and "daily_guests" not in parents, asset.key


def test_the_names_of_the_shops_forecast_stay():
    scores = ["forecast_accuracy", "forecast_accuracy_by_store"]
    assert SHOP.assets == [*scores, "order_forecast", "store_forecast", "forecast_report"]
    assert (SHOP.file, SHOP.page, SHOP.table) == ("forecast.parquet", "forecast.html", "order_forecast")


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"grain": "quarter"}, "'day', 'week' or 'month'"),
        ({"grain": "month", "country": "DE"}, "a month has no holidays of its own: leave out country"),
        ({"grain": "month", "horizon": 180}, "a horizon of 180 months is too long: choose 60 or fewer"),
        ({"country": "Germany"}, "country"),
        ({"value": "sum(guests)"}, "value"),
        ({"horizon": 1000}, "a horizon of 1,000 days is too long: choose 730 or fewer"),
        ({"method": "arima"}, "'automatic', 'harmonic', 'recent_levels' or 'prophet'"),
        ({"sing": "any"}, "sing"),
        ({"page": "../x.html"}, "page"),
        ({"parts": {"id": "Yhat", "noun": "kind"}}, "have a column 'Yhat' of their own"),
    ],
)
def test_what_cannot_be_declared_is_refused_by_its_attribute(attributes, said):
    with pytest.raises(ValidationError, match=re.escape(said)):
        ForecastDeclaration(**{**GUESTS, **attributes})


def test_each_mistake_in_a_file_of_the_defs_folder_is_a_line_with_its_place(tmp_path, monkeypatch):
    file = tmp_path / "team" / "defs" / "weekly" / "defs.yaml"
    file.parent.mkdir(parents=True)
    (tmp_path / "team" / "defs" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(component, "ROOT_MODULE", "team")

    def refused(attributes: object, kind: str = "serverless_assets.Forecast") -> list[str]:
        file.write_text(yaml.safe_dump({"type": kind, "attributes": attributes}))
        with pytest.raises(SettingsError) as error:
            component.read_forecasts({"nodes": {}, "sources": {}}, TARGET, "order_forecast")
        return str(error.value).splitlines()

    wrong = {**GUESTS, "country": "Germany", "horizon": [2], "sing": "any"}
    country, horizon, sing = sorted(refused(wrong))
    assert re.match(
        rf"attributes\.country at {file}:\d+: expected the two capital .* US or DE; it is 'Germany'\.$",
        country,
    )
    assert "valid integer; it is [2]." in horizon
    assert re.match(rf"attributes\.sing at {file}:\d+: there is no such attribute\. Did you mean sign", sing)
    [together] = refused({**GUESTS, "grain": "month", "country": "DE"})
    assert together == f"{file}: a month has no holidays of its own: leave out country."
    [grain] = refused({**GUESTS, "grain": "hour"})
    assert re.match(rf"attributes\.grain at {file}:\d+: .+ it is 'hour'\.$", grain)
    [noun] = refused({**GUESTS, "parts": {"id": "region_id"}})
    assert re.match(rf"attributes\.parts\.noun at {file}:\d+: it is missing\.$", noun)
    [unknown] = refused({}, "serverless_assets.Forecst")
    assert unknown.startswith("A `type` or file in team/defs cannot be read: ")
    assert "no attribute `Forecst`" in unknown
    file.unlink()
    python = file.with_name("plan.py")
    python.write_text("plan = 1 / 0\n")
    with pytest.raises(SettingsError) as error:
        component.build_defs_folder(lambda forecast: dg.Definitions())
    assert str(error.value) == f"{python}:1: ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("step", "grain", "plural"),
    [(7, "day", "days"), (30, "day", "days"), (30, "week", "weeks"), (91, "month", "months")],
)
def test_a_series_is_not_forecast_by_a_shorter_grain_than_its_own(step, grain, plural):
    rows = revenue({LAST.fromordinal(LAST.toordinal() - step * n): 10 for n in range(40)})
    declared = SHOP.model_copy(update={"grain": grain})
    history = history_of(declared, rows, Today(TODAY.last_complete, TODAY.latest))
    with pytest.raises(HistoryError, match=f"{step} days apart or more: .* not forecast as {plural}"):
        history.request(30)


def test_how_far_a_forecast_looks_is_in_its_grain_by_default_as_declared_and_as_a_run_chooses_days():
    def horizons(grain: str, **attributes: object) -> tuple[int, int]:
        declared = ForecastDeclaration(**GUESTS, grain=grain, **attributes)
        chosen = RunForecast(style=CustomisedStyle(nr_days_fcst=90))
        return declared.horizon_of(RunForecast()), declared.horizon_of(chosen)

    assert [horizons(grain) for grain in GRAINS] == [(180, 90), (26, 13), (12, 3)]
    assert horizons("month", horizon=18) == (18, 3)


@pytest.mark.slow
def test_another_forecast_is_scaffolded_checked_and_run_as_the_docs_say(tmp_path: Path):
    project, home = tmp_path / "project", tmp_path / "home"
    for folder in ("serverless_assets", "modal_forecast"):
        shutil.copytree(PROJECT_ROOT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT_ROOT / "pyproject.toml", project)
    (project / "dbt_project" / "models").mkdir(parents=True)
    (project / "dbt_project" / "dbt_project.yml").write_text("name: team\nprofile: team\n")
    for name, model in {"daily_guests": MODEL, "monthly_guests": MONTHLY_MODEL}.items():
        (project / "dbt_project" / "models" / f"{name}.sql").write_text(
            "{{ config(materialized='table') }}" + model
        )
    commands = Path(sys.executable).parent
    environ = {
        **os.environ,
        "PYTHONPATH": str(project),
        "SERVERLESS_HOME": str(home),
        "DAGSTER_HOME": "",
        "PATH": f"{commands}:{os.environ['PATH']}",
    }

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=project, env=environ, capture_output=True, text=True, check=False)

    page = (PROJECT_ROOT / "docs" / "declare-forecasts.md").read_text()
    [scaffold] = re.findall(r"^    \.venv/bin/(dg scaffold .+)$", page, re.MULTILINE)
    assert (done := run(*scaffold.split())).returncode == 0, done.stdout + done.stderr
    declared = project / "serverless_assets" / "defs" / "guest_forecast" / "defs.yaml"
    assert yaml.safe_load(declared.read_text())["attributes"]["name"] == "guest_forecast"
    [attributes] = re.findall(r"^    type: serverless_assets.Forecast\n\n(?:    .+\n)+", page, re.MULTILINE)
    text = re.sub("^    ", "", attributes, flags=re.MULTILINE)
    declared.write_text(text)
    [check] = re.findall(r"^    \.venv/bin/(dg check yaml .+)$", page, re.MULTILINE)
    declared.write_text(text.replace("country:", "county:"))
    mistaken = run(*check.split()).stdout
    assert re.search(r"defs.yaml:\d+ .+'county' was unexpected", mistaken), mistaken
    declared.write_text(text)
    assert (done := run(*check.split())).returncode == 0, done.stdout + done.stderr
    for grain, relation, rest in (
        ("week", "daily_guests", "horizon: 26"),
        ("month", "monthly_guests", "horizon: 6"),
    ):
        folder = declared.parents[1] / f"by_{grain}"
        folder.mkdir()
        by_grain = text.replace("guest_forecast", f"guests_by_{grain}").replace("daily_guests", relation)
        by_grain = by_grain.replace("horizon: 60", f"grain: {grain}\n  {rest}")
        by_grain = by_grain.replace("  country: DE\n", "" if grain == "month" else "  country: DE\n")
        (folder / "defs.yaml").write_text(by_grain)
    page = (PROJECT_ROOT / "docs" / "python-assets.md").read_text()
    [asset] = re.findall(r"^    import dagster as dg\n(?:    .*\n|\n)+", page, re.MULTILINE)
    (project / "serverless_assets" / "defs" / "staff_plan.py").write_text(
        re.sub("^    ", "", asset, flags=re.MULTILINE)
    )
    assert "guest_forecast_by_region" in run("dg", "list", "defs", "--json").stdout
    done = run("serverless", "run")
    # The model ends with the year: a warning, and no reason not to forecast.
    assert done.returncode == 0, done.stdout + done.stderr
    report = (home / "artifacts" / "guest_forecast.html").read_text()
    assert (
        "Daily guests" in report
        and "What about each region?" in report
        and "$" not in report.split("<script")[0]
    )
    with duckdb.connect(str(home / "warehouse.duckdb"), read_only=True) as warehouse:
        [(days, low)] = warehouse.sql(
            "select count(*), min(yhat_lower_95) from dwh.guest_forecast"
        ).fetchall()
        [(regions,)] = warehouse.sql(
            "select count(distinct region) from dwh.guest_forecast_by_region"
        ).fetchall()
        people = warehouse.sql("select region, people from dwh.staff_plan order by region").fetchall()
        weeks, months = (
            warehouse.sql(
                f"select ds, total.yhat, sum(part.yhat) from dwh.guests_by_{grain} as total"
                f" join dwh.guests_by_{grain}_by_region as part using (ds) group by 1, 2 order by 1"
            ).fetchall()
            for grain in ("week", "month")
        )
    assert (days, regions) == (60, 2) and low >= 0
    # The year ends on a Wednesday: its last week is known in part, and is forecast.
    assert [week for week, *_ in weeks] == [date(2025, 12, 29) + timedelta(weeks=n) for n in range(26)]
    assert [month for month, *_ in months] == [date(2026, n, 1) for n in range(1, 7)]
    assert all(parts == pytest.approx(total) for _, total, parts in [*weeks, *months])
    assert [region for region, _ in people] == ["1", "2"] and all(count > 0 for _, count in people)
    plan = run("serverless", "plan").stdout
    assert re.search("staff_plan +reuse .*unchanged: same code and inputs", plan), plan
    assert "content of guest_forecast_by_region" in run("serverless", "why", "staff_plan").stdout
    declared.write_text(text.replace("value: guests", "value: gests"))
    plan = run("serverless", "plan").stdout
    assert re.search(r"fail .+value 'gests' in its defs\.yaml, which is no column of daily_guests", plan), (
        plan
    )
    declared.write_text(text)
    again = run("serverless", "run").stdout
    assert "unchanged: same history, parameters and code" in again
    assert re.search("staff_plan .*unchanged: same code and inputs", again), again
