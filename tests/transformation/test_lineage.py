"""Which columns a column of a model is made of, as people see it beside the model."""

import dagster as dg
import pytest

from serverless_assets.names import COLUMN_LINEAGE
from serverless_assets.transformation.lineage import column_sources

ORDERS = {
    "unique_id": "source.shop.raw.orders",
    "relation_name": '"db"."dwh"."orders"',
    "columns": {name: {"data_type": "bigint"} for name in ("id", "customer", "paid", "tax")},
}
CUSTOMERS = {
    "unique_id": "model.shop.customers",
    "relation_name": '"db"."dwh"."customers"',
    "columns": {"id": {}, "name": {}},
}


@pytest.mark.parametrize(
    ("sql", "sources"),
    [
        ("select id from {orders}", {"id": ["orders.id"]}),
        ("select id as order_id from {orders}", {"order_id": ["orders.id"]}),
        ("select paid - tax as net from {orders}", {"net": ["orders.paid", "orders.tax"]}),
        ("with o as (select paid as p from {orders}) select sum(p) as p from o", {"p": ["orders.paid"]}),
        (
            "select c.*, o.paid from {orders} o join {customers} c on o.customer = c.id",
            {"id": ["customers.id"], "name": ["customers.name"], "paid": ["orders.paid"]},
        ),
        ("select count(*) as nr, 1 as one from {orders}", {"nr": [], "one": []}),
        (
            "with c as (select * from {customers}) select id, upper(city) as city, name from c",
            {"id": ["customers.id"], "city": [], "name": ["customers.name"]},
        ),
    ],
)
def test_a_column_is_made_of_the_columns_that_its_value_is_computed_from(sql, sources):
    query = sql.format(orders=ORDERS["relation_name"], customers=CUSTOMERS["relation_name"])
    found = column_sources(query, [ORDERS, CUSTOMERS], "duckdb")
    named = {column: [f"{id.split('.')[-1]}.{name}" for id, name in ends] for column, ends in found.items()}
    assert named == sources


def lineage_of(instance: dg.DagsterInstance, model: str) -> dict[str, set[str]]:
    event = instance.get_latest_materialization_event(dg.AssetKey(model))
    lineage = event.asset_materialization.metadata[COLUMN_LINEAGE].value
    return {
        column: {f"{dep.asset_key.to_user_string()}.{dep.column_name}" for dep in deps}
        for column, deps in lineage.deps_by_column.items()
    }


def test_models_say_which_columns_theirs_are_made_of(green):
    staged, revenue = lineage_of(green.instance, "stg_orders"), lineage_of(green.instance, "daily_revenue")
    assert staged["order_total"] == {"raw_orders.order_total"}
    assert staged["customer_id"] == {"raw_orders.customer"}
    assert revenue["revenue_usd"] == {"orders.order_total"}


def test_every_model_says_so(green):
    specs = green.definitions.resolve_all_asset_specs()
    names = [spec.key.to_user_string() for spec in specs if "dbt" in spec.kinds]
    models = [name for name in names if name in green.outcomes]
    assert len(models) >= 12
    assert [model for model in models if not lineage_of(green.instance, model)] == []


def test_a_reused_model_goes_on_saying_so(pipeline):
    # Its history is new here: what dbt compiled is what is left to read.
    assert pipeline.run(job="transform", assets=["orders"]).success
    before = lineage_of(pipeline.instance, "orders")
    assert pipeline.run(job="transform", assets=["orders"]).success
    assert pipeline.reason("orders").startswith("unchanged")
    assert lineage_of(pipeline.instance, "orders") == before != {}
