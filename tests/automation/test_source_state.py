"""What is loaded follows from the validators that the source gave before and gives now."""

from datetime import date

from serverless_assets.automation.source_state import (
    Decision,
    ETags,
    RunOutcome,
    SourceState,
    changed_facts,
    decide,
    etag_key,
    merge_etags,
    settle,
)
from tests.raw_tables import TABLES

MONTHS = [date(2026, month, 1) for month in (7, 8, 9, 10, 11)]
FACTS = [table for table in TABLES if table.event_time]
BEFORE = {
    **{etag_key(table.name): f"{table.name} 1" for table in TABLES},
    **{etag_key(table.name, month): f"{table.name} {month} 1" for table in FACTS for month in MONTHS},
}
STATE = SourceState("source", BEFORE, run_key="before")
SUCCEEDED, FAILED = RunOutcome("succeeded"), RunOutcome("failed", "a" * 32)
RUNNING, DELETED = RunOutcome("running", "b" * 32), RunOutcome("deleted")


def month(number: int) -> date:
    return date(2026, number, 1)


def etags(*changed: str | tuple[str, int], version: int = 2) -> dict[str, str]:
    """All validators once these tables, or months of facts, have changed."""
    now = dict(BEFORE)
    for change in changed:
        table = change if isinstance(change, str) else change[0]
        now[etag_key(table)] = f"{table} {version}"
        if not isinstance(change, str):
            now[etag_key(table, month(change[1]))] = f"{table} {change[1]} {version}"
    return now


def decision_on(now: ETags, state: SourceState = STATE, outcome: RunOutcome | None = None) -> Decision:
    return decide(settle(state, outcome), now, outcome, TABLES, MONTHS)


def load_of(decision: Decision) -> tuple[list[str], tuple[int, int] | None]:
    """The tables of the run, and its first and last month."""
    months = decision.months and (decision.months[0].month, decision.months[1].month)
    return list(decision.tables), months


def test_first_look_loads_everything_once():
    first = decision_on(BEFORE, SourceState("source"))
    assert load_of(first) == ([table.name for table in TABLES], None)
    assert first.message.startswith("First look at this source: everything is loaded.")
    assert not decision_on(BEFORE, first.state, RUNNING).tables
    assert not decision_on(BEFORE, first.state, SUCCEEDED).tables


def test_first_look_at_what_earlier_runs_loaded_records_it_and_launches_what_changes_then():
    first = decide(SourceState("source"), BEFORE, None, TABLES, MONTHS, is_loaded=True)
    assert not first.tables
    assert "launch serverless_pipeline" in first.message
    assert not decision_on(BEFORE, first.state).tables
    assert load_of(decision_on(etags("raw_stores"), first.state)) == (["raw_stores"], None)


def test_message_of_many_changes_names_the_first_tables():
    everything = etags(*(table.name for table in TABLES))
    message = decision_on(everything).message
    assert message.endswith(" and 3 more.")
    assert len(message) < 200


def test_unchanged_source_launches_nothing():
    decision = decision_on(BEFORE)
    assert (decision.tables, decision.message) == ((), "Nothing changed at the source.")


def test_source_without_validators_launches_nothing():
    assert decision_on({}, SourceState("source")).message == "The source cannot be watched."


def test_changed_snapshot_is_loaded_by_itself():
    assert load_of(decision_on(etags("raw_stores"))) == (["raw_stores"], None)


def test_changed_month_is_loaded_with_what_is_dated_by_it():
    decision = decision_on(etags(("raw_orders", 10)))
    assert load_of(decision) == (["raw_orders", "raw_items"], (10, 10))
    assert decision.message == "Changed at the source: raw_orders 2026-10; raw_items 2026-10."


def test_items_that_changed_alone_are_loaded_alone():
    assert load_of(decision_on(etags(("raw_items", 9)))) == (["raw_items"], (9, 9))


def test_months_and_snapshots_that_changed_together_are_one_run_over_their_range():
    now = etags(("raw_orders", 8), ("raw_items", 9), ("raw_orders", 11), "raw_stores")
    decision = decision_on(now)
    assert load_of(decision) == (["raw_orders", "raw_items", "raw_stores"], (8, 11))
    assert "raw_orders 2026-08, 2026-11; raw_items 2026-08, 2026-09, 2026-11;" in decision.message


def test_source_that_gives_the_whole_table_for_each_month_has_it_loaded_whole():
    now = etags("raw_items")
    now.update({etag_key("raw_items", day): now[etag_key("raw_items")] for day in MONTHS})
    assert load_of(decision_on(now)) == (["raw_items"], None)


def test_change_in_no_known_month_loads_the_table_whole_with_what_is_dated_by_it():
    assert load_of(decision_on(etags("raw_orders"))) == (["raw_orders", "raw_items"], None)


def test_change_in_every_month_loads_the_table_whole():
    now = etags(*(("raw_items", day.month) for day in MONTHS))
    assert load_of(decision_on(now)) == (["raw_items"], None)


def test_month_without_validators_has_the_table_loaded_whole():
    now = etags(("raw_items", 9))
    del now[etag_key("raw_items", month(7))]
    assert load_of(decision_on(now)) == (["raw_items"], None)


def test_fact_to_be_loaded_whole_makes_the_run_one_over_all_months():
    now = etags("raw_items", ("raw_orders", 9), "raw_stores")
    assert load_of(decision_on(now)) == (["raw_orders", "raw_items", "raw_stores"], None)


def test_new_month_is_loaded_once_it_has_rows():
    december = date(2026, 12, 1)
    now = {**etags("raw_items"), etag_key("raw_items", december): "raw_items 12"}
    assert decide(STATE, now, None, TABLES, [*MONTHS, december]).months == (december, december)


def test_change_is_launched_once_while_its_run_waits_or_runs_and_after_it_succeeded():
    now = etags("raw_stores")
    first = decision_on(now)
    waiting = decision_on(now, first.state, RUNNING)
    assert (waiting.tables, waiting.message) == ((), "Run bbbbbbbb is still loading the last change.")
    after = decision_on(now, waiting.state, SUCCEEDED)
    assert (after.tables, after.message) == ((), "Nothing changed at the source.")
    assert after.state.loaded == now


def test_change_that_failed_waits_for_a_person_and_says_so():
    now = etags("raw_stores")
    after = decision_on(now, decision_on(now).state, FAILED)
    assert not after.tables
    assert after.message == (
        "The last change was not loaded, as run aaaaaaaa did not succeed. Re-execute it; otherwise the "
        "change is loaded with the next one."
    )


def test_next_change_takes_along_what_failed():
    failed = decision_on(etags("raw_stores")).state
    assert load_of(decision_on(etags("raw_stores", ("raw_orders", 9)), failed, FAILED)) == (
        ["raw_orders", "raw_items", "raw_stores"],
        (9, 9),
    )


def test_change_that_failed_and_was_taken_back_is_loaded_back():
    # The run may have come as far as the table before it failed.
    failed = decision_on(etags(("raw_orders", 9))).state
    assert load_of(decision_on(BEFORE, failed, FAILED)) == (["raw_orders", "raw_items"], (9, 9))


def test_change_during_a_run_is_launched_after_it():
    first, more = decision_on(etags("raw_stores")), etags("raw_stores", "raw_products")
    during = decision_on(more, first.state, RUNNING)
    assert not during.tables and during.message.endswith(
        "The source has changed again since: that is loaded next."
    )
    assert load_of(decision_on(more, during.state, SUCCEEDED)) == (["raw_products"], None)


def test_run_whose_record_was_deleted_is_launched_again_under_another_key():
    now = etags("raw_stores")
    first = decision_on(now)
    again = decision_on(now, first.state, DELETED)
    assert load_of(again) == load_of(first)
    assert again.state.run_key != first.state.run_key


def test_run_key_follows_from_content_and_differs_for_a_change_back_and_forth():
    there, back = etags("raw_stores"), BEFORE
    assert decision_on(there).state.run_key == decision_on(there).state.run_key
    keys, state = [], STATE
    for now in (there, back, there, back):
        state = decision_on(now, state, SUCCEEDED).state
        keys.append(state.run_key)
    assert len(set(keys)) == 4


def test_months_are_asked_for_only_of_facts_that_changed():
    of_tables = {etag_key(t.name): BEFORE[etag_key(t.name)] for t in TABLES}
    assert changed_facts(STATE, of_tables, TABLES) == []
    now = {**of_tables, etag_key("raw_orders"): "raw_orders 2", etag_key("raw_stores"): "raw_stores 2"}
    assert [table.name for table in changed_facts(STATE, now, TABLES)] == ["raw_orders"]
    failed = decision_on(etags(("raw_orders", 9))).state
    assert changed_facts(failed, now, TABLES) == []


def test_validators_that_were_not_asked_for_again_are_as_before():
    orders = FACTS[0]
    now = merge_etags(
        STATE, {etag_key("raw_orders"): "new"}, [orders], {etag_key("raw_orders", MONTHS[0]): "x"}
    )
    assert now[etag_key("raw_orders", MONTHS[0])] == "x"
    assert etag_key("raw_orders", MONTHS[1]) not in now
    assert now[etag_key("raw_items", MONTHS[1])] == BEFORE[etag_key("raw_items", MONTHS[1])]


def test_table_that_gives_no_validators_for_a_moment_has_not_changed():
    of_tables = {etag_key(t.name): BEFORE[etag_key(t.name)] for t in TABLES if t.name != "raw_stores"}
    assert not decision_on(merge_etags(STATE, of_tables, [], {})).tables


def test_cursor_is_read_as_it_was_written_and_anything_else_is_an_empty_state():
    launched = decision_on(etags(("raw_orders", 9))).state
    down = SourceState("source", BEFORE, down_since=12.5, is_alerted=True)
    for state in (STATE, launched, down):
        assert SourceState.read(state.to_cursor()) == state
    for cursor in (None, "", "nonsense", "[]", '{"source": "x"}', '{"source": "x", "loaded": 3}'):
        assert SourceState.read(cursor) == SourceState()
