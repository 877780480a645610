"""The project's own models, parsed by dbt after an edit: whose code is another then?"""

import json
import shutil
from pathlib import Path

import pytest

from serverless_assets.hashing import normalised_sql
from serverless_assets.project_root import PROJECT_ROOT
from serverless_assets.transformation import dbt_runner
from serverless_assets.transformation.fingerprints import ProjectCode
from serverless_assets.transformation.nodes import Node

PROJECT_DIR = PROJECT_ROOT / "dbt_project"
VARIABLES = {"SERVERLESS_ENV": "local", "SERVERLESS_DUCKDB_PATH": "warehouse.duckdb", "DBT_SCHEMA": "dwh"}
CENTS = {"stg_orders", "stg_products", "stg_supplies", "avg_order_value"}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("target")


@pytest.fixture(scope="module")
def before(target: Path) -> dict[str, Node]:
    return parsed(PROJECT_DIR, target)


@pytest.fixture
def project(before: dict[str, Node], target: Path, tmp_path: Path) -> Path:
    """A copy to edit, with what dbt keeps to parse no more than an edit, as a run has it."""
    (tmp_path / "target").mkdir()
    shutil.copy(target / "partial_parse.msgpack", tmp_path / "target")
    ignored = shutil.ignore_patterns("target", "logs")
    return Path(shutil.copytree(PROJECT_DIR, tmp_path / "dbt_project", ignore=ignored))


def parsed(project: Path, target: Path, environ=VARIABLES) -> dict[str, Node]:
    assert dbt_runner.invoke(["parse"], project, target, environ) is None
    return nodes_in(target, environ=environ)


def nodes_in(target: Path, variables=None, environ=VARIABLES) -> dict[str, Node]:
    manifest = json.loads((target / "manifest.json").read_text())
    return {node.name: node for node in ProjectCode(manifest, variables or {}, environ).nodes()}


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def changed(before: dict[str, Node], now: dict[str, Node]) -> dict[str, set[str]]:
    """For each model whose code is another, the parts that are."""
    return {
        name: {part for part in node.data_hashes.keys() | before[name].data_hashes.keys()
               if node.data_hashes.get(part) != before[name].data_hashes.get(part)}
        for name, node in now.items() if node.fingerprint != before[name].fingerprint
    }  # fmt: skip


def test_the_same_project_has_the_same_code(before, project, tmp_path):
    assert changed(before, parsed(project, tmp_path / "target")) == {}


def test_an_edited_model_is_another(before, project, tmp_path):
    edit(project / "models/aggregations/sum_revenue_per_city.sql", "count(*)", "count(order_id)")
    assert changed(before, parsed(project, tmp_path / "target")) == {"sum_revenue_per_city": {"SQL"}}


def test_comments_and_white_space_change_nothing(before, project, tmp_path):
    for path in (project / "models/marts/customers.sql", project / "macros/cents_to_dollars.sql"):
        path.write_text(
            "-- Said differently.\n\n" + path.read_text().replace("\n", "\n  ") + "\n{# Done. #}\n"
        )
    assert changed(before, parsed(project, tmp_path / "target")) == {}


def test_an_edited_macro_is_in_what_uses_it_also_through_another(before, project, tmp_path):
    edit(project / "macros/cents_to_dollars.sql", "'0.01'", "'0.010'")
    found = changed(before, parsed(project, tmp_path / "target"))
    assert found == {name: {"macro cents_to_dollars"} for name in CENTS}


def test_a_macro_that_is_dispatched_to_counts(before, project, tmp_path):
    edit(project / "macros/integer_divide.sql", "divide({{ dividend }}", "divide(0 + {{ dividend }}")
    found = changed(before, parsed(project, tmp_path / "target"))
    assert found == {"avg_order_value": {"macro duckdb__integer_divide"}}


def test_the_macro_of_an_incremental_strategy_counts(before, project, tmp_path):
    edit(project / "macros/replace_months.sql", "delete from", "delete  from only")
    found = changed(before, parsed(project, tmp_path / "target"))
    strategy = {"macro get_incremental_replace_months_sql"}
    assert found == {"orders": strategy, "daily_revenue": strategy}


def test_config_and_contract_count_each_by_itself(before, project, tmp_path):
    edit(
        project / "dbt_project.yml",
        "aggregations:\n      +materialized: table",
        "aggregations:\n      +materialized: view",
    )
    edit(project / "models/marts/customers.yml", "data_type: bigint", "data_type: integer")
    found = changed(before, parsed(project, tmp_path / "target"))
    assert found == {
        "avg_order_value": {"config"},
        "sum_revenue_per_city": {"config"},
        "store_products": {"config"},
        "customers": {"contract"},
    }


def test_a_description_a_tag_and_a_test_change_nothing(before, project, tmp_path):
    customers = project / "models/marts/customers.yml"
    edit(customers, "    config:\n", "    config:\n      tags: [mine]\n")
    edit(customers, "Customers who ever ordered", "Everybody who ordered")
    edit(project / "models/staging/stg_orders.yml", "data_tests: [unique, not_null]", "data_tests: [unique]")
    assert changed(before, parsed(project, tmp_path / "target")) == {}


def test_another_schema_is_another_target(before, tmp_path):
    variables = {**VARIABLES, "DBT_SCHEMA": "elsewhere"}
    found = parsed(PROJECT_DIR, tmp_path, variables)
    assert changed(before, found).keys() == before.keys()


def test_a_var_counts_for_what_reads_it(before, project, tmp_path):
    edit(project / "models/marts/customers.sql", "> 1", "> {{ var('returning', 1) }}")
    parsed(project, tmp_path / "target")
    one = nodes_in(tmp_path / "target", {"returning": 1, "other": 1})
    two = nodes_in(tmp_path / "target", {"returning": 2, "other": 2})
    assert changed(one, two) == {"customers": {"var returning"}}


def test_which_months_are_asked_for_is_no_part_of_the_code(before, project, tmp_path):
    environ = {**VARIABLES, "SERVERLESS_MONTHS": "model.shop.orders=2026-10-01", "SERVERLESS_RUN_ID": "run-1"}
    assert changed(before, parsed(project, tmp_path / "target", environ)) == {}


def test_a_seed_is_its_rows(project, tmp_path):
    (project / "seeds").mkdir()
    (project / "seeds" / "holidays.csv").write_text("day\n2026-12-25\n")
    one = parsed(project, tmp_path / "target")
    (project / "seeds" / "holidays.csv").write_text("day\n2026-12-26\n")
    assert changed(one, parsed(project, tmp_path / "target")) == {"holidays": {"SQL"}}


def test_models_come_after_what_they_read(before):
    names = list(before)
    assert all(
        names.index(parent) < names.index(name)
        for name, node in before.items()
        for parent in node.parents
        if parent in before
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("select 1", "select\n\t1 "),
        ("select 1 -- one", "select /* one\nline */ 1"),
        ("{# jinja #}select 1", "select 1"),
        ("select{# jinja #} 1", "select 1"),
    ],
)
def test_what_no_warehouse_sees_is_left_out(one, other):
    assert normalised_sql(one) == normalised_sql(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("select 'a  b'", "select 'a b'"),
        ("select a{# jinja #}b", "select a b"),
        ("select a {#- jinja -#} b", "select a b"),
        ("select 'a -- b'", "select 'a -- c'"),
        ('select "a /* b"', 'select "a /* c"'),
        ("select '''a  b'''", "select '''a b'''"),
        ("select $$a  b$$", "select $$a b$$"),
        (r"select 'it\'s  so'", r"select 'it\'s so'"),
        ("select 'it''s  so'", "select 'it''s so'"),
    ],
)
def test_text_is_kept_to_the_letter(one, other):
    assert normalised_sql(one) != normalised_sql(other)
