"""What is done with a table, given what it holds and what arrived: no network, no warehouse."""

import json
from collections.abc import Collection
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverless_assets.ingestion.content import Content
from serverless_assets.ingestion.fetch_result import (
    AuditedTable,
    Download,
    NotModified,
    Scope,
    Unchanged,
    ends_run,
)
from serverless_assets.ingestion.http import Validators
from serverless_assets.ingestion.load import LoadDecision, decide_load, decide_reuse
from serverless_assets.ingestion.raw_table import RawTable
from serverless_assets.ingestion.source import HttpSource
from serverless_assets.ingestion.state import (
    HASHED_BY,
    CachedResponse,
    Part,
    TableState,
    definition_of,
    version_of,
)
from serverless_assets.months import Window
from serverless_assets.warehouse.staging import StagedRows
from tests.raw_tables import RAW_CUSTOMERS, RAW_ITEMS, RAW_ORDERS

SEPTEMBER, OCTOBER, NOVEMBER = date(2026, 9, 1), date(2026, 10, 1), date(2026, 11, 1)
OF_OCTOBER = Window.of_months(OCTOBER, OCTOBER)
KNOWN = CachedResponse(Validators('"1"'))
SHOP = "the shop"
UNKNOWN = TableState()


def content(months: dict[date, str], table: RawTable = RAW_ORDERS) -> Content:
    parts = parts_of(months)
    return Content(len(parts), version_of(table.schema, parts), parts, *first_and_last(parts))


def parts_of(months: dict[date, str]) -> dict[date, Part]:
    """A row in each of the months, which a letter or two stand for."""
    return {month: Part(1, int.from_bytes(letters.encode())) for month, letters in months.items()}


def first_and_last(months: Collection[date]) -> tuple[str, str]:
    """The times of rows at noon of the first day of each of these months."""
    return tuple(f"{edge(months)}T12:00:00" if months else "" for edge in (min, max))


def state_of(months: dict[date, str], table: RawTable = RAW_ORDERS, key: str = "whole") -> TableState:
    parts = parts_of(months)
    version = version_of(table.schema, parts)
    first, last = first_and_last(parts)
    return TableState(
        version, parts, "first run", definition_of(table), {key: KNOWN}, SHOP, first=first, last=last
    )


def decided(
    state: TableState | None,
    months: dict[date, str],
    window: Window | None = None,
    response: CachedResponse = KNOWN,
    table: RawTable = RAW_ORDERS,
    force: bool = False,
) -> LoadDecision:
    return decided_of(table, state, content(months, table), window, response, force=force)


def decided_of(
    table: RawTable,
    state: TableState | None,
    rows: Content,
    window: Window | None = None,
    response: CachedResponse = KNOWN,
    source: str = SHOP,
    force: bool = False,
) -> LoadDecision:
    download, key = Download(Path(), "http://shop", 0, 0.0), "window" if window else "whole"
    staged: StagedRows = None  # type: ignore[assignment]
    scope = Scope(table, state, source, "", window)
    return decide_load(AuditedTable(scope, staged, rows, download, key, response), "this run", force)


def decided_unchanged(state: TableState, window: Window | None, source: str) -> LoadDecision:
    scope = Scope(RAW_ORDERS, state, source, "", window)
    return decide_load(Unchanged(scope, NotModified("http://shop", 0.0)), "this run")


BEFORE = {SEPTEMBER: "s", OCTOBER: "o"}
LOADED = state_of(BEFORE)
OTHER_DEFINITION = replace(LOADED, definition="another")
OTHER_HASHES = replace(LOADED, hashed_by="DuckDB 1.5.0")
DECADE = {date(2016 + n // 12, n % 12 + 1, 1): "x" for n in range(25)}


@pytest.mark.parametrize(
    ("state", "months", "window", "load", "reason"),
    [
        (None, BEFORE, None, True, "loaded from the source: first load"),
        (None, {OCTOBER: "o"}, OF_OCTOBER, True, "loaded from the source: first load"),
        (UNKNOWN, BEFORE, None, True, "loaded from the source: it was not known what the table held"),
        (UNKNOWN, {}, OF_OCTOBER, True, "loaded from the source: it was not known what the table held"),
        (LOADED, BEFORE, None, False, "unchanged content: not loaded"),
        (LOADED, {OCTOBER: "o"}, OF_OCTOBER, False, "unchanged content: not loaded"),
        (LOADED, {SEPTEMBER: "s", OCTOBER: "o2"}, None, True, "loaded from the source: 2026-10"),
        (LOADED, {OCTOBER: "o2"}, OF_OCTOBER, True, "loaded from the source: 2026-10"),
        (LOADED, {SEPTEMBER: "s"}, None, True, "loaded from the source: 2026-10"),
        (LOADED, {}, OF_OCTOBER, True, "loaded from the source: 2026-10"),
        (LOADED, {**BEFORE, NOVEMBER: "n"}, None, True, "loaded from the source: 2026-11"),
        (LOADED, {}, None, True, "loaded from the source: 2026-09, 2026-10"),
        (OTHER_DEFINITION, BEFORE, None, True, "loaded from the source: its definition changed"),
        (OTHER_DEFINITION, {OCTOBER: "o"}, OF_OCTOBER, False, "unchanged content: not loaded"),
        (OTHER_DEFINITION, {OCTOBER: "o2"}, OF_OCTOBER, True, "loaded from the source: 2026-10"),
        (
            OTHER_HASHES,
            {SEPTEMBER: "s3", OCTOBER: "o3"},
            None,
            True,
            f"loaded from the source: its rows were hashed by DuckDB 1.5.0, and are now by {HASHED_BY}",
        ),
        (
            state_of({}),
            DECADE,
            None,
            True,
            "loaded from the source: 2016-01, 2016-02, 2016-03, 2016-04, 2016-05, 2016-06 and 19 more",
        ),
    ],
)
def test_what_is_done_and_why(state, months, window, load, reason):
    decision = decided(state, months, window)
    assert (decision.load, decision.reason) == (load, reason)
    assert decision.version == content(months).hash


def test_months_that_the_source_does_not_have_are_empty_and_leave_nothing_to_publish():
    before = decided(LOADED, {}, Window.of_months(date(2019, 3, 1), date(2019, 4, 1)))
    assert (before.load, before.state) == (False, None)
    assert before.reason.startswith("empty: the source has no rows of 2019-03")


@pytest.mark.parametrize("window", [None, OF_OCTOBER])
def test_all_is_loaded_by_force(window):
    decision = decided(LOADED, {OCTOBER: "o"} if window else BEFORE, window, force=True)
    assert (decision.load, decision.reason) == (True, "forced: rebuild all")
    assert decision.state.version == LOADED.version


def test_a_snapshot_is_compared_as_a_whole_whatever_the_window():
    state = replace(state_of({}, RAW_CUSTOMERS), months=None)
    same = replace(content({}, RAW_CUSTOMERS), hash=state.version)
    assert not decided_of(RAW_CUSTOMERS, state, same, OF_OCTOBER).load
    changed = decided_of(RAW_CUSTOMERS, state, replace(same, hash="other"))
    assert changed.reason == "loaded from the source: new content"
    assert changed.state.as_json().keys() == {
        "version",
        "built_by",
        "definition",
        "source",
        "hashed_by",
        "validators",
    }


# ---- what is kept


def test_unchanged_content_leaves_the_note_unless_there_is_something_new_to_ask_with():
    assert decided(LOADED, BEFORE).state is None
    assert decided(LOADED, BEFORE, response=CachedResponse(Validators())).state is not None
    renewed = decided(LOADED, BEFORE, response=CachedResponse(Validators('"2"'))).state
    assert renewed == replace(LOADED, responses={"whole": CachedResponse(Validators('"2"'))})


def test_content_that_changed_leaves_no_validators_of_what_was_there():
    assert decided(LOADED, {OCTOBER: "o2"}, OF_OCTOBER).state.responses == {"window": KNOWN}
    assert decided(LOADED, {OCTOBER: "o"}, OF_OCTOBER).state.responses == {"whole": KNOWN, "window": KNOWN}


def test_the_answers_asked_for_last_are_remembered_up_to_a_number_that_a_note_has_room_for():
    state = LOADED
    for n in range(30):
        state = state.with_response(str(n), CachedResponse(Validators(f'"{n}"')))
    assert list(state.responses) == [str(n) for n in range(22, 30)]


def test_a_window_of_what_nobody_knows_leaves_what_nobody_knows():
    assert decided(UNKNOWN, {OCTOBER: "o"}, OF_OCTOBER).state.as_json() == {}


def test_a_window_leaves_a_table_laid_out_as_it_was():
    assert decided(OTHER_DEFINITION, {OCTOBER: "o2"}, OF_OCTOBER).state.definition == "another"


months = st.dictionaries(st.sampled_from([date(2026, n, 1) for n in range(1, 13)]), st.sampled_from("abc"))


@given(months, months, st.integers(1, 12), st.integers(1, 12))
def test_a_window_load_ends_as_a_whole_load_of_the_same_rows_does(before, after, one, other):
    window = Window.of_months(date(2026, min(one, other), 1), date(2026, max(one, other), 1))
    rows = {month: version for month, version in after.items() if month in window}
    both = {**{month: version for month, version in before.items() if month not in window}, **rows}
    by_window = decided(state_of(before), rows, window)
    whole = decided(None, both).state
    ends = by_window.state if by_window.load else state_of(before)
    assert (ends.version, ends.months) == (whole.version, whole.months)
    # Where the month of the first row is emptied, only the warehouse knows the first of those that stay.
    assert ends.first == whole.first or (not ends.first and min(before) in window)
    assert ends.last == whole.last or (not ends.last and max(before) in window)
    changed = {month for month in before.keys() | both.keys() if before.get(month) != both.get(month)}
    assert set(by_window.months) == (changed if by_window.load else set())


# ---- whose rows a table holds


@pytest.mark.parametrize(
    ("state", "source", "window"),
    [
        (None, SHOP, OF_OCTOBER),
        (LOADED, SHOP, OF_OCTOBER),
        (LOADED, "another shop", None),
        (replace(LOADED, source=""), SHOP, None),
        (UNKNOWN, SHOP, None),
        (replace(LOADED, months=None), SHOP, None),
        (OTHER_HASHES, SHOP, None),
    ],
)
def test_months_are_loaded_by_themselves_only_beside_rows_of_the_same_source(state, source, window):
    assert Scope.of(RAW_ORDERS, state, source, OF_OCTOBER, force=False).window == window
    assert Scope.of(RAW_ORDERS, state, source, None, force=False).window is None
    assert Scope.of(RAW_CUSTOMERS, state, source, OF_OCTOBER, force=False).window is None


def test_the_same_rows_from_another_source_are_then_that_sources():
    taken_over = replace(LOADED, source="another shop")
    assert decided_unchanged(LOADED, None, "another shop").state == taken_over
    assert decided_unchanged(LOADED, None, SHOP).state is None
    same = decided_of(RAW_ORDERS, LOADED, content(BEFORE), source="another shop")
    assert (same.load, same.state) == (False, taken_over)


# ---- what the source may be asked


@pytest.mark.parametrize(
    ("state", "known"),
    [
        (None, None),
        (UNKNOWN, None),
        (LOADED, KNOWN),
        (OTHER_DEFINITION, None),
        (OTHER_HASHES, None),
        (replace(LOADED, responses={"another url": KNOWN}), None),
    ],
)
def test_the_source_is_asked_only_about_an_answer_that_is_held(state, known):
    assert Scope(RAW_ORDERS, state, SHOP, "", None).response_from("whole") == known


def test_items_of_unknown_orders_are_not_asked_about():
    state = state_of(BEFORE, RAW_ITEMS)
    scope = Scope(RAW_ITEMS, state, SHOP, "", None)
    assert scope.response_from("whole") is None
    dated = CachedResponse(Validators('"1"'), dated_by="orders")
    known = replace(scope, state=replace(state, responses={"whole": dated}))
    assert known.response_from("whole") == dated


def test_what_was_not_downloaded_has_the_version_of_what_was_asked_for():
    assert decided_unchanged(LOADED, None, SHOP).version == content(BEFORE).hash
    assert decided_unchanged(LOADED, OF_OCTOBER, SHOP).version == content({OCTOBER: "o"}).hash


@pytest.mark.parametrize(
    "change",
    [
        {"columns": {**RAW_ORDERS.columns, "more": pa.string()}},
        {"key": ("id", "customer")},
        {"event_time": "other"},
        {"clustered_by": ()},
        {"description": "Other words."},
        {"updated_at": "ordered_at"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_a_catalogue_entry_is_in_its_definition(change):
    assert definition_of(replace(RAW_ORDERS, **change)) != definition_of(RAW_ORDERS)


# ---- notes


def test_a_note_comes_back_as_it_was():
    dated = CachedResponse(Validators('W/"1"', "Tue, 01 Sep 2026 00:00:00 GMT"), "orders")
    state = replace(LOADED, responses={"one": KNOWN, "other": dated})
    assert TableState.from_json(json.loads(json.dumps(state.as_json()))) == state
    assert TableState.from_json(state_of({}).as_json()) == state_of({})
    assert state.as_json()["validators"]["one"] == {"etag": '"1"'}


@pytest.mark.parametrize(
    "note",
    [{}, {"content": "older"}, {"version": 1}, {"version": None, "months": {}}],
)
def test_another_note_says_nothing(note):
    assert TableState.from_json(note) == UNKNOWN


def test_a_note_that_somebody_edited_says_what_can_be_read():
    note = {"version": "v", "months": [], "validators": {"a": 1, "b": {"etag": None}}}
    assert TableState.from_json(note).months is None
    assert decided(TableState.from_json(note), BEFORE).load
    assert not TableState.from_json({**note, "validators": 7}).responses


def test_what_a_run_cannot_reuse_ends_it_unless_it_is_optional_and_others_are_there():
    optional = replace(RAW_CUSTOMERS, optional=True)
    tables = [optional, RAW_ORDERS]

    def absent(*loaded: str) -> dict[str, bool]:
        failed = decide_reuse(tables, loaded, HttpSource(""))
        assert ends_run(failed, tables) == any(not table.is_optional for table in failed)
        return {table.table.name: table.is_optional for table in failed}

    assert absent(optional.name, RAW_ORDERS.name) == {}
    assert absent(RAW_ORDERS.name) == {optional.name: True}
    assert absent(optional.name) == {RAW_ORDERS.name: False}
    # Of a warehouse without any table, there is nothing to reuse.
    tables = [optional]
    assert absent() == {optional.name: False}
