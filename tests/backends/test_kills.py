"""A process that is killed while it publishes tables and files or rolls back, with a reader beside it."""

from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.warehouse.bigquery import BigQueryWarehouse
from tests.backends.released_shop import ASSETS, LOG, Shop, release_of
from tests.faults.crash_points import RequestCrashPoint, every_crash_point
from tests.faults.reader import Readers

pytestmark = pytest.mark.gcp


def test_a_publish_that_is_killed_at_any_request_is_completed_by_the_next_run(
    shop: Shop, tmp_path: Path
) -> None:
    def write(number: int) -> None:
        shop.publisher.begin(f"run-{number}", (), ASSETS, LOG)
        shop.write(number)
        shop.publisher.close()

    def publish() -> None:
        shop.publish(f"run-{number}")

    assert shop.run(1)
    published, number = shop.publisher.published.warehouse, 2
    assert isinstance(published, BigQueryWarehouse)
    reader = Readers("shop", Path(published.dataset), tmp_path / "stop", 1)
    try:
        write(number)
        for _ in every_crash_point(publish, RequestCrashPoint):
            shop.publish(f"run-{number}-again")
            assert shop.read() == release_of(number)
            number += 1
            write(number)
        # The last went through.
        assert shop.read() == release_of(number)
    finally:
        (seen,) = reader.stop()
    assert seen["problems"] == []
    assert seen["reads"] > number
    # Three copies to return to and two of files, two tables, a view, and two files; the record is created,
    # gets a row and is described; two staged files and five old copies are deleted.
    assert number - 2 >= 20


def test_a_rollback_that_is_killed_at_any_request_is_completed_by_the_next_run(
    shop: Shop, tmp_path: Path
) -> None:
    assert shop.run(1)
    assert shop.run(2)
    published, there, kills = shop.publisher.published.warehouse, 1, 0
    assert isinstance(published, BigQueryWarehouse)

    def roll_back() -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            shop.publisher.rollback(f"run-{there}", instance, LOG)

    reader = Readers("shop", Path(published.dataset), tmp_path / "stop", 1)
    try:
        for _ in every_crash_point(roll_back, RequestCrashPoint):
            shop.publish(f"after-{kills}")
            assert shop.read() == release_of(there)
            kills, there = kills + 1, 3 - there
        # The last went through.
        assert shop.read() == release_of(there)
    finally:
        (seen,) = reader.stop()
    assert seen["problems"] == []
    # The work dataset's two tables, view and staged files, the same for readers, the three of the record; the
    # staged files are deleted, and the mark of a rollback under way.
    assert kills >= 16
