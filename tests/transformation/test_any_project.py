"""A project that uses what dbt offers beside models in one schema: it is built and reused as a whole."""

import pytest

from tests.transformation.team import BASE, Team

pytestmark = pytest.mark.slow

SOURCE = "from {{ source('raw', 'raw_orders') }}"

PROJECT = {
    "dbt_project.yml": """
name: team
version: '1.0.0'
profile: team
vars: {least: 5}
on-run-start: "select 1"
models:
  team:
    marts-eu:
      +schema: marts
      +group: finance-eu
      +post-hook: "select 1"
""",
    "packages.yml": "packages:\n  - local: local_package\n",
    "local_package/dbt_project.yml": "name: helper\nversion: '1.0.0'\n",
    "local_package/models/helper_model.sql": "select 1 as one",
    "macros/generate_schema_name.sql": """
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name | trim if custom_schema_name else target.schema }}
{%- endmacro %}
""",
    "models/groups.yaml": """
groups:
  - name: finance-eu
    owner: {name: Finance, email: finance@example.com}
""",
    "models/staging.sql": f"{{{{ config(materialized='ephemeral') }}}} select * {SOURCE}",
    "models/marts-eu/paid.sql": "{{ config(materialized='table', alias='paid_orders') }} "
    "select * from {{ ref('staging') }} where total > {{ var('least') }}",
    "models/customers_v1.sql": "select 1 as id",
    "models/customers_v2.sql": "{{ config(materialized='table') }} select 2 as id, 'a' as name",
    "models/customers.yml": """
models:
  - name: customers
    latest_version: 2
    versions: [{v: 1}, {v: 2}]
""",
    "models/latest.sql": "{{ config(materialized='table') }} select id from {{ ref('customers') }}",
    # Named as Dagster names no check and no asset.
    "models/my-model-1.5.sql": "select 1 as id",
    "models/type.sql": "select 1 as id",
    "models/names.yml": """
models:
  - {name: my-model-1.5, columns: [{name: id, data_tests: [unique]}]}
  - {name: type, config: {meta: {dagster: {asset_key: [model, type]}}}}
""",
    "models/off.sql": "{{ config(enabled=false) }} select 1 as one",
    "models/in_python.py": "def model(dbt, session):\n"
    "    dbt.config(materialized='table')\n"
    "    return dbt.ref('paid').filter('total > 10')\n",
    # A source that is named like a model.
    "models/raw.yml": BASE["models/raw.yml"]
    + "  - name: other\n    schema: marts\n    tables: [{name: latest, identifier: paid_orders}]\n",
    "seeds/countries.csv": "code,name\nnl,Netherlands\nbe,Belgium\n",
    "snapshots/history.sql": """
{% snapshot history %}
{{ config(unique_key='id', strategy='check', check_cols=['total'], target_schema='snaps') }}
select id, total from {{ ref('paid') }}
{% endsnapshot %}
""",
    "models/exposures.yml": """
exposures:
  - name: board
    type: dashboard
    owner: {name: Finance, email: finance@example.com}
    depends_on: [ref('latest')]
""",
}


def test_a_project_of_many_features_is_built_then_reused_as_a_whole(team: Team):
    team.write(PROJECT)
    first = team.run()
    assert {name: one["status"] for name, one in first.items() if one["status"] != "built"} == {}, first
    again = team.run()
    assert {name: one["reason"] for name, one in again.items() if one["reason"] != "unchanged"} == {}
    assert {"my-model-1.5", "model/type"} <= first.keys()
    assert team.rows("select count(*) from marts.paid_orders") == [(3,)]
