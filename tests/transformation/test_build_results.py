from dataclasses import replace
from datetime import datetime

import pytest

from serverless_assets.transformation.invocation import (
    STOPPED,
    Results,
    batches_of,
    build_arguments,
    months_variable,
)
from serverless_assets.transformation.nodes import Materialization, Node
from serverless_assets.transformation.rebuild_rules import BuildDecision, DataTest
from serverless_assets.transformation.relation_states import State

STATE = State("v2", data_hashes={"SQL": "1"}, built_by="run-2")
MANIFEST = {
    "nodes": {
        "model.orders": {"resource_type": "model", "name": "orders"},
        "model.cities": {"resource_type": "model", "name": "cities"},
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


NOW = datetime(2026, 11, 27, 12)


def decision(name: str, build=True, months=None, kind=Materialization.BY_MONTH, begin="") -> BuildDecision:
    return BuildDecision(
        Node(f"model.{name}", name, {}, (), (), kind, identifier=name, begin=begin),
        build,
        "why",
        STATE,
        months,
    )


def event(node: str, status: str):
    return {
        "info": {"name": "NodeFinished"},
        "data": {"node_info": {"unique_id": node}, "run_result": {"status": status}},
    }


def states(statuses, decisions=None, finished=True):
    results = Results(MANIFEST)
    for node, status in statuses.items():
        results.see(event(node, status))
    return results.states(decisions or [decision("orders")], finished)


def test_a_sound_model_keeps_what_it_was_built_from():
    found = states({"model.orders": "success", "test.unique": "pass", "test.agree": "pass"})
    assert found["orders"].as_json() == STATE.as_json()


def test_a_failed_model_of_several_versions_is_named_with_its_version():
    results = Results({"nodes": {"model.orders.v2": {**MANIFEST["nodes"]["model.orders"], "version": 2}}})
    results.see(event("model.orders.v2", "error"))
    assert results.summary() == "models failed: orders.v2"


def test_a_warning_is_kept_with_it():
    orders = replace(decision("orders"), tests=[DataTest("test.unique", "unique", "code", {})])
    found = states({"model.orders": "success", "test.unique": "warn", "test.agree": "pass"}, [orders])
    assert found["orders"].warnings == ["unique"]


@pytest.mark.parametrize("status", ["fail", "error", "runtime error"])
def test_failed_tests_leave_it_dirty_and_are_named(status):
    found = states({"model.orders": "success", "test.unique": status, "test.agree": status})
    assert found["orders"] == State(dirty_reason="last tests failed: agree, unique")


def test_a_build_that_was_stopped_before_the_tests_leaves_it_dirty():
    found = states({"model.orders": "success", "test.unique": "pass"}, finished=False)
    assert found["orders"] == State(dirty_reason=STOPPED)


def test_a_test_that_was_not_asked_for_does_not_matter():
    assert states({"model.orders": "success", "test.unique": "pass"})["orders"].as_json() == STATE.as_json()


@pytest.mark.parametrize("status", ["error", "skipped"])
def test_a_model_that_was_not_built_keeps_its_note(status):
    assert states({"model.orders": status}) == {}


def test_a_test_that_failed_is_not_kept_with_a_reused_model():
    tests = [DataTest(f"test.{name}", name, "code", {"cities": "v2"}) for name in ("unique", "agree")]
    decisions = [decision("orders"), replace(decision("cities", build=False), tests=tests)]
    statuses = {"model.orders": "success", "test.unique": "pass", "test.agree": "fail"}
    found = states(statuses, decisions)
    assert found["orders"].dirty_reason == "last tests failed: agree"
    assert found["cities"].tests == [tests[0].key({})]
    # It is not relied on until the test passes, and not built again for that.
    assert (found["cities"].version, found["cities"].dirty_reason) == ("v2", "last tests failed: agree")


def test_a_reused_model_is_left_alone_otherwise():
    decisions = [decision("orders"), decision("cities", build=False)]
    assert states({"model.orders": "success"}, decisions).keys() == {"orders"}


def test_dbt_is_told_the_models_by_their_unique_ids():
    arguments = build_arguments([decision("orders"), decision("cities")], [], NOW)
    assert arguments[-3:] == ["--select", "fqn:model.orders", "fqn:model.cities"]


def test_months_are_told_for_the_models_that_are_built_by_month():
    building = [decision("orders", months=("2026-10-01", "2026-11-01")), decision("cities")]
    assert months_variable(building) == "model.orders=2026-10-01,2026-11-01"


@pytest.mark.parametrize(
    ("months", "start", "end"),
    [
        (("2025-02-01",), "2025-02-01", "2025-03-01T00:00:00"),
        (("2025-02-01", "2025-12-01"), "2025-02-01", "2026-01-01T00:00:00"),
        # No batch before the first and after the current one: a full build has none.
        (("2025-01-01",), "2025-01-15", "2025-02-01T00:00:00"),
        (("2026-11-01",), "2026-11-01", "2026-11-27T12:00:00"),
    ],
)
def test_batches_are_given_as_one_range_that_holds_the_months_to_build(months, start, end):
    batches = decision("orders", months=months, kind=Materialization.MICROBATCH, begin="2025-01-15")
    arguments = build_arguments([batches, decision("cities")], [], NOW)
    at = arguments.index("--event-time-start")
    assert arguments[at : at + 4] == ["--event-time-start", start, "--event-time-end", end]
    assert batches_of([batches, decision("cities")]) == ["model.orders"]
    assert months_variable([batches]) == ""


def test_without_batches_to_build_dbt_is_given_no_range():
    whole = decision("orders", kind=Materialization.MICROBATCH, begin="2025-01-15")
    assert "--event-time-start" not in build_arguments([whole], [], NOW)
    assert batches_of([whole]) == []
