{#- In whole cents: DuckDB divides decimals as doubles, where round(2.01 / 2, 2) is 1.00 and not 1.01. -#}
{%- macro average_dollars(total, count) -%}
    {%- set cents -%}
        cast({{ total }} * 100 as {{ dbt.type_bigint() }})
    {%- endset -%}
    {%- set half_away_from_zero -%}
        sign({{ cents }})
        * {{ integer_divide("2 * abs(" ~ cents ~ ") + " ~ count, "2 * " ~ count) }}
    {%- endset -%}
    {{ cents_to_dollars(half_away_from_zero) }}
{%- endmacro -%}
