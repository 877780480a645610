from datetime import date
from pathlib import Path

import pytest

from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.settings import Settings, SettingsError

NO_TOKEN_FILE = {"MODAL_CONFIG_PATH": "/nowhere/modal.toml"}


# For each variable: its field, what that is without it, a value, and what the field then is.
VARIABLES = [
    ("SERVERLESS_ENV", "environment", "local", "prod", "prod"),
    ("SERVERLESS_BRANCH", "branch", None, "pr-1", "pr-1"),
    ("SERVERLESS_WAREHOUSE", "warehouse", None, "duckdb", "duckdb"),
    ("SERVERLESS_ARTIFACTS", "artifacts", None, "gcs", "gcs"),
    ("SERVERLESS_ARTIFACTS_URL", "artifacts_url", None, "s3://shop", "s3://shop"),
    ("SERVERLESS_COMPUTE", "compute", None, "modal", "modal"),
    ("SERVERLESS_HOME", "home", PROJECT_ROOT / ".serverless", "/srv/shop", Path("/srv/shop")),
    ("SERVERLESS_DATASET_URL", "dataset_url", None, "https://a:p@x.test/d?t=1", "https://a:p@x.test/d?t=1"),
    ("SERVERLESS_DOWNLOAD_DEADLINE", "download_deadline_seconds", 3600, "600", 600),
    ("SERVERLESS_DOWNLOAD_MIN_RATE", "download_minimum_rate", 1000, "0", 0),
    ("SERVERLESS_LOAD_MEMORY", "load_memory_mib", 640, "1024", 1024),
    ("SERVERLESS_FIRST_MONTH", "first_month", None, "2024-02", date(2024, 2, 1)),
    ("SERVERLESS_SAMPLE_SEED", "sample_seed", 7, "0", 0),
    ("SERVERLESS_SAMPLE_END", "sample_end", None, "2026-10-31", date(2026, 10, 31)),
    ("SERVERLESS_DBT_PROJECT", "dbt_project", PROJECT_ROOT / "dbt_project", "/srv/dbt", Path("/srv/dbt")),
    ("DBT_SCHEMA", "dbt_schema", "dwh", "ANALYTICS_2", "ANALYTICS_2"),
    ("SERVERLESS_FORECAST_TABLE", "forecast_table", "order_forecast", "_forecast", "_forecast"),
    ("SERVERLESS_FORECAST_DEADLINE", "forecast_deadline_seconds", 1800, "60", 60),
    ("SERVERLESS_FORECAST_FRESH_HOURS", "forecast_fresh_hours", 36, "12", 12),
    ("SERVERLESS_RUN_DEADLINE", "run_deadline_seconds", 7200, "600", 600),
    ("SERVERLESS_KEEP_RUNS", "runs_kept", 100, "5", 5),
    ("SERVERLESS_KEEP_RELEASES", "releases_kept", 3, "2", 2),
    ("SERVERLESS_BUDGET_USD", "budget_usd", None, "0.5", 0.5),
    ("SERVERLESS_TIMEZONE", "timezone", "UTC", "Europe/Berlin", "Europe/Berlin"),
    ("SERVERLESS_AUTOMATION", "automation_is_on", False, "on", True),
    ("SERVERLESS_ALERT_URL", "alert_url", None, "https://hooks.test/secret", "https://hooks.test/secret"),
    ("SERVERLESS_ALERT_FORMAT", "alert_format", "slack", "json", "json"),
    ("SERVERLESS_UI_URL", "ui_url", "http://127.0.0.1:3000", "https://ui.test/", "https://ui.test"),
    ("SERVERLESS_REPORTS_URL", "reports_url", None, "https://x.test/reports/", "https://x.test/reports"),
    ("SERVERLESS_KEY_PREFIX", "key_prefix", "", "acme/shop", "acme/shop"),
    ("SERVERLESS_OWNER", "owner", "team:data", "ann@shop.test", "ann@shop.test"),
    ("SERVERLESS_CODE_URL", "code_url", None, "https://git.test/shop/tree", "https://git.test/shop/tree"),
    ("GOOGLE_CLOUD_PROJECT", "project", None, "my-shop-123", "my-shop-123"),
    ("SERVERLESS_EXECUTION_PROJECT", "execution_project", None, "my-jobs-123", "my-jobs-123"),
    ("SERVERLESS_LOCATION", "location", "US", "europe-west3", "europe-west3"),
    ("SERVERLESS_BUCKET", "bucket", None, "my-shop.forecasts", "my-shop.forecasts"),
    ("SERVERLESS_MAX_BYTES_BILLED", "maximum_bytes_billed", 10 << 30, "1000000", 1_000_000),
    ("SERVERLESS_BIGQUERY_PRICE", "bigquery_price", "", "0.06/slot-hour", "0.06/slot-hour"),
    ("SERVERLESS_MODAL_APP", "modal_app", "serverless-forecast", "shop-forecast", "shop-forecast"),
    ("MODAL_ENVIRONMENT", "modal_environment", None, "staging", "staging"),
    ("SERVERLESS_MODAL_REGION", "modal_region", None, "eu", "eu"),
]


def test_each_variable_is_read_into_its_field_and_has_a_default():
    assert {field: variable for variable, field, *_ in VARIABLES} == {
        name: field.alias for name, field in Settings.model_fields.items() if field.alias
    }
    unset = Settings.from_environ(NO_TOKEN_FILE)
    for variable, field, default, value, parsed in VARIABLES:
        assert getattr(unset, field) == default, variable
        # Of a branch, the home and the schema are its own.
        others = {"SERVERLESS_HOME": "/srv/shop"} if field == "branch" else {}
        assert getattr(Settings.from_environ({variable: value, **others}), field) == parsed, variable


def test_each_environment_has_a_home_of_its_own():
    homes = {Settings.from_environ({"SERVERLESS_ENV": name}).home for name in ("local", "gcp", "../x")}
    assert homes == {PROJECT_ROOT / name for name in (".serverless", ".serverless-gcp", ".serverless-x")}


def test_a_branch_has_a_home_and_a_dataset_of_its_own():
    found = Settings.from_environ({"SERVERLESS_BRANCH": "pr-123", "SERVERLESS_HOME": "/srv/shop"})
    assert (found.home, found.dbt_schema) == (Path("/srv/shop-pr-123"), "dwh_pr_123")
    assert Settings.from_environ({"SERVERLESS_BRANCH": "pr-123"}).home == PROJECT_ROOT / ".serverless-pr-123"


def test_what_may_carry_a_secret_is_not_in_the_settings_repr():
    secrets = {
        "SERVERLESS_DATASET_URL": "https://ann:hunter2@x.test",
        "SERVERLESS_ALERT_URL": "https://hunter2.test",
    }
    assert "hunter2" not in repr(Settings.from_environ(secrets))


def test_half_a_modal_token_is_none():
    half = {"MODAL_TOKEN_ID": "ak-1", **NO_TOKEN_FILE}
    assert not Settings.from_environ(half).has_modal_token
    assert Settings.from_environ({**half, "MODAL_TOKEN_SECRET": "as-1"}).has_modal_token


def test_a_modal_token_is_found_in_modals_own_file(tmp_path):
    (tmp_path / "modal.toml").write_text("[default]")
    assert Settings.from_environ({"MODAL_CONFIG_PATH": str(tmp_path / "modal.toml")}).has_modal_token


def test_all_that_cannot_be_used_is_named_at_once():
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ(
            {"DBT_SCHEMA": "2nd", "SERVERLESS_TIMEZONE": "Mars", "SERVERLESS_BUCKET": "gs://x"}
        )
    named = [line.split(" is ")[0] for line in str(raised.value).splitlines()]
    assert named == ["DBT_SCHEMA", "SERVERLESS_TIMEZONE", "SERVERLESS_BUCKET"]


@pytest.mark.parametrize("blank", ["", "  ", "\n"])
def test_a_blank_variable_counts_as_not_set(blank):
    names = ("ENV", "HOME", "DATASET_URL", "FIRST_MONTH", "SAMPLE_SEED", "SAMPLE_END", "TIMEZONE")
    variables = {f"SERVERLESS_{name}": blank for name in names} | {"DBT_SCHEMA": blank}
    assert Settings.from_environ(variables) == Settings.from_environ({})


def test_space_around_a_value_does_not_matter():
    variables = {"SERVERLESS_DATASET_URL": " https://shop.test/data\n", "SERVERLESS_FIRST_MONTH": " 2024-02 "}
    settings = Settings.from_environ(variables)
    assert settings.dataset_url == "https://shop.test/data"
    assert settings.first_month == date(2024, 2, 1)


def test_the_home_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    assert Settings.from_environ({"SERVERLESS_HOME": "shop"}).home == tmp_path / "shop"
    assert Settings.from_environ({"SERVERLESS_HOME": "~/shop"}).home == Path("/home/ann/shop")


def test_the_processs_own_variables_are_read_when_none_are_given(monkeypatch):
    monkeypatch.setenv("SERVERLESS_TIMEZONE", "Asia/Tokyo")
    assert Settings.from_environ().timezone == "Asia/Tokyo"


def test_variables_are_read_from_the_projects_env_file_unless_they_are_set(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("SERVERLESS_TIMEZONE=Asia/Tokyo\nSERVERLESS_SAMPLE_SEED=3\n")
    monkeypatch.setattr("serverless_assets.settings.PROJECT_ROOT", tmp_path)
    monkeypatch.setenv("SERVERLESS_SAMPLE_SEED", "4")
    # What the file sets is undone after the test.
    monkeypatch.setenv("SERVERLESS_TIMEZONE", "")
    monkeypatch.delenv("SERVERLESS_TIMEZONE")
    settings = Settings.from_environ()
    assert (settings.timezone, settings.sample_seed) == ("Asia/Tokyo", 4)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("SERVERLESS_FIRST_MONTH", "2024-13", "2024-01"),
        ("SERVERLESS_KEY_PREFIX", "shop/", "acme/shop"),
        ("SERVERLESS_KEY_PREFIX", "my shop", "letters, digits, _ and -"),
        ("SERVERLESS_FIRST_MONTH", "2024-01-15", "2024-01"),
        ("SERVERLESS_FIRST_MONTH", "January", "2024-01"),
        ("SERVERLESS_SAMPLE_SEED", "-1", "whole number"),
        ("SERVERLESS_SAMPLE_SEED", "1.5", "whole number"),
        ("SERVERLESS_SAMPLE_SEED", "²", "whole number"),
        ("SERVERLESS_KEEP_RELEASES", "1", "2 at least"),
        ("SERVERLESS_SAMPLE_END", "2026-02-30", "2026-01-31"),
        ("SERVERLESS_SAMPLE_END", "yesterday", "2026-01-31"),
        ("DBT_SCHEMA", "dwh; drop schema dwh", "dwh"),
        ("DBT_SCHEMA", "2nd", "letters"),
        ("DBT_SCHEMA", "information_schema", "dwh"),
        ("DBT_SCHEMA", "dwh__work", "does not contain __work"),
        ("DBT_SCHEMA", "PG_CATALOG", "dwh"),
        ("DBT_SCHEMA", "temp", "dwh"),
        ("DBT_SCHEMA", "x" * 64, "letters"),
        ("SERVERLESS_FORECAST_TABLE", "dwh.forecast", "order_forecast"),
        ("SERVERLESS_FORECAST_DEADLINE", "0", "1800"),
        ("SERVERLESS_FORECAST_DEADLINE", "half an hour", "whole number"),
        ("SERVERLESS_MAX_BYTES_BILLED", "10 GB", "whole number"),
        ("SERVERLESS_MAX_BYTES_BILLED", "0", "whole number"),
        ("GOOGLE_CLOUD_PROJECT", "My Shop", "my-shop-123"),
        ("SERVERLESS_BUCKET", "gs://my-shop", "without gs://"),
        ("SERVERLESS_BUCKET", "my-shop/forecasts", "without gs://"),
        ("SERVERLESS_LOCATION", "the moon", "europe-west3"),
        ("SERVERLESS_MODAL_APP", "my app", "letters"),
        ("SERVERLESS_BRANCH", "Feature/X", "pr-123"),
        ("SERVERLESS_BRANCH", "../x", "pr-123"),
        ("SERVERLESS_BUDGET_USD", "-1", "0.50"),
        ("SERVERLESS_BUDGET_USD", "nan", "0.50"),
        ("SERVERLESS_BUDGET_USD", "$5", "0.50"),
        ("SERVERLESS_AUTOMATION", "yes", "off, on"),
        ("SERVERLESS_ALERT_FORMAT", "xml", "slack, json"),
        ("SERVERLESS_OWNER", "data team", "team:data"),
        ("SERVERLESS_RUN_DEADLINE", "0", "7200"),
        ("SERVERLESS_TIMEZONE", "Mars/Olympus", "Europe/Berlin"),
        ("SERVERLESS_TIMEZONE", "Europe", "Europe/Berlin"),
        ("SERVERLESS_TIMEZONE", "../../etc/passwd", "Europe/Berlin"),
    ],
)
def test_a_bad_value_is_refused_with_its_variable_itself_and_what_would_do(name, value, hint):
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ({name: value})
    message = str(raised.value)
    assert message.startswith(f"{name} is {value!r}")
    assert hint in message


@pytest.mark.parametrize(
    "url",
    [
        "ftp://ann:hunter2@shop.test/data",
        "ann:hunter2@shop.test/data",
        "https://ann:hunter2@",
        "https:///data?token=hunter2",
        "http://ann:hunter2@[::1/data",
        "hunter2",
    ],
)
def test_a_bad_address_is_refused_without_repeating_it(url):
    with pytest.raises(SettingsError) as raised:
        Settings.from_environ({"SERVERLESS_DATASET_URL": url})
    message = str(raised.value)
    assert message.startswith("SERVERLESS_DATASET_URL is not")
    assert "hunter2" not in message


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("SERVERLESS_ENVIRONMENT", "SERVERLESS_ENV"),
        ("SERVERLESS_BUDGET", "SERVERLESS_BUDGET_USD"),
        ("SERVERLESS_DATASETURL", "SERVERLESS_DATASET_URL"),
        # Two letters changed places.
        ("SERVERLESS_HOEM", "SERVERLESS_HOME"),
        # The prefix.
        ("SERVERLES_ENV", "SERVERLESS_ENV"),
        ("SERVERELESS_HOME", "SERVERLESS_HOME"),
        ("SEVERLESS_DATASET_URL", "SERVERLESS_DATASET_URL"),
        ("SERVERLESSENV", "SERVERLESS_ENV"),
    ],
)
def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant(misspelt, meant):
    with pytest.raises(SettingsError, match=f"{misspelt} is not a setting. Did you mean {meant}[?]"):
        Settings.from_environ({misspelt: "x"})


def test_variables_that_a_dbt_project_may_read_are_left_alone():
    others = (
        "SERVERLESS_SOURCE_SCHEMA",
        "SERVERLESS_MONTHS",
        "SERVERLESS_RUN_ID",
        "SERVERLESS_LIVE_LOCATION",
        "DBT_SERVERLESS_HOME",
        "SERVER_HOME",
        "SERVERLES_HOMEPAGE_OF_THE_TEAM",
    )
    Settings.from_environ(dict.fromkeys(others, "x"))
