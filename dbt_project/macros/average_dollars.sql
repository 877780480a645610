{#-
    In whole numbers: DuckDB divides decimals as doubles, which are inexact. First the cents that divide
    evenly, then the rest in millionths of a dollar, so that no product exceeds 64 bits.
-#}
{%- macro average_dollars(total, count) -%}
    {%- set cents -%} cast({{ total }} * 100 as {{ dbt.type_bigint() }}) {%- endset -%}
    {%- set whole_cents = integer_divide("abs(" ~ cents ~ ")", count) -%}
    {%- set rest -%} (abs({{ cents }}) - {{ whole_cents }} * {{ count }}) {%- endset -%}
    {%- set millionths = integer_divide(
        "20000 * " ~ rest ~ " + " ~ count, "2 * " ~ count
    ) -%}
    cast(
        {{ cents_to_dollars("sign(" ~ cents ~ ") * " ~ whole_cents) }}
        + cast(sign({{ cents }}) * {{ millionths }} as {{ type_dollars() }})
        * cast('0.000001' as {{ type_dollars() }}) as {{ type_dollars() }}
    )
{%- endmacro -%}
