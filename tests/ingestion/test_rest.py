"""Raw tables of a REST API: read page by page, authenticated, within the limits, or refused as a whole."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from serverless_assets.ingestion.catalog import read_catalogue
from serverless_assets.ingestion.fetch_result import Failed, Missing
from serverless_assets.ingestion.http_client import SourceError
from serverless_assets.ingestion.load import LoadResult, load_tables
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.rest_endpoint import read_endpoint
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.ingestion.state import TableState
from serverless_assets.months import Window
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.warehouse.duckdb import DuckDBWarehouse
from tests.ingestion.json_api import SECRET, Answer, Api, json_api, visit

PAGINATORS: dict[str, dict[str, Any]] = {
    "page_number": {"type": "page_number"},
    "offset": {"type": "offset", "limit": 3, "total_path": "total"},
    "cursor": {"type": "cursor", "cursor_path": "next", "cursor_param": "after"},
    "json_link": {"type": "json_link", "next_url_path": "links.next"},
    "header_link": {"type": "header_link"},
}
AUTHENTICATION: dict[str, dict[str, Any]] = {
    "bearer": {"type": "bearer", "token": {"env": "API_SECRET"}},
    "api_key": {"type": "api_key", "name": "X-Api-Key", "api_key": {"env": "API_SECRET"}},
    "basic": {"type": "http_basic", "username": "ann", "password": {"env": "API_SECRET"}},
}


@dataclass
class Loads:
    """A warehouse that visits are loaded into."""

    api: Api
    folder: Path
    source: HttpSource = field(default_factory=lambda: HttpSource("http://127.0.0.1:1/none"))
    lines: list[str] = field(default_factory=list)
    # The rows that `loaded` has loaded, and nothing since.
    before: Sequence[dict[str, Any]] = ()

    def __post_init__(self) -> None:
        self.warehouse = DuckDBWarehouse(self.folder / "warehouse.duckdb", "dwh")

    def table(self, **options: Any) -> RawTable:
        paginator = PAGINATORS.get(self.api.paging)
        rest = {
            "url": f"{self.api.url}/visits",
            "data_selector": "data.items",
            "fields": {"store_id": "store.id"},
            **({"paginator": paginator} if paginator else {}),
            **options,
        }
        columns = {
            "id": pa.string(),
            "visited_at": pa.timestamp("us"),
            "amount": pa.float64(),
            "guests": pa.int64(),
            "is_new": pa.bool_(),
            "store_id": pa.string(),
        }
        return RawTable(
            "raw_visits", "", columns, event_time="visited_at", grain="none", rest=read_endpoint(rest)
        )

    def load(
        self,
        *tables: RawTable,
        source: HttpSource | None = None,
        window: Window | None = None,
        **options: Any,
    ) -> LoadResult | Failed:
        stored = self.warehouse.read_states().items()
        states = {name: TableState.from_json(state) for name, state in stored}
        with (source or self.source).open() as opened:
            (result,) = load_tables(
                tables or [self.table(**options)],
                opened,
                self.warehouse,
                window,
                self.folder,
                self.lines.append,
                states,
                "run",
            )
        if isinstance(result, LoadResult):
            self.before = ()
        return result

    def read(self, **options: Any) -> dict[str, list[str]]:
        """Return the columns of the file that the rows are written to."""
        path = self.folder / "visits.parquet"
        self.source.fetch(self.table(**options), None, path, self.lines.append)
        return pq.read_table(path).to_pydict()

    def refused(self, **options: Any) -> str:
        """Return why a load failed; the table is as it was, and the reason holds no secret."""
        result = self.load(**options)
        assert isinstance(result, Failed) and not isinstance(result, Missing), result
        assert self.rows() == self.before
        assert SECRET not in result.reason + "".join(self.lines)
        return result.reason.replace(self.api.url, "API")

    def rows(self) -> Sequence[dict[str, Any]]:
        relation = self.warehouse.quoted_name("raw_visits")
        return self.warehouse.query(f"from {relation} order by cast(id as bigint)").to_pylist()

    def ids(self) -> list[str]:
        return [row["id"] for row in self.rows()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loads]:
    with json_api() as api:
        yield Loads(api, tmp_path_factory.mktemp("rest"))


@pytest.fixture
def loads(world: Loads, monkeypatch: pytest.MonkeyPatch) -> Loads:
    """The API as it is at first, and a warehouse with any earlier load of it."""
    monkeypatch.setenv("API_SECRET", SECRET)
    url = world.api.url
    vars(world.api).update(vars(Api(url=url)))
    world.lines.clear()
    world.source = HttpSource("http://127.0.0.1:1/none", attempts=2, first_pause_seconds=0.0)
    return world


@pytest.fixture
def loaded(loads: Loads) -> Loads:
    """After a load of an API with a visit less."""
    if not loads.before:
        last = loads.api.rows.pop()
        assert isinstance(loads.load(), LoadResult)
        loads.before = loads.rows()
        loads.api.rows.append(last)
        loads.api.asked.clear()
    return loads


@pytest.mark.parametrize("paging", [*PAGINATORS, "none"])
def test_all_pages_are_read_in_their_order(loads, paging):
    loads.api.paging = paging
    assert loads.read()["id"] == [str(number) for number in range(1, 8)]
    assert len(loads.api.asked) == {"none": 1, "page_number": 4}.get(paging, 3)


def test_rows_are_loaded_in_the_types_of_the_contract(loads):
    loads.api.rows[6] = visit(7, visited_at=1_791_331_200, amount="1e3", guests=2.0, is_new=None)
    assert isinstance(loads.load(), LoadResult)
    first, *_, last = loads.rows()
    assert first == {
        "id": "1", "visited_at": datetime(2026, 10, 2, 1, 30), "amount": 1.5, "guests": 1, "is_new": True,
        "store_id": "s1",
    }  # fmt: skip
    assert (last["visited_at"], last["amount"]) == (datetime(2026, 10, 7), 1000.0)
    assert (last["guests"], last["is_new"]) == (2, None)


@pytest.mark.parametrize("kind", AUTHENTICATION)
def test_an_api_is_asked_with_a_secret_of_the_environment(loads, kind):
    loads.api.auth = kind
    assert len(loads.read(auth=AUTHENTICATION[kind])["id"]) == 7


def test_a_secret_may_be_in_a_file(loads, tmp_path):
    (tmp_path / "token").write_text(f"{SECRET}\n")
    loads.api.auth = "bearer"
    auth = {"type": "bearer", "token": {"file": str(tmp_path / "token")}}
    assert len(loads.read(auth=auth)["id"]) == 7


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ({"env": "NOT_SET"}, "NOT_SET is not set: export it, then run this again"),
        ({"file": "/none/token"}, "the file /none/token cannot be read (No such file or directory)"),
    ],
)
def test_a_secret_that_is_not_there_fails_its_table_alone(loaded, secret, problem):
    reason = loaded.refused(auth={"type": "bearer", "token": secret})
    assert reason == f"The `auth` of raw_visits cannot be used: {problem}."


def test_rows_that_did_not_change_are_not_loaded_again(loads):
    loads.load()
    again = loads.load()
    assert again.decision.reason == "unchanged content: not loaded"
    loads.api.rows[6] = visit(7, amount=1)
    assert loads.load().decision.load
    assert loads.rows()[6]["amount"] == 1.0


def test_an_answer_with_all_rows_is_asked_for_conditionally(loads):
    loads.api.paging, loads.api.etag = "none", '"v1"'
    loads.load()
    assert loads.load().decision.reason == "unchanged at the source: not downloaded"
    loads.api.etag = '"v2"'
    assert loads.load().decision.reason == "unchanged content: not loaded"


def test_the_etag_of_a_first_page_says_nothing_of_the_others(loads):
    loads.api.etag = '"v1"'
    loads.load()
    loads.api.rows.append(visit(8))
    assert loads.load().decision.load and len(loads.ids()) == 8


def repeat_the_first_page(number: int, answer: Answer) -> None:
    if number > 1:
        answer.body["data"]["items"] = [visit(1), visit(2), visit(3)]


def lead_back(number: int, answer: Answer) -> None:
    answer.body["next"] = "3"


def at_second(**changed: Any):
    """Change the answer of the second page."""

    def spoil(number: int, answer: Answer) -> None:
        if number >= 2:
            for name, value in changed.items():
                setattr(answer, name, value)

    return spoil


def items(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"items": list(rows)}}


FIVE = visit(5)
FAULTS = {
    "a page that repeats": (
        "page_number",
        repeat_the_first_page,
        "Page 2 of raw_visits: The answer has the same rows as page 1: the API does not take the parameters "
        "of `paginator`, or counts from another number.",
    ),
    "a cursor that loops": (
        "cursor",
        lead_back,
        "Page 3 of raw_visits: GET API/visits leads back to a page that there was before: its next pages "
        "have no end. Check the `paginator`.",
    ),
    "a next page on another host": (
        "header_link",
        at_second(headers={"Link": '<https://elsewhere.test/visits?token=x>; rel="next"'}),
        "Page 3 of raw_visits: GET API/visits leads to a next page on another host, "
        "https://elsewhere.test/visits, which is not asked.",
    ),
    "a column that is gone": (
        "page_number",
        at_second(body=items({"id": 4, "visited_at": "2026-10-01", "total": 1.0})),
        "Page 2 of raw_visits: The answer has no 'amount' in any row; the first is an object of id, "
        "visited_at, total. If the API leaves out what is empty, say `omits_empty: true` under "
        "`rest`.",
    ),
    "a column that becomes an object": (
        "page_number",
        at_second(body=items({**FIVE, "amount": {"value": 1}})),
        "Page 2 of raw_visits: The answer has objects in 'amount', and other values here or before.",
    ),
    "a column of another type": (
        "cursor",
        at_second(body=items({**FIVE, "amount": "a lot"})),
        "raw_visits.amount: expected double, found string that does not convert (a lot would change, or is "
        "out of bounds).",
    ),
    "a number with a fraction": (
        "cursor",
        at_second(body=items({**FIVE, "guests": 1.5})),
        "raw_visits.guests: expected int64, found string that does not convert (1.5 would change, or is "
        "out of bounds).",
    ),
    "a page that is not JSON": (
        "page_number",
        at_second(body=b"<html>Please log in", headers={"Content-Type": "text/html; charset=utf-8"}),
        "Page 2 of raw_visits: GET API/visits answered 19 bytes that are not JSON (text/html). Does the "
        "address lead to a login or error page?",
    ),
    "a page without rows' list": (
        "page_number",
        at_second(body={"error": "quota exceeded"}),
        "Page 2 of raw_visits: The answer of API/visits?page=2 has no list of objects at 'data.items': check "
        "the `data_selector` of `rest`. The answer is an object of error.",
    ),
    "an error half-way": (
        "page_number",
        at_second(status=500),
        "Page 2 of raw_visits: GET API/visits answered 500 No. Gave up after 2 attempts.",
    ),
    "a total that is none": (
        "offset",
        at_second(body={**items(FIVE), "total": "many"}),
        "Page 2 of raw_visits: the answer of API/visits does not have what `paginator` or `auth` names "
        "(ValueError).",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_later_page_leaves_the_table_as_it_was(loaded, fault):
    loaded.api.paging, loaded.api.spoil, sentence = FAULTS[fault]
    assert loaded.refused() == sentence.replace("API/visits?page=2", "API/visits")


def test_a_static_token_that_expires_half_way_is_refused_in_words(loaded):
    loaded.api.auth, loaded.api.spoil = "bearer", at_second(status=401)
    assert loaded.refused(auth=AUTHENTICATION["bearer"]) == (
        "Page 2 of raw_visits: GET API/visits answered 401 No. The API does not accept the credentials in "
        "API_SECRET: check that they are complete, have not expired, and allow to read this address."
    )


def test_an_api_that_is_not_there_is_a_missing_table(loads):
    loads.api.spoil = lambda number, answer: setattr(answer, "status", 404)
    missing = loads.load()
    assert isinstance(missing, Missing) and "check the `url` of `rest`" in missing.reason


def test_a_source_of_addresses_of_the_tables_alone_is_named_and_checked_as_that(loads):
    source = HttpSource("")
    assert source.name == "the addresses of the tables (SERVERLESS_DATASET_URL is not set)"
    assert source.check([loads.table()]) == "serve 1 table"
    assert source.check([]).startswith("no table is declared yet: ")


@pytest.mark.parametrize("status", [404, 410])
def test_a_further_page_that_is_not_there_fails_this_table_alone_even_if_optional(loaded, status):
    loaded.api.paging, loaded.api.spoil = "page_number", at_second(status=status)
    failed = loaded.load(replace(loaded.table(), optional=True))
    assert isinstance(failed, Missing) and not failed.is_optional
    assert failed.reason == (
        f"Page 2 of raw_visits: GET {loaded.api.url}/visits answered {status} No. The API has no such page: "
        "check the `paginator`. If it answers so after the last page, a `total_path`, `has_more_path` or "
        "`json_link` says which is the last."
    )
    assert loaded.rows() == loaded.before


@pytest.mark.parametrize("paging", ["json_link", "header_link"])
def test_a_next_page_that_nobody_declared_is_not_overlooked(loads, paging):
    loads.api.paging = paging
    refused = loads.load(loads.table(paginator=None))
    assert f"leads to a next page, which {{type: {paging}" in refused.reason


def test_values_that_an_api_omits_are_null_where_the_entry_says_so(loads):
    del loads.api.rows[6]["store"]
    assert loads.read(omits_empty=True)["store_id"] == ["s1", "s0", "s1", "s0", "s1", "s0", None]


def test_a_page_beyond_the_memory_is_refused(loads):
    limits = replace(loads.source.limits, memory_mib=0)
    # Eight bytes of memory for one of JSON.
    loads.api.rows[0]["note"] = "x" * 200_000
    small = replace(loads.source, limits=replace(limits, memory_mib=1))
    refused = loads.load(source=small)
    assert "answered a page of more than 131,072 bytes." in refused.reason


def test_a_retry_after_holds_all_tables_of_the_host(loads):
    def busy(number: int, answer: Answer) -> None:
        answer.status, answer.headers["Retry-After"] = 429, "600"

    loads.api.spoil = busy
    first = replace(loads.source, attempts=1, longest_pause_seconds=600.0)
    with pytest.raises(SourceError, match="answered 429"):
        first.fetch(loads.table(), None, loads.folder / "first", loads.lines.append)
    other = replace(
        first, base_url=loads.api.url, limits=replace(first.limits, deadline_seconds=0.01), cancelled=Event()
    )
    with pytest.raises(SourceError, match=r"was not made within 0\.01 s"):
        other.fetch(RawTable("visits", "", {}), None, loads.folder / "other", loads.lines.append)
    assert len(loads.api.asked) == 1


def test_requests_to_a_host_keep_the_rate_that_an_entry_names(loads):
    loads.source = replace(loads.source, limits=replace(loads.source.limits, deadline_seconds=0.5))
    with pytest.raises(SourceError, match=r"was not made within 0\.5 s"):
        loads.read(requests_per_minute=1)
    assert len(loads.api.asked) == 1


def test_cancelling_ends_the_wait_for_a_turn(loads):
    source = replace(loads.source, cancelled=Event())
    source.pace.hold(loads.api.url.removeprefix("http://"), 600)
    source.cancelled.set()
    with pytest.raises(SourceError, match="was cancelled"):
        source.probe(RawTable("visits", "", {}))


OAUTH2 = {
    "type": "oauth2_client_credentials",
    "client_id": "ann",
    "client_secret": {"env": "API_SECRET"},
    "access_token_request_data": {"scope": "read"},
}


def test_a_token_is_fetched_with_client_credentials_and_renewed_when_it_expires(loads):
    loads.api.auth, loads.api.pages_of_a_token = "oauth2", 2
    auth = {**OAUTH2, "access_token_url": f"{loads.api.url}/token"}
    assert len(loads.read(auth=auth)["id"]) == 7
    assert loads.api.tokens == ["token-1", "token-2"]
    assert loads.api.token_requests[0] == {
        "client_id": ["ann"],
        "client_secret": [SECRET],
        "grant_type": ["client_credentials"],
        "scope": ["read"],
    }


def test_a_client_that_gets_no_token_is_refused_in_words(loaded, monkeypatch):
    loaded.api.auth = "oauth2"
    auth = {**OAUTH2, "access_token_url": f"{loaded.api.url}/token"}
    monkeypatch.setenv("API_SECRET", "of another client")
    assert loaded.refused(auth=auth) == (
        "POST API/token answered 401 No. Check the client_id and client_secret (API_SECRET) of `auth`."
    )


CSV = {"format": "csv", "data_selector": None, "delimiter": ";"}


@pytest.mark.parametrize("paging", ["none", "page_number", "header_link"])
def test_csv_is_read_as_json_is(loads, paging):
    loads.api.paging = paging
    of_json = loads.read()
    loads.api.csv = True
    of_csv = loads.read(**CSV)
    assert {**of_csv, "is_new": [text.lower() for text in of_csv["is_new"]]} == of_json


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            b"id;visited_at;amount;guests;is_new;store.id\n1;2026-10-01;2;3;true;s1\n2;2026",
            "The answer of API/visits is not CSV: CSV parse error: Expected 6 columns, got 2: 2;2026",
        ),
        (
            b"id;visited_at;guests;is_new;store.id\n",
            "The answer of API/visits has the column 'amount' not at all, among id, visited_at, guests, "
            "is_new, store.id.",
        ),
        (b"", "The answer of API/visits is not CSV: Empty CSV file"),
    ],
)
def test_csv_with_a_broken_line_leaves_the_table_as_it_was(loaded, body, sentence):
    loaded.api.paging, loaded.api.spoil = "none", lambda number, answer: setattr(answer, "body", body)
    assert loaded.refused(**CSV) == sentence


def test_only_changes_are_asked_for_and_replace_the_rows_of_their_keys(loads):
    table = replace(loads.table(updated_since_param="updated_after"), updated_at="visited_at")
    loads.api.rows = [visit(number, visited_at=f"2026-10-{number:02}T00:00:00Z") for number in range(1, 8)]
    assert isinstance(loads.load(table), LoadResult)
    loads.api.asked.clear()
    loads.api.rows[2] = visit(3, visited_at="2026-10-09T00:00:00Z", amount=100)
    loads.api.rows.append(visit(8, visited_at="2026-10-08T00:00:00Z"))
    assert loads.load(table).decision.load
    assert loads.api.asked[0] == "/visits?updated_after=2026-10-07T00%3A00%3A00Z&page=1"
    amounts = [1.5, 3.0, 100.0, 6.0, 7.5, 9.0, 10.5, 12.0]
    assert [row["amount"] for row in loads.rows()] == amounts


def test_the_example_of_the_docs_loads_an_api(loads, monkeypatch):
    page = (PROJECT_ROOT / "docs" / "rest-api.md").read_text()
    (example,) = [text for text in re.findall(r"(?:^    .*\n)+", page, re.M) if "sources:" in text]
    declared = yaml.safe_load(textwrap.dedent(example).replace("https://api.example.com/v1", loads.api.url))
    (entry,) = declared["sources"][0]["tables"]
    columns = {column["name"]: column for column in entry["columns"]}
    source = {**entry, "identifier": entry["name"], "columns": columns, "source_name": "raw"}
    (table,) = read_catalogue({"sources": {"raw_visits": source}})
    monkeypatch.setenv("VISITS_TOKEN", SECRET)
    loads.api.auth = "bearer"
    loads.api.rows = [visit(number, updated_at=f"2026-10-{number:02}T12:00:00Z") for number in range(1, 8)]
    first = loads.load(table)
    assert isinstance(first, LoadResult) and first.rows == 7
    assert loads.api.asked[0] == "/visits?status=closed&page=1"
    loads.api.asked.clear()
    assert loads.load(table).decision.reason == "unchanged content: not loaded"
    since = "2026-10-07T12%3A00%3A00Z"
    assert loads.api.asked[0] == f"/visits?status=closed&updated_after={since}&page=1"


def test_a_redirect_to_another_host_gets_no_secret(loads):
    with json_api() as other:

        def redirect(number: int, answer: Answer) -> None:
            answer.status, answer.headers["Location"] = 302, f"{other.url}/visits"

        loads.api.spoil = redirect
        loads.api.paging = "none"
        assert loads.read(auth=AUTHENTICATION["bearer"])["id"] == ["1", "2", "3"]
        assert (loads.api.given, other.given) == ([f"Bearer {SECRET}"], [""])


def test_cancelling_ends_the_reading_of_pages(loaded):
    loaded.source = replace(loaded.source, cancelled=Event())
    loaded.api.spoil = lambda number, answer: loaded.source.cancelled.set() if number == 2 else None
    with pytest.raises(SourceError, match="was cancelled"):
        loaded.read()
    assert len(loaded.api.asked) == 2


def test_a_run_for_a_month_loads_that_month_of_all_pages(loads):
    table = replace(loads.table(), grain="month")
    loads.load(table)
    loads.api.rows[0] = visit(1, amount=100)
    loads.api.rows.append(visit(8, visited_at="2026-11-01T00:00:00Z"))
    assert loads.load(table, window=Window.of_months(date(2026, 11, 1), date(2026, 11, 1))).rows == 8
    assert loads.rows()[0]["amount"] == 1.5
