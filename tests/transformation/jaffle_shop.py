"""A dbt project laid out like dbt-labs' jaffle-shop, cut down: what it uses, it uses in the same way.

Its raw data are seeds that it reads as a source, in a schema of their own; its profile is for another target
and another file; its packages are installed by `dbt deps`.
"""


def _staging(source: str, columns: str) -> str:
    return (
        f"with source as (select * from {{{{ source('ecom', '{source}') }}}}), "
        f"renamed as (select {columns} from source) select * from renamed"
    )


JAFFLE_SHOP = {
    "dbt_project.yml": """
config-version: 2
name: jaffle_shop
version: "3.0.0"
profile: default
test-paths: [data-tests]
seed-paths: [seeds]
seeds:
  jaffle_shop:
    +schema: raw
    jaffle-data:
      +enabled: "{{ var('load_source_data', true) }}"
models:
  jaffle_shop:
    staging: {+materialized: view}
    marts: {+materialized: table}
""",
    "profiles.yml": """
default:
  target: dev
  outputs:
    dev: {type: duckdb, path: jaffle_shop.duckdb, threads: 4, settings: {TimeZone: UTC}}
    prod: {type: snowflake, account: none}
""",
    "packages.yml": "packages:\n  - local: packages/dbt_utils\n",
    "packages/dbt_utils/dbt_project.yml": "name: dbt_utils\nversion: '1.3.3'\n",
    "packages/dbt_utils/macros/utils.sql": """
{% macro generate_surrogate_key(fields) %}
    {{ return(adapter.dispatch('generate_surrogate_key', 'dbt_utils')(fields)) }}
{% endmacro %}
{% macro default__generate_surrogate_key(fields) %}{{ dbt.hash(dbt.concat(fields)) }}{% endmacro %}
{% test expression_is_true(model, expression) %}
    select 1 from {{ model }} where not ({{ expression }})
{% endtest %}
""",
    "macros/cents_to_dollars.sql": """
{% macro cents_to_dollars(column_name) -%}
    {{ return(adapter.dispatch('cents_to_dollars')(column_name)) }}
{%- endmacro %}
{% macro default__cents_to_dollars(column_name) -%}({{ column_name }} / 100)::numeric(16, 2){%- endmacro %}
{% macro bigquery__cents_to_dollars(column_name) %}
    round(cast(({{ column_name }} / 100) as numeric), 2)
{% endmacro %}
""",
    "macros/generate_schema_name.sql": """
{% macro generate_schema_name(custom_schema_name, node) %}
    {% if node.resource_type == 'seed' %}{{ custom_schema_name | trim }}
    {% elif custom_schema_name is none or target.name != 'prod' %}{{ target.schema }}
    {% else %}{{ target.schema }}_{{ custom_schema_name | trim }}
    {% endif %}
{% endmacro %}
""",
    "data-tests/.gitkeep": "",
    "seeds/jaffle-data/raw_customers.csv": "id,name\nc1,Ada\nc2,Grace\n",
    "seeds/jaffle-data/raw_orders.csv": "id,customer,ordered_at,subtotal,tax_paid,order_total\n"
    "o1,c1,2016-09-01T15:01:19,1100,66,1166\no2,c1,2016-09-02T15:01:19,1700,102,1802\n",
    "seeds/jaffle-data/raw_supplies.csv": "id,cost,sku\nSUP-001,7,JAF-001\n",
    "models/staging/__sources.yml": """
version: 2
sources:
  - name: ecom
    schema: raw
    tables:
      - name: raw_customers
      - {name: raw_orders, loaded_at_field: ordered_at}
      - name: raw_supplies
""",
    "models/staging/stg_customers.sql": _staging("raw_customers", "id as customer_id, name as customer_name"),
    "models/staging/stg_orders.sql": _staging(
        "raw_orders",
        "id as order_id, customer as customer_id, {{ cents_to_dollars('order_total') }} as order_total, "
        "{{ dbt.date_trunc('day', 'ordered_at') }} as ordered_at",
    ),
    "models/staging/stg_supplies.sql": _staging(
        "raw_supplies",
        "{{ dbt_utils.generate_surrogate_key(['id', 'sku']) }} as supply_uuid, "
        "{{ cents_to_dollars('cost') }} as cost",
    ),
    "models/staging/stg_orders.yml": """
models:
  - name: stg_orders
    data_tests:
      - dbt_utils.expression_is_true: {arguments: {expression: order_total > 0}}
    columns:
      - {name: order_id, data_tests: [not_null, unique]}
""",
    "models/marts/metricflow_time_spine.sql": "select cast(unnest(generate_series(timestamp '2016-09-01', "
    "timestamp '2016-09-30', interval 1 day)) as date) as date_day",
    "models/marts/metricflow_time_spine.yml": """
models:
  - name: metricflow_time_spine
    time_spine: {standard_granularity_column: date_day}
    columns: [{name: date_day, granularity: day}]
""",
    "models/marts/orders.sql": "with orders as (select * from {{ ref('stg_orders') }}) "
    "select *, row_number() over (partition by customer_id order by ordered_at) as customer_order_number "
    "from orders",
    "models/marts/customers.sql": "select customers.*, count(order_id) as count_lifetime_orders "
    "from {{ ref('stg_customers') }} as customers "
    "left join {{ ref('orders') }} using (customer_id) group by all",
    "models/marts/supplies.sql": "select * from {{ ref('stg_supplies') }}",
    "models/marts/orders.yml": """
models:
  - name: orders
    description: One row per order.
    columns:
      - name: customer_id
        data_tests:
          - relationships: {arguments: {to: ref('stg_customers'), field: customer_id}}
unit_tests:
  - name: numbers_the_orders_of_a_customer
    model: orders
    given:
      - input: ref('stg_orders')
        rows: [{order_id: 1, customer_id: 1}]
    expect: {rows: [{order_id: 1, customer_order_number: 1}]}
semantic_models:
  - name: orders
    defaults: {agg_time_dimension: ordered_at}
    model: ref('orders')
    entities: [{name: order_id, type: primary}]
    dimensions: [{name: ordered_at, type: time, type_params: {time_granularity: day}}]
    measures: [{name: order_total, agg: sum}]
metrics:
  - name: order_total
    label: Order Total
    description: Revenue with taxes.
    type: simple
    type_params: {measure: order_total}
saved_queries:
  - name: order_metrics
    query_params: {metrics: [order_total], group_by: ["TimeDimension('metric_time', 'day')"]}
    exports: [{name: order_metrics, config: {export_as: table}}]
""",
}  # fmt: skip
