"""What runs by the clock, in which months and time zones, and once a day."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from serverless_assets.automation.jobs import NOTHING_YET, months_to_load, schedules
from serverless_assets.settings import Settings
from tests.conftest import SHOP
from tests.raw_tables import TABLES

FIRST = date(2024, 11, 1)
RANGE = "dagster/asset_partition_range_"


def day(text: str) -> date:
    return date.fromisoformat(f"{text}-01")


@pytest.mark.parametrize(
    ("now", "last_loaded", "months"),
    [
        ("2026-11-25T02:00+00:00", "2026-11", ("2026-11", "2026-11")),
        # Of the first night of a month, the last day of the one before.
        ("2026-12-01T02:00+00:00", "2026-11", ("2026-11", "2026-12")),
        ("2026-12-02T02:00+00:00", "2026-11", ("2026-11", "2026-12")),
        ("2026-12-02T02:00+00:00", "2026-12", ("2026-12", "2026-12")),
        ("2027-01-01T02:00+00:00", "2026-12", ("2026-12", "2027-01")),
        # Nights that were missed.
        ("2026-11-25T02:00+00:00", "2026-08", ("2026-08", "2026-11")),
        # Where it is December already, the partition is not there yet; where it is not, it is.
        ("2026-12-01T02:00+09:00", "2026-11", ("2026-11", "2026-11")),
        ("2026-11-30T22:00-08:00", "2026-11", ("2026-11", "2026-12")),
        # A partition of a month to come, and one from before the first.
        ("2026-11-25T02:00+00:00", "2026-12", ("2026-11", "2026-11")),
        ("2026-11-25T02:00+00:00", "2020-01", ("2024-11", "2026-11")),
        ("2026-11-25T02:00+00:00", None, None),
        ("2024-10-31T02:00+00:00", "2024-10", None),
    ],
)
def test_the_months_go_from_the_last_one_loaded_to_the_current_one(now, last_loaded, months):
    found = months_to_load(datetime.fromisoformat(now), last_loaded and day(last_loaded), FIRST)
    assert found == (months and tuple(map(day, months)))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    # In files: a schedule's context opens it anew.
    with dg.instance_for_test() as made:
        yield made


@pytest.fixture
def facts():
    """The facts of the pipeline, as assets that hold nothing."""
    months = dg.MonthlyPartitionsDefinition(start_date="2024-11-01", end_offset=1)

    @dg.multi_asset(
        specs=[dg.AssetSpec(name, partitions_def=months) for name in ("raw_orders", "raw_items")],
        can_subset=True,
    )
    def ingestion(context):
        for key in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=key)

    return ingestion


def made(timezone: str, automation: str = "off") -> list[dg.ScheduleDefinition]:
    settings = Settings.from_environ({"SERVERLESS_TIMEZONE": timezone, "SERVERLESS_AUTOMATION": automation})
    return schedules(
        SimpleNamespace(settings=settings, raw_tables=TABLES, first_month=FIRST, forecasts=[SHOP])
    )


def tick(instance: dg.DagsterInstance, name: str, at: datetime, timezone: str = "UTC") -> dg.RunRequest | str:
    (schedule,) = [one for one in made(timezone) if one.name == name]
    data = schedule.evaluate_tick(dg.build_schedule_context(instance, at))
    return data.run_requests[0] if data.run_requests else str(data.skip_message)


NIGHT = datetime(2026, 11, 25, 2, tzinfo=UTC)


def test_the_daily_forecast_waits_for_something_to_forecast_from(instance, facts):
    assert tick(instance, "daily_forecast", NIGHT) == NOTHING_YET
    dg.materialize([facts], instance=instance, partition_key="2026-10-01")
    request = tick(instance, "daily_forecast", NIGHT)
    inputs = request.run_config["resources"]["run_inputs"]["config"]
    assert "reuse" in inputs["ingestion"]
    assert request.run_key == "2026-11-25"
    # One horizon and one style, whichever schedule comes last: both write the same table and report.
    refresh = tick(instance, "nightly_refresh", NIGHT)
    assert inputs["forecast"] == refresh.run_config["resources"]["run_inputs"]["config"]["forecast"]


def test_the_first_nightly_refresh_loads_everything_and_the_next_the_months_that_need_it(instance, facts):
    first = tick(instance, "nightly_refresh", NIGHT)
    assert not [tag for tag in first.tags if tag.startswith(RANGE)]
    assert first.tags["serverless/reason"] == "The nightly refresh: nothing is loaded yet, so everything is."
    dg.materialize([facts], instance=instance, partition_key="2026-10-01")
    dg.materialize([facts], instance=instance, partition_key="2026-11-01", selection=["raw_orders"])
    request = tick(instance, "nightly_refresh", NIGHT)
    assert request.tags == {
        "dagster/schedule_name": "nightly_refresh",
        f"{RANGE}start": "2026-10-01",
        f"{RANGE}end": "2026-11-01",
        "serverless/reason": "The nightly refresh of 2026-10 to 2026-11.",
    }


@pytest.mark.parametrize("name", ["daily_forecast", "nightly_refresh"])
@pytest.mark.parametrize("around", ["2026-03-28", "2026-10-24"])
def test_there_is_one_run_a_day_when_clocks_change(instance, facts, name, around):
    dg.materialize([facts], instance=instance, partition_key="2026-01-01")
    zone = ZoneInfo("Europe/Berlin")
    (schedule,) = [one for one in made("Europe/Berlin") if one.name == name]
    start = datetime.fromisoformat(around).replace(tzinfo=zone)
    times = schedule_execution_time_iterator(start.timestamp(), schedule.cron_schedule, "Europe/Berlin", True)
    keys = [tick(instance, name, next(times), "Europe/Berlin").run_key for _ in range(3)]
    assert keys == [f"{around[:-2]}{int(around[-2:]) + n}" for n in range(3)]


@pytest.mark.parametrize(("automation", "status"), [("off", "STOPPED"), ("on", "RUNNING")])
def test_both_are_off_unless_automation_is_on(automation, status):
    found = made("Europe/Berlin", automation)
    assert {(one.default_status.value, one.execution_timezone) for one in found} == {
        (status, "Europe/Berlin")
    }
    assert [one.cron_schedule for one in found] == ["0 9 * * *", "0 2 * * *"]
