{#-
    The months of this model to build, out of SERVERLESS_MONTHS:
    `model.shop.orders=2025-03-01,2025-04-01;model.shop.customers=2025-03-01`. A model that is
    not named is built as a whole. By unique id, as `this` has neither the schema nor the alias
    of a model's own config while dbt parses that. An environment variable, because dbt parses
    the whole project again for another `--vars`.
-#}
{%- macro months() -%}
    {%- for part in env_var("SERVERLESS_MONTHS", "").split(";") -%}
        {%- set name, _, days = part.partition("=") -%}
        {%- if name == model.unique_id -%} {{ return(days.split(",")) }} {%- endif -%}
    {%- endfor -%}
    {{ return([]) }}
{%- endmacro -%}


{#- A range for each month, which a warehouse with partitions reads no other one for. -#}
{%- macro month_ranges(column, data_type) -%}
    {%- set ranges = [] -%}
    {%- for month in months() -%}
        {%- set first = modules.datetime.date.fromisoformat(month) -%}
        {%- set next = (first + modules.datetime.timedelta(days=31)).replace(day=1) -%}
        {%- set lower = column ~ " >= cast('" ~ first ~ "' as " ~ data_type ~ ")" -%}
        {%- set upper = column ~ " < cast('" ~ next ~ "' as " ~ data_type ~ ")" -%}
        {%- do ranges.append("(" ~ lower ~ " and " ~ upper ~ ")") -%}
    {%- endfor -%}
    {{ return("(" ~ (ranges | join(" or ")) ~ ")" if ranges else "true") }}
{%- endmacro -%}


{#-
    What a model filters by in the place of `is_incremental()`: dbt says that a relation of a type that it
    does not know is not incremental, and inserts into it all the same. It builds the table anew, which takes
    all months, if there is none or a view is in its place.
-#}
{%- macro in_months(column, data_type) -%}
    {%- set existing = load_relation(this) if months() else none -%}
    {%- if existing is none or existing.is_view -%} {{ return("true") }} {%- endif -%}
    {{ return(month_ranges(column, data_type)) }}
{%- endmacro -%}


{%- macro incremental_by_month(column, data_type) -%}
    {%- set settings = {
        "materialized": "incremental",
        "on_schema_change": "fail",
        "full_refresh": not months(),
    } -%}
    {%- if target.type == "bigquery" -%}
        {%- set partitions = [] -%}
        {%- for month in months() -%}
            {%- do partitions.append(data_type ~ " '" ~ month ~ "'") -%}
        {%- endfor -%}
        {%- do settings.update(
            {
                "incremental_strategy": "insert_overwrite",
                "partition_by": by_month(column, data_type),
                "partitions": partitions,
            }
        ) -%}
    {%- else -%}
        {%- do settings.update(
            {
                "incremental_strategy": "replace_months",
                "incremental_predicates": [month_ranges(column, data_type)],
            }
        ) -%}
    {%- endif -%}
    {{ return(settings) }}
{%- endmacro -%}
