{#- A product, not a quotient: DuckDB divides decimals as doubles, inexact from 10^14 cents on. -#}
{%- macro cents_to_dollars(cents) -%}
    cast(
        cast({{ cents }} as {{ dbt.type_numeric() }})
        * cast('0.01' as {{ dbt.type_numeric() }}) as {{ dbt.type_numeric() }}
    )
{%- endmacro -%}
