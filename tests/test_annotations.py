"""What people see of each asset in the graph: all of it, on every one."""

from pathlib import Path

import dagster as dg
import pytest

from serverless_assets.names import CODE_REFERENCES, COLUMN_SCHEMA, TABLE_NAME
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.transformation.assets import describe_test
from tests.conftest import Pipeline

TYPES = {"string", "bigint", "double", "boolean", "timestamp", "date", "numeric(28,6)"}
GROUPS = {"ingestion", "staging", "marts", "aggregations", "forecasting"}


def specs_of(pipeline: Pipeline) -> dict[str, dg.AssetSpec]:
    found = pipeline.definitions.resolve_all_asset_specs()
    return {spec.key.to_user_string(): spec for spec in found if spec.group_name in GROUPS}


@pytest.fixture(scope="module")
def specs(green: Pipeline) -> dict[str, dg.AssetSpec]:
    """Those of what the run has made: it leaves out a raw table that the sample shop lacks."""
    return {name: spec for name, spec in specs_of(green).items() if name in green.outcomes}


def test_every_asset_has_all_of_it(specs, green):
    assert specs.keys() == green.outcomes.keys()
    for name, spec in specs.items():
        assert spec.owners == ["team:data"], name
        assert spec.kinds, name
        assert len(spec.description or "") > 20, name
        assert spec.metadata[CODE_REFERENCES].code_references, name


def test_every_check_says_what_it_checks(green):
    graph = green.definitions.resolve_asset_graph()
    said = {key.name: graph.get(key).description for key in graph.asset_check_keys}
    assert all(said.values()), [name for name in said if not said[name]]
    assert said["not_null_stg_orders_subtotal"] == "subtotal is never null."
    assert said["items_belong_to_known_orders"] == "Every order_id is the order_id of a row of stg_orders."
    assert said["customers_are_new_or_returning"] == "customer_type is one of: new, returning."
    assert said["daily_revenue_has_no_gap"].startswith("No two days in a row are without revenue")


def test_a_test_of_another_package_is_described_by_its_arguments():
    kwargs = {"column_name": "price", "min_value": 0, "model": "{{ get_where_subquery(ref('orders')) }}"}
    test = {"description": "", "test_metadata": {"name": "accepted_range", "kwargs": kwargs}}
    assert describe_test(test) == "accepted_range: column_name price, min_value 0"
    singular = {"description": "", "original_file_path": "tests/no_refunds.sql"}
    assert describe_test(singular) == "tests/no_refunds.sql returns no row."


def test_every_table_has_its_name_and_says_what_each_column_is(specs):
    tables = {name: spec for name, spec in specs.items() if name != "forecast_report"}
    for name, spec in tables.items():
        assert spec.metadata[TABLE_NAME].endswith(f"dwh.{name}"), name
        for column in spec.metadata[COLUMN_SCHEMA].columns:
            assert column.description, f"{name}.{column.name}"
            # As the dbt project names them, whatever library made the table.
            assert column.type in TYPES, f"{name}.{column.name}"
        assert "duckdb" in spec.kinds


def test_code_is_a_place_on_this_machine(specs):
    for spec in specs.values():
        for place in spec.metadata[CODE_REFERENCES].code_references:
            line = Path(place.file_path).read_text().splitlines()[place.line_number - 1]
            assert line.strip()
    [contract, _] = specs["raw_items"].metadata[CODE_REFERENCES].code_references
    assert "name: raw_items" in Path(contract.file_path).read_text().splitlines()[contract.line_number - 1]


def test_code_is_a_link_where_the_settings_say_where_it_is(green):
    variables = {**green.variables, "SERVERLESS_CODE_URL": "https://code.test/shop/blob/main"}
    pipeline = Pipeline(green.home, dg.DagsterInstance.ephemeral(), variables)
    links = [place.url for place in specs_of(pipeline)["orders"].metadata[CODE_REFERENCES].code_references]
    assert links[0] == "https://code.test/shop/blob/main/dbt_project/models/marts/orders.sql#L1"
    for link in links:
        assert (PROJECT_ROOT / link.removeprefix("https://code.test/shop/blob/main/").split("#")[0]).is_file()


def test_an_owner_of_its_own_is_the_settings(green):
    variables = {**green.variables, "SERVERLESS_OWNER": "ann@shop.test"}
    pipeline = Pipeline(green.home, dg.DagsterInstance.ephemeral(), variables)
    assert {tuple(spec.owners) for spec in specs_of(pipeline).values()} == {("ann@shop.test",)}
