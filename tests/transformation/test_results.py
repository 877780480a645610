import pytest

from serverless_assets.transformation.arguments import build_arguments, months_variable
from serverless_assets.transformation.fingerprints import Node
from serverless_assets.transformation.plan import Decision, State
from serverless_assets.transformation.results import STOPPED, Results

STATE = State("v2", code={"SQL": "1"}, built_by="run-2")
MANIFEST = {
    "nodes": {
        "model.orders": {"resource_type": "model", "name": "orders", "fqn": ["shop", "marts", "orders"]},
        "model.cities": {"resource_type": "model", "name": "cities", "fqn": ["shop", "cities"]},
        "test.unique": {
            "resource_type": "test", "name": "unique", "attached_node": "model.orders",
            "depends_on": {"nodes": ["model.orders"]},
        },
        "test.agree": {
            "resource_type": "test", "name": "agree", "attached_node": None,
            "depends_on": {"nodes": ["model.orders", "model.cities"]},
        },
    }
}  # fmt: skip


def decision(name: str, build=True, months=None) -> Decision:
    return Decision(Node(f"model.{name}", name, {}, (), False, False, False), build, "why", STATE, months)


def event(node: str, status: str):
    return {
        "info": {"name": "NodeFinished"},
        "data": {"node_info": {"unique_id": node}, "run_result": {"status": status}},
    }


def notes(statuses, decisions=None, finished=True):
    results = Results()
    for node, status in statuses.items():
        results.see(event(node, status))
    return results.notes(decisions or [decision("orders")], MANIFEST, finished)


def test_a_sound_model_keeps_what_it_was_built_from():
    found = notes({"model.orders": "success", "test.unique": "pass", "test.agree": "pass"})
    assert State.from_note(found["orders"]) == STATE


def test_a_warning_is_kept_with_it():
    found = notes({"model.orders": "success", "test.unique": "warn", "test.agree": "pass"})
    assert State.from_note(found["orders"]).warnings == ["unique"]


@pytest.mark.parametrize("status", ["fail", "error", "runtime error"])
def test_failed_tests_leave_it_unfinished_and_are_named(status):
    found = notes({"model.orders": "success", "test.unique": status, "test.agree": status})
    assert State.from_note(found["orders"]) == State(unfinished="last tests failed: agree, unique")


def test_a_build_that_was_stopped_before_the_tests_leaves_it_unfinished():
    found = notes({"model.orders": "success", "test.unique": "pass"}, finished=False)
    assert State.from_note(found["orders"]) == State(unfinished=STOPPED)


def test_a_test_that_was_not_asked_for_does_not_matter():
    assert State.from_note(notes({"model.orders": "success", "test.unique": "pass"})["orders"]) == STATE


@pytest.mark.parametrize("status", ["error", "skipped"])
def test_a_model_that_was_not_built_keeps_its_note(status):
    assert notes({"model.orders": status}) == {}


def test_a_reused_model_whose_test_now_fails_is_unfinished():
    decisions = [decision("orders"), decision("cities", build=False)]
    found = notes({"model.orders": "success", "test.agree": "fail"}, decisions)
    assert {State.from_note(note).unfinished for note in found.values()} == {"last tests failed: agree"}
    assert found.keys() == {"orders", "cities"}


def test_a_reused_model_is_left_alone_otherwise():
    decisions = [decision("orders"), decision("cities", build=False)]
    assert notes({"model.orders": "success"}, decisions).keys() == {"orders"}


def test_dbt_is_told_the_models_by_their_full_names():
    arguments = build_arguments([decision("orders"), decision("cities")], MANIFEST)
    assert arguments[-3:] == ["--select", "fqn:shop.marts.orders", "fqn:shop.cities"]


def test_months_are_told_for_the_models_that_are_built_by_month():
    building = [decision("orders", months=("2026-10-01", "2026-11-01")), decision("cities")]
    assert months_variable(building) == "orders=2026-10-01,2026-11-01"
