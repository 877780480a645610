"""SERVERLESS_KEY_PREFIX: the asset keys of Dagster begin with it, and everything else has the short names."""

from collections.abc import Callable
from dataclasses import replace

import dagster as dg
import pandas as pd
import pytest

from serverless_assets import asset_keys
from serverless_assets.asset_keys import (
    asset_key,
    asset_name,
    keys_of_others,
    set_key_prefix,
    with_key_prefix,
)
from serverless_assets.python_assets.reuse import frame_assets
from serverless_assets.transformation.manifest import dbt_asset_key
from tests.conftest import Pipeline

PREFIX = "acme/shop"


@pytest.fixture(autouse=True)
def of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests of this process have no prefix."""
    monkeypatch.setattr(asset_keys, "_prefix", ())


def with_prefix(pipeline: Pipeline) -> Pipeline:
    return replace(pipeline, variables={**pipeline.variables, "SERVERLESS_KEY_PREFIX": PREFIX})


@pytest.mark.parametrize("prefix", ["", "shop", "acme/shop"])
@pytest.mark.parametrize("name", ["orders", "marts/orders", "shop", "acme/shop"])
def test_a_key_is_the_prefix_and_the_name_of_its_asset(prefix, name):
    set_key_prefix(prefix)
    assert asset_key(name).to_user_string() == (f"{prefix}/{name}" if prefix else name)
    assert asset_name(asset_key(name)) == name


def test_the_key_of_another_code_location_is_its_name():
    set_key_prefix(PREFIX)
    assert asset_name(dg.AssetKey(["crm", "customers"])) == "crm/customers"


@pytest.mark.parametrize(
    ("properties", "key"),
    [
        (
            {"resource_type": "model", "name": "orders", "config": {"schema": "marts"}},
            "acme/shop/marts/orders",
        ),
        (
            {"resource_type": "source", "source_name": "erp", "name": "rates", "config": {}},
            "acme/shop/erp/rates",
        ),
        (
            {"resource_type": "source", "meta": {"dagster": {"asset_key": ["rates"]}}, "config": {}},
            "acme/shop/rates",
        ),
        (
            {
                "resource_type": "source",
                "meta": {"dagster": {"asset_key": ["crm", "customers"], "key_prefix": False}},
                "config": {},
            },
            "crm/customers",
        ),
    ],
)
def test_models_and_sources_have_the_prefix_unless_a_source_says_no(properties, key):
    set_key_prefix(PREFIX)
    assert dbt_asset_key(properties).to_user_string() == key


def test_what_a_python_file_declares_gets_the_prefix_with_all_that_it_reads():
    set_key_prefix(PREFIX)
    customers = dg.AssetSpec(["crm", "customers"], metadata={"key_prefix": False})

    @dg.asset(io_manager_key="pandas", deps=[customers, dg.AssetKey(["acme", "shop", "late"])])
    def plan(orders: pd.DataFrame) -> pd.DataFrame:
        return orders

    @dg.asset_check(asset="plan")
    def plan_is_short() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    declared = [plan, customers, dg.AssetSpec("rates", deps=["orders", customers]), plan_is_short]
    plan, customers, rates, plan_is_short = with_key_prefix(declared, keys_of_others(declared))
    assert plan.key == asset_key("plan")
    assert plan.keys_by_input_name["orders"] == asset_key("orders")
    parents = {asset_key("orders"), customers.key, asset_key("late")}
    assert {dep.asset_key for dep in plan.specs_by_key[plan.key].deps} == parents
    assert customers.key == dg.AssetKey(["crm", "customers"])
    assert (rates.key, [dep.asset_key for dep in rates.deps]) == (
        asset_key("rates"),
        [asset_key("orders"), customers.key],
    )
    assert [key.asset_key for key in plan_is_short.check_keys] == [asset_key("plan")]
    orders = dg.AssetSpec("orders")
    [frame] = frame_assets([plan, customers, orders, dg.AssetSpec("late")], {"nodes": {}, "sources": {}}, [])
    assert (frame.name, frame.table) == ("plan", "plan")
    assert [*frame.inputs] == ["orders", "crm/customers", "late"]
    set_key_prefix("")
    assert with_key_prefix(declared, ()) == declared


def test_all_of_a_code_location_is_the_same_below_the_prefix(green):
    def described(pipeline: Pipeline, name: Callable[[dg.AssetKey], str]) -> object:
        repository = pipeline.definitions.get_repository_def()
        graph = repository.asset_graph
        nodes = [graph.get(key) for key in graph.get_all_asset_keys()]
        jobs = {
            job.name: sorted(map(name, job.asset_layer.selected_asset_keys))
            for job in repository.get_all_jobs()
        }
        return (
            {name(node.key): sorted(map(name, node.parent_keys)) for node in nodes},
            {name(node.key): node.metadata.get("dagster/table_name") for node in nodes},
            {(name(key.asset_key), key.name) for key in graph.asset_check_keys},
            jobs,
        )

    def below_the_prefix(key: dg.AssetKey) -> str:
        assert key.path[:2] == ["acme", "shop"], key
        return "/".join(key.path[2:])

    prefixed = described(with_prefix(green), below_the_prefix)
    assert prefixed == described(green, dg.AssetKey.to_user_string)
