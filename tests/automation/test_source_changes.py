"""What is launched follows from what the source said before and says now."""

from datetime import date

from serverless_assets.automation.source_changes import (
    Decision,
    Fate,
    Watch,
    decide,
    marks_now,
    settled,
    to_look_into,
)
from serverless_assets.automation.source_cursor import Cursor
from serverless_assets.automation.source_marks import Question
from serverless_assets.automation.source_outage import Outage
from serverless_assets.ingestion.tables import TABLES

MONTHS = [date(2026, month, 1) for month in (7, 8, 9, 10, 11)]
FACTS = [table for table in TABLES if table.event_time]
BEFORE = {
    **{Question(table.name): f"{table.name} 1" for table in TABLES},
    **{Question(table.name, month): f"{table.name} {month} 1" for table in FACTS for month in MONTHS},
}
WATCH = Watch("source", BEFORE, last_change="before")
SUCCEEDED, FAILED, RUNNING = Fate("succeeded"), Fate("failed", ["a" * 32]), Fate("running", ["b" * 32])


def month(number: int) -> date:
    return date(2026, number, 1)


def answers(*changed: str | tuple[str, int], version: int = 2) -> dict[Question, str]:
    """All that the source says once these tables, or months of facts, have changed."""
    now = dict(BEFORE)
    for one in changed:
        table = one if isinstance(one, str) else one[0]
        now[Question(table)] = f"{table} {version}"
        if not isinstance(one, str):
            now[Question(table, month(one[1]))] = f"{table} {one[1]} {version}"
    return now


def decided(now: dict[Question, str], watch: Watch = WATCH, fate: Fate | None = None) -> Decision:
    return decide(settled(watch, fate), now, fate, TABLES, MONTHS)


def launched(decision: Decision) -> list[tuple[list[str], tuple[int, int] | None, bool]]:
    return [
        (
            list(load.tables),
            (load.months[0].month, load.months[1].month) if load.months else None,
            load.is_last,
        )
        for load in decision.loads
    ]


def test_the_first_look_loads_everything_once():
    first = decided(BEFORE, Watch("source"))
    assert launched(first) == [([table.name for table in TABLES], None, True)]
    assert first.message.startswith(
        "First look at this source. Changed at the source: raw_customers; raw_orders;"
    )
    assert not decided(BEFORE, first.watch, RUNNING).loads
    assert not decided(BEFORE, first.watch, SUCCEEDED).loads


def test_a_source_that_says_nothing_new_launches_nothing():
    decision = decided(BEFORE)
    assert (decision.loads, decision.message) == ((), "Nothing changed at the source.")


def test_a_source_without_validators_launches_nothing():
    assert decided({}, Watch("source")).message == "The source cannot be watched."


def test_a_changed_snapshot_is_loaded_by_itself():
    assert launched(decided(answers("raw_stores"))) == [(["raw_stores"], None, True)]


def test_a_changed_month_is_loaded_with_what_is_dated_by_it():
    decision = decided(answers(("raw_orders", 10)))
    assert launched(decision) == [(["raw_orders", "raw_items"], (10, 10), True)]
    assert decision.message == "Changed at the source: raw_orders 2026-10; raw_items 2026-10."


def test_items_that_changed_alone_are_loaded_alone():
    assert launched(decided(answers(("raw_items", 9)))) == [(["raw_items"], (9, 9), True)]


def test_neighbouring_months_and_snapshots_are_one_run():
    now = answers(("raw_orders", 10), ("raw_orders", 11), "raw_stores")
    assert launched(decided(now)) == [(["raw_orders", "raw_items", "raw_stores"], (10, 11), True)]


def test_months_apart_are_runs_of_their_own_and_the_last_one_builds_what_follows():
    now = answers(("raw_orders", 8), ("raw_items", 9), ("raw_orders", 11), "raw_stores")
    decision = decided(now)
    assert launched(decision) == [
        (["raw_orders", "raw_items"], (8, 8), False),
        (["raw_items"], (9, 9), False),
        (["raw_orders", "raw_items", "raw_stores"], (11, 11), True),
    ]
    keys = [load.key for load in decision.loads]
    assert len(set(keys)) == 3 and keys[0].endswith(":2026-08..2026-08")


def test_a_source_that_gives_the_whole_table_for_each_month_has_it_loaded_whole():
    now = answers("raw_items")
    now.update({Question("raw_items", day): now[Question("raw_items")] for day in MONTHS})
    assert launched(decided(now)) == [(["raw_items"], None, True)]


def test_a_change_in_no_known_month_loads_the_table_whole_with_what_is_dated_by_it():
    assert launched(decided(answers("raw_orders"))) == [(["raw_orders", "raw_items"], None, True)]


def test_a_change_in_every_month_loads_the_table_whole():
    now = answers(*(("raw_items", day.month) for day in MONTHS))
    assert launched(decided(now)) == [(["raw_items"], None, True)]


def test_a_month_of_which_the_source_says_nothing_has_the_table_loaded_whole():
    now = answers(("raw_items", 9))
    del now[Question("raw_items", month(7))]
    assert launched(decided(now)) == [(["raw_items"], None, True)]


def test_whole_facts_follow_the_months_of_others():
    now = answers("raw_items", ("raw_orders", 9), "raw_stores")
    assert launched(decided(now)) == [
        (["raw_orders"], (9, 9), False),
        (["raw_items", "raw_stores"], None, True),
    ]


def test_a_new_month_is_loaded_once_it_has_rows():
    december = date(2026, 12, 1)
    now = {**answers("raw_items"), Question("raw_items", december): "raw_items 12"}
    assert decide(WATCH, now, None, TABLES, [*MONTHS, december]).loads[0].months == (december, december)


def test_a_change_is_launched_once_while_its_runs_wait_or_run_and_after_they_succeeded():
    now = answers("raw_stores")
    first = decided(now)
    waiting = decided(now, first.watch, RUNNING)
    assert (waiting.loads, waiting.message) == ((), "Run bbbbbbbb is still loading the last change.")
    after = decided(now, waiting.watch, SUCCEEDED)
    assert (after.loads, after.message) == ((), "Nothing changed at the source.")
    assert after.watch.confirmed == now


def test_a_change_that_failed_waits_for_a_person_and_says_so():
    now = answers("raw_stores")
    after = decided(now, decided(now).watch, FAILED)
    assert not after.loads
    assert after.message == (
        "The last change was not loaded: run aaaaaaaa is not successful. Re-execute from the failure; else "
        "the next change at the source takes it along."
    )


def test_the_next_change_takes_along_what_failed():
    failed = decided(answers("raw_stores")).watch
    assert launched(decided(answers("raw_stores", ("raw_orders", 9)), failed, FAILED)) == [
        (["raw_orders", "raw_items", "raw_stores"], (9, 9), True)
    ]


def test_a_change_that_failed_and_was_taken_back_is_loaded_back():
    # The run may have come as far as the table before it failed.
    failed = decided(answers(("raw_orders", 9))).watch
    assert launched(decided(BEFORE, failed, FAILED)) == [(["raw_orders", "raw_items"], (9, 9), True)]


def test_a_change_during_a_run_is_launched_after_it():
    first, more = decided(answers("raw_stores")), answers("raw_stores", "raw_products")
    during = decided(more, first.watch, RUNNING)
    assert not during.loads and during.message.endswith(
        "The source has changed again since: that comes next."
    )
    assert launched(decided(more, during.watch, SUCCEEDED)) == [(["raw_products"], None, True)]


def test_runs_that_nobody_knows_of_are_launched_again_under_another_key():
    now = answers("raw_stores")
    first = decided(now)
    again = decided(now, first.watch, Fate("gone"))
    assert launched(again) == launched(first)
    assert again.loads[0].key != first.loads[0].key


def test_a_key_follows_from_content_alone_and_a_change_back_and_forth_has_keys_of_its_own():
    there, back = answers("raw_stores"), BEFORE
    assert decided(there).loads[0].key == decided(there).loads[0].key
    keys, watch = [], WATCH
    for now in (there, back, there, back):
        decision = decided(now, watch, SUCCEEDED)
        keys.append(decision.loads[0].key)
        watch = decision.watch
    assert len(set(keys)) == 4


def test_months_are_asked_about_only_of_facts_that_changed():
    wholes = {Question(t.name): BEFORE[Question(t.name)] for t in TABLES}
    assert to_look_into(WATCH, wholes, TABLES) == []
    changed = {**wholes, Question("raw_orders"): "raw_orders 2", Question("raw_stores"): "raw_stores 2"}
    assert [table.name for table in to_look_into(WATCH, changed, TABLES)] == ["raw_orders"]
    failed = decided(answers(("raw_orders", 9))).watch
    assert to_look_into(failed, changed, TABLES) == []


def test_what_was_not_asked_again_is_as_it_was():
    orders = FACTS[0]
    now = marks_now(
        WATCH, {Question("raw_orders"): "new"}, [orders], {Question("raw_orders", MONTHS[0]): "x"}
    )
    assert now[Question("raw_orders", MONTHS[0])] == "x" and Question("raw_orders", MONTHS[1]) not in now
    assert now[Question("raw_items", MONTHS[1])] == BEFORE[Question("raw_items", MONTHS[1])]


def test_a_table_that_gives_no_validators_for_a_moment_has_not_changed():
    wholes = {Question(t.name): BEFORE[Question(t.name)] for t in TABLES if t.name != "raw_stores"}
    assert not decided(marks_now(WATCH, wholes, [], {})).loads


def test_the_cursor_is_read_as_it_was_written_and_anything_else_is_a_new_one():
    launch = decided(answers(("raw_orders", 9))).watch
    for cursor in (Cursor(launch, Outage(12.5, told=True)), Cursor(WATCH)):
        assert Cursor.read(str(cursor)) == cursor
    for other in (None, "", "nonsense", "[]", '{"source": "x"}', '{"source": "x", "confirmed": 3}'):
        assert Cursor.read(other) == Cursor()
