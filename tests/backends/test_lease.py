"""The lock of BigQuery's warehouse: runs of two machines take turns, and a dead one keeps nobody waiting."""

import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import dagster as dg
import pandas as pd
import pytest

from serverless_assets.publishing import lease
from serverless_assets.publishing.bigquery import BigQueryPublisher
from serverless_assets.publishing.lease import Lease, LeaseLost
from serverless_assets.publishing.publisher import Publisher
from serverless_assets.publishing.run_lock import AtWork
from serverless_assets.python_assets.pandas_tables import pandas_tables
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from serverless_assets.warehouse.bigquery_dataset import LOCK
from tests.backends.released_shop import ASSETS, LOG, Shop, release_of

pytestmark = pytest.mark.gcp

# Holds the lease until its standard input ends.
ANOTHER_MACHINE = """
import logging, pathlib, socket, sys
from serverless_assets.publishing.lease import Lease
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
socket.gethostname = lambda: "another-machine"
*names, home = sys.argv[1:]
lease = Lease(BigQueryWarehouse(*names, 1 << 30), pathlib.Path(home), "run-2", logging.getLogger())
print("at work", flush=True)
sys.stdin.read()
lease.release()
"""


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_ATTEMPTS", 0.05)


@pytest.fixture
def other(shop: Shop, tmp_path: Path) -> Shop:
    """The same warehouse and store, from another machine."""
    published = shop.publisher.published
    assert isinstance(published.warehouse, BigQueryWarehouse)
    return Shop(BigQueryPublisher(tmp_path / "other", published.warehouse, published.artifacts))


def test_a_run_waits_for_that_of_another_machine_and_says_who_is_at_work(
    shop: Shop, other: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shop.publisher.begin("run-1", (), ASSETS, LOG)

    def end_first_run(seconds: float) -> None:
        assert "Waiting for run run-1, process " in caplog.text
        assert f"which is at work in {other.publisher.warehouse.name}, to end." in caplog.text
        shop.publisher.close()

    monkeypatch.setattr(lease.time, "sleep", end_first_run)
    with caplog.at_level(logging.INFO):
        assert other.run(2)
    assert other.read() == release_of(2)


def test_a_rollback_does_not_wait_for_a_run_of_another_machine(shop: Shop, other: Shop) -> None:
    assert shop.run(1)
    assert shop.run(2)
    shop.publisher.begin("run-3", (), ASSETS, LOG)
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(
            AtWork, match=r"^Another run is writing to the warehouse: run run-3, process \d+ on "
        ):
            other.publisher.rollback(None, instance, LOG)
        shop.publisher.close()
        other.publisher.rollback(None, instance, LOG)
    assert shop.read() == release_of(1)


def test_a_holder_without_a_sign_of_life_is_taken_over_from_and_publishes_nothing(
    shop: Shop, other: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert shop.run(1)
    shop.publisher.begin("run-2", (), ASSETS, LOG)
    shop.publisher.artifacts.write("forecast.html", b"forecast.html 2")
    monkeypatch.setattr(lease, "SECONDS_TO_LIVE", 0.0)
    assert other.run(3)
    assert "Taking over from run run-2, process " in caplog.text
    with pytest.raises(LeaseLost, match="and another run took over"):
        shop.publisher.end("run-2", [], LOG)
    shop.publisher.close()
    assert shop.read() == release_of(3)


def test_no_step_writes_after_another_run_has_taken_over_whoever_wrote_the_step(
    shop: Shop, other: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    months = dg.MonthlyPartitionsDefinition("2026-01-01", end_offset=1)

    @dg.asset(io_manager_key="pandas")
    def visits() -> pd.DataFrame:
        return pd.DataFrame({"visits": [1]})

    @dg.asset(io_manager_key="pandas", partitions_def=months)
    def monthly_visits() -> pd.DataFrame:
        return pd.DataFrame({"visits": [1]})

    @dg.asset
    def visits_file(publisher: dg.ResourceParam[Publisher]) -> None:
        publisher.artifacts.write("visits.json", b"1")

    @dg.asset
    def visits_state(publisher: dg.ResourceParam[Publisher]) -> None:
        publisher.warehouse.write_states({"raw_orders": {"version": "visits"}})

    assets = [visits, monthly_visits, visits_file, visits_state]
    assert shop.run(1)
    shop.publisher.begin("run-2", (), ASSETS, LOG)
    monkeypatch.setattr(lease, "SECONDS_TO_LIVE", 0.0)
    assert other.run(3)
    publisher = dg.ResourceDefinition.hardcoded_resource(shop.publisher)
    with dg.DagsterInstance.ephemeral() as instance:
        for asset in assets:
            result = dg.materialize(
                [asset],
                instance=instance,
                resources={"publisher": publisher, "pandas": pandas_tables},
                partition_key="2026-01-01" if asset is monthly_visits else None,
                raise_on_error=False,
            )
            (failure,) = (event for event in result.all_events if event.is_step_failure)
            assert "and another run took over" in str(failure.event_specific_data), asset.key
    shop.publisher.close()
    assert not {"visits", "monthly_visits"} & other.publisher.warehouse.tables()
    assert other.publisher.artifacts.names("visits") == []
    assert other.publisher.warehouse.read_state("raw_orders")["version"] == "raw_orders 3"


def test_a_holder_that_shows_signs_of_life_is_waited_for_however_long_it_takes(
    shop: Shop, other: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.publisher.begin("run-1", (), ASSETS, LOG)
    held = shop.publisher._lease
    assert held is not None
    # A waiting run looks again after twice the time that a silent holder has, by its clock.
    now = [0.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: now[0])
    looks = []

    def beat(seconds: float) -> None:
        now[0] += 2 * lease.SECONDS_TO_LIVE
        looks.append(now[0])
        held.check()
        if len(looks) == 4:
            shop.publisher.close()

    monkeypatch.setattr(lease.time, "sleep", beat)
    assert other.run(2)
    assert len(looks) == 4


def test_a_sign_of_life_is_shown_by_itself_as_long_as_the_run_lasts(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SECONDS_BETWEEN_BEATS", 0.01)
    shop.publisher.begin("run-1", (), ASSETS, LOG)
    warehouse = shop.publisher.warehouse
    beats, deadline = {0}, time.monotonic() + 60
    while len(beats) < 4:
        assert time.monotonic() < deadline
        beats.add(warehouse.read_record(LOCK).get("beats", 0))
    shop.publisher.close()
    assert warehouse.read_record(LOCK) == {}


def test_before_a_write_google_is_asked_only_if_the_last_sign_of_life_is_old(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.publisher.begin("run-1", (), ASSETS, LOG)
    now = [lease.time.time()]
    monkeypatch.setattr(lease.time, "time", lambda: now[0])
    beats = []
    for seconds in (0, 29, 2, 1, 3600):
        now[0] += seconds
        shop.publisher.warehouse.tables()
        beats.append(shop.publisher.warehouse.read_record(LOCK).get("beats", 0))
    shop.publisher.close()
    assert beats == [0, 0, 1, 1, 2]


def test_a_copy_of_a_home_on_another_machine_waits_for_its_turn(shop: Shop, tmp_path: Path) -> None:
    assert shop.run(1)
    warehouse, home = shop.publisher.warehouse, tmp_path / "copy"
    shutil.copytree(shop.publisher.home / "work", home / "work")
    names = [warehouse.project, warehouse.dataset, warehouse.location, str(home)]
    with subprocess.Popen(
        [sys.executable, "-c", ANOTHER_MACHINE, *names], text=True, stdin=PIPE, stdout=PIPE
    ) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "at work\n"
        writing = rf"^Another run is writing to the warehouse: run run-2, process {process.pid} on another-"
        with pytest.raises(AtWork, match=writing):
            Lease(warehouse, shop.publisher.home, "run-3", LOG, wait=False)
        process.stdin.close()
    assert process.returncode == 0
    assert shop.run(3)


def test_a_dead_run_of_the_same_home_is_not_waited_for(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    assert shop.run(1)
    # As a process leaves it that was killed.
    left = Lease(shop.publisher.warehouse, shop.publisher.home, "run-2", LOG)
    left._has_ended.set()
    assert shop.run(3)
    assert "Waiting for" not in caplog.text
