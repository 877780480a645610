"""A graph as the project has it: raw orders by month, a raw menu, a view, marts by month, an aggregation."""

from dataclasses import replace

import pytest

from serverless_assets.transformation.nodes import Materialization, Node
from serverless_assets.transformation.rebuild_rules import (
    BuildDecision,
    decide_builds,
    in_turns,
    settled_state,
)
from serverless_assets.transformation.relation_states import UNSURE, State

MENU, ORDERS = "raw_menu", "raw_orders"
OCTOBER, NOVEMBER = "2026-10-01", "2026-11-01"


def node(name: str, *parents: str, kind=Materialization.WHOLE, by_month=False, **more) -> Node:
    own = {field: more.pop(field) for field in ("begin", "filtered", "reads") if field in more}
    code = {"SQL": "1", **more}
    return Node(
        f"model.{name}",
        name,
        code,
        parents,
        own.pop("reads", parents),
        kind,
        by_month,
        identifier=name,
        **own,
    )


GRAPH = [
    node("stg_orders", ORDERS, kind=Materialization.VIEW, by_month=True),
    node("orders", "stg_orders", MENU, by_month=True, kind=Materialization.BY_MONTH),
    node("revenue", "orders", by_month=True, kind=Materialization.BY_MONTH),
    node("cities", "orders"),
]
RAW = {
    MENU: State("menu-1"),
    ORDERS: State("orders-1", {OCTOBER: "o1", NOVEMBER: "n1"}),
}


def decided(graph=GRAPH, found=RAW, **asked) -> dict[str, BuildDecision]:
    return {decision.node.name: decision for decision in decide_builds(graph, found, **asked)}


def after(graph=GRAPH, found=RAW, **asked) -> dict[str, State]:
    """What there is once the plan was carried out."""
    return {**found, **{name: one.state for name, one in decided(graph, found, **asked).items()}}


def changed(graph, name: str, **code: str) -> list[Node]:
    return [
        replace(one, data_hashes={**one.data_hashes, **code}) if one.name == name else one for one in graph
    ]


def built(decisions: dict[str, BuildDecision]) -> set[str]:
    return {name for name, one in decisions.items() if one.build}


def test_everything_is_new_at_first():
    first = decided(run_id="run-1")
    assert {one.reason for one in first.values()} == {"new"}
    assert all(one.build and one.months is None for one in first.values())


def test_nothing_is_built_twice():
    again = decided(found=after(run_id="run-1"), run_id="run-2")
    assert built(again) == set()
    assert {one.reason for one in again.values()} == {"unchanged"}
    assert {one.state.built_by for one in again.values()} == {"run-1"}


def test_another_run_gives_the_same_versions():
    one, other = after(run_id="run-1"), after(run_id="run-2")
    assert [state.version for state in one.values()] == [state.version for state in other.values()]


def test_a_change_of_code_reaches_what_reads_it_and_nothing_else():
    found = decided(changed(GRAPH, "orders", SQL="2"), after())
    assert built(found) == {"orders", "revenue", "cities"}
    assert found["orders"].reason == "SQL changed"
    assert found["cities"].reason == "upstream rebuilt (orders)"


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("config", "config changed"),
        ("contract", "contract changed"),
        ("macro cents_to_dollars", "macro changed (cents_to_dollars)"),
        ("var tax", "var changed (tax)"),
    ],
)
def test_the_part_of_the_code_that_changed_is_named(part, reason):
    graph = changed(GRAPH, "cities", **{part: "1"})
    assert decided(changed(GRAPH, "cities", **{part: "2"}), after(graph))["cities"].reason == reason
    assert decided(GRAPH, after(graph))["cities"].reason == reason


def test_a_month_of_new_data_is_built_by_month_where_that_can_be():
    data = {**after(), ORDERS: State("orders-2", {OCTOBER: "o1", NOVEMBER: "n2"})}
    found = decided(found=data)
    assert {name: one.months for name, one in found.items()} == {
        "stg_orders": None,
        "orders": (NOVEMBER,),
        "revenue": (NOVEMBER,),
        "cities": None,
    }
    assert found["stg_orders"].reason == "new data (raw_orders: 2026-11)"
    assert built(found) == set(found)


def test_building_by_month_ends_as_building_all():
    data = {**RAW, ORDERS: State("orders-2", {OCTOBER: "o2", NOVEMBER: "n1", "2026-12-01": "d1"})}
    assert after(found={**after(), **data}) == after(found=data)


def test_a_month_that_is_gone_is_built_too():
    data = {**after(), ORDERS: State("orders-2", {NOVEMBER: "n1"})}
    assert decided(found=data)["orders"].months == (OCTOBER,)


def test_what_has_no_months_reaches_all_of_them():
    found = decided(found={**after(), MENU: State("menu-2")})
    assert built(found) == {"orders", "revenue", "cities"}
    assert found["orders"].months is None
    assert found["orders"].reason == "new data (raw_menu)"


def test_changed_code_builds_every_month():
    found = decided(
        changed(GRAPH, "orders", SQL="2"), {**after(), ORDERS: State("2", {OCTOBER: "o1", NOVEMBER: "n2"})}
    )
    assert found["orders"].months is None


def test_months_that_a_models_own_query_names_are_built_too_and_by_what_reads_them():
    data = {**after(), ORDERS: State("orders-2", {"2026-09-01": "s1", OCTOBER: "o1", NOVEMBER: "n1"})}
    found = decided(found=data, months_to_restate={"orders": {NOVEMBER}})
    assert found["orders"].months == found["revenue"].months == ("2026-09-01", NOVEMBER)


def test_a_relation_that_was_dropped_is_built_alone():
    there = {name: state for name, state in after().items() if name != "orders"}
    assert built(decided(found=there)) == {"orders"}
    assert decided(found=there)["orders"].reason == "new"
    assert decided(found=there, known_models={"orders"})["orders"].reason == "relation missing"


def test_what_is_reused_but_hangs_on_a_dropped_relation_has_its_turn_after_it():
    there = {name: state for name, state in after().items() if name != "orders"}
    first, building, last = in_turns(decide_builds(GRAPH, there))
    names = [[one.node.name for one in turn] for turn in (first, building, last)]
    assert names == [["stg_orders"], ["orders"], ["revenue", "cities"]]


def test_a_relation_that_was_replaced_by_hand_is_built_anew():
    found = decided(found={**after(), "cities": State()})
    assert built(found) == {"cities"}
    assert "replaced" in found["cities"].reason


def test_a_raw_table_of_unknown_content_is_never_taken_for_the_same():
    unknown = {**after(), MENU: State()}
    once = decided(found=unknown, run_id="run-2")
    assert built(once) == {"orders", "revenue", "cities"}
    assert "raw_menu replaced" in once["orders"].reason
    again = {**unknown, **{name: one.state for name, one in once.items()}}
    assert built(decided(found=again, run_id="run-3")) == {"orders", "revenue", "cities"}


def test_a_model_whose_tests_failed_is_built_again_and_says_so():
    failed = {**after(), "orders": State(dirty_reason="last tests failed: unique")}
    found = decided(found=failed)
    assert built(found) == {"orders"}
    assert found["orders"].reason == "last tests failed: unique"
    assert found["orders"].months is None


def test_everything_is_built_when_forced():
    found = decided(found=after(), force=True)
    assert built(found) == set(found)
    assert {one.reason for one in found.values()} == {"forced: rebuild all"}
    assert all(one.months is None for one in found.values())


# ---- a run that is about some models


def test_a_model_alone_is_built_from_its_parents_as_they_are():
    edited = changed(GRAPH, "orders", SQL="2")
    assert built(decided(edited, after(), selected={"cities"})) == set()
    # Once its parent was built, it is no longer the same.
    later = after(edited, after(), selected={"stg_orders", "orders"})
    assert built(decided(edited, later, selected={"cities"})) == {"cities"}


def test_a_view_that_the_run_is_not_about_holds_what_its_parents_hold_now():
    data = {**after(), ORDERS: State("orders-2", {OCTOBER: "o1", NOVEMBER: "n2"})}
    found = decided(found=data, selected={"orders"})
    assert found["orders"].months == (NOVEMBER,)
    # And a run about all of it afterwards finds the mart as it should be.
    all_of_it = decided(found={**data, "orders": found["orders"].state})
    assert built(all_of_it) == {"stg_orders", "revenue", "cities"}


def test_a_new_model_of_the_same_sql_is_new():
    renamed = [*GRAPH[:-1], node("towns", "orders")]
    assert built(decided(renamed, after())) == {"towns"}


def test_a_new_target_sees_nothing_of_another():
    assert built(decided(found=RAW)) == {one.name for one in GRAPH}


def test_a_state_survives_as_a_note():
    state = after(run_id="run-1")["orders"]
    assert State.from_json(state.as_json()) == state
    assert State.from_json({"version": 7}) == State.from_json({"text": "mine"}) == State()
    dirty = State(dirty_reason="last tests failed: x")
    assert State.from_json(dirty.as_json()) == dirty


# ---- models without a relation, and those with a state of their own

INNER = [
    node("inner", ORDERS, kind=Materialization.EPHEMERAL),
    node("outer", "inner", MENU, reads=(ORDERS, MENU), **{"ephemeral inner": "1"}),
]


def test_what_selects_from_an_ephemeral_model_is_reused_until_that_or_its_parents_change():
    found = after(INNER)
    assert {one.reason for one in decided(INNER, found).values()} == {"unchanged"}
    edited = changed(changed(INNER, "inner", SQL="2"), "outer", **{"ephemeral inner": "2"})
    assert decided(edited, found)["outer"].reason == "ephemeral changed (inner)"
    assert decided(INNER, {**found, ORDERS: State("orders-2")})["outer"].reason == "new data (raw_orders)"


STATEFUL = [node("history", ORDERS, kind=Materialization.STATEFUL), node("report", "history")]


def test_a_snapshot_that_was_run_between_is_not_what_it_was_though_its_source_is():
    first = after(STATEFUL, run_id="run-1")
    assert built(decided(STATEFUL, first, run_id="run-2")) == set()
    other = {**first, ORDERS: State("orders-2")}
    alone = after(STATEFUL, other, selected={"history"}, run_id="run-2")
    back = {**alone, ORDERS: RAW[ORDERS]}
    found = decided(STATEFUL, back, run_id="run-3")
    assert built(found) == {"history", "report"}
    assert all(one.months is None for one in found.values())


def test_an_edited_view_that_the_run_is_not_about_is_not_taken_for_built():
    edited = changed(GRAPH, "stg_orders", SQL="2")
    alone = after(edited, after(), selected={"orders"}, run_id="run-2")
    assert "orders" in built(decided(edited, alone, run_id="run-3"))


BATCHES = [
    node("stg_orders", ORDERS, kind=Materialization.VIEW, by_month=True),
    node(
        "batches", "stg_orders", MENU, kind=Materialization.MICROBATCH, by_month=True, begin="2026-10-15",
        filtered=frozenset({"stg_orders"}),
    ),
]  # fmt: skip


def test_the_batches_of_corrected_months_are_built_alone():
    data = {**after(BATCHES), ORDERS: State("orders-2", {OCTOBER: "o2", NOVEMBER: "n1"})}
    assert decided(BATCHES, data, current_month="2026-11")["batches"].months == (OCTOBER,)


@pytest.mark.parametrize(
    ("months", "menu"),
    [
        ({"2026-09-01": "s1", OCTOBER: "o1", NOVEMBER: "n1"}, "menu-1"),
        ({OCTOBER: "o1", NOVEMBER: "n1", "2026-12-01": "d1"}, "menu-1"),
        ({OCTOBER: "o1", NOVEMBER: "n2"}, "menu-2"),
    ],
    ids=["before the first batch", "after the current month", "a parent that dbt does not filter"],
)
def test_batches_are_built_as_a_whole_where_months_do_not_say_which(months, menu):
    data = {**after(BATCHES), ORDERS: State("orders-2", months), MENU: State(menu)}
    found = decided(BATCHES, data, current_month="2026-11")["batches"]
    assert (found.build, found.months) == (True, None)


def test_microbatch_models_are_built_as_a_whole_together_with_a_new_one():
    data = {**after(BATCHES), ORDERS: State("orders-2", {OCTOBER: "o2", NOVEMBER: "n1"})}
    found = decided([*BATCHES, replace(BATCHES[1], name="more")], data, current_month="2026-11")
    assert {one.months for one in found.values() if one.node.kind == Materialization.MICROBATCH} == {None}


def test_a_months_query_that_cannot_be_asked_has_all_of_the_model_built():
    data = {**after(), ORDERS: State("orders-2", {OCTOBER: "o1", NOVEMBER: "n2"})}
    assert decided(found=data, months_to_restate={"orders": None})["orders"].months is None


# ---- models of which it is known what they read: `orders` has two columns, `revenue` reads one of them

READS = {
    "orders": {
        "": ("rows", {"stg_orders": []}), "id": ("id", {"stg_orders": ["id"]}),
        "total": ("total", {"stg_orders": ["total"], MENU: ["price"]}),
    },
    "revenue": {"": ("rows", {"orders": []}), "revenue": ("sum", {"orders": ["total"]})},
    "cities": {"": ("rows", {"orders": []}), "n": ("count", {})},
}  # fmt: skip


def reader(**edits):
    """Reads the queries above, with another code for some columns of `orders`."""
    query = {name: (code + edits.get(name, ""), reads) for name, (code, reads) in READS["orders"].items()}
    queries = {**READS, "orders": query}
    return lambda node, columns: queries.get(node.name, {})


def edited_then(**edits) -> dict[str, BuildDecision]:
    """The decisions after `orders` was edited."""
    known = after(read_query=reader())
    return decided(changed(GRAPH, "orders", SQL="2"), known, read_query=reader(**edits))


def test_an_edit_reaches_those_that_read_what_it_changes():
    assert built(edited_then()) == built(edited_then(id="another")) == {"orders"}
    assert built(edited_then(total="another")) == {"orders", "revenue"}
    found = edited_then(**{"": "fewer", "id": "fewer", "total": "fewer"})
    assert built(found) == {"orders", "revenue", "cities"}
    assert found["cities"].reason == "upstream rebuilt (orders)"


def test_a_column_that_is_not_sure_changes_with_its_model():
    queries = {**READS, "orders": {**READS["orders"], "total": (f"{UNSURE}total", {MENU: ["price"]})}}

    def read(node, columns):
        return queries.get(node.name, {})

    found = decided(changed(GRAPH, "orders", SQL="2"), after(read_query=read), read_query=read)
    assert built(found) == {"orders", "revenue"}


def test_new_data_reaches_all_that_read_it_by_the_queries_that_are_kept():
    known = after(read_query=reader())
    assert built(decided(found={**known, MENU: State("menu-2")})) == {"orders", "revenue"}
    assert built(decided(found={**known, ORDERS: State("2", {OCTOBER: "o1", NOVEMBER: "n2"})})) == {
        one.name for one in GRAPH
    }


def test_a_model_that_is_left_alone_is_built_by_month_afterwards():
    graph, read = changed(GRAPH, "orders", SQL="2"), reader(id="another")
    found = decided(graph, after(read_query=reader()), read_query=read)
    assert (found["revenue"].build, found["revenue"].is_renewed) == (False, True)
    kept = {**RAW, **{name: one.state for name, one in found.items()}}
    assert kept == {**kept, **after(graph, kept, read_query=read)}
    data = {**kept, ORDERS: State("orders-2", {OCTOBER: "o1", NOVEMBER: "n2"})}
    assert decided(graph, data)["revenue"].months == (NOVEMBER,)


def test_states_that_are_settled_after_a_build_are_those_that_the_next_run_expects():
    settled: dict[str, State] = {}
    for name, decision in decided(run_id="run-1").items():
        settled[name] = settled_state(decision, settled, lambda node, columns: READS.get(node.name, {}))
    assert built(decided(found={**RAW, **settled}, run_id="run-2")) == set()
    assert settled["revenue"].query == READS["revenue"]
