"""The lock of BigQuery's warehouse: runs of two machines take turns, and a dead one keeps nobody waiting."""

import logging
from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.publishing import lease
from serverless_assets.publishing.bigquery import BigQueryPublisher
from serverless_assets.publishing.lease import Lease, LeaseLost
from serverless_assets.publishing.run_lock import AtWork
from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from tests.backends.released_shop import ASSETS, LOG, Shop, release_of

pytestmark = pytest.mark.gcp


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
        with pytest.raises(AtWork, match=r"^Run run-3, process \d+ on .* is at work"):
            other.publisher.rollback(None, instance, LOG)
        shop.publisher.close()
        other.publisher.rollback(None, instance, LOG)
    assert shop.read() == release_of(1)


def test_a_holder_without_a_sign_of_life_is_taken_over_from_and_publishes_nothing(
    shop: Shop, other: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert shop.run(1)
    shop.publisher.begin("run-2", (), ASSETS, LOG)
    shop.publisher.artifacts.write("report.html", b"report 2")
    monkeypatch.setattr(lease, "SECONDS_TO_LIVE", 0.0)
    assert other.run(3)
    assert "Taking over from run run-2, process " in caplog.text
    shop.publisher.artifacts.write("report.html", b"report 2")
    with pytest.raises(LeaseLost, match="and another run has taken its turn"):
        shop.publisher.end("run-2", [], LOG)
    shop.publisher.close()
    assert shop.read() == release_of(3)


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


def test_a_dead_run_of_the_same_home_is_not_waited_for(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    assert shop.run(1)
    # As a process leaves it that was killed.
    left = Lease(shop.publisher.warehouse, shop.publisher.home, "run-2", LOG)
    left._has_ended.set()
    assert shop.run(3)
    assert "Waiting for" not in caplog.text
