{%- macro integer_divide(dividend, divisor) -%}
    {{ return(adapter.dispatch("integer_divide")(dividend, divisor)) }}
{%- endmacro -%}

{#- A function, because sqlfmt takes DuckDB's operator `//` for a comment. -#}
{%- macro duckdb__integer_divide(dividend, divisor) -%}
    divide({{ dividend }}, {{ divisor }})
{%- endmacro -%}

{#- Bracketed, because sqlglot, which emulators run on, turns div(a + b, c) into a + b // c. -#}
{%- macro bigquery__integer_divide(dividend, divisor) -%}
    (div(({{ dividend }}), ({{ divisor }})))
{%- endmacro -%}
