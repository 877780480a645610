{%- macro generate_surrogate_key(columns) -%}
    {%- set values = [] -%}
    {%- for column in columns -%}
        {%- set text = "cast(" ~ column ~ " as " ~ dbt.type_string() ~ ")" -%}
        {%- do values.append(
            "coalesce(" ~ text ~ ", '_dbt_utils_surrogate_key_null_')"
        ) -%}
        {%- if not loop.last -%} {%- do values.append("'-'") -%} {%- endif -%}
    {%- endfor -%}
    {{ dbt.hash(dbt.concat(values)) }}
{%- endmacro -%}
