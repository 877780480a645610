"""Only rows that changed are requested of a table with `updated_at`: over HTTP, into a warehouse."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from random import Random
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from serverless_assets.ingestion.load import LoadResult, load_tables
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.ingestion.state import TableState
from serverless_assets.months import Window
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.services.listening import listening

TIME = pa.timestamp("us")
COLUMNS = {"id": pa.string(), "at": TIME, "pages": pa.int64(), "updated_at": TIME, "deleted_at": TIME}
VISITS = RawTable(
    "visits", "Visits.", COLUMNS, event_time="at", updated_at="updated_at", deleted="deleted_at"
)
GUESTS = replace(VISITS, event_time=None)
BEGIN = datetime(2026, 9, 30, 12)


@dataclass
class Visits:
    """A table behind HTTP: each write is a version of a row, with the time of the write."""

    url: str = ""
    now: datetime = BEGIN
    versions: list[dict[str, object]] = field(default_factory=list)
    queries: list[dict[str, list[str]]] = field(default_factory=list)

    def write(self, id: str, at: datetime, pages: int = 1, deleted: bool = False) -> None:
        self.now += timedelta(minutes=1)
        row = {"id": id, "at": at, "pages": pages, "updated_at": self.now}
        self.versions.append({**row, "deleted_at": self.now if deleted else None})

    def answer(self, query: dict[str, list[str]]) -> bytes:
        latest = {row["id"]: row for row in self.versions}
        rows = list(latest.values())
        if since := query.get("updated_since"):
            first = datetime.fromisoformat(since[0]).replace(tzinfo=None)
            # Also an earlier version of a row, as pages of an API have it that is written to meanwhile.
            rows = [row for row in self.versions if row["updated_at"] >= first]
        if start := query.get("start"):
            start, end = (datetime.fromisoformat(query[name][0]) for name in ("start", "end"))
            rows = [row for row in rows if start <= row["at"] < end]
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, pa.schema(list(COLUMNS.items()))), sink)
        return sink.getvalue()


@pytest.fixture
def visits() -> Iterator[Visits]:
    with serve() as served:
        yield served


@contextmanager
def serve() -> Iterator[Visits]:
    served = Visits()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            served.queries.append(query)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served.answer(query))

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        yield served


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDBWarehouse:
    return DuckDBWarehouse(tmp_path / "warehouse.duckdb", "dwh")


def load(
    warehouse: DuckDBWarehouse,
    visits: Visits,
    table: RawTable = VISITS,
    window: Window | None = None,
    force: bool = False,
) -> LoadResult:
    states = {name: TableState.from_json(state) for name, state in warehouse.read_states().items()}
    source, folder = HttpSource(visits.url), warehouse.path.parent
    (loaded,) = load_tables([table], source, warehouse, window, folder, print, states, "a run", force)
    assert isinstance(loaded, LoadResult), loaded
    return loaded


def rows(warehouse: DuckDBWarehouse) -> list[tuple[object, object]]:
    kept = warehouse.query(f"from {warehouse.quoted_name('visits')} order by id").to_pylist()
    return [(row["id"], row["pages"]) for row in kept]


def state(warehouse: DuckDBWarehouse) -> TableState:
    return TableState.from_json(warehouse.read_state("visits"))


def test_only_rows_since_the_last_change_are_requested_and_replace_those_of_their_keys(warehouse, visits):
    visits.write("september", datetime(2026, 9, 1))
    visits.write("october", datetime(2026, 10, 1))
    visits.write("deleted", datetime(2026, 11, 1))
    load(warehouse, visits)
    visits.write("september", datetime(2026, 9, 1), pages=7)
    visits.write("new", datetime(2026, 12, 1))
    visits.write("deleted", datetime(2026, 11, 1), deleted=True)
    loaded = load(warehouse, visits)
    assert visits.queries == [{}, {"updated_since": ["2026-09-30T12:03:00Z"]}]
    assert loaded.decision.reason == "loaded from the source: 2026-09, 2026-11, 2026-12"
    assert rows(warehouse) == [("new", 1), ("october", 1), ("september", 7)]
    assert (state(warehouse).first, state(warehouse).last) == ("2026-09-01T00:00:00", "2026-12-01T00:00:00")
    assert loaded.rows == 3


def test_changes_that_say_nothing_new_leave_the_table_as_it_is(warehouse, visits):
    visits.write("a", datetime(2026, 9, 1))
    visits.write("b", datetime(2026, 9, 1), deleted=True)
    load(warehouse, visits)
    before = state(warehouse)
    for _ in range(2):
        loaded = load(warehouse, visits)
        assert (loaded.decision.load, loaded.decision.reason) == (False, "unchanged content: not loaded")
    assert replace(state(warehouse), responses={}) == replace(before, responses={})


def test_a_row_that_moves_to_another_month_leaves_the_one_that_it_was_in(warehouse, visits):
    visits.write("a", datetime(2026, 9, 1))
    visits.write("b", datetime(2026, 9, 2))
    load(warehouse, visits)
    visits.write("a", datetime(2026, 10, 1))
    assert [month.month for month in load(warehouse, visits).decision.months] == [9, 10]
    assert rows(warehouse) == [("a", 1), ("b", 1)]


def test_a_run_over_months_loads_the_changes_of_all_months(warehouse, visits):
    october = Window.of_months(date(2026, 10, 1), date(2026, 10, 1))
    visits.write("a", datetime(2026, 9, 1))
    load(warehouse, visits, window=october)
    load(warehouse, visits)
    visits.write("a", datetime(2026, 9, 1), pages=5)
    load(warehouse, visits, window=october)
    assert rows(warehouse) == [("a", 5)]
    # By force, the months are those of the source, also without rows that it no longer has.
    visits.write("gone", datetime(2026, 10, 1))
    load(warehouse, visits)
    visits.versions.pop()
    load(warehouse, visits, window=october, force=True)
    assert rows(warehouse) == [("a", 5)]
    visits.write("b", datetime(2026, 12, 1))
    load(warehouse, visits)
    assert visits.queries[-1]["updated_since"] == ["2026-09-30T12:03:00Z"]
    assert rows(warehouse) == [("a", 5), ("b", 1)]


def test_changes_from_another_source_are_not_added_to_the_rows_of_this_one(warehouse, visits):
    visits.write("a", datetime(2026, 9, 1))
    load(warehouse, visits)
    with serve() as other:
        other.write("b", datetime(2026, 9, 1))
        load(warehouse, other)
        assert other.queries == [{}]
    assert rows(warehouse) == [("b", 1)]


@pytest.mark.parametrize("table", [VISITS, GUESTS], ids=["by month", "a snapshot"])
def test_a_table_of_changes_is_the_same_as_one_that_was_loaded_whole(tmp_path, visits, table):
    by_changes, whole = (DuckDBWarehouse(tmp_path / name, "dwh") for name in ("changes.db", "whole.db"))
    chance = Random(7)
    visits.write("kept", BEGIN)
    load(by_changes, visits, table)
    for _ in range(3):
        for _ in range(chance.randint(3, 9)):
            at = datetime(2026, chance.randint(9, 11), 14)
            visits.write(chance.choice("abcde"), at, chance.randint(1, 2), chance.random() < 0.3)
        load(by_changes, visits, table)
    load(whole, visits, table)
    assert rows(by_changes) == rows(whole)
    assert len(rows(whole)) > 2
    assert (state(by_changes).version, state(by_changes).months) == (
        state(whole).version,
        state(whole).months,
    )
    # Which row is the first after the first was removed, only the warehouse knows.
    assert state(by_changes).first in ("", state(whole).first)
    assert state(by_changes).last in ("", state(whole).last)
