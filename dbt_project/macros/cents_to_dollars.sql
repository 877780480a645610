{#- A product of decimals is exact on every warehouse. DuckDB divides decimals as doubles, which first shows at 10^14 cents. -#}
{%- macro cents_to_dollars(cents) -%}
    cast(
        cast({{ cents }} as {{ dbt.type_numeric() }})
        * cast('0.01' as {{ dbt.type_numeric() }}) as {{ dbt.type_numeric() }}
    )
{%- endmacro -%}
