"""What is done with a table, given what is held and what arrived: no network, no warehouse."""

import json
from dataclasses import replace
from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverless_assets.ingestion.audit import Content, Part
from serverless_assets.ingestion.catalog import RAW_CUSTOMERS, RAW_ITEMS, RAW_ORDERS, RawTable, Window
from serverless_assets.ingestion.decide import LoadDecision, as_it_was, decide, known_answer, window_to_load
from serverless_assets.ingestion.download import Validators
from serverless_assets.ingestion.state import CachedResponse, TableState, definition_of, version_of

SEPTEMBER, OCTOBER, NOVEMBER = date(2026, 9, 1), date(2026, 10, 1), date(2026, 11, 1)
OF_OCTOBER = Window.of_months(OCTOBER, OCTOBER)
KNOWN = CachedResponse(Validators('"1"'))
SHOP = "the shop"
NOBODY_KNOWS = TableState()


def content(months: dict[date, str], table: RawTable = RAW_ORDERS) -> Content:
    parts = {month: Part(1, version) for month, version in months.items()}
    named = {month.isoformat(): version for month, version in months.items()}
    return Content(len(parts), version_of(table.schema, named), parts)


def holding(months: dict[date, str], table: RawTable = RAW_ORDERS, key: str = "whole") -> TableState:
    named = {month.isoformat(): version for month, version in months.items()}
    version = version_of(table.schema, named)
    return TableState(version, named, "first run", definition_of(table), {key: KNOWN}, SHOP)


def decided(
    held: TableState | None,
    months: dict[date, str],
    window: Window | None = None,
    known: CachedResponse = KNOWN,
    table: RawTable = RAW_ORDERS,
    force: bool = False,
) -> LoadDecision:
    key = "window" if window else "whole"
    return decide(table, held, window, content(months, table), key, known, SHOP, "this run", force)


BEFORE = {SEPTEMBER: "s", OCTOBER: "o"}
HELD = holding(BEFORE)
OTHER_DEFINITION = replace(HELD, definition="another")
DECADE = {date(2016 + n // 12, n % 12 + 1, 1): "x" for n in range(25)}


@pytest.mark.parametrize(
    ("held", "months", "window", "load", "reason"),
    [
        (None, BEFORE, None, True, "loaded from the source: first load"),
        (None, {OCTOBER: "o"}, OF_OCTOBER, True, "loaded from the source: first load"),
        (NOBODY_KNOWS, BEFORE, None, True, "loaded from the source: it was not known what the table held"),
        (NOBODY_KNOWS, {}, OF_OCTOBER, True, "loaded from the source: it was not known what the table held"),
        (HELD, BEFORE, None, False, "unchanged content: not loaded"),
        (HELD, {OCTOBER: "o"}, OF_OCTOBER, False, "unchanged content: not loaded"),
        (HELD, {SEPTEMBER: "s", OCTOBER: "o2"}, None, True, "loaded from the source: 2026-10"),
        (HELD, {OCTOBER: "o2"}, OF_OCTOBER, True, "loaded from the source: 2026-10"),
        (HELD, {SEPTEMBER: "s"}, None, True, "loaded from the source: 2026-10"),
        (HELD, {}, OF_OCTOBER, True, "loaded from the source: 2026-10"),
        (HELD, {**BEFORE, NOVEMBER: "n"}, None, True, "loaded from the source: 2026-11"),
        (HELD, {}, None, True, "loaded from the source: 2026-09, 2026-10"),
        (OTHER_DEFINITION, BEFORE, None, True, "loaded from the source: its definition changed"),
        (OTHER_DEFINITION, {OCTOBER: "o"}, OF_OCTOBER, False, "unchanged content: not loaded"),
        (
            holding({}),
            DECADE,
            None,
            True,
            "loaded from the source: 2016-01, 2016-02, 2016-03, 2016-04, 2016-05, 2016-06 and 19 more",
        ),
    ],
)
def test_what_is_done_and_why(held, months, window, load, reason):
    decision = decided(held, months, window)
    assert (decision.load, decision.reason) == (load, reason)
    assert decision.version == content(months).hash


@pytest.mark.parametrize("window", [None, OF_OCTOBER])
def test_all_is_loaded_by_force(window):
    decision = decided(HELD, {OCTOBER: "o"} if window else BEFORE, window, force=True)
    assert (decision.load, decision.reason) == (True, "forced: rebuild all")
    assert decision.holding.version == HELD.version


def test_a_snapshot_is_compared_as_a_whole_whatever_the_window():
    held = replace(holding({}, RAW_CUSTOMERS), months=None)
    same = replace(content({}, RAW_CUSTOMERS), hash=held.version)
    assert not decide(RAW_CUSTOMERS, held, OF_OCTOBER, same, "whole", KNOWN, SHOP, "this run").load
    changed = decide(RAW_CUSTOMERS, held, None, replace(same, hash="other"), "whole", KNOWN, SHOP, "this run")
    assert changed.reason == "loaded from the source: new content"
    assert changed.holding.as_note().keys() == {"version", "built_by", "definition", "source", "validators"}


# ---- what is kept


def test_unchanged_content_leaves_the_note_unless_there_is_something_new_to_ask_with():
    assert decided(HELD, BEFORE).holding is None
    assert decided(HELD, BEFORE, known=CachedResponse(Validators())).holding is not None
    renewed = decided(HELD, BEFORE, known=CachedResponse(Validators('"2"'))).holding
    assert renewed == replace(HELD, answers={"whole": CachedResponse(Validators('"2"'))})


def test_content_that_changed_leaves_no_validators_of_what_was_there():
    assert decided(HELD, {OCTOBER: "o2"}, OF_OCTOBER).holding.answers == {"window": KNOWN}
    assert decided(HELD, {OCTOBER: "o"}, OF_OCTOBER).holding.answers == {"whole": KNOWN, "window": KNOWN}


def test_the_answers_asked_for_last_are_remembered_up_to_a_number_that_a_note_has_room_for():
    held = HELD
    for n in range(30):
        held = held.with_answer(str(n), CachedResponse(Validators(f'"{n}"')))
    assert list(held.answers) == [str(n) for n in range(22, 30)]


def test_a_window_of_what_nobody_knows_leaves_what_nobody_knows():
    assert decided(NOBODY_KNOWS, {OCTOBER: "o"}, OF_OCTOBER).holding.as_note() == {}


def test_a_window_leaves_a_table_laid_out_as_it_was():
    assert decided(OTHER_DEFINITION, {OCTOBER: "o2"}, OF_OCTOBER).holding.definition == "another"


months = st.dictionaries(st.sampled_from([date(2026, n, 1) for n in range(1, 13)]), st.sampled_from("abc"))


@given(months, months, st.integers(1, 12), st.integers(1, 12))
def test_a_window_load_ends_as_a_whole_load_of_the_same_rows_does(before, after, one, other):
    window = Window.of_months(date(2026, min(one, other), 1), date(2026, max(one, other), 1))
    rows = {month: version for month, version in after.items() if month in window}
    both = {**{month: version for month, version in before.items() if month not in window}, **rows}
    by_window = decided(holding(before), rows, window)
    whole = decided(None, both).holding
    ends = by_window.holding if by_window.load else holding(before)
    assert (ends.version, ends.months) == (whole.version, whole.months)
    changed = {month for month in before.keys() | both.keys() if before.get(month) != both.get(month)}
    assert set(by_window.months) == (changed if by_window.load else set())


# ---- whose rows a table holds


@pytest.mark.parametrize(
    ("held", "source", "window"),
    [
        (None, SHOP, OF_OCTOBER),
        (HELD, SHOP, OF_OCTOBER),
        (HELD, "another shop", None),
        (replace(HELD, source=""), SHOP, None),
        (NOBODY_KNOWS, SHOP, None),
        (replace(HELD, months=None), SHOP, None),
    ],
)
def test_months_are_loaded_by_themselves_only_beside_rows_of_the_same_source(held, source, window):
    assert window_to_load(RAW_ORDERS, held, source, OF_OCTOBER) == window
    assert window_to_load(RAW_ORDERS, held, source, None) is None
    assert window_to_load(RAW_CUSTOMERS, held, source, OF_OCTOBER) is None


def test_the_same_rows_from_another_source_are_then_that_sources():
    taken_over = replace(HELD, source="another shop")
    assert as_it_was(RAW_ORDERS, HELD, None, "another shop").holding == taken_over
    assert as_it_was(RAW_ORDERS, HELD, None, SHOP).holding is None
    same = decide(RAW_ORDERS, HELD, None, content(BEFORE), "whole", KNOWN, "another shop", "this run")
    assert (same.load, same.holding) == (False, taken_over)


# ---- what the source may be asked


@pytest.mark.parametrize(
    ("held", "known"),
    [
        (None, None),
        (NOBODY_KNOWS, None),
        (HELD, KNOWN),
        (OTHER_DEFINITION, None),
        (replace(HELD, answers={"another url": KNOWN}), None),
    ],
)
def test_the_source_is_asked_only_about_an_answer_that_is_held(held, known):
    assert known_answer(RAW_ORDERS, held, "whole") == known


def test_items_of_unknown_orders_are_not_asked_about():
    held = holding(BEFORE, RAW_ITEMS)
    assert known_answer(RAW_ITEMS, held, "whole") is None
    dated = CachedResponse(Validators('"1"'), dated_by="orders")
    assert known_answer(RAW_ITEMS, replace(held, answers={"whole": dated}), "whole") == dated


def test_what_was_not_downloaded_has_the_version_of_what_was_asked_for():
    assert as_it_was(RAW_ORDERS, HELD, None, SHOP).version == content(BEFORE).hash
    assert as_it_was(RAW_ORDERS, HELD, OF_OCTOBER, SHOP).version == content({OCTOBER: "o"}).hash


@pytest.mark.parametrize(
    "change",
    [
        {"columns": {**RAW_ORDERS.columns, "more": pa.string()}},
        {"key": ("id", "customer")},
        {"event_time": "other"},
        {"clustered_by": ()},
        {"description": "Other words."},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_a_catalogue_entry_is_in_its_definition(change):
    assert definition_of(replace(RAW_ORDERS, **change)) != definition_of(RAW_ORDERS)


# ---- notes


def test_a_note_comes_back_as_it_was():
    dated = CachedResponse(Validators('W/"1"', "Tue, 01 Sep 2026 00:00:00 GMT"), "orders")
    held = replace(HELD, answers={"one": KNOWN, "other": dated})
    assert TableState.from_note(json.loads(json.dumps(held.as_note()))) == held
    assert TableState.from_note(holding({}).as_note()) == holding({})
    assert held.as_note()["validators"]["one"] == {"etag": '"1"'}


@pytest.mark.parametrize(
    "note",
    [{}, {"content": "older"}, {"version": 1}, {"version": None, "months": {}}],
)
def test_another_note_says_nothing(note):
    assert TableState.from_note(note) == NOBODY_KNOWS


def test_a_note_that_somebody_edited_says_what_can_be_read():
    note = {"version": "v", "months": [], "validators": {"a": 1, "b": {"etag": None}}}
    assert TableState.from_note(note).months is None
    assert decided(TableState.from_note(note), BEFORE).load
    assert not TableState.from_note({**note, "validators": 7}).answers
