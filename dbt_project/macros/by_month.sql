{#- Where there are no partitions, the word means something else: dbt-duckdb keeps it for DuckLake. -#}
{%- macro by_month(column, data_type) -%}
    {%- set partition = {
        "field": column,
        "data_type": data_type,
        "granularity": "month",
    } -%}
    {{ return(partition if target.type == "bigquery" else none) }}
{%- endmacro -%}
