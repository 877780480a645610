"""The catalogue that is read from the sources of a dbt project."""

from copy import deepcopy
from datetime import timedelta

import pyarrow as pa
import pytest

from serverless_assets.ingestion.catalog import CatalogueError, read_catalogue
from serverless_assets.ingestion.check_rules import checks_of
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.state import definition_of


def entry(name: str, columns: dict[str, str | None], meta: dict) -> dict:
    """Return a source as dbt's manifest has it."""
    return {
        "identifier": name,
        "name": name,
        "source_name": "raw",
        "original_file_path": "models/raw.yml",
        "description": f"The {name}.\n",
        "columns": {
            column: {"name": column, "data_type": kind, "description": ""} for column, kind in columns.items()
        },
        "config": {"meta": meta},
    }


VISITS = entry("visits", {"id": "string", "at": "timestamp"}, {"key": ["id"], "event_time": "at"})
PAGES = entry(
    "pages",
    {"visit": "string", "n": "bigint", "at": "timestamp"},
    {"key": ["visit", "n"], "event_time": "at", "parent": {"table": "visits", "column": "visit"}},
)


def catalogue(*entries: dict) -> tuple[RawTable, ...]:
    return read_catalogue({"sources": {source["identifier"]: source for source in entries}})


def test_a_parent_may_be_declared_after_the_table_that_it_dates():
    pages, visits = catalogue(PAGES, VISITS)
    assert pages.dated_by.parent is visits
    assert pages.source_schema.names == ["visit", "n"]
    assert pages.schema.field("at").type == pa.timestamp("us")
    assert visits.description == "The visits."


def test_a_source_without_a_key_is_not_loaded():
    assert catalogue(entry("theirs", {"id": "int8"}, {"dagster": {"asset_key": ["theirs"]}})) == ()


def test_a_table_in_another_schema_than_that_of_raw_tables_is_refused():
    of_schema = {"sources": {"visits": {**VISITS, "schema": "DWH"}}}
    assert len(read_catalogue(of_schema, "dwh")) == 1
    with pytest.raises(CatalogueError) as refused:
        read_catalogue(of_schema, "production")
    assert str(refused.value) == (
        "models/raw.yml: the source raw.visits is in the schema 'DWH', and raw tables are loaded into "
        "'production', that of DBT_SCHEMA. Give it the schema \"{{ target.schema }}\", or remove its `key`"
        " if another tool loads it."
    )


def test_how_old_the_newest_row_may_be_is_dbts_freshness_of_the_source():
    half_a_day = {
        "warn_after": {"count": 12, "period": "hour"},
        "error_after": {"count": None, "period": None},
    }
    visits, pages = catalogue({**VISITS, "freshness": half_a_day}, PAGES)
    assert (visits.fresh, pages.fresh) == (timedelta(hours=12), timedelta(days=3))
    assert "not older than 0.5 days" in checks_of(visits)["freshness"]


def test_the_file_has_the_name_of_the_table_unless_a_path_is_given():
    moved = entry("visits", {"id": "string"}, {"key": "id", "path": "/v2/all_visits.parquet"})
    assert [table.location for table in catalogue(VISITS)] == ["visits"]
    assert [table.location for table in catalogue(moved)] == ["v2/all_visits"]


def test_a_table_by_day_is_loaded_by_month_and_kept_by_day_and_what_it_dates_too():
    visits = deepcopy(VISITS)
    visits["config"]["meta"]["grain"] = "day"
    tables = catalogue(visits, PAGES)
    assert [(table.has_months, table.shape.partition_unit) for table in tables] == [(True, "day")] * 2
    assert definition_of(tables[0]) != definition_of(catalogue(VISITS)[0])
    with pytest.raises(CatalogueError, match="has the grain 'day' and no `event_time`"):
        catalogue(entry("visits", {"id": "string"}, {"key": "id", "grain": "day"}))


@pytest.mark.parametrize(
    ("columns", "meta", "problem"),
    [
        ({"n": "money"}, {}, "has a column 'n' of the data_type 'money': expected one of string,"),
        ({"n": None}, {}, "has a column 'n' of no data_type: expected one of"),
        ({}, {"key": ["number"]}, "has the key 'number', which is not one of its columns: visit, n, at."),
        ({}, {"key": []}, "has an empty `key`."),
        ({}, {"event_time": "n", "parent": {}}, "has the event_time 'n', whose data_type is not timestamp."),
        ({}, {"parent": "visits"}, "has the parent 'visits': expected {table: RAW_TABLE, column: COLUMN}."),
        (
            {},
            {"parent": {"table": "views", "column": "visit"}},
            "has the parent 'views', which is no raw table. There are: visits.",
        ),
        ({}, {"parent": {"table": "visits", "column": "v"}}, "has the parent 'v', which is not one of its"),
        ({}, {"parent": {"table": "pages", "column": "visit"}}, "takes its event time from itself"),
        (
            {},
            {"owner": "x"},
            "has an unknown key 'owner' under config.meta: expected one of key, event_time,",
        ),
        ({}, {"parnt": {"table": "visits"}}, "has an unknown key 'parnt' under config.meta: expected one of"),
        ({}, {"grain": "week"}, "has the grain 'week': expected one of month, day, none."),
        ({}, {"grain": "day"}, "has the grain 'day', and its parent 'month': expected the same."),
        ({}, {"lookback": "2 months"}, "has the lookback '2 months': expected a number of months up to 120."),
        ({}, {"lookback": -1}, "has the lookback -1: expected a number of months"),
        ({}, {"lookback": 2}, "has the lookback 2, and its parent 0: expected the same."),
        ({}, {"deleted": "n"}, "has `deleted` and no `updated_at`"),
        ({}, {"updated_at": "at"}, "has `updated_at` and a `parent`, whose rows are not there"),
        ({}, {"grain": "none"}, "has the grain 'none', and its parent 'month': expected the same."),
        ({}, {"optional": "yes"}, "has the optional 'yes': expected true or false."),
        ({}, {"path": "https://else.where/x"}, "has the path 'https://else.where/x': expected one below"),
        ({}, {"longest_text": 5}, "has the longest_text 5: expected {COLUMN: BYTES}."),
    ],
)
def test_an_entry_that_makes_no_sense_is_named_with_its_file(columns, meta, problem):
    pages = deepcopy(PAGES)
    pages["columns"] |= entry("pages", columns, {})["columns"]
    pages["config"]["meta"] |= meta
    with pytest.raises(CatalogueError) as refused:
        catalogue(VISITS, pages)
    assert str(refused.value).startswith(f"models/raw.yml: the source raw.pages {problem}")


@pytest.mark.parametrize(
    ("meta", "problem"),
    [
        ({"updated_at": "changed"}, "has the updated_at 'changed', which is not one of its columns: id, at."),
        ({"updated_at": "at", "deleted": "id"}, "has the deleted 'id': expected a boolean or timestamp."),
        ({"updated_at": "at", "lookback": 2}, "has `updated_at` and a `lookback`"),
    ],
)
def test_a_table_of_changes_that_makes_no_sense_is_refused(meta, problem):
    visits = deepcopy(VISITS)
    visits["config"]["meta"] |= meta
    with pytest.raises(CatalogueError) as refused:
        catalogue(visits)
    assert str(refused.value).startswith(f"models/raw.yml: the source raw.visits {problem}")


def test_a_table_of_which_only_changes_are_loaded_dates_no_other():
    visits = deepcopy(VISITS)
    visits["config"]["meta"]["updated_at"] = "at"
    with pytest.raises(CatalogueError, match="has the parent visits, of which only changes are loaded"):
        catalogue(visits, PAGES)


def test_other_tools_have_mappings_of_their_own():
    (table,) = catalogue(entry("visits", {"id": "string"}, {"key": "id", "datahub": {"owner": "x"}}))
    assert table.name == "visits"


def test_what_an_optional_table_dates_is_optional_unless_it_says_otherwise():
    visits, pages = deepcopy(VISITS), deepcopy(PAGES)
    visits["config"]["meta"]["optional"] = True
    assert [table.optional for table in catalogue(visits, pages)] == [True, True]
    pages["config"]["meta"]["optional"] = False
    assert [table.optional for table in catalogue(visits, pages)] == [True, False]


def test_an_entry_of_which_the_key_alone_is_missing_is_refused_rather_than_left_out():
    with pytest.raises(CatalogueError, match="has `event_time` and no `key`"):
        catalogue(entry("visits", {"at": "timestamp"}, {"event_time": "at"}))


@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ([], "it: input should be a valid dictionary or instance of RestEndpoint"),
        ({"adress": "x"}, "adress: there is no such option"),
        ({"url": "ftp://x"}, "url: expected an http or https address without user and password"),
        (
            {"auth": {"type": "bearer", "token": "s3cret"}},
            "auth.bearer.token: expected {env: VARIABLE} or {file: PATH}, and never the secret itself",
        ),
        (
            {"paginator": {"type": "pages"}},
            "paginator.type: expected one of 'page_number', 'offset', 'cursor', 'json_link', 'header_link'",
        ),
        ({"paginator": {"type": "offset"}}, "paginator.offset.limit: field required"),
        (
            {"format": "csv", "paginator": {"type": "cursor", "cursor_path": "next"}},
            "it: cursor_path leads through JSON, and the format is csv",
        ),
        ({"params": {"ids": [1]}}, "params.ids: expected text, a number, true or false"),
    ],
)
def test_a_rest_api_that_cannot_be_asked_is_refused(rest, problem):
    with pytest.raises(CatalogueError) as refused:
        catalogue(entry("visits", {"id": "string"}, {"key": "id", "rest": rest}))
    assert str(refused.value) == (
        f"models/raw.yml: the source raw.visits has a `rest` that cannot be used: {problem}. "
        "See docs/rest-api.md."
    )
