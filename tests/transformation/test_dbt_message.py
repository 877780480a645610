"""dbt's results arrive in Dagster by the public class of dagster-dbt, also after an upgrade."""

import ast

import dagster as dg
import pytest
from dagster_dbt import DagsterDbtTranslator, DbtCliEventMessage

from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.transformation.dbt_events import DbtMessage, log_event
from serverless_assets.transformation.manifest import dbt_asset_key

CONFIG = {"materialized": "table", "meta": {}, "tags": [], "severity": "error"}
ORDERS = {
    "resource_type": "model", "unique_id": "model.shop.orders", "name": "orders", "fqn": ["shop", "orders"],
    "config": CONFIG, "depends_on": {"nodes": []}, "columns": {}, "description": "", "raw_code": "select 1",
    "original_file_path": "models/orders.sql", "package_name": "shop", "tags": [], "meta": {},
    "relation_name": "orders", "schema": "dwh", "database": "db", "alias": "orders",
}  # fmt: skip
UNIQUE = {
    "resource_type": "test", "unique_id": "test.shop.unique", "name": "unique", "config": CONFIG,
    "attached_node": "model.shop.orders", "depends_on": {"nodes": ["model.shop.orders"]},
    "meta": {}, "description": "", "fqn": ["shop", "unique"],
}  # fmt: skip
MANIFEST = {
    "metadata": {"adapter_type": "duckdb", "project_name": "shop"},
    "nodes": {"model.shop.orders": ORDERS, "test.shop.unique": UNIQUE},
    "sources": {}, "metrics": {}, "semantic_models": {}, "saved_queries": {}, "unit_tests": {},
    "child_map": {"model.shop.orders": ["test.shop.unique"]}, "parent_map": {}, "exposures": {},
}  # fmt: skip


def events_of(node: str, name: str, status: str) -> list:
    message = DbtMessage(
        raw_event={
            "info": {"name": name, "invocation_id": "1", "msg": ""},
            "data": {"node_info": {"unique_id": node, "node_status": status}, "status": status},
        },
        event_history_metadata={},
    )
    return list(message.to_default_asset_events(MANIFEST, DagsterDbtTranslator()))


def test_public_class_leaves_nothing_else_to_implement():
    assert DbtCliEventMessage.__abstractmethods__ == {
        "is_result_event",
        "_get_check_passed",
        "_get_check_severity",
    }


@pytest.mark.parametrize(
    "properties",
    [
        ORDERS,
        {**ORDERS, "config": {**CONFIG, "schema": "finance"}},
        {**ORDERS, "alias": "orders_v2", "version": 2},
        {**ORDERS, "config": {**CONFIG, "meta": {"dagster": {"asset_key": ["shop", "sales"]}}}},
        {**ORDERS, "meta": {"dagster": {"asset_key": ["sales"]}}},
        {"resource_type": "source", "source_name": "crm", "name": "leads", "identifier": "l", "config": {}},
    ],
)
def test_an_asset_has_the_key_that_dagster_dbt_gives_it(properties):
    assert dbt_asset_key(properties) == DagsterDbtTranslator().get_asset_key(properties)


def test_built_model_is_a_materialization():
    (event,) = events_of("model.shop.orders", "LogModelResult", "success")
    assert isinstance(event, dg.AssetMaterialization)
    assert event.asset_key == dg.AssetKey("orders")
    assert event.metadata["unique_id"].value == "model.shop.orders"


@pytest.mark.parametrize(
    ("status", "passed", "severity"),
    [("pass", True, "ERROR"), ("warn", False, "WARN"), ("fail", False, "ERROR"), ("error", False, "ERROR")],
)
def test_test_is_a_check_that_passes_warns_or_fails(status, passed, severity):
    (event,) = events_of("test.shop.unique", "LogTestResult", status)
    assert (event.check_name, event.passed, event.severity.name) == ("unique", passed, severity)


@pytest.mark.parametrize(
    ("node", "name", "status"),
    [
        ("model.shop.orders", "NodeFinished", "success"),
        ("model.shop.orders", "LogModelResult", "error"),
        ("unit_test.shop.orders", "LogTestResult", "pass"),
    ],
)
def test_other_events_are_nothing_to_dagster(node, name, status):
    assert events_of(node, name, status) == []


def test_no_file_imports_private_modules_of_dagster_dbt():
    private = [
        f"{path.relative_to(PROJECT_ROOT)}:{node.lineno} {node.module}"
        for path in (PROJECT_ROOT / "serverless_assets").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dagster_dbt.")
    ]
    assert private == []


def test_a_warning_of_dbt_is_one_line_and_none_repeats_another_or_names_options_of_dbt(caplog):
    deprecation = "[WARNING][CustomKeyInConfigDeprecation]: Custom key\n`owner` found in `config`"
    failed = {"name": "unique_orders_id", "status": "fail", "num_failures": 1}
    for name, level, message, data in (
        ("CustomKeyInConfigDeprecation", "warn", deprecation, {}),
        ("DeprecationsSummary", "warn", "run command again with the `--show-all-deprecations` flag", {}),
        ("LogTestResult", "error", "7 of 9 FAIL 1 unique_orders_id ..... [FAIL 1 in 0.02s]", failed),
        ("LogTestResult", "warn", "8 of 9 WARN 12", failed | {"status": "warn", "num_failures": 12}),
    ):
        event = {"info": {"name": name, "level": level, "msg": message}, "data": data}
        log_event(event, dg.get_dagster_logger())
    assert caplog.messages == [
        "[WARNING][CustomKeyInConfigDeprecation]: Custom key `owner` found in `config`",
        "The test unique_orders_id failed: 1 row.",
        "The test unique_orders_id warns: 12 rows.",
    ]
