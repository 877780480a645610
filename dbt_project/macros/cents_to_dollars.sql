{#- A product, not a quotient: DuckDB divides decimals as doubles, inexact from 10^14 cents on. -#}
{%- macro cents_to_dollars(cents) -%}
    cast(
        cast({{ cents }} as {{ type_dollars() }})
        * cast('0.01' as {{ type_dollars() }}) as {{ type_dollars() }}
    )
{%- endmacro -%}
