{#- What `insert_overwrite` is on BigQuery, in one transaction. -#}
{%- macro get_incremental_replace_months_sql(arguments) -%}
    {%- set columns = get_quoted_csv(arguments["dest_columns"] | map(attribute="name")) -%}
    delete from {{ arguments["target_relation"] }}
    where {{ arguments["incremental_predicates"] | join(" and ") }};
    insert into {{ arguments["target_relation"] }} ({{ columns }})
    select {{ columns }} from {{ arguments["temp_relation"] }}
{%- endmacro -%}
