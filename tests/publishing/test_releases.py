"""Releases on one machine: the list of them, and the way back to one that is kept."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from serverless_assets.artifacts.url import UrlArtifacts
from serverless_assets.publishing.local import LocalPublisher
from serverless_assets.publishing.outcome import AssetOutcome
from serverless_assets.publishing.releases import RECORDS, Release, ReleaseError, as_lines, find_release
from serverless_assets.publishing.run_lock import AtWork, RunLock, RunProcess, end_dead_runs

LOG = dg.get_dagster_logger()
ASSETS = ("orders", "customers")


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as found:
        yield found


@pytest.fixture
def publisher(tmp_path: Path) -> LocalPublisher:
    return LocalPublisher(tmp_path / "home", "dwh", keep=3)


def run(publisher: LocalPublisher, number: int, status: str = "built") -> None:
    """A run that writes its number to the table `orders` and to the report, and leaves `customers` alone."""
    try:
        publisher.begin(f"run-{number}", ASSETS, ASSETS, LOG)
        with duckdb.connect(str(publisher.layout.working_warehouse)) as connection:
            connection.execute(f"create or replace table orders as select {number} as n")
            connection.execute(f"""comment on table orders is '{{"version": "{number}"}}'""")
            connection.execute("create table if not exists customers as select 1 as n")
        publisher.artifacts.write("forecast.html", str(number).encode())
        publisher.end(f"run-{number}", [AssetOutcome(asset, status, "") for asset in ASSETS], LOG)  # type: ignore[arg-type]
    finally:
        publisher.close()


def number_read(publisher: LocalPublisher) -> int:
    with duckdb.connect(str(publisher.layout.warehouse), read_only=True) as connection:
        return connection.execute("select n from orders").fetchall()[0][0]


def read(publisher: LocalPublisher) -> tuple[int, str]:
    """What people read: the number in the table, and that in the report."""
    return number_read(publisher), (publisher.layout.artifacts / "forecast.html").read_text()


def test_releases_are_listed_with_what_each_changed(publisher):
    assert publisher.releases() == []
    run(publisher, 1)
    run(publisher, 2)
    newest, first = publisher.releases()
    assert (newest.run_id, newest.changed) == ("run-2", ["orders", "forecast.html"])
    assert (first.run_id, first.changed) == ("run-1", ["customers", "orders", "forecast.html"])
    heading, line, _ = as_lines([newest, first])
    assert line.split("  ", 1)[1].split() == ["run-2", "read", "now", "forecast.html,", "orders"]
    assert line.index("forecast.html") == heading.index("what changed")


def test_a_release_says_what_was_dropped_and_that_no_rows_changed(publisher, caplog):
    def work(number: int, *statements: str) -> None:
        publisher.begin(f"run-{number}", ASSETS, ASSETS, LOG)
        with duckdb.connect(str(publisher.layout.working_warehouse)) as connection:
            for statement in statements:
                connection.execute(statement)
        publisher.end(f"run-{number}", [AssetOutcome(asset, "reused", "") for asset in ASSETS], LOG)
        publisher.close()

    state = 'comment on table orders is \'{"version": "a", "data_hashes": {"SQL": "%s"}}\''
    work(1, "create table orders as select 1 as n", state % "x", "create table customers as select 1 as n")
    work(2, state % "y")
    assert publisher.releases()[0].changed == []
    assert caplog.messages[-1].endswith(f": {RECORDS}.")
    work(3, "drop table customers")
    assert [line.split("  ")[-1].strip() for line in as_lines(publisher.releases())][1:] == [
        "customers (dropped)",
        RECORDS,
        "customers, orders",
    ]
    assert caplog.messages[-1] == f"Published {publisher.layout.warehouse}."


def test_a_rollback_lets_people_read_all_of_the_release_before_and_is_on_record(publisher, instance):
    run(publisher, 1)
    run(publisher, 2)
    publisher.rollback(None, instance, LOG)
    assert read(publisher) == (1, "1")
    assert [(r.run_id, r.is_rollback) for r in publisher.releases()] == [
        ("run-1", True), ("run-2", False), ("run-1", False),
    ]  # fmt: skip
    assert publisher.releases()[0].changed == ["orders", "forecast.html"]
    (event,) = instance.fetch_observations(dg.AssetKey("pipeline_runs"), limit=1).records
    description = event.event_log_entry.asset_observation.description
    assert description.startswith("Rolled back from the release of run run-2, published ")
    assert "to the release of run run-1, published " in description


def test_a_rollback_takes_no_room_and_leaves_the_release_that_it_returns_to(publisher, instance):
    run(publisher, 1)
    run(publisher, 2)
    publisher.rollback(None, instance, LOG)
    now, _, first = (publisher.layout.releases / release.name for release in publisher.releases())
    for file in ("warehouse.duckdb", "artifacts/forecast.html"):
        assert (now / file).samefile(first / file)


def test_a_rollback_can_be_taken_back(publisher, instance):
    run(publisher, 1)
    run(publisher, 2)
    publisher.rollback(None, instance, LOG)
    publisher.rollback("run-2", instance, LOG)
    assert read(publisher) == (2, "2")


def test_the_run_after_a_rollback_starts_from_what_people_read_and_publishes(publisher, instance, caplog):
    run(publisher, 1)
    run(publisher, 2, status="failed")
    run(publisher, 3)
    publisher.rollback(None, instance, LOG)
    publisher.begin("run-4", (), ASSETS, LOG)
    with duckdb.connect(str(publisher.layout.working_warehouse)) as connection:
        assert connection.execute("select n from orders").fetchall() == [(1,)]
    assert publisher.artifacts.read("forecast.html") == b"1"
    publisher.close()
    run(publisher, 5)
    assert read(publisher) == (5, "5")
    assert [release.run_id for release in publisher.releases()] == ["run-5", "run-1", "run-3", "run-1"]


def test_a_rollback_says_that_it_drops_the_work_of_a_run_that_was_killed(publisher, instance, caplog):
    caplog.set_level("INFO")
    run(publisher, 1)
    run(publisher, 2)

    def kill(number: int) -> None:
        """Leave what a run leaves that was killed in the middle."""
        killed = dg.DagsterRun(
            job_name="ingest", run_id=f"killed-{number}", status=dg.DagsterRunStatus.STARTED
        )
        instance.add_run(killed)
        run(publisher, number, status="failed")
        file = publisher.home / "running" / f"{killed.run_id}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(RunProcess(killed.run_id, 1, "host", "today").as_json())

    kill(3)
    publisher.rollback(None, instance, LOG)
    assert caplog.messages[-1].startswith("Run killed-3 of ingest, begun today, has died: ")
    assert caplog.messages[-1].endswith(
        "Its unfinished work is dropped: the next `serverless run` starts from what is published."
    )
    run(publisher, 4)
    publisher.rollback(None, instance, LOG)
    assert "dropped" not in caplog.text.partition("killed-3")[2].partition("published.")[2]
    run(publisher, 5, status="failed")
    publisher.rollback("run-4", instance, LOG)
    assert caplog.messages[-1].endswith("UTC. What was not published is dropped.")
    # What the next run says of one that died, if the rollback was interrupted before it said so.
    kill(6)
    publisher.restore(publisher.releases()[1], LOG)
    [sentence] = end_dead_runs(publisher.home, instance)
    assert "is dropped" in sentence


def test_a_plan_after_a_rollback_compares_with_what_people_read(publisher, instance):
    run(publisher, 1)
    run(publisher, 2)
    assert publisher.look_ahead() is None
    publisher.rollback(None, instance, LOG)
    assert "starts from the published" in publisher.look_ahead()
    assert publisher.warehouse.query("select n from main.orders")["n"].to_pylist() == [1]
    assert publisher.artifacts.read("forecast.html") == b"1"


def test_files_in_a_store_of_their_own_come_back_with_the_tables(tmp_path, instance):
    store = UrlArtifacts(f"memory://{tmp_path.name}")
    publisher = LocalPublisher(tmp_path / "home", "dwh", store, keep=2)
    for number in (1, 2, 3):
        run(publisher, number)
    assert len(publisher.artifacts.kept.names("")) == 2
    publisher.rollback(None, instance, LOG)
    assert (number_read(publisher), store.read("forecast.html")) == (2, b"2")
    assert publisher.releases()[0].changed == ["orders", "forecast.html"]
    publisher.begin("run-4", (), ASSETS, LOG)
    assert publisher.artifacts.changed() == []
    publisher.close()
    publisher.rollback("run-3", instance, LOG)
    assert (number_read(publisher), store.read("forecast.html")) == (3, b"3")


def test_a_return_to_what_people_read_discards_what_a_failed_run_has_left_and_is_refused_without_that(
    publisher, instance
):
    run(publisher, 1)
    run(publisher, 2, status="failed")
    publisher.rollback("run-1", instance, LOG)
    publisher.begin("run-3", (), ASSETS, LOG)
    assert publisher.pending_assets.read() == set()
    assert publisher.artifacts.read("forecast.html") == b"1"
    publisher.close()
    with pytest.raises(ReleaseError, match="The release of run run-1 is what people read now"):
        publisher.rollback("run-1", instance, LOG)


def test_a_release_that_was_returned_to_counts_once_among_those_to_keep(publisher, instance):
    for number in (1, 2, 3):
        run(publisher, number)
    publisher.rollback("run-1", instance, LOG)
    run(publisher, 4)
    run(publisher, 5)
    assert [release.run_id for release in publisher.releases()] == ["run-5", "run-4", "run-1", "run-1"]


def test_releases_in_which_no_rows_changed_push_none_out_and_are_not_returned_to(publisher, instance):
    def confirm(number: int) -> None:
        """A run that changes nothing but the record of what the tables were built from."""
        publisher.begin(f"run-{number}", ASSETS, ASSETS, LOG)
        publisher.artifacts.write("dbt-manifest.json", str(number).encode())
        publisher.end(f"run-{number}", [AssetOutcome(asset, "reused", "") for asset in ASSETS], LOG)
        publisher.close()

    def manifest() -> bytes | None:
        return publisher.published.artifacts.read("dbt-manifest.json")

    run(publisher, 1)
    confirm(2)
    run(publisher, 3)
    for number in range(4, 10):
        confirm(number)
    # The newest three stay in any case, for readers that have one of them open.
    runs = [release.run_id for release in publisher.releases()]
    assert runs == ["run-9", "run-8", "run-7", "run-3", "run-1"]
    assert (read(publisher), manifest()) == ((3, "3"), b"9")
    publisher.rollback(None, instance, LOG)
    # All of it is of one release: the tables, and the record of what they were built from.
    assert (read(publisher), manifest()) == ((1, "1"), None)
    publisher.rollback("run-8", instance, LOG)
    assert (read(publisher), manifest()) == ((3, "3"), b"8")
    publisher.rollback(None, instance, LOG)
    assert read(publisher) == (1, "1")


def test_no_rollback_while_a_run_is_at_work(publisher, instance):
    run(publisher, 1)
    run(publisher, 2)
    lock = RunLock(publisher.layout.work, "run-3", LOG)
    refusal = (
        r"^Another run is writing to the warehouse: run run-3, process \d+ on .*\. Wait until it has ended"
    )
    with pytest.raises(AtWork, match=refusal):
        publisher.rollback(None, instance, LOG)
    lock.release()
    assert read(publisher) == (2, "2")


def release(run_id: str, *changed: str, is_kept: bool = True) -> Release:
    return Release(run_id, run_id, datetime(2026, 1, 1, tzinfo=UTC), changed, is_kept=is_kept)


A, B, C = release("aaaa1", "orders"), release("bbbb1", "orders"), release("cccc1", "orders")
Z = release("aaaz1", "orders", is_kept=False)
# No rows changed in it.
N = release("nnnn1", "dbt-manifest.json")


def test_the_list_of_releases_names_a_few_that_people_read_and_says_what_was_a_rollback():
    changed = [
        "raw_b",
        "raw_a",
        "c",
        "d",
        "e",
        "dbt-manifest.json",
        "forecast-record-20260101T000000Z.parquet",
    ]
    back = replace(A, changed=["c"], is_rollback=True)
    assert [line[21:] for line in as_lines([back, replace(B, changed=changed)])][1:] == [
        "aaaa1     read now  rollback: c",
        "bbbb1               c, d, e, raw_a and 1 more",
    ]


@pytest.mark.parametrize(
    ("releases", "wanted", "found"),
    [
        ([C, B, A], None, B),
        ([C, B, A], "aa", A),
        ([A, C, B, A], "bbbb1", B),
        ([B, C, B, A], None, A),
        ([N, C, N, B], None, B),
        ([replace(N, changed=["orders"]), C, N, B, A], None, A),
    ],
    ids=[
        "the one before",
        "a beginning",
        "forward again",
        "the one before that one's own publish",
        "the one before in which rows changed",
        "returned to one in which none had changed",
    ],
)
def test_the_release_to_return_to(releases, wanted, found):
    assert find_release(releases, wanted) == found


@pytest.mark.parametrize(
    ("releases", "wanted", "sentence"),
    [
        ([], None, "Nothing was published yet, so there is no release to return to."),
        (
            [A],
            None,
            "No release that is kept is older than what people read now. The release that people read now is "
            "the only one.",
        ),
        (
            [C, B, Z],
            C.run_id,
            f"The release of run {C.run_id} is what people read now. You can return to that of run bbbb1.",
        ),
        ([C, B, Z], "dddd", "No release of a run 'dddd' is kept. You can return to that of run bbbb1."),
        (
            [C, B, Z],
            "aaaz",
            "The release of run aaaz1 is no longer kept. You can return to that of run bbbb1.",
        ),
        ([C, A, Z], "aaa", "The ids of several runs begin with 'aaa'. Give more of the id."),
    ],
)
def test_a_release_that_cannot_be_returned_to_is_refused_in_words(releases, wanted, sentence):
    with pytest.raises(ReleaseError) as error:
        find_release(releases, wanted)
    assert str(error.value) == sentence
