"""Declaring a raw table from a sample file: what is written, and what is refused."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from jinja2 import Template

from serverless_assets.errors import UserError
from serverless_assets.ingestion.add_table import add_table
from serverless_assets.ingestion.catalog import read_catalogue
from serverless_assets.ingestion.source import HttpSource
from tests.ingestion.json_api import SECRET, Api, json_api, visit
from tests.ingestion.scripted import GOOD, Answer, body, shop, status

RAW = """
sources:
  - name: raw
    description: The tables of the shop.
    schema: "{{ env_var('SERVERLESS_SOURCE_SCHEMA', target.schema) }}"
    tables:
      - name: raw_stores
        description: The shop's locations.
        config:
          meta:
            key: [id]
        columns:
          - name: id
            description: The store.
            data_type: string

      - name: raw_tills
        description: The tills of each store.
        config: {meta: {key: [id]}}
        columns:
          - {name: id, data_type: string, description: The till.}
"""
SOURCE = {
    "identifier": "raw_stores",
    "source_name": "raw",
    "package_name": "shop",
    "original_file_path": "models/staging/raw.yml",
    "config": {"meta": {"key": ["id"]}},
}
MANIFEST = {"metadata": {"project_name": "shop"}, "sources": {"raw": SOURCE}, "nodes": {}}


def parquet(**columns: list[object]) -> Answer:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return body(buffer.getvalue())


def add(folder: Path, answer: Answer, text: str = RAW, file: str = "visits", name: str | None = None) -> str:
    """Add a table to a project with this sources file; the file afterwards."""
    path = folder / "models" / "staging" / "raw.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    with shop(answer) as source:
        base = HttpSource(source.url, attempts=1)
        list(add_table(f"{source.url}/{file}.parquet", name, folder, MANIFEST, base, folder))
    return path.read_text()


def entry(text: str, name: str) -> dict:
    (found,) = [table for table in yaml.safe_load(text)["sources"][0]["tables"] if table["name"] == name]
    return found


def test_the_entry_follows_the_others_which_stay_to_the_letter(tmp_path):
    text = add(tmp_path, GOOD)
    assert text.startswith(RAW)
    assert entry(text, "visits")["config"] == {"meta": {"key": ["id"]}}
    assert "key: [id]  # a guess" in text
    assert text.endswith("data_type: string\n")


COMMENTED = """# Ours.
sources:
  - name: raw
    tables:
    - name: raw_stores   # the shops
      config: {meta: {key: [id]}}
      description: >
        Two
        lines.
    # about to come

  - name: other
    tables: []
"""


def test_comments_and_other_sources_stay_where_they_are(tmp_path):
    text = add(tmp_path, GOOD, COMMENTED, "a/b", "visits")
    assert [line for line in text.splitlines() if line in COMMENTED.splitlines()] == COMMENTED.splitlines()
    assert entry(text, "visits")["config"]["meta"]["path"] == "a/b"
    assert [source["name"] for source in yaml.safe_load(text)["sources"]] == ["raw", "other"]


def test_two_columns_are_the_key_where_no_single_one_is(tmp_path):
    text = add(tmp_path, parquet(visit=["a", "a", "b"], n=[1, 2, 1], x=["u", "u", "u"]))
    assert entry(text, "visits")["config"]["meta"]["key"] == ["visit", "n"]


NOW = datetime.now(UTC).replace(tzinfo=None)


def days_before(count: int, step: float = 1, last: float = 0) -> list[object]:
    return [NOW - timedelta(days=last + step * number) for number in range(count)]


DAILY = days_before(30)
# The rows of the first 10,000 end a day before those of the file.
ENDS_AFTER_THE_SAMPLE = [NOW - timedelta(days=3.5), *days_before(10_000, step=0.001, last=3.5), NOW]


@pytest.mark.parametrize(
    ("columns", "event_time", "comment"),
    [
        ({"visited_at": DAILY}, "visited_at", ""),
        # A row would move to another month with each change.
        ({"updated_at": DAILY, "visited_at": DAILY}, "visited_at", ""),
        ({"updated_at": DAILY}, None, ""),
        ({"born_at": days_before(30, step=300), "visited_at": DAILY}, "visited_at", ""),
        (
            {"hired_at": days_before(30, step=20)},
            None,
            "hired_at  # only if the rows are events: one row every",
        ),
        ({"hired_at": days_before(1)}, None, "hired_at  # only if the rows are events: a single row"),
        ({"hired_at": days_before(30, last=4)}, None, "hired_at  # only if the rows are events: the newest"),
        ({"ends_at": days_before(30, last=-2)}, None, "ends_at  # only if the rows are events: the newest"),
        ({"visited_at": ENDS_AFTER_THE_SAMPLE}, "visited_at", ""),
        # A timestamp that Python has not.
        (
            {"visited_at": pa.array([0, 2**62], pa.timestamp("us"))},
            None,
            "visited_at  # only if the rows are events: some are missing, before 1900 or after 2200",
        ),
    ],
)
def test_event_time_is_a_time_of_many_rows_up_to_the_present_and_others_are_a_comment(
    tmp_path, columns, event_time, comment
):
    rows = len(next(iter(columns.values())))
    text = add(tmp_path, parquet(id=[*range(rows)], **columns))
    assert entry(text, "visits")["config"]["meta"].get("event_time") == event_time
    comments = [line.strip() for line in text.splitlines() if line.strip().startswith("#")]
    assert len(comments) == bool(comment)
    assert not comment or comments[0].startswith(f"# event_time: {comment}")


def test_names_that_yaml_or_sql_would_take_for_something_else_are_quoted(tmp_path):
    text = add(tmp_path, parquet(id=["a"], **{"no": ["x"], "a b: c": [True], "at": [1]}))
    assert [column["name"] for column in entry(text, "visits")["columns"]] == ["id", "no", "a b: c", "at"]
    sql = (tmp_path / "models/staging/stg_visits.sql").read_text()
    assert '{{ adapter.quote("a b: c") }}' in sql
    assert '{{ adapter.quote("at") }}' in sql
    (model,) = yaml.safe_load((tmp_path / "models/staging/stg_visits.yml").read_text())["models"]
    assert [column["name"] for column in model["columns"] if column.get("quote")] == ["no", "a b: c", "at"]


@pytest.mark.parametrize(
    ("answer", "options", "sentence"),
    [
        (GOOD, {"file": "raw_stores"}, "The dbt project has a raw_stores already"),
        (GOOD, {"file": "Visits of May"}, "'visits of may' is no name of a table"),
        (status(404), {}, "visits.parquet answers 404: check the address."),
        (body(b"<html>"), {}, "not parquet"),
        (parquet(id=["a", "a"]), {}, "No column of visits, nor two of them, identifies its rows."),
        (parquet(id=[]), {}, "has no rows or columns to load"),
        (GOOD, {"text": "sources: [{name: raw, tables: [{name: raw_stores}]}]"}, "Add the entry by hand"),
    ],
)
def test_what_cannot_be_added_is_refused_in_a_sentence_and_nothing_is_written(
    tmp_path, answer, options, sentence
):
    with pytest.raises(UserError) as refused:
        add(tmp_path, answer, **options)
    assert sentence in str(refused.value)
    assert {path.name for path in (tmp_path / "models").rglob("*.*")} == {"raw.yml"}
    assert (tmp_path / "models/staging/raw.yml").read_text() == options.get("text", RAW)


def test_a_file_beside_the_source_of_all_other_tables_is_refused(tmp_path):
    base = HttpSource("https://example.com/data")
    with pytest.raises(UserError, match=r"is not below https://example\.com/data"):
        list(add_table("https://example.org/data/x.parquet", None, tmp_path, MANIFEST, base, tmp_path))
    with pytest.raises(UserError, match="is not an http or https address"):
        list(add_table("ftp://example.com/data/x.csv", None, tmp_path, MANIFEST, base, tmp_path))


def test_a_name_with_jinja_in_it_stays_a_name(tmp_path):
    add(tmp_path, parquet(id=[1], **{"') }}{{ 1/0 }}": [2]}))
    sql = (tmp_path / "models/staging/stg_visits.sql").read_text()
    context = {"source": lambda *names: names[1], "adapter": SimpleNamespace(quote='"{}"'.format)}
    assert '"\') }}{{ 1/0 }}"' in Template(sql).render(context)


def test_a_name_that_dbt_cannot_quote_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UserError, match="has a quotation mark in its name"):
        add(tmp_path, parquet(id=[1], **{'a", 1 as "b': [2]}))
    assert (tmp_path / "models/staging/raw.yml").read_text() == RAW
    assert not (tmp_path / "models/staging/stg_visits.sql").exists()


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("API_SECRET", SECRET)
    with json_api(auth="bearer") as running:
        yield running


def add_api(folder: Path, url: str, token: str | None = "API_SECRET") -> str:
    path = folder / "models" / "staging" / "raw.yml"
    path.parent.mkdir(parents=True)
    path.write_text(RAW)
    list(add_table(url, None, folder, MANIFEST, None, folder, token))
    return path.read_text()


PAGINATORS = {
    "json_link": {"type": "json_link", "next_url_path": "links.next"},
    "header_link": {"type": "header_link"},
    "none": None,
}


@pytest.mark.parametrize("paging", PAGINATORS)
def test_the_entry_of_an_api_is_guessed_from_its_first_page_and_can_be_loaded(tmp_path, api, paging):
    api.paging = paging
    if paging == "none":
        # The first page may be of long ago, but an answer with all rows has the newest.
        for row, at in zip(api.rows, days_before(7), strict=True):
            row["visited_at"] = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    text = add_api(tmp_path, f"{api.url}/visits?status=closed")
    added = entry(text, "raw_visits")
    meta = added["config"]["meta"]
    assert (meta["key"], meta["event_time"]) == (["id"], "visited_at")
    paginator = PAGINATORS[paging]
    assert meta["rest"] == {
        "url": f"{api.url}/visits",
        "params": {"status": "closed"},
        "auth": {"type": "bearer", "token": {"env": "API_SECRET"}},
        "data_selector": "data.items",
        "fields": {"store_id": "store.id"},
        **({"paginator": paginator} if paginator else {}),
    }
    assert {column["name"]: column["data_type"] for column in added["columns"]} == {
        "id": "bigint",
        "visited_at": "timestamp",
        "amount": "double",
        "guests": "bigint",
        "is_new": "boolean",
        "store_id": "string",
    }
    columns = {column["name"]: column for column in added["columns"]}
    source = {**added, "identifier": added["name"], "columns": columns, "source_name": "raw"}
    (table,) = read_catalogue({"sources": {"raw_visits": source}})
    HttpSource("http://127.0.0.1:1").fetch(table, None, tmp_path / "visits.parquet", print)
    assert pq.read_table(tmp_path / "visits.parquet")["id"].to_pylist() == list("1234567")


def test_text_of_an_api_that_looks_like_numbers_is_marked_and_ids_are_not(tmp_path, api):
    api.rows = [visit(1, paid="1000.5", zip="20095"), visit(2, paid="-7", zip="10115"), visit(3, paid=None)]
    text = add_api(tmp_path, f"{api.url}/visits")
    [hinted] = [line for line in text.splitlines() if "double loads them as such" in line]
    assert hinted.strip() == "data_type: string  # looks like numbers: double loads them as such"
    assert text[: text.index(hinted)].splitlines()[-2].strip() == "- name: paid"


def test_the_entry_of_csv_has_its_delimiter_and_the_names_of_its_header(tmp_path, api):
    api.paging, api.csv = "none", True
    rest = entry(add_api(tmp_path, f"{api.url}/visits.csv"), "raw_visits")["config"]["meta"]["rest"]
    assert (rest["format"], rest["delimiter"], rest["fields"]) == ("csv", ";", {"store_id": "store.id"})


@pytest.mark.parametrize(
    ("query", "token", "sentence"),
    [
        ("?access_token=s3cret", "API_SECRET", "has 'access_token' in its query"),
        # It may be the token itself.
        ("", "s3cret", "--token takes the name of the environment variable"),
        ("", None, "The API asks for authentication"),
    ],
)
def test_an_api_that_gives_no_rows_is_not_added(tmp_path, api, query, token, sentence):
    with pytest.raises(UserError) as refused:
        add_api(tmp_path, f"{api.url}/visits{query}", token)
    assert sentence in str(refused.value) and "s3cret" not in str(refused.value)
    assert (tmp_path / "models/staging/raw.yml").read_text() == RAW


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"status": 404}, "/visits answers 404: check the address."),
        ({"body": []}, "/visits is empty, so its columns cannot be read from it: give an address that has"),
        ({"body": {"items": []}}, "/visits is empty, so its columns cannot be read from it: give an address"),
        ({"body": {"error": "quota"}}, "/visits has no list of objects to load."),
    ],
)
def test_an_answer_without_rows_is_refused_with_what_it_is(tmp_path, api, changed, sentence):
    api.spoil = lambda number, answer: [setattr(answer, name, value) for name, value in changed.items()]
    with pytest.raises(UserError) as refused:
        add_api(tmp_path, f"{api.url}/visits")
    assert sentence in str(refused.value) and "optional" not in str(refused.value)


def test_one_row_is_counted_as_one(tmp_path, api):
    api.spoil = lambda number, answer: setattr(answer, "body", [{"id": 1}])
    assert "# a guess, from 1 row\n" in add_api(tmp_path, f"{api.url}/visits")
